"""Talk to the person at the terminal: facts on stderr, one progress bar per long step.

Results go to stdout. On a terminal progress is a bar; otherwise, in a log file say, it is a line a minute.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from .errors import raise_lost_interrupt

T = TypeVar("T")

PACKAGES = ("fish_speech", "piper_train")  # whose log lines people read; others keep their own handling


def setup(verbose: bool = False, log_file: Path | None = None) -> None:
    """Send the toolkit's log lines to stderr, and to `log_file` with times if one is given. Called by main only."""
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(logging.Formatter("%(message)s"))
    handlers: list[logging.Handler] = [stream]
    if log_file is not None:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(log_file, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    for name in PACKAGES:
        root = logging.getLogger(name)
        root.handlers[:] = handlers
        root.setLevel(logging.DEBUG if verbose else logging.INFO)
        root.propagate = False


def progress(
    items: Iterable[T],
    what: str,
    total: float | None = None,
    unit: str = "it",
    size: Callable[[T], float] = lambda item: 1,
) -> Iterator[T]:
    """Yield `items`, showing how far the step called `what` is. `size` is how much of `total` an item makes."""
    from tqdm import tqdm

    interval = 0.5 if sys.stderr.isatty() else 60.0
    with tqdm(desc=what, total=total, unit=unit, mininterval=interval, dynamic_ncols=True, file=sys.stderr) as bar:
        for item in items:
            raise_lost_interrupt()
            yield item
            bar.update(size(item))


def peak_memory_gb() -> float:
    """Largest memory this process has held, in GB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak / 1e6
