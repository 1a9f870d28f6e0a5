"""When more training makes a voice worse: an alarm from the run's history, and an end where nothing improves any more."""

from __future__ import annotations

import itertools
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.callbacks import early_stopping as lightning_stopping

from ..errors import UserError
from .history import Row, rows_of

log = logging.getLogger(__name__)

CLEAR_TREND = 5 / 6  # of the pairs: of three values all are in order, of four or five all but one
LOSS_RISE = 0.002  # of the lowest held-out loss: less is no rise
WER_RISE = 0.1  # two words of the twenty in two sentences
UNDERSTOOD = 0.5  # word error rate that must have been reached before: above it speech is noise to the recogniser


class OverfittingAlarm(Callback):
    """Warns once when the held-out loss rises while the training loss falls, or the word error rate rises.

    validations: how many of the last ones must show the trend

    A trend is looked for in the order of each pair of values, as in Kendall's tau, and not in how far a value is off:
    one that sticks out makes no trend. A rise must also exceed LOSS_RISE or WER_RISE. A rise ends, and the
    next one is told again, where the held-out loss, or the error rate, is as low as never before.
    """

    def __init__(self, validations: int = 3):
        if validations < 3:
            raise ValueError(f"validations is {validations}; three are the fewest that show a trend")
        self.validations = validations

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        rows = rows_of(trainer)
        found = [told for told in (loss_rise(rows, self.validations), wer_rise(rows, self.validations)) if told]
        for logger in trainer.loggers:
            logger.log_metrics({"train/overfitting": float(bool(found))}, step=trainer.global_step)
        before = rows[:-1]
        for rise in (loss_rise, wer_rise):
            told = rise(rows, self.validations)
            if told and not _told_before(before, rise, self.validations):
                log.warning("step %d  overfitting: %s; %s", trainer.global_step, told, _advice(rows))


def loss_rise(rows: Sequence[Row], validations: int = 3) -> str | None:
    """Say how the held-out loss rises while the training loss falls, over the last `validations`; None if it does not."""
    known = [(row["train_loss"], row["val_loss"]) for row in rows if row["val_loss"] is not None]
    last = [(train, held_out) for train, held_out in known[-validations:] if train is not None]
    if len(last) < validations:
        return None
    train, held_out = [one for one, _ in last], [other for _, other in last]
    lowest = min(other for _, other in known if other is not None)
    rising = rising_pairs(held_out) >= CLEAR_TREND and held_out[-1] - lowest > LOSS_RISE * abs(lowest)
    if not (rising and rising_pairs(train[::-1]) >= CLEAR_TREND):
        return None
    return (
        f"held-out loss rises ({held_out[0]:.3f} to {held_out[-1]:.3f}) while training loss falls "
        f"({train[0]:.3f} to {train[-1]:.3f}) over the last {validations} validations"
    )


def wer_rise(rows: Sequence[Row], validations: int = 3) -> str | None:
    """Say how the word error rate of the spoken samples rises over the last `validations` of them; None if it does not."""
    known = [row["wer"] for row in rows if row["wer"] is not None]
    last = known[-validations:]
    if len(last) < validations or rising_pairs(last) < CLEAR_TREND:
        return None
    if min(known) > UNDERSTOOD or last[-1] - min(known) < WER_RISE:
        return None
    return (
        f"the word error rate of the spoken samples rises ({last[0]:.2f} to {last[-1]:.2f} over the last {validations})"
    )


def rising_pairs(values: Sequence[float]) -> float:
    """The share of all pairs of `values` of which the later one is higher, 0 to 1; NaN is not."""
    pairs = list(itertools.combinations(values, 2))
    return sum(later > earlier for earlier, later in pairs) / len(pairs) if pairs else 0.0


def _told_before(rows: Sequence[Row], rise: Any, validations: int) -> bool:
    """Whether the rise that goes on was told of after an earlier row: after the last row with the lowest value."""
    column = "val_loss" if rise is loss_rise else "wer"
    values = [math.inf if row[column] is None else row[column] for row in rows]
    if not values:
        return False
    lowest = max(index for index, value in enumerate(values) if value == min(values))  # type: ignore[type-var]
    return any(rise(rows[: end + 1], validations) for end in range(lowest, len(rows)))


def _advice(rows: Sequence[Row]) -> str:
    best = best_row(rows)
    if best is None or best is rows[-1]:
        return "listen to the samples and take an earlier checkpoint; a lower --learning-rate or more data help"
    step = int(best["step"] or 0)
    return (
        f"the best so far is step {step} (held-out loss {best['val_loss']:.3f}): stop and use that one, or train anew "
        f"with --max-steps {step}, a lower --learning-rate, or more data"
    )


def best_row(rows: Sequence[Row]) -> Row | None:
    """The row with the lowest held-out loss; None if it was never measured."""
    measured = [row for row in rows if row["val_loss"] is not None]
    return min(measured, key=lambda row: row["val_loss"] or 0.0, default=None)


class EarlyStopping(lightning_stopping.EarlyStopping):
    """Ends training after `patience` validations in a row without a lower held-out loss; None only counts them.

    The count is part of the checkpoints. A run that ends so is done, with exit code 0: see `stopped_early`.
    """

    def __init__(self, patience: int | None = None, min_delta: float = 0.0):
        if patience is not None and patience < 1:
            raise UserError(
                f"the patience of early stopping is {patience}",
                "it is a number of validations, at least 1",
                "use --early-stopping-patience 3, or leave it out to train to the end",
            )
        super().__init__(
            "val/loss",
            min_delta=min_delta,
            patience=sys.maxsize if patience is None else patience,
            mode="min",
            check_finite=False,
            check_on_train_epoch_end=False,
        )
        self.best_step = 0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.patience != sys.maxsize and not trainer.enable_validation:
            raise UserError(
                f"early stopping after {self.patience} validations cannot work: there is no validation",
                "no speaker has enough clips to hold some out",
                "leave --early-stopping-patience out, or add recordings: a speaker with 10 clips has one held out",
            )

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        super().on_validation_end(trainer, pl_module)
        if self.wait_count == 0:
            self.best_step = trainer.global_step
        if self.stopping_reason == lightning_stopping.EarlyStoppingReason.PATIENCE_EXHAUSTED and trainer.is_global_zero:
            log.info(
                "step %d  early stopping: held-out loss has not improved in %d validations; the best was %.3f at step %d, "
                "and the best checkpoint%s is kept",
                trainer.global_step, self.wait_count, float(self.best_score), self.best_step, _kept(trainer),
            )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, with the best step."""
        return {**super().state_dict(), "best_step": self.best_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a checkpoint's count and today's patience."""
        patience = self.patience
        super().load_state_dict(state_dict)
        self.patience, self.best_step = patience, int(state_dict.get("best_step", 0))
        if self.wait_count < patience:  # more patience than then
            self.stopping_reason = lightning_stopping.EarlyStoppingReason.NOT_STOPPED
            self.stopping_reason_message = None


def _kept(trainer: L.Trainer) -> str:
    best = getattr(trainer.checkpoint_callback, "best", None)
    return "" if best is None else f" ({best.name})"


def stopped_early(content: Any, patience: int | None = None) -> bool:
    """Whether the run of a checkpoint (its content) was ended by early stopping.

    `patience`: that of today, where it may be another; whether the run would end with that one too.
    """
    callbacks = content.get("callbacks") if isinstance(content, Mapping) else None
    for name, state in callbacks.items() if isinstance(callbacks, Mapping) else ():
        if str(name).startswith(EarlyStopping.__qualname__) and isinstance(state, Mapping):
            exhausted = lightning_stopping.EarlyStoppingReason.PATIENCE_EXHAUSTED.value
            ended = state.get("stopping_reason") == exhausted
            return ended and (patience is None or int(state.get("wait_count", 0)) >= patience)
    return False
