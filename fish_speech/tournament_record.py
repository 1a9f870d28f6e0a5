"""What a project's tournament left: whether it still holds, and which step it recommends. Imports nothing heavy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint import CheckpointFile, checkpoint_dir, list_checkpoints, sha256

RESULTS = "results.json"
FORMAT = 1
_MAX_RESULTS_BYTES = 64 << 20


def tournament_dir(project: str) -> Path:
    """Where a project's tournament lies."""
    return Path("results") / project / "tournament"


def recommended_step(project: str) -> int | None:
    """The step that the project's tournament recommends; None without a whole one of the checkpoints there are now.

    Checkpoints that were deleted since do no harm, unless the recommended one is among them; new or changed ones do.
    """
    record = read_record(tournament_dir(project) / RESULTS)
    step = record.get("recommended")
    if not isinstance(step, int) or isinstance(step, bool):
        return None
    present = list_checkpoints(checkpoint_dir(project))
    known = recorded_checkpoints(record)
    whole = all(is_same(checkpoint, known.get(checkpoint.path.name)) for checkpoint in present)
    return step if whole and any(checkpoint.step == step for checkpoint in present) else None


def read_record(path: Path) -> dict[str, Any]:
    """What a tournament wrote; nothing if the file is missing, torn, or not ours."""
    try:
        if path.stat().st_size > _MAX_RESULTS_BYTES:
            return {}
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and record.get("format") == FORMAT else {}


def recorded_checkpoints(record: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """What a record says of the checkpoint files that took part, by their names."""
    inputs = record.get("inputs")
    entries = inputs.get("checkpoints") if isinstance(inputs, Mapping) else None
    entries = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    return {str(entry.get("name")): entry for entry in entries}


def is_same(checkpoint: CheckpointFile, recorded: Mapping[str, Any] | None) -> bool:
    """Whether a file is the one that took part: by size and time, or, copied and so of another time, by its hash."""
    if recorded is None or recorded.get("bytes") != checkpoint.size:
        return False
    if recorded.get("modified") == checkpoint.modified:
        return True
    try:
        return recorded.get("sha256") == sha256(checkpoint.path)
    except OSError:
        return False


def is_current(record: Mapping[str, Any], inputs: Mapping[str, Any], checkpoints: list[CheckpointFile]) -> bool:
    """Whether a tournament of just these inputs has been held."""
    before = record.get("inputs")
    if not isinstance(before, Mapping) or {**before, "checkpoints": 0} != {**inputs, "checkpoints": 0}:
        return False
    told = record.get("conclusion"), record.get("table"), record.get("left_out")
    if [type(part) for part in told] != [list, str, dict]:
        return False
    known = recorded_checkpoints(record)
    return len(known) == len(checkpoints) and all(is_same(c, known.get(c.path.name)) for c in checkpoints)
