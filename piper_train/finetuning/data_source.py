"""Where a project's clips come from: a folder of the user's, a teacher, or a test data set, and what kind it is."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fish_speech.errors import UserError
from fish_speech.finetuning.request import is_prepared

from .. import quick_start, teach
from ..data.rows import METADATA, Row, Rows, read_rows
from .places import Places
from .starts import read_record

Kind = Literal["clips", "recordings", "teacher", "quick start"]
_MANY = 1 << 16  # speakers: as many as there are


@dataclass(frozen=True)
class Source:
    """A data set, there or to be made. `csv_path` is what the stages read: metadata.csv, or a prepared folder."""

    kind: Kind
    folder: Path  # that csv_path lies in, or is
    csv_path: Path
    audio_dir: Path | None = None

    @classmethod
    def at(cls, folder: Path, kind: Kind = "clips") -> Source:
        """The data set in a folder: metadata.csv with wavs/, or else SPEAKER/clip.wav with clip.lab."""
        csv_path = folder / METADATA
        if csv_path.is_file() or kind in ("teacher", "quick start"):
            wavs = folder / teach.WAVS
            return cls(kind, folder, csv_path, wavs if wavs.is_dir() or kind != "clips" else folder)
        return cls(kind, folder, folder)

    @property
    def is_there(self) -> bool:
        """Whether it can be read now; of one that is to be made, perhaps an earlier state."""
        if self.csv_path.suffix == ".csv":
            return self.csv_path.is_file()
        return self.folder.is_dir() and is_prepared(self.folder)

    def rows(self, num_speakers: int | None = None) -> Rows:
        """What is in it; None lets a prepared folder have any number of speakers, a metadata.csv one."""
        many = _MANY if self.csv_path.suffix != ".csv" else 1
        return read_rows(self.csv_path, self.audio_dir, num_speakers or many)

    def speakers(self) -> int:
        """How many there are, where the data set itself says it: 1 for any metadata.csv but of a test data set."""
        if self.csv_path.suffix == ".csv":
            made = quick_start.recorded(self.folder) or {}
            count = made.get("speakers", 1)
            return count if isinstance(count, int) else 1
        return max(1, len(self.rows().speakers)) if self.is_there else 1


def is_data_set(folder: Path) -> bool:
    """Whether a folder can be trained on as it is."""
    return (folder / METADATA).is_file() or is_prepared(folder)


def source_of(options: argparse.Namespace, places: Places) -> Source:
    """The data of a request; raises UserError for a folder that cannot be it."""
    if options.teacher is not None:
        return Source.at(places.data, "teacher")
    if options.data_dir is not None:
        return _of_folder(options, places)
    begun = read_record(places)
    if isinstance(begun.get("data"), str) and begun["data"]:  # a project stays with its data
        return Source.at(Path(begun["data"]), "quick start" if begun.get("kind") == "quick start" else "clips")
    if quick_start.recorded(places.data) is not None:
        return Source.at(places.data, "quick start")
    if places.data.is_dir() and is_data_set(places.data):
        return Source.at(places.data)
    return Source.at(places.data, "quick start")


def _of_folder(options: argparse.Namespace, places: Places) -> Source:
    folder: Path = options.data_dir
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}",
            "the data set is read from there",
            "check --data-dir, or leave it out to try training on a test data set",
        )
    if not options.prepare_data and is_data_set(folder):
        return Source.at(folder)
    output = places.data.resolve()
    if output.is_relative_to(folder.resolve()) or folder.resolve().is_relative_to(output):
        raise UserError(
            f"the recordings in {folder} lie where the prepared data would go",
            f"the data set of project {places.project} is written to {places.data}, and recordings stay as they are",
            "move them to a folder of their own, recordings/NAME say, or choose another --project",
        )
    return Source("recordings", places.data, places.data)


def first_rows(source: Source, most: int = 200) -> list[Row]:
    """Some rows of a data set that is there; [] if it is not, or cannot be read yet."""
    try:
        return source.rows(source.speakers()).rows[:most] if source.is_there else []
    except UserError:  # the step that needs them says so
        return []
