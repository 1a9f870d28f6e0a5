"""Which checkpoints a run keeps: last.ckpt, to go on from, and the best ones by the mel loss of held-out clips."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from pathlib import Path
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from fish_speech.errors import UserError
from fish_speech.files import atomic_path

from .module import VitsModule

LAST = "last.ckpt"


class VoiceCheckpoints(Checkpoint):
    """Saves at the end of epochs, and where training is stopped.

    Files lie in lightning_logs/version_N/checkpoints. Each is written under another name and renamed, so that last.ckpt is
    whole at any time. A run forgets the files of the runs before: each has its own folder.

    Args:
        keep_best: checkpoints kept, beside last.ckpt, with the lowest val_mel
        every_n_epochs: epochs between checkpoints; the last one is always saved
        every_n_batches: also save last.ckpt within an epoch, for very long ones; null: not
    """

    def __init__(self, keep_best: int = 5, every_n_epochs: int = 1, every_n_batches: int | None = None):
        if keep_best < 0 or every_n_epochs < 1 or (every_n_batches is not None and every_n_batches < 1):
            raise UserError(
                f"checkpoint.keep_best is {keep_best}, every_n_epochs {every_n_epochs}, every_n_batches {every_n_batches}",
                "the first is 0 or more, the others 1 or more",
                "leave them out, or correct them",
            )
        self.keep_best, self.every_n_epochs, self.every_n_batches = keep_best, every_n_epochs, every_n_batches
        self.last: Path | None = None  # as far as this run has written it
        self._kept: dict[Path, float] = {}  # with their val_mel
        self._val_mel: float | None = None  # of this epoch

    def folder(self, trainer: L.Trainer) -> Path:
        """Where this run's checkpoints lie; every process must ask."""
        return Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints"

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, VitsModule)
        done = pl_module.data.batches_done
        if done >= trainer.num_training_batches or pl_module.is_accumulating:
            return  # the epoch's end saves
        steps_end = 0 < trainer.max_steps <= trainer.global_step
        due = self.every_n_batches is not None and done % self.every_n_batches == 0
        if trainer.should_stop or steps_end or due:
            self._save_last(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._val_mel = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking and "val_mel" in trainer.callback_metrics:
            self._val_mel = float(trainer.callback_metrics["val_mel"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, VitsModule)
        if not pl_module.epoch_is_whole:
            return
        epochs = pl_module.data.epoch  # done, this one included
        ends = trainer.should_stop or epochs == trainer.max_epochs or 0 < trainer.max_steps <= trainer.global_step
        if ends or epochs % self.every_n_epochs == 0:
            last = self._save_last(trainer)
            if self._val_mel is not None and math.isfinite(self._val_mel) and trainer.is_global_zero:
                self._keep(last, epochs - 1, self._val_mel)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save what was learnt before memory ran out; with several processes the others cannot take part any more."""
        from fish_speech.out_of_memory import is_out_of_memory

        if not isinstance(pl_module, VitsModule) or trainer.world_size > 1 or not is_out_of_memory(exception):
            return
        done = pl_module.data.batches_done
        if 0 < done < trainer.num_training_batches and not (pl_module.is_half_done or pl_module.is_accumulating):
            as_after_a_batch(trainer, done)
            with contextlib.suppress(RuntimeError, MemoryError):
                self._save_last(trainer)

    def _save_last(self, trainer: L.Trainer) -> Path:
        path = self.folder(trainer) / LAST
        trainer.save_checkpoint(path)
        self.last = path
        return path

    def _keep(self, last: Path, epoch: int, val_mel: float) -> None:
        """Give the checkpoint just written its own name, if it is among the best, and remove what is not any more."""
        self._kept[last.with_name(f"epoch={epoch}-val_mel={val_mel:.4f}.ckpt")] = val_mel
        ranked = sorted(self._kept, key=lambda path: self._kept[path])
        for path in ranked[self.keep_best :]:
            del self._kept[path]
            with contextlib.suppress(OSError):  # as on Windows while a program has it open
                path.unlink(missing_ok=True)
        for path in self._kept:
            if not path.exists():
                same_file(last, path)


def same_file(source: Path, target: Path) -> None:
    """Let `target` be the content that `source` has now, without a second copy where the disk can do that."""
    try:
        os.link(source, target)
    except OSError:
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)


def as_after_a_batch(trainer: L.Trainer, done: int) -> None:
    """Set Lightning's counters, in the middle of a step that failed, as they are when batch `done` has just ended."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    progress.is_last_batch = False
    begun = progress.current.ready - done
    for counter in cast("list[Any]", [progress.current, progress.total]):
        ready = counter.ready - begun
        counter.ready = counter.started = counter.processed = ready
        counter.completed = ready - 1
