"""Speech recognition for measuring: pocketsphinx, which carries its English model, or whisper if its weights are there.

A recogniser is loaded once per process. Every clip is heard on its own: what came before it changes nothing.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import UserError
from .extras import INSTALL, missing, require

ASR_CHOICES = ("auto", "pocketsphinx", "whisper")
SAMPLE_RATE = 16000  # Hz; what both recognisers take
# In the order in which auto takes them: good enough to judge clean speech, and bearable on a CPU, come first.
WHISPER_MODELS = ("small", "base", "turbo", "large-v3-turbo", "medium", "large-v3", "large-v2", "tiny")


class Recognizer(Protocol):
    """Something that writes down what it hears."""

    name: str  # with its version and model, for the record

    def __call__(self, samples: np.ndarray) -> str:
        """Mono float32 (samples,) at 16 kHz -> the words heard."""


class PocketSphinx:
    """The decoder of CMU Sphinx with the US English model of its wheel. Weak but small: WER of clear speech is 0.2-0.3."""

    def __init__(self) -> None:
        module = require("pocketsphinx", "--asr pocketsphinx")
        from importlib.metadata import version

        self.name = f"pocketsphinx {version('pocketsphinx')} en-us"
        self._decoder = module.Decoder(samprate=SAMPLE_RATE, cmn="batch", loglevel="FATAL")

    def __call__(self, samples: np.ndarray) -> str:
        pcm = (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
        if not np.any(samples):  # it hears a word in digital silence
            return ""
        self._decoder.reinit_feat()  # else its estimate of the noise goes from one clip to the next
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        heard = self._decoder.hyp()
        return heard.hypstr if heard is not None else ""


class Whisper:
    """openai-whisper with weights that are already on this machine; greedy, without conditioning on earlier clips."""

    def __init__(self, model: str | None, language: str) -> None:
        whisper = require("whisper", "--asr whisper")
        weights = _weights_of(model)
        self.name = f"whisper {weights.stem}"
        self._model, self._language = whisper.load_model(str(weights)), language

    def __call__(self, samples: np.ndarray) -> str:
        found = self._model.transcribe(
            samples.astype(np.float32),
            language=self._language,
            temperature=0.0,
            condition_on_previous_text=False,
            fp16=self._model.device.type == "cuda",
        )
        return str(found["text"]).strip()


def whisper_cache() -> Path:
    """Where openai-whisper keeps the weights that it downloads."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whisper"


def whisper_weights(model: str | None = None) -> Path | None:
    """The weights of `model`, a name or the path of a .pt file; without one, the best found. None if there are none."""
    if model and model.endswith(".pt"):
        return Path(model) if Path(model).is_file() else None
    names = (model,) if model else WHISPER_MODELS
    candidates = (whisper_cache() / f"{name}{suffix}.pt" for name in names for suffix in ("", ".en"))
    return next((path for path in candidates if path.is_file()), None)


def _weights_of(model: str | None) -> Path:
    weights = whisper_weights(model)
    if weights is None:
        raise UserError(
            f"there are no whisper weights{f' called {model}' if model else ''} on this machine",
            f"looked for .pt files in {whisper_cache()}; nothing is downloaded unasked",
            "give --whisper-model PATH.pt, download a model with the whisper program, or use --asr pocketsphinx",
        )
    return weights


def choose_asr(request: str = "auto", whisper_model: str | None = None, language: str = "en") -> str:
    """Return "whisper" or "pocketsphinx" for `request`; raise UserError if what is asked for is not there."""
    if request == "whisper" or whisper_model:
        if request == "pocketsphinx":
            raise UserError("--whisper-model has no effect", "--asr is pocketsphinx", "drop one of the two")
        if missing("whisper"):
            require("whisper", "--asr whisper")  # says how to get it
        _weights_of(whisper_model)
        return "whisper"
    if request == "auto" and not missing("whisper") and whisper_weights() is not None:
        return "whisper"
    if language != "en":
        raise UserError(
            f"no speech recogniser for language {language!r}",
            "pocketsphinx brings an English model only, and there are no whisper weights on this machine"
            if request == "auto"
            else "pocketsphinx brings an English model only",
            "use --asr whisper with its weights downloaded, or --language en",
        )
    if missing("pocketsphinx"):
        raise UserError("there is no speech recogniser", "the package pocketsphinx is missing", INSTALL)
    return "pocketsphinx"


@cache
def load_recognizer(asr: str = "auto", whisper_model: str | None = None, language: str = "en") -> Recognizer:
    """Load a recogniser, once per process."""
    chosen = choose_asr(asr, whisper_model, language)
    return Whisper(whisper_model, language) if chosen == "whisper" else PocketSphinx()


def transcribe(
    samples: np.ndarray, sample_rate: int, asr: str = "auto", whisper_model: str | None = None, language: str = "en"
) -> str:
    """Write down what is said in mono float (samples,). About 0.16 s per second of sound with pocketsphinx."""
    return load_recognizer(asr, whisper_model, language)(resample(samples, sample_rate))


def resample(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Bring (samples,) to 16 kHz, float32: what the recognisers, the speaker encoder and DNSMOS take."""
    samples = np.asarray(samples, np.float32)
    if sample_rate == SAMPLE_RATE:
        return samples
    import soxr

    return soxr.resample(samples, sample_rate, SAMPLE_RATE, quality="HQ")
