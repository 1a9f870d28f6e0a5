"""Names of output files in a batch: relative, safe on every system, and never two lines' the same.

A batch file may come from anywhere, so a name can neither leave the output folder nor hide in it.
"""

from __future__ import annotations

import hashlib
import unicodedata

from ..prepare.names import collision_key, safe_name

SUFFIXES = (".wav", ".flac")
_MAX_PART_BYTES = 120  # of a file name's 255, so that a temporary prefix has room
_MAX_NAME_BYTES = 600
_FORBIDDEN = frozenset('\\:*?"<>|')  # by Windows


def output_problem(name: str) -> str | None:
    """Say why `name` (parts joined by /) cannot be an output file; None if it can."""
    shown = f"output {name[:80]!r}"
    if not name.lower().endswith(SUFFIXES):
        return f"{shown} must end in {' or '.join(SUFFIXES)}"
    if any(unicodedata.category(c)[0] == "C" for c in name) or _FORBIDDEN & set(name):
        return f"{shown} has a character that file names cannot have everywhere"
    parts = name.split("/")
    if not all(parts) or ".." in parts:
        return f"{shown} is not inside the output folder: give a relative name without .."
    if any(part.startswith((".", "~", " ")) or part.endswith((".", " ")) for part in parts):
        return f"{shown} has a part that starts or ends with a dot or a space, or starts with ~"
    stems = [part.split(".")[0] for part in parts]
    if any(safe_name(stem) == f"{stem}-1" for stem in stems):
        return f"{shown} is the name of a device on Windows"
    if len(name.encode()) > _MAX_NAME_BYTES or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        return f"{shown} is too long: parts may have {_MAX_PART_BYTES} bytes, the whole {_MAX_NAME_BYTES}"
    return None


class TakenNames:
    """Which files and folders a batch writes, so that none is written twice. A hundred bytes a name, however long."""

    def __init__(self) -> None:
        self._files: dict[bytes, int] = {}  # by digest of the name: the line that writes it
        self._folders: dict[bytes, int] = {}

    def take(self, name: str, line: int) -> int | None:
        """Note that `line` writes `name`; return the line that it collides with, on any file system, if there is one."""
        parts = collision_key(name).split("/")
        file = _digest("/".join(parts))
        folders = [_digest("/".join(parts[:end])) for end in range(1, len(parts))]
        for known in (self._files.get(file), self._folders.get(file), *map(self._files.get, folders)):
            if known is not None:
                return known
        self._files[file] = line
        for folder in folders:
            self._folders.setdefault(folder, line)
        return None


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()
