"""Which weights these are: a hash of their content, remembered so that a second start need not read them again.

A file's hash is believed while its path, size, inode and times are what they were. A file changed just before it was
hashed is not remembered: a second change within one tick of the file system's clock would leave the same times
(git calls such entries racy).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from ..checkpoint import sha256
from ..datasets.sources import UnusableClip, printable
from ..errors import UserError
from ..files import write_json
from .cache import cache_folder
from .cache_entry import read_plain_file

FOLDER = "weights"  # in the cache folder: a note for each file
_TICK_NS = 2_000_000_000  # FAT's clock, the coarsest
_ATTEMPTS = 3
_MOST_NOTE_BYTES = 1 << 16


def weights_identity(paths: Sequence[Path], folder: Path | None = None) -> str:
    """Return the hex SHA-256 of the contents of `paths` in this order; names and places of the files do not count.

    Notes are kept in `folder`, without one in the cache folder; where none can be written, every start reads the files.
    Raises UserError for a file that is missing, cannot be read, or changes meanwhile.
    """
    notes = cache_folder() / FOLDER if folder is None else folder
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(_file_hash(Path(path), notes)))
    return digest.hexdigest()


def _file_hash(path: Path, notes: Path) -> str:
    try:
        resolved = path.resolve(strict=True)
        note = notes / f"{hashlib.sha256(os.fsencode(resolved)).hexdigest()[:32]}.json"
        for _ in range(_ATTEMPTS):
            started_ns = time.time_ns()
            state = _state(resolved)
            known = _read_note(note, state)
            if known is not None:
                return known
            found = sha256(resolved)
            if _state(resolved) == state:
                if max(state["mtime_ns"], state["ctime_ns"]) < started_ns - _TICK_NS:
                    with contextlib.suppress(OSError):
                        write_json(note, {"path": printable(str(resolved)), **state, "sha256": found})
                return found
    except (OSError, RuntimeError) as error:  # the latter: links in a circle, before Python 3.13
        raise UserError(f"cannot read the weights {path}", str(error), "check the path and its permissions") from error
    raise UserError(f"{path} changes while it is read", "something is writing it", "wait until it is written")


def _state(path: Path) -> dict[str, int]:
    """What a change of the file changes. ctime also tells of a file put in place with an old file's size and time."""
    status = path.stat()
    return {
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def _read_note(note: Path, state: dict[str, int]) -> str | None:
    """The hash noted for a file in this state; None without a note, or with one that is torn or of another state."""
    try:
        data = read_plain_file(note)
        record = json.loads(data) if len(data) <= _MOST_NOTE_BYTES else {}
        known = record["sha256"] if all(record[name] == value for name, value in state.items()) else None
        return known if known is None or len(bytes.fromhex(known)) == 32 else None
    except (OSError, UnusableClip, ValueError, KeyError, TypeError, RecursionError):
        return None
