"""Tokens that were generated before: columns of a segment, kept in a folder by the hash of all that decides them.

An entry is a file FOLDER/ab/abcd...tokens: a SHA-256 over its key and its content, then the columns as .npy. What is
torn, changed, or another key's is missing, and removed. Files are written under a temporary name and renamed, so any
number of processes may read, write and clear at once. Which entry was used last is told by its time; a tally, to which
each write adds, says when to look for the oldest, so a write lists nothing. A folder that cannot be written to costs a
warning, never the speech.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..datasets.sources import UnusableClip
from ..errors import UserError
from ..files import TEMPORARY_PREFIX
from .cache_entry import BLOCK, LARGEST_ENTRY, SAFE, SUFFIX, on_disk, pack, read_plain_file, unpack, write_beside
from .cache_key import segment_key

__all__ = ["CacheInfo", "Removed", "TokenCache", "cache_folder", "default_folder", "default_limit", "segment_key"]

log = logging.getLogger(__name__)

DEFAULT_LIMIT_MB = 512
_KEPT = 7 / 8  # of the limit, when the oldest entries are removed
_PUT_ATTEMPTS = 10
_ABANDONED_S = 3600.0  # a temporary file this old has lost its writer
_TAG = "CACHEDIR.TAG"  # https://bford.info/cachedir/: backup programs pass over the folder
_TAG_TEXT = b"Signature: 8a477f597d28d172789f06886806bc55\n# Tokens of speech, kept by the fish-speech voice toolkit.\n"
_TALLY, _LOCK = "tally", "lock"
_KEY = re.compile(r"[0-9a-f]{64}")
_SHARD = re.compile(r"[0-9a-f]{2}")


class CacheInfo(NamedTuple):
    """What a cache holds."""

    folder: Path
    entries: int
    bytes: int  # of disk
    limit: int  # bytes


class Removed(NamedTuple):
    """What was removed from a cache."""

    entries: int
    bytes: int  # of disk


def cache_folder() -> Path:
    """Where this toolkit keeps what it can make again: FISH_SPEECH_CACHE, else its part of the user's cache folder."""
    named = os.environ.get("FISH_SPEECH_CACHE", "").strip()
    if named:
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_cache_path("fish-speech-voice-toolkit", appauthor=False)


def default_folder() -> Path:
    """Where tokens are kept. Always a folder of its own: FISH_SPEECH_CACHE may name one that holds other things."""
    return cache_folder() / "tokens"


def default_limit() -> int:
    """Bytes that the cache may take: FISH_SPEECH_CACHE_MB, else 512 MB. Raises UserError for what is no size."""
    named = os.environ.get("FISH_SPEECH_CACHE_MB", "").strip()
    try:
        megabytes = float(named) if named else DEFAULT_LIMIT_MB
        if not 0 <= megabytes <= 1e9:
            raise ValueError
    except ValueError:
        raise UserError(
            f"FISH_SPEECH_CACHE_MB is {named[:40]!r}",
            "it is the cache's size in megabytes",
            "set it to 512, or unset it",
        ) from None
    return round(megabytes * 1e6)


class TokenCache:
    """Columns of segments by their keys, in `folder`, within `limit_bytes` of disk: those unused longest go first."""

    def __init__(self, folder: Path | None = None, limit_bytes: int | None = None):
        self.folder = default_folder() if folder is None else Path(folder)
        self.limit = default_limit() if limit_bytes is None else limit_bytes
        if self.limit < 0:
            raise ValueError(f"the limit of the cache is {self.limit} bytes")
        self._warned = False

    def get(self, key: str, sizes: Sequence[int] | None = None) -> np.ndarray | None:
        """Return the columns (1 + codebooks, frames) int64 kept under `key`, or None; never raises for what it finds.

        With `sizes`, the number of ids of each row, an entry of other rows or with ids beyond is damaged, too.
        """
        path = self._path(key)
        try:
            columns = unpack(key, read_plain_file(path), sizes)
        except UnusableClip as error:
            self._discard(path, error)
            return None
        except OSError as error:
            log.debug("%s cannot be read: %s", path, error)
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # used now; a folder that is only readable still serves
        return columns

    def put(self, key: str, columns: np.ndarray) -> None:
        """Keep columns (1 + codebooks, frames) under `key`. What cannot be written is warned of once, and not kept."""
        path, data = self._path(key), pack(key, columns)
        size = on_disk(len(data))
        if size > min(self.limit, LARGEST_ENTRY):
            return
        why = ""
        for _ in range(_PUT_ATTEMPTS):
            try:
                self._claim()
                path.parent.mkdir(mode=0o700, exist_ok=True)
                write_beside(path, data)
                self._count(size)
                return
            except FileNotFoundError as error:  # another process is clearing, or no folder can be made there
                why = error.strerror or str(error)
            except (OSError, NotImplementedError) as error:  # the latter: no locks there
                # Windows does not replace a file that another process reads just now: then it is there already.
                if not (isinstance(error, PermissionError) and path.is_file()):
                    self._warn(getattr(error, "strerror", None) or str(error))
                return
        self._warn(why)

    def info(self) -> CacheInfo:
        """Count what is kept; lists the whole folder."""
        found = list(self._entries()) if self._is_ours() else []
        return CacheInfo(self.folder, len(found), sum(entry.size for entry in found), self.limit)

    def clear(self) -> Removed:
        """Remove every entry, and nothing that is not the cache's own. Raises OSError where that is not allowed."""
        if not self._is_ours():
            return Removed(0, 0)
        removed = [entry for entry in self._entries() if _remove(entry.path)]
        self._sweep_leftovers(0.0)
        for shard in self._shards():
            with contextlib.suppress(OSError):  # something of others is in it, or a process has just put an entry
                shard.rmdir()
        (self.folder / _TALLY).unlink(missing_ok=True)
        return Removed(len(removed), sum(entry.size for entry in removed))

    def _path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"a key is 64 hex digits, not {key[:80]!r}")
        return self.folder / key[:2] / (key + SUFFIX)

    def _is_ours(self) -> bool:
        """Whether the folder carries the cache's tag: no other file in a folder without it is ever touched."""
        with contextlib.suppress(OSError, UnusableClip):
            return read_plain_file(self.folder / _TAG) == _TAG_TEXT
        return False

    def _claim(self) -> None:
        """Make the folder and tag it. Raises OSError for a folder that holds other things, and no tag."""
        if self._is_ours():
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        others = [item.name for item in _listed(self.folder) if not item.name.startswith(TEMPORARY_PREFIX)]
        if others and not self._is_ours():  # another process may have been faster
            raise FileExistsError(errno.EEXIST, f"it holds other files and no {_TAG} of this cache")
        write_beside(self.folder / _TAG, _TAG_TEXT)

    def _warn(self, why: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning("the cache %s keeps nothing: %s (another folder: FISH_SPEECH_CACHE)", self.folder, why)

    def _discard(self, path: Path, why: Exception) -> None:
        log.debug("%s is left out: %s", path, why)
        with contextlib.suppress(OSError):
            if self._is_ours() and not path.parent.is_symlink():
                path.unlink()  # of a link: the link

    def _shards(self) -> list[Path]:
        with os.scandir(self.folder) as items:
            return [Path(i.path) for i in items if _SHARD.fullmatch(i.name) and i.is_dir(follow_symlinks=False)]

    def _entries(self) -> Iterator[_Entry]:
        for shard in self._shards():
            for item in _listed(shard):
                name = item.name.removesuffix(SUFFIX)
                if item.name != name and _KEY.fullmatch(name) and name.startswith(shard.name):
                    with contextlib.suppress(OSError):  # removed by another process in between
                        status = item.stat(follow_symlinks=False)
                        if not stat.S_ISDIR(status.st_mode):
                            yield _Entry(Path(item.path), on_disk(status.st_size), status.st_mtime_ns)

    def _count(self, size: int) -> None:
        """Add to the tally, a byte per block of disk; when it says that the limit is passed, look and make room."""
        blocks = size // BLOCK
        handle = os.open(self.folder / _TALLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND | SAFE, 0o600)
        try:
            os.write(handle, bytes(blocks))
            total = os.fstat(handle).st_size
        finally:
            os.close(handle)
        if total * BLOCK > self.limit or total == blocks:  # a new tally does not know what is there
            self._make_room()

    def _make_room(self) -> None:
        """Remove what was unused longest until a part of the limit is free, and set the tally right; one process at a time."""
        from filelock import FileLock, Timeout

        with contextlib.suppress(Timeout), FileLock(self.folder / _LOCK, timeout=0):
            self._sweep_leftovers(_ABANDONED_S)
            found = sorted(self._entries(), key=lambda entry: (entry.used_ns, entry.path))
            total = sum(entry.size for entry in found)
            if total > self.limit:
                for entry in found:
                    if total <= self.limit * _KEPT:
                        break
                    if _remove(entry.path):
                        total -= entry.size
            os.truncate(self.folder / _TALLY, total // BLOCK)

    def _sweep_leftovers(self, age_s: float) -> None:
        """Remove temporary files of writers that were killed."""
        latest = time.time() - age_s
        for folder in (self.folder, *self._shards()):
            for item in _listed(folder):
                if _TEMPORARY.fullmatch(item.name):
                    with contextlib.suppress(OSError):
                        if item.stat(follow_symlinks=False).st_mtime <= latest:
                            Path(item.path).unlink()


class _Entry(NamedTuple):
    path: Path
    size: int  # bytes of disk
    used_ns: int


_TEMPORARY = re.compile(rf"{re.escape(TEMPORARY_PREFIX)}\d+-\w+{re.escape(SUFFIX)}")


def _listed(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as items:
            return list(items)
    except FileNotFoundError:
        return []


def _remove(path: Path) -> bool:
    """Whether this call removed the file; another process may have, or on Windows be reading it."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except PermissionError:
        if os.name == "nt":
            return False
        raise
    return True
