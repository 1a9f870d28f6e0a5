"""The rows of the table, and how they are measured: each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .process import Finished, run


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    value: float
    unit: str
    baseline: float | None = None
    smaller_is_better: bool = True
    version: str = ""  # of the model; empty: the row has to do with none

    @property
    def gain(self) -> float | None:
        """How many times better than the baseline."""
        if self.baseline is None:
            return None
        return self.baseline / self.value if self.smaller_is_better else self.value / self.baseline

    def __str__(self) -> str:
        baseline = "" if self.baseline is None else f"{self.baseline:12.3f}"
        gain = "" if self.gain is None else f"{self.gain:9.2f}"
        return f"{self.version:<8}{self.what:<58}{self.value:12.3f} {self.unit:<9}{baseline:>12}{gain:>9}".rstrip()


@dataclass(frozen=True)
class Plan:
    """What a run of the benchmarks does."""

    scale: str
    quick: bool
    version: str = "1.5"

    def measure(self, name: str, *arguments: str | Path, repeats: int = 1) -> Finished:
        """Run one measurement in a child process."""
        size = ("--scale", self.scale, "--model-version", self.version)
        return run("benchmarks.child", name, *size, "--repeats", str(1 if self.quick else repeats), *arguments)


def memory_rows(name: str, ours: Finished, baseline: Finished) -> Iterator[Row]:
    """Peak memory of both processes."""
    yield Row(f"{name}: peak RSS", ours.peak_rss / 1e9, "GB", baseline.peak_rss / 1e9)
    if ours.peak_anonymous and baseline.peak_anonymous:
        yield Row(f"{name}: peak anonymous", ours.peak_anonymous / 1e9, "GB", baseline.peak_anonymous / 1e9)
