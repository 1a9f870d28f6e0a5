"""What a training run does beside its steps: write files whole, report, stop when asked."""

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
from lightning.pytorch.callbacks import Callback

from ..checkpoint import read_file, save_torch
from ..log import peak_memory_gb
from .keeping import validation_follows

log = logging.getLogger(__name__)


class AtomicCheckpointIO(CheckpointIO):
    """Writes checkpoints under a temporary name and renames; reads them without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        save_torch(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        return {**read_file(Path(path)), "path": str(path)}

    def remove_checkpoint(self, path: Any) -> None:
        try:
            Path(path).unlink(missing_ok=True)
        except OSError as error:  # as on Windows while a program, or a resumed run itself, has it open
            log.warning("%s is not removed yet: %s", path, error)


class ProgressLog(Callback):
    """A line of facts every few steps: step, loss, speed, memory, time left; and one for each validation.

    The speed is that of training alone: what happens between a step and the next does not count.
    """

    def __init__(self, every_n_steps: int = 10):
        self.every_n_steps = max(1, every_n_steps)
        self._last = (0, 0.0)  # step, seconds
        self._tokens = 0
        self._paused = True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._paused:
            self._last, self._tokens, self._paused = (trainer.global_step, time.monotonic()), 0, False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        self._tokens += int((~batch["attention_masks"]).sum()) * trainer.world_size
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
            step, trainer.max_steps, loss, steps / seconds, self._tokens / seconds, memory_held(pl_module.device), _clock(left),
        )  # fmt: skip
        self._last, self._tokens = (step, now), 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._paused = True
        metrics = trainer.callback_metrics
        if "val/loss" in metrics and trainer.is_global_zero:
            log.info(
                "step %d  held-out loss %.3f, top-5 accuracy %.3f",
                trainer.global_step, metrics["val/loss"], metrics["val/top_5_accuracy"],
            )  # fmt: skip


def memory_held(device: torch.device) -> str:
    """The most memory that this process has held, on the GPU if it trains there."""
    if device.type == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB on the GPU"
    return f"{peak_memory_gb():.1f} GB"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class StopGracefully(Callback):
    """On Ctrl+C or SIGTERM finish the step, let the checkpoint callback save it, and stop.

    A second signal stops at once. Of several processes all stop at the same step, whichever of them was asked.
    `stopped` tells main which exit code to give.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._first = True  # of the run's processes
        self._previous: dict[int, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._first = trainer.is_global_zero
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
        if self._first:
            log.info("stopping: this step is finished and saved first (once more stops at once)")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        asked = trainer.strategy.reduce_boolean_decision(self.stopped, all=False)  # with one process: its own
        if not asked:
            return
        if not self.stopped and self._first:
            log.info("stopping: another process of this run was asked to")
        self.stopped = True
        if not validation_follows(trainer):
            trainer.limit_val_batches = 0  # else Lightning validates where it stops, which may take minutes
        trainer.should_stop = True

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()


def stop_asked(trainer: L.Trainer) -> bool:
    """Whether this process was asked to stop: what can wait should not be begun any more."""
    return any(isinstance(callback, StopGracefully) and callback.stopped for callback in trainer.callbacks)  # type: ignore[attr-defined]
