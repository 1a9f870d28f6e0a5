"""What was measured when a checkpoint was written, and which of several is the best by it. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from .checkpoint import CheckpointFile, list_checkpoints, read_file
from .errors import UserError

METRICS = "metrics"  # the entry of a checkpoint
HELD_OUT_LOSS = "val/loss"


def read_metrics(path: Path) -> dict[str, float]:
    """What was measured when a checkpoint was written, such as val/loss; nothing of a file by another tool.

    Raises UserError for a file that is no checkpoint.
    """
    content = read_file(Path(path))
    metrics = content.get(METRICS) if isinstance(content, Mapping) else None
    if not isinstance(metrics, Mapping):
        return {}
    numbers = {name: value for name, value in metrics.items() if not isinstance(value, bool)}
    return {str(name): float(value) for name, value in numbers.items() if isinstance(value, int | float)}


def best_checkpoint(folder: Path, best_by: str = HELD_OUT_LOSS) -> CheckpointFile | None:
    """The checkpoint in `folder` with the lowest `best_by`, the earliest of equal ones; None if none was measured."""
    there = list_checkpoints(folder)
    return lowest(there, scores(there, best_by))


def scores(there: Sequence[CheckpointFile], metric: str | None) -> dict[int, float]:
    """The metric of each checkpoint that has a finite one, by step; without a metric of none."""
    found = {}
    for checkpoint in there if metric else ():
        try:
            score = read_metrics(checkpoint.path).get(metric or "")
        except (UserError, OSError):  # torn by another program, or gone meanwhile: not the best
            continue
        if score is not None and math.isfinite(score):
            found[checkpoint.step] = score
    return found


def lowest(there: Sequence[CheckpointFile], scores: Mapping[int, float]) -> CheckpointFile | None:
    """The checkpoint with the lowest of `scores`, by step, the earliest of equal ones; None if none has one."""
    measured = [checkpoint for checkpoint in there if checkpoint.step in scores]
    return min(measured, key=lambda checkpoint: (scores[checkpoint.step], checkpoint.step), default=None)
