"""Transcripts beside recordings: `name.lab` or `name.txt`, one per recording."""

from __future__ import annotations

import codecs
import unicodedata
from pathlib import Path
from typing import NamedTuple

TRANSCRIPT_SUFFIXES = (".lab", ".txt")  # .lab first: it is the form that training reads


class Transcript(NamedTuple):
    """What is said in a recording, or why that is not known."""

    text: str | None
    left_out: str | None  # reason, None if there is a text
    path: Path | None  # the file it came from


class Transcripts:
    """Reads the transcripts beside recordings; lists each folder once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[tuple[str, str], list[Path]]] = {}

    def read(self, recording: Path) -> Transcript:
        """Return what is said in `recording`, in one line, single-spaced. Suffixes match in any letter case."""
        reason = "no transcript: no .lab or .txt of the same name beside the recording"
        beside = self._beside(recording.parent)
        for suffix in TRANSCRIPT_SUFFIXES:
            for path in beside.get((recording.stem, suffix), ()):
                try:
                    text = clean(_decode(path.read_bytes()))
                except OSError as error:
                    reason = f"unreadable transcript: {path.name}: {(error.strerror or str(error)).lower()}"
                except UnicodeDecodeError:
                    reason = f"unreadable transcript: {path.name} is not UTF-8 text"
                else:
                    if text:
                        return Transcript(text, None, path)
                    reason = f"empty transcript: {path.name} holds no text"
        return Transcript(None, reason, None)

    def _beside(self, folder: Path) -> dict[tuple[str, str], list[Path]]:
        """List the transcripts of a folder by (stem, suffix in lower case)."""
        if folder not in self._folders:
            found: dict[tuple[str, str], list[Path]] = {}
            for path in sorted(folder.iterdir()):
                if path.suffix.lower() in TRANSCRIPT_SUFFIXES:
                    found.setdefault((path.stem, path.suffix.lower()), []).append(path)
            self._folders[folder] = found
        return self._folders[folder]


def clean(text: str) -> str:
    """Make every run of white space and control characters one space, and strip the ends.

    A line break at the end would reach the model as a space (the packed data are not stripped again).
    """
    return " ".join("".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text).split())


def _decode(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # Windows' Notepad calls this "Unicode"
        return data.decode("utf-16")
    return data.decode("utf-8-sig")
