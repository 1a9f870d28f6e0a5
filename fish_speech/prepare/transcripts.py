"""Transcripts beside recordings: texts, subtitles, what Whisper wrote, and metadata.csv.

For `name.wav` the first of these that holds text counts: name.lab (the form that training reads), name.txt, name.srt,
name.vtt, name.en.srt and name.en.vtt (any language code: yt-dlp writes it), name.json, and a line of metadata.csv in the
same folder or the one above.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..audio import AUDIO_SUFFIXES
from ..text.words import join
from ..timeline import Piece
from .metadata_csv import METADATA, Metadata
from .names import one_line
from .plain_text import Unusable, clean, read_text
from .subtitles import read_subtitles
from .whisper_json import read_whisper

__all__ = ["TRANSCRIPT_SUFFIXES", "Transcript", "Transcripts", "clean"]

TRANSCRIPT_SUFFIXES = (".lab", ".txt", ".srt", ".vtt", ".json")  # in the order of preference
_TEXTS, _SUBTITLES, _TIMED = (".lab", ".txt"), (".srt", ".vtt"), (".json", ".srt", ".vtt")
# yt-dlp's codes: en, en-US, zh-Hans, en-orig (what is spoken; other automatic ones are translated), en-j3PyPqV-e1s.
_LANGUAGE = re.compile(r"^(?P<stem>.+)\.(?P<language>[a-z]{2,3}(?:-[A-Za-z0-9_-]{1,20})?)$")
_NO_LANGUAGES = {"old", "bak", "new", "tmp", "raw"} | {suffix[1:] for suffix in AUDIO_SUFFIXES}


@dataclass(frozen=True)
class Transcript:
    """What is said in a recording, or why that is not known."""

    text: str | None  # all that is said, in one line, single-spaced; None if it is not known
    pieces: tuple[Piece, ...]  # the same with times, in order; () for text without times
    kind: str | None  # "lab", "txt", "srt", "vtt", "whisper-json", "metadata.csv"
    left_out: str | None  # why there is no text, one line "category: details"; None if there is one
    path: Path | None  # the file it came from
    speaker: str | None = None  # by metadata.csv, else None


@dataclass(frozen=True)
class _Beside:
    """The files of a folder that may be transcripts, by what they are named after."""

    named: dict[tuple[str, str], list[Path]]  # (stem, suffix in lower case)
    in_language: dict[tuple[str, str], list[Path]]  # the same for name.en.srt, by the stem without language


class Transcripts:
    """Reads the transcripts of recordings; lists each folder once, reads each metadata.csv once.

    `language` (a code: "en") chooses between subtitles in several languages; without it, several are ambiguous.
    """

    def __init__(self, language: str | None = None) -> None:
        self._language = language
        self._folders: dict[Path, _Beside] = {}
        self._metadata: dict[Path, Metadata | Unusable | None] = {}

    def read(self, recording: Path) -> Transcript:
        """Return what is said in `recording`. Suffixes match in any letter case.

        A text without times takes those of a timed file beside it that says the same words: Whisper writes both.
        If several files fail, the reason is that of the first.
        """
        failures: list[str] = []
        try:
            for path in self._candidates(recording, failures):
                try:
                    found = _read(path)
                except Unusable as error:
                    failures.append(str(error))
                else:
                    return found if found.pieces else self._with_times(found, recording)
            found_line = self._in_metadata(recording, failures)
        except OSError as error:
            return _nothing(f"unreadable transcript: cannot list the folder: {(error.strerror or str(error)).lower()}")
        if found_line is not None:
            return found_line
        told = [failure for failure in failures if not failure.startswith("no transcript")] or failures
        return _nothing(told[0] if told else "no transcript: no .lab, .txt, .srt, .vtt, .json or line of metadata.csv")

    def _candidates(self, recording: Path, failures: list[str]) -> Iterator[Path]:
        beside, stem = self._beside(recording.parent), _normal(recording.stem)
        for suffix in (*_TEXTS, *_SUBTITLES):
            # Two names may be one letter in two spellings (NFC, NFD): the recording's own comes first.
            yield from sorted(beside.named.get((stem, suffix), ()), key=lambda path: path.stem != recording.stem)
        subtitles = [path for suffix in _SUBTITLES for path in beside.in_language.get((stem, suffix), ())]
        yield from self._spoken_language(subtitles, failures)
        yield from beside.named.get((stem, ".json"), ())

    def _spoken_language(self, paths: list[Path], failures: list[str]) -> list[Path]:
        """Choose the subtitles in the language that is spoken; none if that cannot be told, and say why."""
        codes = {path: match["language"] for path in paths if (match := _LANGUAGE.match(_normal(path.stem)))}
        names = ", ".join(one_line(path.name) for path in codes)
        if codes and self._language is not None:
            wanted = self._language.lower().partition("-")[0]
            codes = {path: code for path, code in codes.items() if code.partition("-")[0] == wanted}
            if not codes:
                failures.append(f"no transcript: none in the language {wanted}: {names}")
        codes = {path: code for path, code in codes.items() if code.endswith("-orig")} or codes
        if len({code.partition("-")[0] for code in codes.values()}) > 1:
            failures.append(f"ambiguous transcript: several languages: {names}; keep the one that is spoken")
            return []
        return list(codes)

    def _with_times(self, found: Transcript, recording: Path) -> Transcript:
        beside, stem = self._beside(recording.parent), _normal(recording.stem)
        for suffix in _TIMED:
            for path in beside.named.get((stem, suffix), ()):
                try:
                    timed = _read(path)
                except Unusable:
                    continue
                if _letters(timed.text) == _letters(found.text):
                    return replace(found, pieces=timed.pieces)
        return found

    def _in_metadata(self, recording: Path, failures: list[str]) -> Transcript | None:
        recording = Path(os.path.abspath(recording))  # noqa: PTH100 (resolve would follow links to other folders)
        for folder in dict.fromkeys((recording.parent, recording.parent.parent)):
            try:
                metadata = self._metadata_of(folder)
                entry = metadata.find(recording) if metadata is not None else None
                if metadata is None or entry is None:
                    continue
                if entry.text:
                    return Transcript(entry.text, (), METADATA, None, metadata.path, entry.speaker)
                failures.append(f"empty transcript: {METADATA} line {entry.line} holds no text")
            except Unusable as error:
                failures.append(str(error))
        return None

    def _metadata_of(self, folder: Path) -> Metadata | None:
        if folder not in self._metadata:
            path = folder / METADATA
            try:
                self._metadata[folder] = Metadata(path) if path.is_file() else None
            except Unusable as error:
                self._metadata[folder] = error
        metadata = self._metadata[folder]
        if isinstance(metadata, Unusable):
            raise metadata
        return metadata

    def _beside(self, folder: Path) -> _Beside:
        if folder not in self._folders:
            paths = sorted(folder.iterdir())
            recordings = {_normal(path.stem) for path in paths if path.suffix.lower() in AUDIO_SUFFIXES}
            found = _Beside({}, {})
            for path in paths:
                stem, suffix = _normal(path.stem), path.suffix.lower()
                if suffix not in TRANSCRIPT_SUFFIXES:
                    continue
                found.named.setdefault((stem, suffix), []).append(path)
                match = _LANGUAGE.match(stem)
                if match and suffix in _SUBTITLES and stem not in recordings and match["language"] not in _NO_LANGUAGES:
                    found.in_language.setdefault((match["stem"], suffix), []).append(path)
            self._folders[folder] = found
        return self._folders[folder]


def _read(path: Path) -> Transcript:
    """Read one file. Raises Unusable if it holds no text."""
    name, suffix, content = one_line(path.name), path.suffix.lower(), read_text(path)
    pieces: tuple[Piece, ...] = ()
    if suffix in _TEXTS:
        text, kind = clean(content), suffix[1:]
    elif suffix in _SUBTITLES:
        pieces, kind = read_subtitles(content, name), suffix[1:]
        text = clean(join(piece.text for piece in pieces))
    else:
        (text, pieces), kind = read_whisper(content, name), "whisper-json"
    if not text:
        raise Unusable(f"empty transcript: {name} holds no text")
    return Transcript(text, pieces, kind, None, path)


def _nothing(reason: str) -> Transcript:
    return Transcript(None, (), None, reason, None)


def _letters(text: str | None) -> str:
    return "".join(filter(str.isalnum, text or "")).casefold()


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS hands out names in another form than people type
