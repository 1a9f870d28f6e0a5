"""A folder of shards: `00000000.protos`, ... and `index.json`, which says what they hold and what they were made from.

A new set is written under temporary names. Then the index is marked as changing, the shards are renamed, shards of the
old set are removed, and the new index is written last. So at any moment the folder either holds one whole set, which
its index describes, or says of itself that it does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ..checkpoint import sha256
from ..errors import UserError
from ..files import TEMPORARY_PREFIX, write_json
from .protos import SUFFIXES, framed

INDEX_FILE = "index.json"
FORMAT = 1  # raised when the same input must be packed anew


class ShardWriter:
    """Write records to shards in `folder`. `publish` makes them the folder's set, `discard` forgets them.

    shard_size: bytes; a shard that has more is closed and the next one started.
    """

    def __init__(self, folder: Path, shard_size: int):
        self.folder, self.shard_size = folder, shard_size
        self.shards: list[dict[str, Any]] = []  # name, bytes, sha256
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()

    def _temporary(self, name: str) -> Path:
        return self.folder / f"{TEMPORARY_PREFIX}{os.getpid()}-{name}"

    def write(self, record: bytes) -> None:
        """Append a serialised record."""
        if self._file is None:
            name = f"{len(self.shards):08d}.protos"
            self.shards.append({"name": name, "bytes": 0})
            self._file, self._hash = self._temporary(name).open("wb"), hashlib.sha256()
        data = framed(record)
        self._file.write(data)
        self._hash.update(data)
        self.shards[-1]["bytes"] += len(data)
        if self.shards[-1]["bytes"] > self.shard_size:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None
            self.shards[-1]["sha256"] = self._hash.hexdigest()

    def publish(self, facts: dict[str, Any]) -> None:
        """Replace the folder's shards by the written ones; `facts` go into the index."""
        self._close()
        index = self.folder / INDEX_FILE
        write_json(index, {"state": "changing"})
        for shard in self.shards:
            self._temporary(shard["name"]).replace(self.folder / shard["name"])
        keep = {shard["name"] for shard in self.shards}
        for path in shards_below(self.folder):
            if path.parent == self.folder and path.name not in keep:
                path.unlink()
        write_json(index, {"state": "whole", "format": FORMAT, "shards": self.shards, **facts})

    def discard(self) -> None:
        """Remove what was written and not published."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # on a full disk closing fails once more on what is in the buffer
                self._file.close()
            self._file = None
        for shard in self.shards:
            self._temporary(shard["name"]).unlink(missing_ok=True)


def read_index(folder: Path) -> dict[str, Any] | None:
    """Return the index of a folder of shards, or None if there is none or it cannot be read."""
    try:
        index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        return index if isinstance(index, dict) else None
    except (OSError, ValueError, RecursionError):
        return None


def problem_of(folder: Path, index: dict[str, Any] | None, hashes: bool = False) -> str | None:
    """Say why `folder` does not hold exactly the shards its index lists, or None if it does.

    Sizes are compared, and with `hashes` the content too.
    """
    if index is None:
        return f"it has no readable {INDEX_FILE}"
    if index.get("state") != "whole":
        return "packing was stopped while the shards were being replaced"
    if index.get("format") != FORMAT:
        return "it was packed by another version of this toolkit"
    listed = index.get("shards")
    if not isinstance(listed, list) or not all(isinstance(shard, dict) for shard in listed):
        return f"its {INDEX_FILE} is damaged"
    names = {shard.get("name") for shard in listed}
    found = {path.name: path for path in shards_below(folder) if path.parent == folder}
    if names != set(found):
        return f"it holds {len(found)} shards, other than the {len(names)} its {INDEX_FILE} lists"
    for shard in listed:
        path = found[shard["name"]]
        if path.stat().st_size != shard.get("bytes"):
            return f"{path.name} has {path.stat().st_size} bytes instead of {shard.get('bytes')}"
        if hashes and sha256(path) != shard.get("sha256"):
            return f"{path.name} has other content than when it was packed"
    return None


def shards_below(folder: Path) -> list[Path]:
    """Return the shards in `folder` and below, sorted; unfinished ones are ignored."""
    paths = (path for path in folder.rglob("*") if path.suffix in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in paths if path.is_file())


def find_shards(paths: Sequence[str | Path] | str | Path) -> list[Path]:
    """Return the shards that files and folders name. Raises UserError where one is missing or a set is not whole.

    A folder without an index, such as one made by upstream's tool, is taken as it is.
    """
    shards: list[Path] = []
    for path in [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]:
        if path.is_dir():
            folders = {path, *(index.parent for index in path.rglob(INDEX_FILE))}
            for folder in sorted(folders):
                why = problem_of(folder, read_index(folder)) if (folder / INDEX_FILE).exists() else None
                if why:
                    raise _unusable(folder, why)
            found = shards_below(path)
        else:
            found = [path] if path.is_file() else []
        if not found:
            raise _unusable(path, "there is no .protos file")
        shards += found
    return shards


def _unusable(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} holds no whole set of packed training data",
        why,
        f"python -m fish_speech.build_dataset --input DATA --output {path}",
    )
