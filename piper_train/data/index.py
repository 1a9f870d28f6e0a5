"""The index: everything about the clips of a data set but their sound, in one file that every process reads.

Rank 0 writes it and all ranks read it. It is also the memory of the next run: which recording had which content, and
which text gave which phonemes. Lists of texts lie as bytes end to end with offsets, so that a hundred thousand clips
are a few arrays: they take little memory, and worker processes share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fish_speech.files import atomic_path

_VERSION = 1
_KEPT = 8  # index files in a cache: of data sets and options that somebody may come back to
_LARGEST_HEADER = 1 << 24  # bytes


class IndexedClip(NamedTuple):
    """One usable clip."""

    number: int  # of its row
    name: str  # of the recording, for messages
    recording: str  # its path
    signature: tuple[int, int, int, int]  # size, mtime, ctime and inode of the recording
    content: bytes  # 16 bytes, of the recording
    samples: int  # of the prepared sound
    speaker: int  # -1 if there is one speaker
    text: str
    text_key: bytes  # 16 bytes: of the text and of how its phonemes are made
    phonemes: str  # as packed by texts.py; "" where ids were given
    ids: tuple[int, ...]


_STRINGS = ("name", "recording", "text", "phonemes")
_BYTES = ("content", "text_key")


class Index:
    """Clips by position, from arrays. Items are read one by one; nothing of the size of the data set is made."""

    def __init__(self, arrays: dict[str, np.ndarray], facts: dict[str, Any]):
        self.arrays, self.facts = arrays, facts
        self._shared: dict[str, Any] | None = None

    @classmethod
    def of(cls, clips: Iterable[IndexedClip], facts: dict[str, Any]) -> Index:
        """Lay out clips in the order given."""
        clips = list(clips)
        arrays: dict[str, np.ndarray] = {
            "number": np.array([clip.number for clip in clips], np.int64),
            "samples": np.array([clip.samples for clip in clips], np.int64),
            "speaker": np.array([clip.speaker for clip in clips], np.int64),
            "signature": np.array([clip.signature for clip in clips], np.int64).reshape(len(clips), 4),
            "ids": np.array([number for clip in clips for number in clip.ids], np.int32),
            "ids_ends": np.cumsum([len(clip.ids) for clip in clips], dtype=np.int64),
        }
        for field in _BYTES:
            joined = b"".join(getattr(clip, field) for clip in clips)
            arrays[field] = np.frombuffer(joined, np.uint8).reshape(len(clips), 16)
        for field in _STRINGS:
            encoded = [getattr(clip, field).encode("utf-8", "surrogatepass") for clip in clips]
            arrays[field] = np.frombuffer(b"".join(encoded), np.uint8)
            arrays[f"{field}_ends"] = np.cumsum([len(part) for part in encoded], dtype=np.int64)
        return cls(arrays, facts)

    def __len__(self) -> int:
        return len(self.arrays["number"])

    def __getitem__(self, position: int) -> IndexedClip:
        values: dict[str, Any] = {name: int(self.arrays[name][position]) for name in ("number", "samples", "speaker")}
        values["signature"] = tuple(self.arrays["signature"][position].tolist())
        values["ids"] = tuple(self._part("ids", position).tolist())
        values.update({name: self.text_of(name, position) for name in _STRINGS})
        values.update({name: self.arrays[name][position].tobytes() for name in _BYTES})
        return IndexedClip(**values)

    def __iter__(self) -> Iterator[IndexedClip]:
        return (self[position] for position in range(len(self)))

    def text_of(self, field: str, position: int) -> str:
        """One of the strings of a clip."""
        return self._part(field, position).tobytes().decode("utf-8", "surrogatepass")

    def ids_of(self, position: int) -> np.ndarray:
        """(ids,) int32 of a clip."""
        return self._part("ids", position)

    def _part(self, field: str, position: int) -> np.ndarray:
        ends = self.arrays[f"{field}_ends"]
        return self.arrays[field][int(ends[position - 1]) if position else 0 : int(ends[position])]

    def fingerprint(self) -> str:
        """Stands for what is trained on: sounds, ids, speakers and the options that shape them; not where it lies."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("number", "samples", "speaker", "content", "ids", "ids_ends"):
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        digest.update(json.dumps(self.facts.get("preparation")).encode())
        return digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process that is spawned: arrays in shared memory, of which torch hands over the address."""
        import torch

        if self._shared is None:
            self._shared = {name: torch.from_numpy(array.copy()).share_memory_() for name, array in self.arrays.items()}
        return {"shared": self._shared, "facts": self.facts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._shared, self.facts = state["shared"], state["facts"]
        self.arrays = {name: tensor.numpy() for name, tensor in self._shared.items()}

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        import safetensors.numpy

        facts = {"version": str(_VERSION), "facts": json.dumps(self.facts, ensure_ascii=False), "sum": self._sum()}
        with atomic_path(path) as temporary:
            safetensors.numpy.save_file(
                {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}, temporary, facts
            )

    @classmethod
    def read(cls, path: Path) -> Index | None:
        """Read an index; None if there is none, or if it is torn or of another version."""
        import safetensors

        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                said = file.metadata() or {}
                if said.get("version") != str(_VERSION):
                    return None
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            index = cls(arrays, json.loads(said["facts"]))
            return index if index._is_whole() and said["sum"] == index._sum() else None
        except (OSError, ValueError, LookupError, TypeError, safetensors.SafetensorError, RecursionError):
            return None

    def _sum(self) -> str:
        """A checksum of everything, so that what was damaged on the disk is made anew."""
        digest = hashlib.blake2b(json.dumps(self.facts).encode(), digest_size=16)
        for name in sorted(self.arrays):
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return digest.hexdigest()

    def _is_whole(self) -> bool:
        """Whether the arrays fit each other, so that no item can lie outside of them."""
        arrays, count = self.arrays, len(self)
        if not isinstance(self.facts, dict) or arrays["signature"].shape != (count, 4):
            return False
        if any(len(arrays[name]) != count for name in ("samples", "speaker")):
            return False
        if any(arrays[name].shape != (count, 16) or arrays[name].dtype != np.uint8 for name in _BYTES):
            return False
        for name in (*_STRINGS, "ids"):
            ends = arrays[f"{name}_ends"]
            rising = len(ends) == count and (count == 0 or (int(ends[0]) >= 0 and bool((np.diff(ends) >= 0).all())))
            if not rising or (int(ends[-1]) if count else 0) != len(arrays[name]):
                return False
        return True


def index_path(cache_dir: Path, request_key: str) -> Path:
    """Where the index of one request lies."""
    return cache_dir / f"index-{request_key}.safetensors"


def newest_index(cache_dir: Path) -> Index | None:
    """The index that was written last, of whatever request; None if there is none."""
    for path in _by_age(cache_dir):
        if (index := Index.read(path)) is not None:
            return index
    return None


def remove_old_indexes(cache_dir: Path) -> None:
    """Keep the newest few."""
    for path in _by_age(cache_dir)[_KEPT:]:
        path.unlink(missing_ok=True)


def _by_age(cache_dir: Path) -> list[Path]:
    found = []
    for path in cache_dir.glob("index-*.safetensors"):
        try:
            found.append((-path.stat().st_mtime_ns, path))
        except OSError:  # another process removed it just now
            continue
    return [path for _, path in sorted(found)]
