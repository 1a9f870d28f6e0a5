"""The coverage meter: which clips were really trained on, by epoch, and which never."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

log = logging.getLogger(__name__)

_NAMED = 5  # clips named in a line


class CoverageMeter(Callback):
    """Counts how often each clip was in a step; a line at the end of each epoch and one at the end of the run.

    Epochs of few steps share a line as long as they are alike: a small voice has an epoch in each step. What a resumed
    run had seen before is counted again from the batches' numbers.
    """

    def __init__(self) -> None:
        self._visits: Counter[int] = Counter()  # clip -> steps it was in, over the whole run
        self._in_epoch: set[int] = set()
        self._seconds = self._all_seconds = 0.0  # of this epoch's clips so far, and of all
        self._stream: Any = None
        self._told = (0, 0, "")  # epochs, steps and the share of the last line

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self._stream, self._visits, self._in_epoch = data.stream(), Counter(), set()
        self._all_seconds = data.seconds_of(data.train_lengths)
        for number in range(data.batches_done):
            self._count(number, data)
        self._told = (self._stream.place(data.batches_done)[0], data.batches_done, "")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        number = data.batches_done - 1
        done = self._count(number, data)
        pl_module.log("train/epoch_coverage", self._seconds / self._all_seconds, batch_size=1)
        if done and trainer.is_global_zero:
            self._tell(self._stream.place(number)[0] + 1, number + 1, _share(data, self._in_epoch), trainer)

    def _tell(self, epochs: int, steps: int, share: str, trainer: L.Trainer) -> None:
        told_epochs, told_steps, told_share = self._told
        if share == told_share and steps - told_steps < trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        several = share == told_share and epochs - told_epochs > 1
        which = f"epochs {told_epochs + 1} to {epochs} each" if several else f"epoch {epochs}"
        log.info("%s trained on %s", which, share)
        self._told = (epochs, steps, share)

    def _count(self, number: int, data: Any) -> bool:
        """Count the clips of a step; return whether it ends its epoch."""
        epoch, samples = self._stream.samples_at(number)
        _, place = self._stream.place(number)
        if place == 0:
            self._in_epoch, self._seconds = set(), 0.0
        clips = [clip for sample in samples for clip in sample]
        self._visits.update(clips)
        self._seconds += data.seconds_of(clip for clip in clips if clip not in self._in_epoch)
        self._in_epoch.update(clips)
        return place + 1 == self._stream.batches_in(epoch)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not self._visits or not trainer.is_global_zero:
            return
        times = [self._visits[clip] for clip in data.train_lengths]
        never = [clip for clip in data.train_lengths if not self._visits[clip]]
        often = f"{min(times)}" if min(times) == max(times) else f"{min(times)} to {max(times)}"
        log.info("each clip was trained on %s times; the run trained on %s", often, _share(data, self._visits))
        if never:
            named = ", ".join(repr(data.dataset.clips.name_of(clip)) for clip in never[:_NAMED])
            more = "; more --max-steps would reach them" if trainer.global_step >= trainer.max_steps else ""
            log.warning(
                "%d clips were never trained on, the run ended before: %s%s%s",
                len(never), named, ", ..." if len(never) > _NAMED else "", more,
            )  # fmt: skip


def _share(data: Any, clips: Any) -> str:
    """Clips and seconds of the training set that are among `clips`."""
    trained = [clip for clip in data.train_lengths if clip in clips]
    return (
        f"{len(trained)} of {len(data.train_lengths)} clips, "
        f"{data.seconds_of(trained):.1f} of {data.seconds_of(data.train_lengths):.1f} s"
    )
