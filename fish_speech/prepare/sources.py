"""Recordings to prepare: which files, and whose voice each is."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..audio import AudioError, find_audio
from ..errors import UserError
from .download import Download
from .metadata_csv import METADATA
from .names import NameBook, collision_key, one_line, safe_name

log = logging.getLogger(__name__)

_SOUND_FOLDERS = ("wavs", "wav", "audio", "clips")  # beside metadata.csv, as LJSpeech has it


@dataclass(frozen=True)
class Source:
    """A recording. `speaker` is the name of a folder in the output."""

    path: Path  # absolute
    speaker: str
    url: str | None = None  # where it was fetched


def find_sources(
    inputs: Sequence[str],
    output: Path,
    speaker: str | None,
    known: Iterable[str] = (),
    fetched: Iterable[Download] = (),
) -> list[Source]:
    """List the recordings of all inputs, sorted by path; each file once.

    A recording's speaker is `speaker`, else the first folder below the input that holds it, else the input folder
    itself; of what was `fetched`, who put it there. `known` are speakers that the output has: one that differs in
    letter case alone is the same speaker.
    Raises UserError with every input that is missing, empty, or entangled with the output.
    """
    if speaker is not None and not safe_name(speaker, fallback=""):
        raise UserError(
            f"--speaker {one_line(speaker)!r} cannot name a folder", "it has no letter or digit", "use --speaker anna"
        )
    fetched = list(fetched)
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
    urls = {item.path: item.url for item in fetched if item.path is not None}
    for item in fetched:
        if item.path is not None:
            voices.setdefault(item.path, speaker if speaker is not None else item.uploader or "speaker")
    folders = speaker_folders(sorted(set(voices.values())), known)
    return [Source(path, folders[voices[path]], urls.get(path)) for path in sorted(voices)]


def _recordings(text: str, output: Path) -> list[tuple[Path, str]]:
    """Return (absolute path, speaker by folder) of each recording of one input; ValueError says what is wrong."""
    shown = one_line(text)
    path = Path(os.path.abspath(text))  # noqa: PTH100 - resolve() would follow links and change speakers' names
    try:
        path.stat()
    except FileNotFoundError:
        raise ValueError(f"{shown}: there is no such file or folder") from None
    except OSError as error:  # a name that is too long, a link to itself, a folder that may not be entered
        raise ValueError(f"{shown}: {(error.strerror or str(error)).lower()}") from None
    real, target = _real(path), _real(output)
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
        if target in _real(recording).parents:
            raise ValueError(f"{shown}: a link in it leads into the output folder: {one_line(str(recording))}")
    return [(file, _voice(file, path)) for file in found]


def _voice(file: Path, folder: Path) -> str:
    """Whose voice a file below `folder` is, by the folders: the first one's; not `wavs` beside a metadata.csv."""
    first = file.relative_to(folder).parts[0]
    listed = first.lower() in _SOUND_FOLDERS and (folder / METADATA).is_file()
    return folder.name if first == file.name or listed else first


def _real(path: Path) -> Path:
    """Where a path leads; of a link that leads to itself, the link. Path.resolve would raise RuntimeError there."""
    return Path(os.path.realpath(path))


def speaker_folders(voices: list[str], known: Iterable[str]) -> dict[str, str]:
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
