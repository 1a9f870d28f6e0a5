"""What became of every recording: manifest.jsonl, dataset_summary.json, and the journal that makes a run resumable.

The journal holds what a run has planned and done so far. It is read if the run was killed, and removed once the
manifest, which says the same and more, is written. It also keeps two runs from writing to one folder at once.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from .. import files
from ..errors import UserError, disk_full
from .rows import Key, Row, blank_row

MANIFEST, SUMMARY, JOURNAL = "manifest.jsonl", "dataset_summary.json", ".prepare-journal.jsonl"


def key_of(row: Row) -> Key:
    """What makes a row one of a recording's."""
    return row["source"], row["speaker"]


def by_recording(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    """Group rows by recording."""
    grouped: dict[Key, list[Row]] = {}
    for row in rows:
        grouped.setdefault(key_of(row), []).append(row)
    return grouped


def read_manifest(folder: Path) -> dict[Key, list[Row]]:
    """Return the rows of an output folder by recording, none if it has no manifest yet."""
    path = folder / MANIFEST
    if not path.exists():
        return {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # splitlines would also split at U+2028 in a name or text
        rows = [blank_row() | json.loads(line) for line in lines if line.strip()]
        if any(row["source"] is None or row["speaker"] is None for row in rows):
            raise ValueError("a row without source")
        return by_recording(rows)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{path} cannot be read",
            "a line of it is not a row of this tool",
            "move it away, or choose another --output",
        ) from None


def write_manifest(folder: Path, rows: Iterable[Row], options: dict[str, Any]) -> dict[str, Any]:
    """Write manifest and summary, and return the summary; the order of rows does not depend on the order of work."""
    rows = sorted(rows, key=lambda row: (*key_of(row), row["start_s"]))
    lines = (json.dumps(row, ensure_ascii=False, separators=(", ", ": ")) + "\n" for row in rows)
    files.write_text(folder / MANIFEST, "".join(lines))
    summary = summarize(rows, options)
    files.write_json(folder / SUMMARY, summary)
    return summary


def summarize(rows: Iterable[Row], options: dict[str, Any]) -> dict[str, Any]:
    """Add up the rows: what is there, and where every second of the input went."""
    rows = list(rows)
    kept = [row for row in rows if row["clip"] is not None]
    left_out = [row for row in rows if row["clip"] is None]
    speakers = sorted({row["speaker"] for row in kept})
    recordings = by_recording(rows).values()
    # A recording is as long as it was found to be; rows of earlier versions know their end alone.
    lengths = [max((row["source_s"] or row["end_s"] or 0.0) for row in own) for own in recordings]
    unknown = sum(all(row["end_s"] is None for row in own) for own in recordings)
    seconds, used, lost = math.fsum(lengths), _seconds(kept), _seconds(left_out)
    reasons = sorted({category(row) for row in left_out})
    return {
        "total_files": len(kept),
        "total_duration_minutes": _minutes(kept),
        "speakers": speakers,
        "speaker_totals": {
            name: {"files": len(own), "duration_minutes": _minutes(own)}
            for name in speakers
            for own in [[row for row in kept if row["speaker"] == name]]
        },
        "processing_options": options,
        "left_out": {name: sum(category(row) == name for row in left_out) for name in reasons},
        "left_out_seconds": {
            name: _round(_seconds([row for row in left_out if category(row) == name])) for name in reasons
        },
        "input": {
            "files": len(recordings),
            "seconds": _round(seconds),
            "seconds_kept": _round(used),
            "seconds_left_out": _round(lost),
            "seconds_of_pauses": _round(max(0.0, seconds - used - lost)),  # between the segments
            "files_of_unknown_length": unknown,
        },
    }


def category(row: Row) -> str:
    """The kind of reason for which a row was left out."""
    return row["left_out"].split(":")[0]


def _seconds(rows: Iterable[Row]) -> float:
    return math.fsum(row["end_s"] - row["start_s"] for row in rows if row["end_s"] is not None)


def _minutes(rows: Iterable[Row]) -> float:
    return _round(math.fsum(row["duration_s"] for row in rows) / 60)


def _round(value: float) -> float:
    return round(value, 4)


class Journal:
    """A file of one JSON value per line, appended as work is done; a torn last line is ignored.

    Use as a context manager: entering takes the lock of the folder (UserError if another run has it), leaving
    releases it. `finish` removes the file.
    """

    def __init__(self, folder: Path):
        self.path = folder / JOURNAL
        self.stems: dict[Key, str] = {}  # of the clips that earlier, unfinished runs have planned
        self.rows: dict[Key, list[Row]] = {}  # what they had done
        self.doubtful: set[Key] = set()  # what they were about to make again: the manifest may no longer be true of it
        self.begun: set[Key] = set()  # what this run and they were about to make
        self._file: IO[str]

    def __enter__(self) -> Journal:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="utf-8", newline="\n")
        except OSError as error:
            if disk_full(error):
                raise
            reason = error.strerror or str(error)
            raise UserError(f"cannot write to {self.path.parent}", reason, "choose another --output") from None
        if not _lock(self._file):
            self._file.close()
            raise UserError(
                f"another run is writing to {self.path.parent}",
                "two at once would overwrite each other's manifest",
                "wait until it ends, then run the same command again",
            )
        self._file.seek(0)
        text = self._file.read()
        for line in text.split("\n"):
            try:
                entry = json.loads(line)
            except ValueError:  # torn when the run was killed
                continue
            if "plan" in entry:
                for source, speaker, stem, again in entry["plan"]:
                    self.stems[source, speaker] = stem
                    if again:
                        self.rows.pop((source, speaker), None)
                        self.doubtful.add((source, speaker))
                        self.begun.add((source, speaker))
            else:
                key = entry["source"], entry["speaker"]
                self.rows[key] = entry["rows"]
                self.doubtful.discard(key)
        if text and not text.endswith("\n"):
            self._file.write("\n")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def plan(self, stems: dict[Key, str], to_make: set[Key]) -> None:
        """Note how each recording's clips will be called, and which will be written now, before any is."""
        self.stems |= stems
        self.begun |= to_make
        self._append({"plan": [[*key, stem, key in to_make] for key, stem in stems.items()]})

    def done(self, key: Key, rows: list[Row]) -> None:
        """Note what became of a recording."""
        self._append({"source": key[0], "speaker": key[1], "rows": rows})

    def _append(self, entry: dict[str, Any]) -> None:
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")
        self._file.flush()

    def finish(self) -> None:
        """Remove the journal: the manifest has it all."""
        if os.name == "nt":  # Windows removes no open file
            self._file.close()
        self.path.unlink()


def _lock(file: IO[str]) -> bool:
    """Lock an open file until it is closed or its process ends; False if another process has it."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(1 << 30)  # a byte that holds no data: Windows locks also reading
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
