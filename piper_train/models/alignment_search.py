"""The search for monotonic paths as machine code, which numba makes at its first use. Import it late: numba is heavy.

The code is kept on disk beside this file, or in the user's cache folder. It holds no lock of Python while it runs and
uses no threads of its own, so several may run at once, also after a fork.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


def _machine_code(function: Callable[..., None]) -> Any:
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no folder to keep it in
        return numba.njit(nogil=True)(function)


@_machine_code
def search_paths(values: np.ndarray, all_frames: np.ndarray, all_symbols: np.ndarray, path: np.ndarray) -> None:
    """Write ones for the best paths through `values` (batch, frames, symbols) into `path`, zeros of the same shape.

    `all_frames` and `all_symbols` (batch), 1 and more, say what is valid. A row of sums needs only the row before it, so
    two rows are kept, and for the way back a mark at each cell whose symbol is better entered there than gone on with.
    Sums that cannot be reached are minus infinity.
    """
    for item in range(values.shape[0]):
        frames, symbols = all_frames[item], all_symbols[item]
        entered = np.empty((frames, symbols), dtype=np.uint8)
        # Symbol x is at x + 1: column 0 is what would come before the first symbol, and is never reached.
        before = np.full(symbols + 1, -np.inf, dtype=np.float32)
        sums = np.full(symbols + 1, -np.inf, dtype=np.float32)
        before[1] = values[item, 0, 0]
        for y in range(1, frames):
            if frames < symbols:  # no path exists; each frame goes by the one before it alone
                row = values[item, y - 1, :symbols]
                _add_row(row[1:], row[1:], row[:-1], sums[2:], entered[y, 1:])
                continue
            low, high = max(0, symbols + y - frames), min(symbols, y + 1)
            stay, enter = before[low + 1 : high + 1], before[low:high]
            _add_row(values[item, y, low:high], stay, enter, sums[low + 1 : high + 1], entered[y, low:high])
            before, sums = sums, before
        x = symbols - 1
        for y in range(frames - 1, -1, -1):
            path[item, y, x] = 1
            if x > 0 and (x == y or entered[y, x]):
                x -= 1


@_machine_code
def _add_row(values: np.ndarray, stay: np.ndarray, enter: np.ndarray, sums: np.ndarray, entered: np.ndarray) -> None:
    """One frame's sums, each on the better of its two ways; a tie stays. A function of its own runs three times faster."""
    for x in range(values.size):
        going_on, entering = stay[x], enter[x]
        entered[x] = going_on < entering
        sums[x] = values[x] + (entering if going_on < entering else going_on)
