"""What a recogniser hears in a recording: words with times, found window by window and kept for the next run.

Recognising takes far longer than all the rest, so what it gave is noted as it comes, in a file per recording, model
and language. A run that was stopped goes on from there, and other cuts of the same recording need no second hearing.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from ..audio import stream_audio
from ..log import progress
from ..recognition import Recognizer
from ..timeline import Piece, Span
from .cutting import cut

FOLDER = ".heard"  # in the output
SAMPLE_RATE = 16000  # Hz; what recognisers take


class Heard(NamedTuple):
    """What was recognised."""

    windows: list[list[Piece]]  # the words of each window, with times of the recording
    language: str  # asked for or detected


def hear(
    source: Path, windows: Sequence[Span], recognizer: Recognizer, output: Path, language: str | None = None
) -> Heard:
    """Recognise what is said in each window of a recording.

    `windows` are sorted stretches, each short enough for the recogniser; without `language` that of the first one is
    taken for all. Raises AudioError if the file cannot be read, OSError if the notes cannot be written.
    """
    notes = output / FOLDER / f"{_digest(source, recognizer.name, language)}.jsonl"
    notes.parent.mkdir(parents=True, exist_ok=True)
    with notes.open("a+", encoding="utf-8", newline="\n") as file:
        known, noted = _read(file)
        missing = [window for window in windows if window not in known]
        language = language or noted
        for window, samples in _sounds(source, missing):
            if language is None:
                language, _ = recognizer.detect_language(samples)
            words = [_later(word, window.start_s) for word in recognizer.words(samples, language)]
            file.write(json.dumps([*window, language, words], ensure_ascii=False) + "\n")
            file.flush()
            known[window] = words
    return Heard([known[window] for window in windows], language or "en")


def _sounds(source: Path, windows: Sequence[Span]) -> Iterator[tuple[Span, np.ndarray]]:
    if not windows:
        return
    with stream_audio(source, SAMPLE_RATE, windows[-1].end_s + 1) as blocks:
        sounds: Iterable[tuple[Span, np.ndarray]] = zip(windows, cut(blocks, SAMPLE_RATE, windows))
        if len(windows) > 1 and multiprocessing.parent_process() is None:  # workers are silent
            sounds = progress(sounds, f"listen to {source.name[:40]!a}", total=len(windows), unit="window")
        yield from sounds


def _later(word: Piece, seconds: float) -> Piece:
    return word._replace(start_s=round(word.start_s + seconds, 3), end_s=round(word.end_s + seconds, 3))


def _digest(source: Path, name: str, language: str | None) -> str:
    status = source.stat()
    what = repr((str(source), status.st_size, status.st_mtime_ns, name, language))
    return hashlib.sha256(what.encode("utf-8", "backslashreplace")).hexdigest()[:24]


def _read(file: IO[str]) -> tuple[dict[Span, list[Piece]], str | None]:
    """Read the notes, and the language of the first; a line that was torn when a run was killed is left aside."""
    file.seek(0)
    text = file.read()
    if text and not text.endswith("\n"):
        file.write("\n")
    known: dict[Span, list[Piece]] = {}
    language = None
    for line in text.split("\n"):
        try:
            start, end, spoken, words = json.loads(line)
            known[Span(start, end)] = [Piece(*word) for word in words]
            language = language or str(spoken)
        except (ValueError, TypeError):
            continue
    return known, language
