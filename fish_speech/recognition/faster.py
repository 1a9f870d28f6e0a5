"""Recognition by faster-whisper: the same models by CTranslate2, 30 s windows in batches."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import sha256
from ..errors import UserError, disk_full
from ..extras import require
from ..timeline import Piece
from .languages import check_language, only_english
from .openai_whisper import torch_device
from .recognizer import SAMPLE_RATE
from .whisper_weights import _ALIASES, FETCHED_MODEL, WHISPER_MODELS, WHISPER_NAMES
from .words import TimedWord, make_pieces

EXTRA = "faster-whisper"
BATCH_SIZE = 8  # windows at once
FILES = ("model.bin", "config.json", "tokenizer.json")  # without the last, the package would ask the network
_TURBO = "mobiuslabsgmbh/faster-whisper-large-v3-turbo"


def repository(name: str) -> str:
    """Where the hub has the converted model."""
    name = _ALIASES.get(name, name)
    return _TURBO if name == "large-v3-turbo" else f"Systran/faster-whisper-{name}"


def faster_weights(model: str | None = None, language: str | None = None) -> Path | None:
    """The folder of a converted model, by its path or by its name in the hub's cache; without one, the best found."""
    if model is not None and model not in WHISPER_NAMES:
        return Path(model) if all((Path(model) / name).is_file() for name in FILES) else None
    from huggingface_hub import try_to_load_from_cache

    names: tuple[str, ...] = (model,) if model else WHISPER_MODELS
    if language == "en":
        names += tuple(f"{name}.en" for name in names if f"{name}.en" in WHISPER_NAMES)
    for name in names:
        found = [try_to_load_from_cache(repository(name), file) for file in FILES]
        if all(isinstance(path, str) for path in found):
            return Path(str(found[0])).parent
    return None


def find_folder(model: str | None, language: str | None, download: bool = False) -> Path | None:
    """`faster_weights`, or UserError that says what is missing; None where it may and must be downloaded."""
    check_language(language, model or "")
    folder = faster_weights(model, language)
    if folder is not None:
        return folder
    if model is not None and model not in WHISPER_NAMES:
        lacking = [name for name in FILES if not (Path(model) / name).is_file()]
        raise UserError(
            f"there is no faster-whisper model at {model}",
            f"it needs {', '.join(lacking)}" if Path(model).is_dir() else "there is no such folder",
            f"give a folder that ct2-transformers-converter wrote, or a name: {', '.join(WHISPER_NAMES)}",
        )
    if not download:
        raise UserError(
            f"there is no faster-whisper model{f' {model}' if model else ''} on this machine",
            "looked in the cache of the Hugging Face hub; nothing is downloaded unasked",
            f"give --whisper-model FOLDER, or fetch one: hf download {repository(model or FETCHED_MODEL)}",
        )
    return None


class FasterWhisper:
    """A whisper model by CTranslate2: int8 on the CPU, float16 on CUDA, greedy fallback by beams instead of chance.

    Its own voice activity detection (silero) drops what is no speech before anything is recognised.
    """

    def __init__(self, model: str | None, language: str | None, device: str = "auto", download: bool = False) -> None:
        require("faster_whisper", "--asr faster-whisper", EXTRA)
        folder = find_folder(model, language, download) or _fetch(model or FETCHED_MODEL)
        device = torch_device(device, "faster-whisper")
        compute = "float16" if device == "cuda" else "int8"
        self._pipeline = _load(folder.resolve(), device, compute)
        self._language = language
        self._check(language)
        # A folder of the hub's cache is named by its commit; one of the user's is known by its content.
        label = f"{model or folder.parents[1].name} {folder.name[:12]}"
        if model is not None and model not in WHISPER_NAMES:
            label = f"{folder.name} {sha256(folder / 'model.bin')[:12]}"
        self.name = f"faster-whisper {version('faster-whisper')} {label} {compute} {language or 'any language'}"

    def __call__(self, samples: np.ndarray) -> str:
        """The text heard."""
        return "".join(segment.text for segment in self._hear(samples, self._language)).strip()

    def words(self, samples: np.ndarray, language: str | None = None) -> list[Piece]:
        """The words heard, with their times."""
        language = language or self._language
        self._check(language)
        segments = (
            [TimedWord(word.word, word.start, word.end, word.probability) for word in segment.words or []]
            for segment in self._hear(samples, language, word_timestamps=True)
        )
        return make_pieces(segments, len(samples) / SAMPLE_RATE)

    def detect_language(self, samples: np.ndarray) -> tuple[str, float]:
        """The language of the first 30 s and its probability; English at once where the model knows no other."""
        model = self._pipeline.model
        if not model.model.is_multilingual:
            return "en", 1.0
        language, probability, _ = model.detect_language(np.asarray(samples, np.float32))
        return str(language), float(probability)

    def _hear(self, samples: np.ndarray, language: str | None, **options: Any) -> list[Any]:
        if not np.any(samples):
            return []
        found, _ = self._pipeline.transcribe(
            np.asarray(samples, np.float32), language=language, batch_size=BATCH_SIZE, **options
        )
        return list(found)  # it computes while it is read, and forgets this recording only at the end

    def _check(self, language: str | None) -> None:
        check_language(language)
        if not self._pipeline.model.model.is_multilingual and language not in (None, "en"):
            raise only_english("this faster-whisper model", language)


@cache
def _load(folder: Path, device: str, compute: str) -> Any:
    package = require("faster_whisper", "--asr faster-whisper", EXTRA)
    try:
        return package.BatchedInferencePipeline(package.WhisperModel(str(folder), device=device, compute_type=compute))
    except Exception as error:  # tokenizers raises nothing narrower, CTranslate2 RuntimeError, ValueError, MemoryError
        raise UserError(
            f"faster-whisper cannot load {folder} on {device}",
            str(error)[:500],
            "fetch the model again, or use --asr whisper; on CUDA it needs cuBLAS and cuDNN, --device cpu does not",
        ) from error


def _fetch(model: str) -> Path:
    package = require("faster_whisper", "--asr faster-whisper", EXTRA)
    try:
        return Path(package.download_model(_ALIASES.get(model, model)))
    except Exception as error:  # what the hub raises differs by its version and transport
        if isinstance(error, OSError) and disk_full(error):
            raise
        raise UserError(
            f"cannot download the faster-whisper model {model}",
            f"https://huggingface.co/{repository(model)}: {str(error)[:300]}",
            "download that repository by other means and give its folder to --whisper-model, "
            "or use --asr pocketsphinx, which needs no network",
        ) from error
