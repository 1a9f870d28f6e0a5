"""Which recordings are to be encoded, and which of them together: batches of clips of like length."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..audio import AUDIO_SUFFIXES, MAX_CLIP_S, AudioError, duration_s, find_audio
from ..errors import UserError

MAX_PADDED_S = 480.0  # seconds of sound in a batch, padding included: 16 clips of 30 s
LONG_S = 30.0  # seconds; what is longer is harder to learn from: 10 to 30 s are best
_WINDOW = 128  # clips that are bucketed by length together, on average


class Clip(NamedTuple):
    """An audio file and how long its header says it is."""

    duration_s: float
    audio: Path

    @property
    def codes(self) -> Path:
        """Where its codes go."""
        return codes_of(self.audio)


def codes_of(audio: Path) -> Path:
    """Where the codes of a recording go."""
    return audio.with_suffix(".npy")


def find_clips(data: Path | None, filelist: Path | None) -> tuple[list[Clip], dict[Path, str]]:
    """List the clips by path, and the files that cannot be clips with the reasons. UserError if there is no audio."""
    if filelist is not None:
        paths = _read_filelist(filelist)
    else:
        assert data is not None
        if not data.exists():
            raise UserError(
                f"there is no folder {data}", "clips are read from it", "check the path, or prepare the data"
            )
        try:
            paths = find_audio(data) if data.is_dir() else [data]
        except AudioError as error:
            raise UserError(f"cannot search {data}", str(error), "make the folder readable") from None
    if not paths:
        raise UserError(
            f"no audio file in {filelist or data}",
            f"files with these suffixes count: {' '.join(sorted(AUDIO_SUFFIXES))}",
            f"python prepare_dataset.py --input recordings --output {data or 'training_data/my_voice'}",
        )
    failures: dict[Path, str] = {}
    owners: dict[str, Path] = {}
    for path in paths:
        owner = owners.setdefault(os.path.normcase(path.with_suffix(".npy")), path)
        if owner != path:
            failures[path] = f"same name as {owner.name}: both would write {owner.stem}.npy; rename one"
    candidates = [path for path in paths if path not in failures]
    clips = []
    with ThreadPoolExecutor(8) as pool:
        for path, found in zip(candidates, pool.map(_measure, candidates)):
            if isinstance(found, str):
                failures[path] = found
            elif found > MAX_CLIP_S:
                failures[path] = f"too long: {found:.0f} s, a clip has at most {MAX_CLIP_S:.0f} s; split the recording"
            else:
                clips.append(Clip(found, path))
    return clips, failures


def _measure(path: Path) -> float | str:
    try:
        return duration_s(path)
    except AudioError as error:
        return error.reason


def _read_filelist(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the file list {path}", str(error), "give a UTF-8 text file") from None
    names = sorted({line.split("|")[0].strip() for line in lines} - {""})
    return [Path(name) for name in names]


def plan_batches(clips: list[Clip], batch_size: int) -> list[tuple[Clip, ...]]:
    """Group clips of similar length, longest batches first; every clip is in one batch.

    Clips are bucketed within windows of about 128 neighbours, whose bounds depend on the names there alone: adding
    clips changes the batches around them and leaves all others as they were.
    """
    batches = []
    for window in _windows(clips):
        batch: list[Clip] = []
        for clip in sorted(window):
            if batch and (len(batch) == batch_size or (len(batch) + 1) * clip.duration_s > MAX_PADDED_S):
                batches.append(tuple(batch))
                batch = []
            batch.append(clip)
        batches.append(tuple(batch))
    return sorted(batches, key=lambda batch: -batch[-1].duration_s)


def _windows(clips: list[Clip]) -> Iterator[list[Clip]]:
    window: list[Clip] = []
    for clip in clips:
        starts = zlib.crc32(os.fsencode(clip.audio.name)) % _WINDOW == 0
        if window and (starts or clip.audio.parent != window[-1].audio.parent):
            yield window
            window = []
        window.append(clip)
    if window:
        yield window
