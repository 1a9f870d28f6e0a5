"""What decides the tokens of a segment, as one hash: the name under which the cache keeps them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .sampling import SamplingConfig

FORMAT = 1  # raised when the file format changes, or generation gives other tokens for the same settings


def segment_key(identity: str, prompt: Any, sampling: SamplingConfig, seed: int, limit: int, least: int) -> str:
    """Return the hex key of a segment's columns: a hash of all that decides them, and of nothing else.

    `identity` names weights and engine (device, precision, quantization, versions); `prompt` is (1 + codebooks, tokens)
    of whole numbers; `limit` and `least` are the most and the fewest columns asked for.
    """
    grid = np.asarray(prompt)
    if grid.dtype.kind not in "iu" or grid.ndim != 2:
        raise ValueError(f"a prompt is 2 axes of whole numbers, not {grid.dtype} {grid.shape}")
    settings = {name: _plain(value) for name, value in asdict(sampling).items()}
    facts = [FORMAT, identity, settings, int(seed), int(limit), int(least), list(grid.shape)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode())
    digest.update(b"\n" + np.ascontiguousarray(grid, dtype="<i8").tobytes())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Numbers that are equal (1 and 1.0, 0 and -0.0) in one spelling."""
    return float(value) + 0.0 if isinstance(value, (int, float)) else value
