"""Whether codes fit a codec or a model: each codebook has a size of its own, and all its codes are below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def sizes_of_rows(codebooks: int, sizes: int | Sequence[int]) -> tuple[int, ...]:
    """How many different codes each row can have, given one number for all of them, or one for each."""
    return (sizes,) * codebooks if isinstance(sizes, int) else tuple(sizes)


def largest_of_rows(codes: np.ndarray) -> tuple[int, ...]:
    """The largest code of each row of (codebooks, frames)."""
    return tuple(int(value) for value in codes.max(axis=1))


def row_too_large(largest: Sequence[int], sizes: Sequence[int | None]) -> int | None:
    """The first row with a code that is not below its size; None if there is none. A size of None allows all."""
    pairs = enumerate(zip(largest, sizes))
    return next((row for row, (code, size) in pairs if size is not None and code >= size), None)
