"""One file of the token cache: columns as .npy behind a checksum of key and content, read with suspicion, written whole."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..datasets.sources import UnusableClip, parse_npy_header
from ..files import TEMPORARY_PREFIX

SUFFIX = ".tokens"
LARGEST_ENTRY = 8 << 20  # bytes; ten minutes of speech have 0.5 MB
BLOCK = 4096  # bytes; what files take of a disk is counted in these
_DIGEST = hashlib.sha256().digest_size
# Open no link, wait for no pipe, change no line end; each where the system has it.
SAFE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def on_disk(size: int) -> int:
    """Bytes that a file of `size` bytes takes of a disk."""
    return -(-size // BLOCK) * BLOCK


def read_plain_file(path: Path) -> bytes:
    """Return the content of a regular file that is no link and no larger than an entry may be."""
    if path.is_symlink():  # where the system cannot open without following
        raise UnusableClip("it is a link")
    handle = os.open(path, os.O_RDONLY | SAFE)
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise UnusableClip("it is no regular file")
        if status.st_size > LARGEST_ENTRY:
            raise UnusableClip(f"it has {status.st_size} bytes")
        return file.read(LARGEST_ENTRY)


def write_beside(path: Path, data: bytes) -> None:
    """Write under a temporary name and rename. Not flushed to disk: what a power failure tears, its checksum tells."""
    prefix = f"{TEMPORARY_PREFIX}{os.getpid()}-"
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=SUFFIX, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def pack(key: str, columns: np.ndarray) -> bytes:
    """The bytes of an entry. Raises ValueError for what are no columns."""
    array = np.asarray(columns)
    whole = array.dtype.kind in "iu" and array.ndim == 2 and array.size
    if not whole or array.min() < 0 or array.max() > np.iinfo(np.int32).max:
        raise ValueError(f"columns are 2 axes of whole numbers from 0, not {array.dtype} {array.shape}")
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array, dtype="<i4"), allow_pickle=False)
    content = buffer.getvalue()
    return hashlib.sha256(key.encode() + content).digest() + content


def unpack(key: str, data: bytes, sizes: Sequence[int] | None) -> np.ndarray:
    """The columns in the bytes of an entry. Raises UnusableClip."""
    digest, content = data[:_DIGEST], data[_DIGEST:]
    if hashlib.sha256(key.encode() + content).digest() != digest:
        raise UnusableClip("its checksum is wrong")
    shape, order, dtype, start = parse_npy_header(content)
    if dtype not in (np.dtype("<i4"), np.dtype("<i8")) or len(shape) != 2 or not all(shape):
        raise UnusableClip(f"it is {dtype} of shape {shape}, no columns")
    if len(content) - start != shape[0] * shape[1] * dtype.itemsize:
        raise UnusableClip(f"its header promises {shape}, it has {len(data)} bytes")
    columns = np.array(np.frombuffer(content, dtype, offset=start).reshape(shape, order=order), dtype=np.int64)
    if sizes is not None and len(sizes) != len(columns):
        raise UnusableClip(f"it has {len(columns)} rows instead of {len(sizes)}")
    if columns.min() < 0 or (sizes is not None and (columns.max(axis=1) >= np.asarray(sizes)).any()):
        raise UnusableClip("it has ids that the model does not know")
    return columns
