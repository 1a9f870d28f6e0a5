"""What each validation of a run found: kept in its checkpoints, and written as a table, history.csv."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from ..files import write_text
from .keeping import MEASURED_APART

log = logging.getLogger(__name__)

Row = dict[str, float | None]  # of a step: None is not measured
METRIC_OF = {  # column -> name in the logs
    "val_loss": "val/loss",
    "val_top_5_accuracy": "val/top_5_accuracy",
    "wer": "val/wer",
    "similarity": "val/similarity",
}
COLUMNS = ("step", "train_loss", *METRIC_OF, "learning_rate")


class History(Callback):
    """Collects a row for each validation; the training loss in it is the mean of the steps since the row before.

    path: the table, written anew, whole or not at all, with each row
    every_n_steps: where rows are made if nothing is held out

    The rows are part of the checkpoints, so that a resumed run has those up to its step, each once.
    """

    def __init__(self, path: str | Path, every_n_steps: int = 100):
        self.path, self.every_n_steps = Path(path), max(1, every_n_steps)
        self.rows: list[Row] = []
        self._loss_sum, self._loss_count = 0.0, 0  # since the last row

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if any(name in trainer.callback_metrics for name in MEASURED_APART):  # the untrained model was listened to
            self._add(trainer, validated=False)
        elif self.rows or self.path.exists():
            self._write(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        loss = trainer.callback_metrics.get("train/loss")
        if loss is not None:
            self._loss_sum, self._loss_count = self._loss_sum + float(loss), self._loss_count + 1
        if not trainer.enable_validation and trainer.global_step % self.every_n_steps == 0:
            self._add(trainer, validated=False)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._add(trainer, validated=True)

    def _add(self, trainer: L.Trainer, validated: bool) -> None:
        metrics = trainer.callback_metrics
        row: Row = dict.fromkeys(COLUMNS)
        row["step"] = trainer.global_step
        if self._loss_count:
            row["train_loss"] = self._loss_sum / self._loss_count
        for column, name in METRIC_OF.items():
            if name in metrics and (validated or name in MEASURED_APART):
                row[column] = float(metrics[name])
        row["learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.rows = [*(before for before in self.rows if before["step"] != row["step"]), row]
        self._loss_sum, self._loss_count = 0.0, 0
        self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        try:
            write_text(self.path, as_csv(self.rows))
        except OSError as error:  # as on Windows while a spreadsheet shows it
            log.warning("%s is not written this time: %s", self.path, error)

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, and the training loss since."""
        return {"rows": [dict(row) for row in self.rows], "loss_sum": self._loss_sum, "loss_count": self._loss_count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint's rows."""
        self.rows = [dict(row) for row in state_dict["rows"]]
        self._loss_sum, self._loss_count = float(state_dict["loss_sum"]), int(state_dict["loss_count"])


def rows_of(trainer: L.Trainer) -> Sequence[Row]:
    """The rows of the run's History; none if it has no such callback."""
    return next((callback.rows for callback in trainer.callbacks if isinstance(callback, History)), ())  # type: ignore[attr-defined]


def as_csv(rows: Sequence[Row]) -> str:
    """Rows as text with a header; what was not measured is empty."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
