"""What is done and said when everything is loaded and nothing is trained yet: checks, a trial step, the plan."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, cast

import lightning as L
from lightning.pytorch.callbacks import Callback

from .probe import probe_longest
from .self_checks import check_first_loss

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..device import DeviceChoice
    from .module import TextToSemantic

log = logging.getLogger(__name__)


class PlanIsMade(Exception):
    """Ends a dry run."""


class Preflight(Callback):
    """Checks the loss of a new run, tries the longest batch, and prints the plan; with `stop` ends there.

    start: the step that a dry run would go on from; a run knows its own
    """

    def __init__(self, config: DictConfig, device: DeviceChoice, start: int = 0, stop: bool = False):
        self.config, self.device, self.start, self.stop = config, device, start, stop

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        from .plan import plan_run, render, warnings_of

        module, data = cast("TextToSemantic", pl_module), cast("Any", trainer).datamodule
        trained_base = self.config.model.model.load_weights and not self.config.expected_data
        if trainer.global_step == 0 and trained_base:
            check_first_loss(module, data)
        probe = probe_longest(module, data)
        if trainer.is_global_zero:
            start = self.start or trainer.global_step
            plan = plan_run(self.config, data, module.model, self.device, probe, start, data.estimated)
            if self.stop:
                sys.stdout.write(render(plan) + "\n")
            else:
                log.info("%s", render(plan))
            for line in warnings_of(plan):
                log.warning("%s", line)
        if self.stop:
            raise PlanIsMade
