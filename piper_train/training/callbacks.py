"""What a voice's training does beside its steps: say how it goes, speak the test sentences, stop when asked."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.loggers import TensorBoardLogger

from fish_speech.prepare.wording import clock
from fish_speech.training.callbacks import StopGracefully, memory_held

from .draws import key
from .module import VitsModule

log = logging.getLogger(__name__)

_LONGEST_S = 30.0  # of a spoken test sentence: an untrained voice may drag
_TAG = 120  # characters of a sentence's text that name it in TensorBoard


class StopBetweenSteps(StopGracefully):
    """On Ctrl+C or SIGTERM let the step end and be saved; also between epochs, after a validation."""

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not getattr(pl_module, "is_accumulating", False):  # gradients that are not learnt from yet cannot be saved
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.strategy.reduce_boolean_decision(self.stopped, all=False):
            self.stopped = trainer.should_stop = True


class ProgressLines(Callback):
    """A line of facts at the end of each epoch, and every `every_s` seconds within one, with the time left."""

    def __init__(self, every_s: float = 60.0):
        self.every_s = every_s
        self._said = (0, 0.0)  # batches in this epoch, seconds
        self._began = (0, 0.0)
        self._run = (0, 0.0)  # batches in all epochs where this run began, seconds

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.log_every_n_steps = max(1, min(trainer.log_every_n_steps, int(trainer.num_training_batches)))  # type: ignore[attr-defined]
        self._began = self._said = (_batches(pl_module), time.monotonic())  # for a run resumed within an epoch
        self._run = (_batches_of_all(trainer, pl_module), time.monotonic())
        if trainer.is_global_zero and isinstance(pl_module, VitsModule):
            log.info("%s", pl_module.data.describe())

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = self._said = (_batches(pl_module), time.monotonic())

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._said[1] < self.every_s or not trainer.is_global_zero:
            return
        done = _batches(pl_module)
        speed = (done - self._said[0]) / (now - self._said[1])
        total = trainer.num_training_batches
        log.info(
            "epoch %d  batch %d/%s  %s  %.2f batches/s%s",
            trainer.current_epoch, done, total, _facts(trainer), speed, self._left(trainer, pl_module),
        )  # fmt: skip
        self._said = (done, now)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        seconds = max(time.monotonic() - self._began[1], 1e-9)
        speed = (_batches(pl_module) - self._began[0]) / seconds
        log.info(
            "epoch %d  step %d  %s  %.2f batches/s  %s%s",
            trainer.current_epoch, trainer.global_step, _facts(trainer), speed, memory_held(pl_module.device),
            self._left(trainer, pl_module),
        )  # fmt: skip

    def _left(self, trainer: L.Trainer, pl_module: L.LightningModule) -> str:
        """How long the run still takes at its mean speed, validations included; nothing for one without an end."""
        done = _batches_of_all(trainer, pl_module)
        speed = (done - self._run[0]) / max(time.monotonic() - self._run[1], 1e-9)
        seconds = [timer.time_remaining() for timer in trainer.callbacks if isinstance(timer, Timer)]  # type: ignore[attr-defined]
        if speed > 0 and trainer.max_epochs is not None and trainer.max_epochs >= 0:
            seconds.append((trainer.max_epochs * trainer.num_training_batches - done) / speed)
        if speed > 0 and trainer.max_steps > 0:
            seconds.append((trainer.max_steps - trainer.global_step) / 2 * getattr(pl_module, "accumulate", 1) / speed)
        known = [value for value in seconds if value is not None]
        return f"  {clock(max(min(known), 0))} left" if known else ""


def _batches(module: L.LightningModule) -> int:
    return module.data.batches_done if isinstance(module, VitsModule) else 0


def _batches_of_all(trainer: L.Trainer, module: L.LightningModule) -> int:
    """Batches of all epochs so far."""
    epochs = module.data.epoch if isinstance(module, VitsModule) else 0
    return int(epochs * trainer.num_training_batches) + _batches(module)


def _facts(trainer: L.Trainer) -> str:
    """The losses that tell how it goes; those of the last validation too."""
    names = ("loss_g", "loss_d", "train_mel", "train_kl", "train_dur", "val_mel")
    metrics = trainer.callback_metrics
    return "  ".join(f"{name} {float(metrics[name]):.3f}" for name in names if name in metrics)


class SpokenSentences(Callback):
    """Speaks the test sentences into TensorBoard at each validation, under their text, with the same noise each time.

    Where nothing is held out, after each epoch.
    """

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking and isinstance(pl_module, VitsModule):
            self._speak(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if isinstance(pl_module, VitsModule) and not pl_module.data.has_validation:
            self._speak(trainer, pl_module)

    def _speak(self, trainer: L.Trainer, pl_module: VitsModule) -> None:
        if not trainer.is_global_zero:
            return
        writers = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if not writers:
            return
        spoken: set[str] = set()
        for number, (text, ids, speaker) in enumerate(pl_module.data.test_sentences()):
            wave = speak(pl_module, ids, speaker, key(pl_module.seed, "sentence", number))
            tag = text[:_TAG] if text[:_TAG] not in spoken else f"{text[:_TAG]} ({number})"
            spoken.add(tag)
            for writer in writers:
                writer.add_audio(tag, wave, trainer.global_step, pl_module.config.sample_rate)


@torch.no_grad()
def speak(module: VitsModule, ids: list[int], speaker: int | None, seed: int) -> torch.Tensor:
    """Speak phoneme ids with the voice as it is now -> (samples,) float32 on the CPU, its peak at 1."""
    was_training = module.model_g.training
    module.model_g.eval()
    torch.manual_seed(seed)  # each training step seeds anew
    try:
        spoken = module.model_g.infer(
            torch.tensor([ids], device=module.device),
            torch.tensor([len(ids)], device=module.device),
            None if speaker is None else torch.tensor([speaker], device=module.device),
            max_frames=math.ceil(_LONGEST_S * module.config.frame_rate),
        )
    finally:
        module.model_g.train(was_training)
    wave = spoken.wave[0, 0].float().cpu()
    return wave / wave.abs().max().clamp(min=1e-8)
