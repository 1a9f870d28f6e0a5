"""What a training run does beside its steps: save, report, measure gradients, stop when asked."""

from __future__ import annotations

import logging
import signal
import threading
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from ..checkpoint import read_file, save_torch
from ..log import peak_memory_gb

log = logging.getLogger(__name__)


class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints under a temporary name and renames; reads them without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save_torch(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        return {**read_file(Path(path)), "path": str(path)}

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class StepCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint that also saves where training ends, so that no step is lost."""

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.save_now(trainer)
        super().on_train_end(trainer, pl_module)

    def save_now(self, trainer: L.Trainer) -> None:
        """Save the current step unless it is saved already."""
        if trainer.global_step > 0 and self._last_global_step_saved != trainer.global_step:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))


class GradNormMonitor(Callback):
    """Logs the norm of all gradients before clipping as `train/grad_norm`."""

    def __init__(self, norm_type: float = 2):
        self.norm_type = norm_type

    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Any) -> None:
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, self.norm_type)
        pl_module.log("train/grad_norm", norm, on_step=True, on_epoch=False, batch_size=1)


class ProgressLog(Callback):
    """A line of facts every few steps: step, loss, speed, memory, time left."""

    def __init__(self, every_n_steps: int = 10):
        self.every_n_steps = max(1, every_n_steps)
        self._last = (0, 0.0)  # step, seconds
        self._tokens = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = (trainer.global_step, time.monotonic())

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._tokens += int((~batch["attention_masks"]).sum())
        step = trainer.global_step
        due = step % self.every_n_steps == 0 or step == trainer.max_steps or step == 1
        if step <= self._last[0] or not due:
            return
        now = time.monotonic()
        steps, seconds = step - self._last[0], max(now - self._last[1], 1e-9)
        loss = float(trainer.callback_metrics.get("train/loss", float("nan")))
        left = (trainer.max_steps - step) * seconds / steps
        log.info(
            "step %d/%d  loss %.3f  %.2f steps/s  %.0f tokens/s  %s  %s left",
            step, trainer.max_steps, loss, steps / seconds, self._tokens / seconds, _memory(pl_module.device), _clock(left),
        )  # fmt: skip
        self._last, self._tokens = (step, now), 0

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        metrics = trainer.callback_metrics
        if "val/loss" in metrics and not trainer.sanity_checking:
            log.info(
                "step %d  held-out loss %.3f, top-5 accuracy %.3f",
                trainer.global_step, metrics["val/loss"], metrics["val/top_5_accuracy"],
            )  # fmt: skip
        self._last, self._tokens = (trainer.global_step, time.monotonic()), 0


def _memory(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB on the GPU"
    return f"{peak_memory_gb():.1f} GB"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class StopGracefully(Callback):
    """On Ctrl+C or SIGTERM finish the optimizer step, let the checkpoint callback save it, and stop.

    A second signal stops at once. `stopped` tells main which exit code to give.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._previous: dict[int, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._take_signals()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._take_signals()  # again: Lightning's own answer to SIGTERM is to exit with 0, without saving

    def _take_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
                number = getattr(signal, name, None)
                if number is not None:
                    before = signal.signal(number, self._ask)
                    self._previous.setdefault(number, before)

    def _ask(self, number: int, frame: Any) -> None:
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        log.info("stopping: this step is finished and saved first (once more stops at once)")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        accumulated = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self.stopped and accumulated:
            trainer.should_stop = True

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
