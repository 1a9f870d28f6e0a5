"""During training the model speaks a few fixed sentences now and then, so that one hears where it goes."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from ..audio import write_wav
from ..errors import UserError
from ..models import DualAR, codec_config, load_codec
from ..prepare.language import is_english
from ..text import split_text
from ..versions import config_of_codec
from .callbacks import stop_asked
from .keeping import MEASURED_APART
from .listening import Listener, Sample

if TYPE_CHECKING:
    from ..synthesis.speak import Speaker

log = logging.getLogger(__name__)

ENGLISH = (
    "The old mill by the river has not turned its wheel since the winter.",
    "Would you like some tea, or shall we wait until the others are here?",
)
SEED = 42  # of sample number one; the next has the next


class SpokenSamples(Callback):
    """Speaks a few sentences every few steps: WAV files, sounds in TensorBoard and, with the eval extra, two measures.

    folder: where step_000000100_1.wav and so on are written
    base: the model folder that training started from; its codec makes the sound if `codec` names none
    every_n_steps: optimizer steps; None: never. Where clips are held out, at the first validation from there on
    texts: what is said; None: two held-out texts, or two English sentences if nothing is held out
    codec: codec weights
    reference: codes (.npy, with the words in a .txt beside them) of a voice to imitate; None: the model's own voice
    max_seconds: of speech, for each text; the text's length sets a limit too, so a model that does not end stops nothing
    data_dir: recordings of the speaker, to measure the similarity with

    Tokens are drawn as cli_tts does for the base. A new run speaks before its first step too. Training goes on exactly as
    without: the random state, the modes of all modules and what the model remembers are put back. What fails here is told
    in one line and never ends a training.
    """

    def __init__(
        self,
        folder: str | Path,
        base: str | Path,
        every_n_steps: int | None = 100,
        texts: Sequence[str] | None = None,
        codec: str | Path | None = None,
        reference: str | Path | None = None,
        max_seconds: float = 15.0,
        data_dir: str | Path | None = None,
    ):
        self.folder, self.base = Path(folder), Path(base)
        self.every_n_steps, self.max_seconds = every_n_steps, max_seconds
        self.texts = None if texts is None else list(texts)
        self.codec = None if codec is None else Path(codec)
        self.reference = None if reference is None else Path(reference)
        self.data_dir = None if data_dir is None else Path(data_dir)
        self._off = not every_n_steps or self.texts == []
        self._last = 0  # step
        self._speaker: Speaker | None = None
        self._listener: Listener | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._last = trainer.global_step
        self._off = self._off or not trainer.is_global_zero
        if self._off:
            return
        if not isinstance(getattr(pl_module, "model", None), DualAR) or _is_sharded(trainer):
            self._give_up("this model is spread over processes, or is none that speaks")
            return
        if self.texts is None:
            self.texts = sample_texts(getattr(trainer, "datamodule", None))
        clips = _clips_of(getattr(trainer, "datamodule", None))
        self._listener = Listener(self.texts, self.data_dir, len(set(clips.speakers)) if clips is not None else 1)
        if trainer.global_step == 0:
            self.speak(trainer, pl_module)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        for name in MEASURED_APART:  # these were true of the weights before this step
            trainer.callback_metrics.pop(name, None)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not trainer.enable_validation and self._is_due(trainer):
            self.speak(trainer, pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        if not trainer.sanity_checking and self._is_due(trainer):
            self.speak(trainer, pl_module)

    def _is_due(self, trainer: L.Trainer) -> bool:
        every = self.every_n_steps or 0
        return not self._off and not stop_asked(trainer) and trainer.global_step // every > self._last // every

    def speak(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Say all texts with the weights as they are, write, show and measure the sound."""
        step, device = trainer.global_step, pl_module.model.device
        self._last = step
        started = time.monotonic()
        try:
            with random_state_kept(device):
                samples = self._say(trainer, pl_module.model)
                measured = self._listener.measure(samples) if self._listener is not None else {}
                self._show(trainer, samples)
        except UserError as error:  # it will not be otherwise the next time
            self._give_up(f"{error.what}: {error.why}; {error.fix}")
            return
        except Exception as error:  # whatever it is, training matters more
            log.warning("step %d  no samples: %s: %s", step, type(error).__name__, " ".join(str(error).split())[:300])
            return
        finally:
            self._rest(device)
        for name, value in measured.items():
            trainer.callback_metrics[name] = torch.tensor(value)
        for logger in trainer.loggers if measured else ():
            logger.log_metrics(measured, step=step)
        said = " and ".join(f"{len(sample.sound) / sample.sample_rate:.1f} s" for sample in samples)
        facts = "".join(f", {name.removeprefix('val/')} {value:.2f}" for name, value in measured.items())
        log.info("step %d  spoke %s into %s%s (%.0f s)", step, said or "nothing", self.folder, facts,
                 time.monotonic() - started)  # fmt: skip

    def _say(self, trainer: L.Trainer, model: DualAR) -> list[Sample]:
        from ..evaluation.systems import read_prompts, usual_sampling
        from ..synthesis.length_limit import longest_seconds
        from ..synthesis.speak import SpeechRequest

        speaker = self._ready(model)
        rate, sampling, samples = speaker.codec.frame_rate, usual_sampling(self.base), []
        references = read_prompts([self.reference], speaker) if self.reference else ()
        with quiet("fish_speech.synthesis.speak"), speaking(model):
            for number, text in enumerate(self.texts or ()):
                if stop_asked(trainer):
                    break
                size = len(text.encode())
                frames = max(1, int(min(self.max_seconds, longest_seconds(text)) * rate))
                request = SpeechRequest(
                    text, references, sampling, max_new_tokens=frames, chunk_length=size, seed=SEED + number
                )
                with trainer.precision_plugin.forward_context():  # as in training; the codec stays in float32
                    codes = list(speaker.codes(request))
                waves = [
                    speaker.codec.decode(part[None].to(model.device))[0, 0].cpu() for part in codes if part.size(1)
                ]
                sound = torch.cat(waves).numpy() if waves else np.zeros(0, np.float32)
                samples.append(Sample(text, sound, speaker.codec.sample_rate))
        return samples

    def _ready(self, model: DualAR) -> Speaker:
        from ..evaluation.systems import codec_beside
        from ..synthesis.speak import Speaker

        if self._speaker is None:
            weights = self.codec or codec_beside(self.base)
            self._speaker = Speaker(model, load_codec(weights, codec_config(config_of_codec(weights))))
        self._speaker.codec.to(model.device)
        return self._speaker

    def _rest(self, device: torch.device) -> None:
        """Leave the accelerator's memory to the training."""
        if self._speaker is not None and device.type != "cpu":
            self._speaker.codec.to("cpu")
            if device.type == "cuda":
                torch.cuda.empty_cache()

    def _show(self, trainer: L.Trainer, samples: Sequence[Sample]) -> None:
        step = trainer.global_step
        for number, sample in enumerate(samples, 1):
            path = self.folder / f"step_{step:09d}_{number}.wav"
            if not len(sample.sound):
                path.unlink(missing_ok=True)  # of an earlier run through this step
                continue
            write_wav(path, sample.sound, sample.sample_rate)
            for logger in trainer.loggers:
                writer: Any = getattr(logger, "experiment", None)
                if hasattr(writer, "add_audio") and hasattr(writer, "add_text"):
                    sound = torch.from_numpy(sample.sound)[None].clamp(-1, 1)
                    writer.add_audio(f"samples/{number}", sound, step, sample.sample_rate)
                    writer.add_text(f"samples/{number}", sample.text, step)

    def _give_up(self, reason: str) -> None:
        self._off = True
        log.warning("no samples are spoken in this training: %s", reason)


def sample_texts(data: Any, count: int = 2) -> list[str]:
    """Held-out texts, those first that are neither very short nor long; what lacks is filled up in their language.

    English sentences if nothing is held out or the data module knows no texts.
    """
    held_out, clips = getattr(data, "held_out", None), _clips_of(data)
    if not held_out or clips is None:
        return list(ENGLISH[:count])

    def texts_of(numbers: Iterable[int]) -> list[str]:
        return [text for text in map(clips.text_of, numbers) if split_text(text, len(text.encode()) or 1)]

    texts = sorted(texts_of(held_out), key=lambda text: not 30 <= len(text.encode()) <= 160)  # else in the clips' order
    more = ENGLISH if all(map(is_english, texts)) else texts_of(data.train_lengths)
    return list(dict.fromkeys([*texts, *more]))[:count]


def _clips_of(data: Any) -> Any:
    """The Clips of a data module; None of one that has none."""
    return getattr(getattr(data, "dataset", None), "clips", None)


@contextlib.contextmanager
def speaking(model: DualAR) -> Iterator[None]:
    """Let a model in training speak: in eval mode, and afterwards every module is in the mode it was in.

    Keys and values are cached by the caller of `model.step`. What a model itself keeps are its tables of rotary angles:
    those that inference mode makes are tensors that a training step may not use, so they go.
    """
    modes = [(module, module.training) for module in model.modules()]
    tables = [(table, dict(table._tables)) for table in (model._rope, model._fast_rope)]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for table, before in tables:
            table._tables = before


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Put the state of every global random number generator back afterwards."""
    own: Any = {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    own_state = None if own is None else own.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if own is not None:
            own.set_rng_state(own_state)


@contextlib.contextmanager
def quiet(name: str) -> Iterator[None]:
    """Let a logger tell of errors only."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _is_sharded(trainer: L.Trainer) -> bool:
    from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

    return isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy)
