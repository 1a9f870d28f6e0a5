"""Write files whole or not at all.

Every output is written under a temporary name in its own folder, flushed to disk and renamed, so that a reader never
sees a torn file and a failed run leaves what was there before. Temporary names start with `TEMPORARY_PREFIX`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".partial-"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with the same suffix; on success it becomes `path`, otherwise it is removed.

    Makes the folder if needed. Raises whatever the writer raises, OSError with ENOSPC on a full disk included.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{os.getpid()}-{path.name[-100:]}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and (error.filename is None or error.filename2 is not None):
            error.filename = str(path)  # of a copy the first name is the source, on which nothing is written
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with unix line ends, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(path: Path, value: Any, **options: Any) -> None:
    """Write `value` as readable JSON, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, **options) + "\n")


_LEFT_BEHIND = re.compile(rf"^{re.escape(TEMPORARY_PREFIX)}(\d+)-")


def remove_leftovers(folder: Path) -> int:
    """Delete temporary files below `folder` whose process is gone (killed in the middle of a write); return how many."""
    removed = 0
    for path in sorted(Path(folder).rglob(f"{TEMPORARY_PREFIX}*")):
        match = _LEFT_BEHIND.match(path.name)
        if match and path.is_file() and not _is_running(int(match.group(1))):
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _is_running(pid: int) -> bool:
    if pid == os.getpid() or os.name == "nt":  # Windows has no harmless signal 0: leave other processes' files alone
        return pid != os.getpid()
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # Linux: a killed process that nobody has waited for yet still has its number
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return True
