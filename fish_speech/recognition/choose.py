"""Which recogniser is taken, said before any long work; and the recogniser itself, loaded once per process."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..extras import how_to_install, missing, require
from .recognizer import Recognizer, resample

ASR_CHOICES = ("auto", "whisper", "faster-whisper", "pocketsphinx")


def choose_asr(
    request: str = "auto", whisper_model: str | None = None, language: str | None = None, download: bool = False
) -> str:
    """Return one of ASR_CHOICES but auto for `request`; UserError if what is asked for is not there.

    auto takes whisper if its weights are here (with `download`: if its package is), else pocketsphinx, for English.
    Nothing heavy is imported, nothing downloaded, and no weights are read: a broken file shows when it is loaded.
    """
    if request not in ASR_CHOICES:
        raise UserError(f"unknown recogniser {request!r}", f"known: {', '.join(ASR_CHOICES)}", "use --asr auto")
    if request == "auto" and whisper_model:
        request = "faster-whisper" if Path(whisper_model).is_dir() else "whisper"
    if request == "faster-whisper":
        from .faster import EXTRA, find_folder

        if missing("faster_whisper"):
            require("faster_whisper", "--asr faster-whisper", EXTRA)  # says how to get it
        find_folder(whisper_model, language, download)
        return request
    if request == "whisper" or (request == "auto" and _whisper_is_there(language, download)):
        _check_whisper(whisper_model, language, download)
        return "whisper"
    if whisper_model:
        raise UserError("--whisper-model has no effect", "--asr is pocketsphinx", "drop one of the two")
    _check_pocketsphinx(request, language)
    return "pocketsphinx"


def load_recognizer(
    asr: str = "auto",
    whisper_model: str | None = None,
    language: str | None = None,
    device: str = "auto",
    download: bool = False,
) -> Recognizer:
    """Load a recogniser, once per process and request. `language` None: whisper detects it, pocketsphinx is English.

    `download` lets a named whisper model be fetched; several processes fetch it once. `device` is that of whisper.
    """
    return _load(asr, whisper_model, language, device, download)


@cache
def _load(asr: str, whisper_model: str | None, language: str | None, device: str, download: bool) -> Recognizer:
    chosen = choose_asr(asr, whisper_model, language, download)
    if chosen == "whisper":
        from .openai_whisper import Whisper

        return Whisper(whisper_model, language, device, download)
    if chosen == "faster-whisper":
        from .faster import FasterWhisper

        return FasterWhisper(whisper_model, language, device, download)
    from .sphinx import PocketSphinx

    return PocketSphinx()


def transcribe(
    samples: np.ndarray,
    sample_rate: int,
    asr: str = "auto",
    whisper_model: str | None = None,
    language: str | None = "en",
) -> str:
    """Write down what is said in mono float (samples,). About 0.2 s per second of sound with pocketsphinx."""
    return load_recognizer(asr, whisper_model, language)(resample(samples, sample_rate))


def _whisper_is_there(language: str | None, download: bool) -> bool:
    from .whisper_weights import whisper_weights

    return not missing("whisper") and (download or whisper_weights(None, language) is not None)


def _check_whisper(whisper_model: str | None, language: str | None, download: bool) -> None:
    from .openai_whisper import another_whisper
    from .whisper_weights import INSTALL, check_name, find_weights, is_path

    if missing("whisper"):
        require("whisper", "--asr whisper", fix=INSTALL)  # says how to get it
    if download and not (whisper_model and is_path(whisper_model)):
        check_name(whisper_model, language)
    else:
        find_weights(whisper_model, language)
    try:
        metadata.version("openai-whisper")
    except metadata.PackageNotFoundError:
        raise another_whisper() from None


def _check_pocketsphinx(request: str, language: str | None) -> None:
    if language != "en" and not (language is None and request == "pocketsphinx"):
        only = "pocketsphinx brings an English model only"
        raise UserError(
            f"no speech recogniser for language {language!r}"
            if language
            else "no recogniser detects the language here",
            f"{only}, and there are no whisper weights on this machine" if request == "auto" else only,
            "use --asr whisper with its weights downloaded, or --language en",
        )
    if missing("pocketsphinx"):
        raise UserError("there is no speech recogniser", "the package pocketsphinx is missing", how_to_install("eval"))
