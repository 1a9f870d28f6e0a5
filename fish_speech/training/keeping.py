"""Which checkpoints a run writes and keeps: the newest, and the best one by a held-out metric, which is never lost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from ..checkpoint import CheckpointFile, list_checkpoints
from ..checkpoint_metrics import METRICS, lowest, scores


class StepCheckpoint(Checkpoint):
    """Saves every few steps, where training ends and where it is stopped, each time with what was measured there.

    dirpath: where step_000000100.ckpt and so on are written
    every_n_train_steps: optimizer steps
    keep_newest: how many are kept, beside the best
    best_by: the metric whose lowest value makes the best; None: only the newest are kept

    A step that is validated is saved after its validation, so that the file holds its metrics. The last step is always
    validated. Nothing is remembered but files: after any end of the process the best is known from those that are there.
    """

    def __init__(
        self, dirpath: str | Path, every_n_train_steps: int, keep_newest: int = 5, best_by: str | None = "val/loss"
    ):
        if every_n_train_steps < 1 or keep_newest < 1:
            raise ValueError(f"every_n_train_steps is {every_n_train_steps}, keep_newest {keep_newest}; both from 1 on")
        self.folder, self.every_n_train_steps = Path(dirpath), every_n_train_steps
        self.keep_newest, self.best_by = keep_newest, best_by
        self._scores: dict[int, float] = {}  # by step; of checkpoints that were validated
        self._validated = self._saved = -1  # steps

    @property
    def best(self) -> Path | None:
        """The best checkpoint so far; None as long as no checkpoint has the metric."""
        best = self._best_of(list_checkpoints(self.folder))
        return None if best is None else best.path

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        there = [checkpoint for checkpoint in list_checkpoints(self.folder) if checkpoint.step <= trainer.global_step]
        self._scores = scores(there, self.best_by)
        if any(checkpoint.step == trainer.global_step for checkpoint in there):
            self._saved = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stopping = trainer.should_stop  # someone asked: first save, then whatever else is due
        if self.best_by is not None and trainer.global_step == trainer.max_steps:
            trainer.should_stop = True  # Lightning validates where it stops
        if stopping or (self._is_due(trainer) and not validation_follows(trainer)):
            self.save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._validated = trainer.global_step
        if self._is_due(trainer) or self._saved == trainer.global_step:
            self.save(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step > 0 and self._saved != trainer.global_step:
            self.save(trainer)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[METRICS] = self._metrics(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Write the checkpoint of this step; only then remove those that are neither among the newest nor the best."""
        step = trainer.global_step
        trainer.save_checkpoint(self.folder / f"step_{step:09d}.ckpt")
        self._saved = step
        score = self._metrics(trainer).get(self.best_by) if self.best_by else None
        self._scores.pop(step, None)
        if score is not None and math.isfinite(score):
            self._scores[step] = score
        # Later steps are of a run that went on from here before: they are replaced one by one.
        there = [checkpoint for checkpoint in list_checkpoints(self.folder) if checkpoint.step <= step]
        kept = {checkpoint.step for checkpoint in there[-self.keep_newest :]}
        best = self._best_of(there)
        for checkpoint in there:
            if checkpoint.step not in kept and checkpoint != best:
                trainer.strategy.remove_checkpoint(checkpoint.path)

    def _is_due(self, trainer: L.Trainer) -> bool:
        return trainer.global_step % self.every_n_train_steps == 0

    def _best_of(self, there: list[CheckpointFile]) -> CheckpointFile | None:
        return lowest(there, self._scores)

    def _metrics(self, trainer: L.Trainer) -> dict[str, float]:
        """What was measured at this very step: of the training always, of a validation if there was one."""
        fresh = self._validated == trainer.global_step
        return {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("train/") or name in MEASURED_APART or (fresh and name.startswith("val/"))
        }


MEASURED_APART = ("val/wer", "val/similarity")  # there only at the steps where SpokenSamples has measured them


def validation_follows(trainer: L.Trainer) -> bool:
    """Whether Lightning validates after the training step that is ending now."""
    loop = trainer.fit_loop
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]
