"""What could not be used and why: counted by reason, with the first few names of each."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from fish_speech.prepare.names import one_line

_NAMED = 3  # of each reason in a line
_KEPT = 1000  # names of each reason that are remembered, so that memory stays bounded
_LONGEST = 120  # characters of a name or of a detail


class LeftOut:
    """Counts of what was left out."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()  # reason -> rows
        self.names: defaultdict[str, list[str]] = defaultdict(list)  # reason -> the first rows, as a person finds them

    def add(self, reason: str, name: str, details: str = "") -> None:
        """Count one; `details` are said behind its name."""
        self.counts[reason] += 1
        if len(self.names[reason]) < _KEPT:
            shown = one_line(name)[:_LONGEST]
            self.names[reason].append(f"{shown} ({one_line(details)[:_LONGEST]})" if details else shown)

    @property
    def total(self) -> int:
        """How many were left out in all."""
        return self.counts.total()

    def lines(self) -> list[str]:
        """One line a reason, the most frequent first: `2 no such file: a.wav (line 3), b.wav (line 9)`."""
        return [
            f"{count} {reason}: {', '.join(self.names[reason][:_NAMED])}{', ...' if count > _NAMED else ''}"
            for reason, count in self.counts.most_common()
        ]

    def to_mapping(self) -> dict[str, Any]:
        """For a JSON file: reason -> count and names."""
        return {reason: {"count": count, "names": self.names[reason]} for reason, count in self.counts.most_common()}
