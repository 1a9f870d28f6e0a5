"""The rows of a data set: which recording, which speaker, which text.

A data set is a metadata.csv with its recordings, or a folder that prepare_dataset.py made (SPEAKER/clip.wav with
clip.lab beside it). In metadata.csv `|` separates and nothing is quoted, so a stray quote swallows no lines; there is
no header. The columns are `file|text`, `file|speaker|text` where there are several speakers, and with phonemes given as
ids one more column of numbers at the end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fish_speech.audio import AUDIO_SUFFIXES, AudioError, find_audio
from fish_speech.errors import UserError
from fish_speech.prepare.plain_text import Unusable, clean, read_text

from .left_out import LeftOut

METADATA = "metadata.csv"
LARGEST_METADATA = 500_000_000  # bytes
LONGEST_TEXT = 20_000  # characters of a row: twenty minutes of speech
_LARGEST_TRANSCRIPT = 200_000  # bytes of a .lab
_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")  # tried behind a name that has none, in this order


class Row(NamedTuple):
    """One clip as the data set names it."""

    number: int  # of the line from 1; of the recording in a prepared folder
    name: str  # of the recording inside its folder, with `/`
    audio: Path
    speaker: str | None  # None in a data set of one speaker
    text: str
    ids: tuple[int, ...] | None = None  # where the data set gives phonemes as ids

    @property
    def where(self) -> str:
        """What a message calls it."""
        return f"{self.name} (row {self.number})"


class Rows(NamedTuple):
    """The usable rows, what was left out, and the speakers by their first appearance."""

    rows: list[Row]
    left_out: LeftOut
    speakers: list[str]  # [] if there is one speaker
    hints: list[str]  # what a person may have meant otherwise, a line each


def read_rows(
    csv_path: Path,
    audio_dir: Path | None = None,
    num_speakers: int = 1,
    dataset_type: str = "text",
) -> Rows:
    """List the rows of a metadata.csv, of a folder with one, or of a folder of prepare_dataset.py.

    Recordings are looked up, not read. Raises UserError if there is no data set, or if it has more speakers than
    `num_speakers`.
    """
    csv_path = Path(csv_path)
    if csv_path.is_dir() and (csv_path / METADATA).is_file():
        csv_path = csv_path / METADATA
    if csv_path.is_dir():
        if audio_dir is not None:
            raise UserError(
                "audio_dir has no effect",
                f"{csv_path} is a prepared data set, whose recordings lie in it",
                "leave it out",
            )
        found = _rows_of_folder(csv_path)
    else:
        found = _rows_of_csv(csv_path, audio_dir, num_speakers > 1, dataset_type == "phoneme_ids")
    return _checked_speakers(found, csv_path, num_speakers)


def _rows_of_csv(csv_path: Path, audio_dir: Path | None, with_speakers: bool, with_ids: bool) -> Rows:
    left_out, rows = LeftOut(), []
    folders = [Path(audio_dir)] if audio_dir is not None else [csv_path.parent, csv_path.parent / "wavs"]
    first_rows: dict[str, int] = {}
    speakers: dict[str, None] = {}
    second_columns: set[str] = set()
    for number, line in enumerate(_lines(csv_path), 1):
        if not line.strip():
            continue
        cells = [clean(cell) for cell in line.split("|")]
        row = _row(number, cells, folders, with_speakers, with_ids)
        if with_speakers and len(cells) > 2 and cells[1]:  # of unusable rows too: ids do not change with a missing file
            speakers.setdefault(cells[1], None)
        if not isinstance(row, Row):
            left_out.add(row.reason, row.name, row.details)
        elif (first := first_rows.setdefault(os.path.normcase(row.audio), number)) != number:
            left_out.add("the same recording a second time", row.where, f"first in row {first}")
        else:
            rows.append(row)
            if len(cells) > 2 and not with_speakers and not with_ids:
                second_columns.add(cells[1])
    hints = []
    if second_columns and len(rows) >= 4 * len(second_columns) and max(map(len, second_columns)) <= 64:
        hints.append(
            f"the second of three columns has {len(second_columns)} different values in {len(rows)} rows: if these are "
            f"speakers, say --model.num_speakers {max(2, len(second_columns))}"
        )
    return Rows(rows, left_out, list(speakers), hints)


class _NoRow(NamedTuple):
    reason: str
    name: str
    details: str = ""


def _row(number: int, cells: list[str], folders: Sequence[Path], with_speakers: bool, with_ids: bool) -> Row | _NoRow:
    """Make a row of the cells of a line, or say why it is none."""
    columns = ["file", *(["speaker"] if with_speakers else []), "text", *(["ids"] if with_ids else [])]
    name, where = _unquoted(cells[0]).replace("\\", "/"), f"row {number}"
    if len(cells) < len(columns) or not name:
        return _NoRow(f"not of the form {'|'.join(columns)}", where, "|".join(cells)[:40])
    if with_speakers and not cells[1]:
        return _NoRow("no speaker", where)
    if not _is_inside(name):
        return _NoRow("the file name leaves the folder of the recordings", where, name)
    audio = _find(folders, name)
    if audio is None:
        return _NoRow("no such file", f"{name} ({where})")
    row = Row(number, name, audio, cells[1] if with_speakers else None, cells[-2 if with_ids else -1])
    if with_ids:
        ids = _ids(cells[-1])
        return _NoRow(ids, row.where) if isinstance(ids, str) else row._replace(ids=ids)
    reason = _bad_text(row.text)
    return _NoRow(reason, row.where) if reason else row


def _lines(csv_path: Path) -> Iterator[str]:
    """Yield the lines of the file, blank ones too. Raises UserError."""
    if not csv_path.exists():
        raise UserError(
            f"there is no {csv_path}",
            "the data set is a metadata.csv with lines file|text, or a folder that prepare_dataset.py made",
            "check --data.csv_path; absolute paths are safest",
        )
    try:
        size = csv_path.stat().st_size
        if size > LARGEST_METADATA:
            raise Unusable(f"it has {size / 1e6:.0f} MB; at most {LARGEST_METADATA / 1e6:.0f} make sense")
        text = read_text(csv_path, size)  # Python makes room for the limit, whatever the file has
    except Unusable as error:
        raise UserError(f"cannot read {csv_path}", str(error), "save it as UTF-8 text with lines file|text") from None
    start = 0  # one by one: a list of all lines could take ten times the room of the text
    for line_break in re.finditer(r"\r\n?|\n", text):
        yield text[start : line_break.start()]
        start = line_break.end()
    yield text[start:]


def _unquoted(name: str) -> str:
    """A file name in quotes is one that some spreadsheet wrote."""
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] == '"' else name


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return not (name.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", name))


def _find(folders: Sequence[Path], name: str) -> Path | None:
    for folder in folders:
        for suffix in ("", *_SUFFIXES):
            path = folder / f"{name}{suffix}"
            try:
                if path.is_file():
                    return path
            except (OSError, ValueError):  # a name that no file can have
                return None
    return None


def _bad_text(text: str) -> str | None:
    if not text:
        return "empty text"
    return f"a text of more than {LONGEST_TEXT} characters" if len(text) > LONGEST_TEXT else None


def _ids(cell: str) -> tuple[int, ...] | str:
    """The ids in a cell, or why there are none."""
    parts = cell.split()
    if not parts:
        return "no phoneme ids"
    if not all(re.fullmatch(r"[0-9]{1,6}", part) for part in parts):
        return "phoneme ids that are no whole numbers"
    return tuple(int(part) for part in parts)


def _rows_of_folder(folder: Path) -> Rows:
    """The clips of a prepared data set, each with the .lab (or .txt) beside it; a folder is a speaker."""
    left_out, rows = LeftOut(), []
    speakers: dict[str, None] = {}
    try:
        recordings = find_audio(folder)
    except AudioError as error:
        raise UserError(f"cannot search {folder}", str(error), "make the folder readable") from None
    for number, audio in enumerate(recordings, 1):
        inside = audio.relative_to(folder)
        name, speaker = inside.as_posix(), inside.parts[0] if len(inside.parts) > 1 else folder.resolve().name
        if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
            left_out.add("a file name that is not UTF-8", name)  # a speaker's goes into config.json
            continue
        speakers.setdefault(speaker, None)
        transcript = next((path for path in map(audio.with_suffix, (".lab", ".txt")) if path.is_file()), None)
        if transcript is None:
            left_out.add("no transcript (.lab)", name)
            continue
        try:
            text = _words(clean(read_text(transcript, _LARGEST_TRANSCRIPT)))
        except Unusable as error:
            left_out.add(str(error).split(":")[0], name, str(error))
            continue
        if reason := _bad_text(text):
            left_out.add(reason, name)
            continue
        rows.append(Row(number, name, audio, speaker, text))
    if not recordings:
        raise UserError(
            f"{folder} is no data set",
            f"there is no {METADATA} in it and no recording below it ({' '.join(sorted(AUDIO_SUFFIXES))})",
            f"python prepare_dataset.py --input recordings --output {folder}",
        )
    return Rows(rows, left_out, list(speakers), [])


def _words(text: str) -> str:
    """Without "(laughing)" and the like, which a set made for S1 may have and nobody speaks."""
    if not any(bracket in text for bracket in "(（"):
        return text
    from fish_speech.text.markers import without_markers  # late: its package loads a tokenizer

    return without_markers(text)


def _checked_speakers(found: Rows, csv_path: Path, num_speakers: int) -> Rows:
    """Compare the speakers with what the model has; a data set of one is one without names."""
    count = len(found.speakers)
    if count > num_speakers:
        listed = ", ".join(found.speakers[:5]) + (", ..." if count > 5 else "")
        raise UserError(
            f"{csv_path} has {count} speakers, but the voice has {num_speakers}",
            f"the speakers are {listed}",
            f"say --model.num_speakers {count}, or leave speakers out of the data set",
        )
    if num_speakers == 1:
        return found._replace(rows=[row._replace(speaker=None) for row in found.rows], speakers=[])
    if count < num_speakers:
        found.hints.append(
            f"the voice has {num_speakers} speakers, the data set only {count}: {num_speakers - count}"
            " will not learn to speak"
        )
    return found
