"""metadata.csv: one file for the texts, and perhaps the speakers, of a folder of recordings.

With a header line that names a column of files and one of texts, columns may be in any order, separated by | , ; or tab
(with | nothing is quoted, as in LJSpeech; with the others, quotes are as in any .csv). Without a header, only | separates:

- two columns are `file|text`;
- three columns are LJSpeech's `id|text|normalized text` if the last two say nearly the same in most lines; the normalized
  text counts. They are `file|speaker|text` if the second column holds labels (short, up to three words, without the
  punctuation of a sentence, no decimal number) and the third does not, or if labels of the second column come again and
  the third has at least twice as many different ones. Anything else is refused: a header line would tell.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import unicodedata
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from ..audio import AUDIO_SUFFIXES
from .names import one_line
from .plain_text import Unusable, clean, lines_of, read_text

METADATA = "metadata.csv"
MAX_BYTES = 100_000_000
MAX_FIELD = 20_000  # characters: twenty minutes of speech; more is an unclosed quote, or no table
HEADER_HINT = "add a first line such as file|speaker|text"

_FILES = ("file", "filename", "file_name", "audio_file", "audio", "audio_path", "path", "wav", "wav_filename", "id")
_TEXTS = ("normalized_text", "text", "transcript", "transcription", "sentence")
_SPEAKERS = ("speaker", "speaker_name", "speaker_id", "spk")
_SAMPLE = 2000  # lines that the kind of the columns is judged by
_SENTENCE_END = re.compile(r"[.!?…。！？,;:]\W*$")
_DECIMAL = re.compile(r"^-?\d+[.,]\d+$")

Row = list[str]


class Entry(NamedTuple):
    """What a line says of a recording."""

    text: str
    speaker: str | None
    line: int
    other_line: int | None = None  # of another line that says something else of the same recording


class Metadata:
    """The entries of one metadata.csv, by recording. Raises Unusable if it cannot be understood for certain."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folder = path.parent
        self._exact: dict[str, Entry] = {}  # as written: "wavs/x.wav"
        self._stems: dict[str, Entry] = {}  # without the suffix of audio: "wavs/x"
        self._counts: Counter[str] | None = None
        rows = _rows(read_text(path, MAX_BYTES))
        for (line, row), (file, speaker, text) in _assigned(rows):
            key = _key(row[file])
            if key is None:
                continue
            entry = Entry(clean(row[text]), (clean(row[speaker]) or None) if speaker is not None else None, line)
            _add(self._exact, key, entry)
            _add(self._stems, _without_suffix(key), entry)

    def find(self, recording: Path) -> Entry | None:
        """Return the entry of `recording`, which lies in the folder of the file or one below; None if there is none.

        Raises Unusable if lines contradict each other, or if a name without folder could mean several recordings.
        """
        inside = _normal(recording.relative_to(self._folder).as_posix())
        entry = self._exact.get(inside) or self._stems.get(_without_suffix(inside))
        if entry is None and "/" in inside:
            name = inside.rpartition("/")[2]
            entry = self._exact.get(name) or self._stems.get(_without_suffix(name))
            if entry is not None and self._recordings_below()[_without_suffix(name)] > 1:
                details = f"line {entry.line} names no folder, and several have a {one_line(name)}"
                raise Unusable(f"ambiguous transcript: {METADATA} {details}")
        if entry is not None and entry.other_line is not None:
            details = f"lines {entry.line} and {entry.other_line} say different things of {one_line(recording.name)}"
            raise Unusable(f"ambiguous transcript: {METADATA} {details}")
        return entry

    def _recordings_below(self) -> Counter[str]:
        """Count in how many folders beside the file there is a recording of each name. Listed once."""
        if self._counts is None:
            self._counts = Counter()
            for folder in self._folder.iterdir():
                with contextlib.suppress(OSError):  # a folder that we may not list
                    if folder.is_dir() and not folder.name.startswith("."):
                        audio = (path for path in folder.iterdir() if path.suffix.lower() in AUDIO_SUFFIXES)
                        self._counts.update({_normal(path.stem) for path in audio})
        return self._counts


def _rows(text: str) -> list[tuple[int, Row]]:
    """Split the table into (line number, cells), blank lines left out."""
    lines = lines_of(text)
    first = next((line for line in lines if line.strip()), "")
    separator = next((s for s in "|\t,;" if _header(first.split(s) if s == "|" else _quoted_cells(first, s))), "|")
    if separator == "|":
        rows = [(i, line.split("|")) for i, line in enumerate(lines, 1) if line.strip()]
    else:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        try:
            rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
        except csv.Error as error:
            raise _refused(f"line {reader.line_num}: {error}") from error
    if not rows:
        raise Unusable(f"empty transcript: {METADATA} holds no lines")
    for line, row in rows:
        if max(map(len, row)) > MAX_FIELD:
            raise _refused(f"line {line}: a field of more than {MAX_FIELD} characters")
    return rows


def _quoted_cells(line: str, separator: str) -> Row:
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def _header(cells: Row) -> tuple[int, int | None, int] | None:
    """Return the columns of file, speaker and text if `cells` name them."""
    names = [re.sub(r"[\s-]+", "_", cell.strip().casefold()) for cell in cells]

    def column(known: tuple[str, ...]) -> int | None:
        return next((names.index(name) for name in known if name in names), None)

    file, text = column(_FILES), column(_TEXTS)
    return None if file is None or text is None else (file, column(_SPEAKERS), text)


def _assigned(rows: list[tuple[int, Row]]) -> list[tuple[tuple[int, Row], tuple[int, int | None, int]]]:
    """Give each row the columns of its file, speaker and text."""
    header = _header(rows[0][1])
    if header:
        needed = max(column for column in header if column is not None) + 1
        short = next((line for line, row in rows if len(row) < needed), None)
        if short is not None:
            raise _refused(f"line {short} has fewer columns than the first line names")
        wide = next((line for line, row in rows if len(row) > len(rows[0][1])), None)
        if wide is not None:
            raise _refused(f"line {wide} has more columns than the first line names")
        return [(row, header) for row in rows[1:]]
    while all(len(row) > 2 and not row[-1].strip() for _, row in rows):
        rows = [(line, row[:-1]) for line, row in rows]
    width = len(rows[0][1])
    other = next((line for line, row in rows if len(row) != width), None)
    if width == 1:
        raise _refused(f"line {rows[0][0]} has no |, and no header line names the columns; {HEADER_HINT}")
    if other is not None:
        raise _refused(
            f"line {other} has another number of columns than line {rows[0][0]}, and there is no header line"
        )
    if width > 3:
        raise _refused(f"{width} columns and no header line; {HEADER_HINT}")
    if width == 2:
        return [(row, (0, None, 1)) for row in rows]
    sample = [row for _, row in rows[:: -(-len(rows) // _SAMPLE)]]
    if _say_the_same(sample):
        return [((line, row), (0, None, 2 if row[2].strip() else 1)) for line, row in rows]
    if _second_is_speaker(sample):
        return [(row, (0, 1, 2)) for row in rows]
    raise _refused(f"cannot tell which of the three columns are speaker and text; {HEADER_HINT}")


def _say_the_same(rows: list[Row]) -> bool:
    """Do columns two and three share six words in ten, in most lines? Normalizing changes numbers and the like."""
    filled = [row for row in rows if row[2].strip()]
    return sum(_shared_words(row[1], row[2]) >= 0.6 for row in filled) > len(filled) / 2


def _shared_words(a: str, b: str) -> float:
    words_a, words_b = (Counter(re.findall(r"\w+", text.casefold())) for text in (a, b))
    total = (words_a | words_b).total()
    return (words_a & words_b).total() / total if total else 0.0


def _second_is_speaker(rows: list[Row]) -> bool:
    second, third = [row[1].strip() for row in rows], [row[2].strip() for row in rows]
    if not all(map(_is_label, second)):
        return False
    if sum(map(_is_label, third)) <= len(third) / 2:
        return True
    labels, texts = len(set(second)), len(set(third))  # short commands: yes, no, stop
    return labels < len(rows) and texts >= 2 * labels


def _is_label(cell: str) -> bool:
    short = 0 < len(cell) <= 64 and len(cell.split()) <= 3
    return short and not _SENTENCE_END.search(cell) and not _DECIMAL.match(cell)


def _add(table: dict[str, Entry], key: str, entry: Entry) -> None:
    before = table.setdefault(key, entry)
    if (before.text, before.speaker) != (entry.text, entry.speaker) and before.other_line is None:
        table[key] = before._replace(other_line=entry.line)


def _key(cell: str) -> str | None:
    """Return a cell's file as a path below the folder of metadata.csv; None if it is none, or leaves that folder."""
    path = _normal(cell.strip()).replace("\\", "/")
    parts = [part for part in path.split("/") if part != "."]
    if not path or path.startswith("/") or ".." in parts or re.match(r"[A-Za-z]:", path):
        return None
    return "/".join(parts)


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and dot + suffix.lower() in AUDIO_SUFFIXES else name


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS hands out names in another form than people type


def _refused(details: str) -> Unusable:
    return Unusable(f"unusable transcript: {METADATA} {details}")
