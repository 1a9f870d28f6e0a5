"""Recognition by openai-whisper (arXiv:2212.04356)."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import sha256
from ..device import choose_device
from ..errors import UserError
from ..extras import require
from ..timeline import Piece
from .languages import check_language, only_english
from .recognizer import SAMPLE_RATE
from .whisper_weights import INSTALL, check_published, check_weights, fetch_weights, find_weights, published_name
from .words import TimedWord, make_pieces

log = logging.getLogger(__name__)

TEMPERATURES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # whisper's own: the next one where the text loops or is improbable
_SEED = 0  # of what is drawn at temperatures above 0


class Whisper:
    """A model of openai-whisper. It does not see what came before: that is how it falls into loops.

    `language` None lets each call detect its own; see `detect_language` for a recording in pieces.
    """

    def __init__(self, model: str | None, language: str | None, device: str = "auto", download: bool = False) -> None:
        weights = fetch_weights(model, language) if download else find_weights(model, language)
        known = published_name(weights)
        self._model = _load(weights.absolute(), known, torch_device(device, "whisper"))
        self._language = language
        self._check(language)
        label = known or f"{weights.name} {sha256(weights)[:12]}"
        self.name = f"openai-whisper {version('openai-whisper')} {label} {language or 'any language'}"

    def __call__(self, samples: np.ndarray) -> str:
        """The text heard, by the likeliest tokens alone: the same measure for every clip."""
        if not np.any(samples):
            return ""
        return str(self._hear(samples, self._language, temperature=0.0)["text"]).strip()

    def words(self, samples: np.ndarray, language: str | None = None) -> list[Piece]:
        """The words heard, by the likeliest tokens, or others where those loop; the same for the same samples."""
        if not np.any(samples):
            return []
        language = language or self._language
        self._check(language)
        heard = self._hear(samples, language, temperature=TEMPERATURES, word_timestamps=True)
        segments = (
            [TimedWord(word["word"], word["start"], word["end"], word["probability"]) for word in segment["words"]]
            for segment in heard["segments"]
        )
        return make_pieces(segments, len(samples) / SAMPLE_RATE)

    def detect_language(self, samples: np.ndarray) -> tuple[str, float]:
        """The language of the first 30 s and its probability; English at once where the model knows no other."""
        if not self._model.is_multilingual:
            return "en", 1.0
        import torch
        import whisper

        with torch.no_grad():
            sound = whisper.pad_or_trim(np.asarray(samples, np.float32))
            mel = whisper.log_mel_spectrogram(sound, self._model.dims.n_mels)  # (mels, frames)
            _, found = self._model.detect_language(mel.to(self._model.device))
        language = max(found, key=found.get)
        return str(language), float(found[language])

    def _hear(self, samples: np.ndarray, language: str | None, **options: Any) -> dict[str, Any]:
        with _repeatable(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a last window that is shorter than a frame; of Triton
            return self._model.transcribe(
                np.asarray(samples, np.float32),
                language=language,
                condition_on_previous_text=False,
                fp16=self._model.device.type == "cuda",
                **options,
            )

    def _check(self, language: str | None) -> None:
        check_language(language)
        if not self._model.is_multilingual and language not in (None, "en"):
            raise only_english("this whisper model", language)


def torch_device(request: str, what: str) -> str:
    """cuda or cpu for `request`; Apple's MPS lacks what word times need (float64), so it computes on the CPU there."""
    choice = choose_device(request)
    if choice.device == "mps":
        log.info("%s runs on the CPU: MPS has no float64, which word times need", what)
        return "cpu"
    return choice.device


@cache
def _load(weights: Path, known: str | None, device: str) -> Any:
    """Load a model once, whatever languages it is asked for. One of the cache brings its own alignment heads."""
    whisper = require("whisper", "--asr whisper", fix=INSTALL)
    if not hasattr(whisper, "load_model"):
        raise another_whisper()
    if known:
        check_published(weights, known)
    check_weights(weights)
    try:
        with _repeatable():  # a model is made of random numbers before it gets its weights
            if known:
                model = whisper.load_model(known, device=device, download_root=str(weights.parent))
            else:
                model = whisper.load_model(str(weights), device=device)
    except RuntimeError as error:
        if "out of memory" in str(error):
            raise UserError(
                f"{weights.name} does not fit into the memory of {device}",
                str(error).splitlines()[0],
                "use a smaller --whisper-model, or --device cpu",
            ) from error
        raise UserError(
            f"{weights} is no whisper model", str(error)[:500], "download it again, or export it as openai-whisper does"
        ) from error
    return model.eval()


def another_whisper() -> UserError:
    """What to tell someone who installed `whisper`, which is Graphite's database."""
    return UserError(
        "the package whisper that is installed does not recognise speech",
        "the project of that name on PyPI is a database; OpenAI's is called openai-whisper",
        f"pip uninstall -y whisper; {INSTALL}",
    )


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """Draw the same numbers in every call, whatever was heard before and in whichever process; leave others' alone."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        yield
