"""Leave out what is in a set twice: the same recording under another name, in another format or at another level."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .fingerprint import find_duplicates
from .rows import Row


def leave_out_duplicates(rows: Iterable[Row], older: Collection[str | None] = ()) -> list[Row]:
    """Leave out each clip whose sound an earlier clip of the same speaker has; return all rows.

    Earlier are the clips in `older`, which the set had before, then those that come first by source and time.
    """
    rows = list(rows)
    kept = sorted(
        (row for row in rows if row["clip"] is not None and row["fingerprint"] is not None),
        key=lambda row: (row["clip"] not in older, row["source"], row["speaker"], row["start_s"]),
    )
    first: dict[str, str] = {}
    for speaker in sorted({row["speaker"] for row in kept}):
        first |= find_duplicates((row["clip"], row["fingerprint"]) for row in kept if row["speaker"] == speaker)
    return [row if row["clip"] not in first else _left_out(row, first[row["clip"]]) for row in rows]


def _left_out(row: Row, first: str) -> Row:
    return row | {"clip": None, "duplicate_of": first, "left_out": f"duplicate: the same sound as {first}"}
