"""What a training does not need: recognisers, measures, Ray, downloads. What is missing is no fault; what is broken is."""

from __future__ import annotations

import datetime
import importlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from ..extras import how_to_install, missing
from .findings import Finding, describe

_STALE_DAYS = 180  # of yt-dlp: sites change, and old versions fail one after the other


@dataclass(frozen=True)
class Part:
    """An optional package: its module, its name on PyPI, what it is for, and the extra that brings it."""

    module: str
    package: str
    purpose: str
    extra: str


PARTS = (
    Part("faster_whisper", "faster-whisper", "faster transcripts, --asr faster-whisper", "faster-whisper"),
    Part("resemblyzer", "resemblyzer", "speaker similarity in evaluation", "eval"),
    Part("pocketsphinx", "pocketsphinx", "English transcripts without any download, and word error rates", "eval"),
    Part("jiwer", "jiwer", "word and character error rates", "eval"),
    Part("speechmos", "speechmos", "estimated sound quality (DNSMOS)", "eval"),
    Part("fastapi", "fastapi", "the server, python -m fish_speech.serve", "serve"),
    Part("uvicorn", "uvicorn", "the server, python -m fish_speech.serve", "serve"),
    Part("ray", "ray", "preparing and extracting on several machines, --runner ray", "ray"),
)


def look_at_part(part: Part) -> Iterator[Finding]:
    """Import one optional package."""
    if missing(part.module):
        yield Finding(part.package, "note", f"not installed; for {part.purpose}", how_to_install(part.extra))
        return
    try:
        if part.module == "resemblyzer":
            from ..evaluation.similarity import import_voice_detector

            import_voice_detector()
        importlib.import_module(part.module)
        version = metadata.version(part.package)
    except (Exception, SystemExit) as error:
        fix = f"pip install --force-reinstall {part.package}, or pip uninstall {part.package} to do without it"
        yield Finding(part.package, "wrong", f"installed, but cannot be imported: {describe(error)}", fix)
        return
    yield Finding(part.package, "good", f"{version}; for {part.purpose}")


def look_at_whisper() -> Iterator[Finding]:
    """Weights of openai-whisper in its cache, compared with the hashes that were published."""
    from ..recognition.whisper_weights import FETCHED_MODEL, WHISPER_NAMES, check_published, whisper_cache

    cache = whisper_cache()
    found = sorted(path for path in cache.glob("*.pt") if path.stem in WHISPER_NAMES)
    if not found:
        fix = f'--auto-transcribe fetches {FETCHED_MODEL} (484 MB) by itself; by hand: python -c "import whisper; '
        fix += f"whisper.load_model('{FETCHED_MODEL}')\""
        yield Finding("whisper weights", "note", f"none in {cache}; for transcripts in any language", fix)
    for path in found:
        check_published(path, path.stem)
        yield Finding("whisper weights", "good", f"{path}, {path.stat().st_size / 1e6:.0f} MB, as published")


def look_at_faster_whisper_weights() -> Iterator[Finding]:
    """Converted models in the hub's cache."""
    from ..recognition.faster import faster_weights, repository
    from ..recognition.whisper_weights import FETCHED_MODEL

    if missing("faster_whisper"):
        return  # look_at_part says so
    folder = faster_weights(language="en")
    if folder is None:
        fix = f"hf download {repository(FETCHED_MODEL)}"
        yield Finding("faster-whisper weights", "note", "none in the cache of the Hugging Face hub", fix)
    else:
        yield Finding("faster-whisper weights", "good", str(folder))


def look_at_downloads(today: datetime.date | None = None) -> Iterator[Finding]:
    """How old yt-dlp is, and the JavaScript runtime that YouTube asks for. That yt-dlp is there, packages.py checks."""
    from ..prepare.download.youtube import RUNTIME_VARIABLE, _has_solver, _is_usable, js_runtimes

    install = 'pip install --upgrade "yt-dlp[default,deno]"'
    released = re.match(r"(\d{4})\.(\d{1,2})\.(\d{1,2})", metadata.version("yt-dlp"))
    if released:
        age = ((today or datetime.date.today()) - datetime.date(*map(int, released.groups()))).days
        found = f"yt-dlp is of {released[0]}"
        if age > _STALE_DAYS:
            yield Finding("download of recordings", "note", f"{found}, {age} days old: sites change", install)
        else:
            yield Finding("download of recordings", "good", found)
    runtimes = list(js_runtimes())
    if not any(_is_usable(name) for name in runtimes):
        asked = f" ({RUNTIME_VARIABLE} is set)" if os.environ.get(RUNTIME_VARIABLE) else ""
        found = f"{', '.join(runtimes)} is missing or too old{asked}; for recordings from YouTube alone"
        yield Finding("deno", "note", found, install)
    elif not _has_solver():
        yield Finding("deno", "note", "there, but yt-dlp-ejs is missing; for recordings from YouTube alone", install)
    else:
        yield Finding("deno", "good", f"{', '.join(runtimes)} and yt-dlp-ejs; for recordings from YouTube")
