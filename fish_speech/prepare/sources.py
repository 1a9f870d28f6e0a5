"""Recordings to prepare: which files, and whose voice each is."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..audio import AudioError, find_audio
from ..errors import UserError
from .names import NameBook, collision_key, one_line, safe_name

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A recording. `speaker` is the name of a folder in the output."""

    path: Path  # absolute
    speaker: str


def find_sources(inputs: Sequence[str], output: Path, speaker: str | None, known: Iterable[str] = ()) -> list[Source]:
    """List the recordings of all inputs, sorted by path; each file once.

    A recording's speaker is `speaker`, else the first folder below the input that holds it, else the input folder
    itself. `known` are speakers that the output has: one that differs in letter case alone is the same speaker.
    Raises UserError with every input that is missing, empty, or entangled with the output.
    """
    if speaker is not None and not safe_name(speaker, fallback=""):
        raise UserError(
            f"--speaker {one_line(speaker)!r} cannot name a folder", "it has no letter or digit", "use --speaker anna"
        )
    voices: dict[Path, str] = {}
    problems = []
    for text in inputs:
        try:
            for path, voice in _recordings(text, output):
                voices.setdefault(path, speaker if speaker is not None else voice)
        except ValueError as problem:
            problems.append(str(problem))
    if problems:
        raise UserError(
            f"{len(problems)} of {len(inputs)} inputs cannot be used",
            "; ".join(problems),
            "python prepare_dataset.py --input recordings --output training_data/my_voice",
        )
    folders = _speaker_folders(sorted(set(voices.values())), known)
    return [Source(path, folders[voices[path]]) for path in sorted(voices)]


def _recordings(text: str, output: Path) -> list[tuple[Path, str]]:
    """Return (absolute path, speaker by folder) of each recording of one input; ValueError says what is wrong."""
    shown = one_line(text)
    if re.match(r"[a-z]+://", text, re.IGNORECASE):
        raise ValueError(f"{shown}: this version reads folders and files, not addresses")
    path = Path(os.path.abspath(text))  # noqa: PTH100 - resolve() would follow links and change speakers' names
    if not path.exists():
        raise ValueError(f"{shown}: there is no such file or folder")
    real, target = path.resolve(), output.resolve()
    if real == target or target in real.parents or (path.is_dir() and real in target.parents):
        raise ValueError(f"{shown}: lies in the output folder or around it, and input folders are never written to")
    if not path.is_dir():
        return [(path, path.parent.name)]
    try:
        found = find_audio(path)
    except AudioError as error:
        raise ValueError(one_line(str(error))) from None
    if not found:
        raise ValueError(f"{shown}: no audio file in it")
    for recording in found:
        if target in recording.resolve().parents:
            raise ValueError(f"{shown}: a link in it leads into the output folder: {one_line(str(recording))}")
    return [(file, parts[0] if len(parts := file.relative_to(path).parts) > 1 else path.name) for file in found]


def _speaker_folders(voices: list[str], known: Iterable[str]) -> dict[str, str]:
    """Give each voice its own folder name, the one it has in the output if it is there already."""
    exact = set(known)
    spelled = {collision_key(name): name for name in sorted(exact, reverse=True)}
    book, folders = NameBook(), {}
    for voice in voices:
        name = safe_name(voice, fallback="speaker")
        folders[voice] = book.take(name if name in exact else spelled.get(collision_key(name), name))
        if folders[voice] != voice:
            log.info("speaker %s is stored as %s", one_line(voice), folders[voice])
    return folders
