"""Keep a second run of the same project out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from .errors import UserError
from .files import remove_leftovers
from .ranks import is_first_process


@contextlib.contextmanager
def only_run(run_dir: Path) -> Iterator[None]:
    """Keep a second training of the same project out; a killed one's lock is free at once."""
    if not is_first_process():  # the first holds the lock
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=30)  # a run that was just stopped may still be saving
    except filelock.Timeout as error:
        raise UserError(
            f"{run_dir} is being trained by another process",
            "two would overwrite each other",
            "wait for it, or stop it",
        ) from error
    try:
        remove_leftovers(run_dir)
        yield
    finally:
        lock.release()
