"""Texts that a person corrected in a clip's .lab. They are known by being other than what was written there, and stay."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..files import write_text
from .rate import characters_per_s
from .rows import Key, Row

if TYPE_CHECKING:
    from .transcripts import Transcript

log = logging.getLogger(__name__)


LOST = "lost-corrections.jsonl"
_BACKUP = ".corrections.jsonl"
BY_HAND = "by hand"  # where such a text comes from, in the manifest
_SAME_S = 0.01  # of a segment's times: the same words are spoken in it


class Correction(NamedTuple):
    """What a person wrote into a .lab."""

    start_s: float  # of the segment that the clip was, then
    end_s: float
    ours: str  # what was written there before
    text: str

    def counts_for(self, row: Row, lab: Path, transcript: Path | None) -> bool:
        """Whether it is to stay instead of `row["text"]`, which comes from the file `transcript`, if from any."""
        same = abs(row["start_s"] - self.start_s) < _SAME_S and abs(row["end_s"] - self.end_s) < _SAME_S
        return same and self.text != row["text"] and (row["text"] == self.ours or _is_newer(lab, transcript))


def find_corrections(root: Path, rows: Iterable[Row]) -> dict[str, Correction]:
    """Return the corrections of clips, by their paths below `root`; `rows` are those of the last run."""
    found = {}
    for row in rows:
        text = None if row["clip"] is None else _read(lab_of(root, row["clip"]))
        ours = our_text(row)
        if text and ours is not None and text != ours.strip():
            found[row["clip"]] = Correction(row["start_s"], row["end_s"], ours, text)
    return found


def our_text(row: Row) -> str | None:
    """The text of a row as it was before a person corrected it."""
    return row["text"] if row["written"] is None else row["written"]


def settle_text(root: Path, row: Row, corrections: Mapping[str, Correction], transcript: Transcript) -> Row:
    """Write `row["text"]` into the clip's .lab, or keep what a person wrote there; return the row with what is there.

    A correction counts for the segment that it was made for. If the recording's own text has changed as well, the newer
    of the two files counts.
    """
    lab, ours = lab_of(root, row["clip"]), row["text"]
    correction = corrections.get(row["clip"])
    if correction is not None and correction.counts_for(row, lab, transcript.path):
        rate = round(characters_per_s(correction.text, row["duration_s"]), 2)
        about = {"transcript": BY_HAND, "confidence": None, "characters_per_s": rate}
        return row | {"text": correction.text, "written": ours} | about
    if _read(lab) != ours.strip():
        write_text(lab, ours)
    return row | {"written": None}


def lab_of(root: Path, clip: str) -> Path:
    """The transcript beside a clip."""
    return (root / clip).with_suffix(".lab")


def _read(lab: Path) -> str | None:
    try:
        return lab.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # missing or spoilt
        return None


def _is_newer(lab: Path, transcript: Path | None) -> bool:
    try:
        return transcript is None or lab.stat().st_mtime_ns > transcript.stat().st_mtime_ns
    except OSError:
        return False


def save_corrections(root: Path, corrections: Mapping[Key, Mapping[str, Correction]]) -> None:
    """Note the corrections of recordings that are about to be made anew, where a stopped run cannot lose them."""
    if corrections:
        write_text(root / _BACKUP, "".join(_lines(corrections)))


def tell_lost_corrections(
    root: Path, corrections: Mapping[Key, Mapping[str, Correction]], rows: Mapping[Key, Sequence[Row]]
) -> None:
    """Keep the corrections that no clip has any more in a file, and say so: their segments are cut otherwise now."""
    kept = {(key, row["clip"]) for key, own in rows.items() for row in own if row["transcript"] == BY_HAND}
    lost = {
        key: {clip: item for clip, item in own.items() if (key, clip) not in kept} for key, own in corrections.items()
    }
    lines = list(_lines(lost))
    if lines:
        with (root / LOST).open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
        log.warning(
            "%d texts corrected by hand belong to clips that are made otherwise now: they are in %s",
            len(lines),
            root / LOST,
        )
    (root / _BACKUP).unlink(missing_ok=True)


def _lines(corrections: Mapping[Key, Mapping[str, Correction]]) -> Iterator[str]:
    for (source, speaker), own in corrections.items():
        for clip, item in own.items():
            line = {"source": source, "speaker": speaker, "clip": clip, **item._asdict()}
            yield json.dumps(line, ensure_ascii=False) + "\n"
