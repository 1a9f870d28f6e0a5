"""What a batch has made: a line per output in batch.jsonl beside the outputs, from which it goes on where it stopped.

An output is done if its file is, byte for byte, the one recorded, and was made from the same text, settings and voice.
The record is written before the file gets its name, so that a run that is killed between the two knows its own file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from ..errors import UserError, disk_full
from ..files import remove_leftovers
from .batch_line import BatchLine

RECORD, LOCK = "batch.jsonl", ".batch.lock"
SHOWN_FILES = 10


@dataclass(frozen=True)
class Made:
    """An output as it was made."""

    inputs: str  # digest of what decides it
    sha256: str  # of the file
    complaint: str | None = None  # why it is not good, although it was kept


@dataclass(frozen=True)
class BatchPlan:
    """What is left to do, by line numbers."""

    todo: frozenset[int]
    todo_bytes: int  # of text
    done: int
    complaints: tuple[tuple[int, str], ...] = ()  # of lines that are done but not good


def inputs_digest(line: BatchLine, voice: Any) -> str:
    """Digest of all that decides a line's output; `voice` says the rest in JSON values: weights, reference, limits."""
    kind = line.output.rpartition(".")[2].lower()
    value = {"text": line.text, "settings": asdict(line.settings), "kind": kind, "voice": voice}
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class BatchRecord:
    """The record of an output folder. Use as a context manager: a second batch in the same folder is refused."""

    def __init__(self, folder: Path, overwrite: bool = False):
        self.folder, self.overwrite = Path(folder), overwrite
        self.path = self.folder / RECORD
        self._made: dict[str, list[Made]] = {}  # by output: the files it may be, the newest last
        self._file: IO[bytes]

    def __enter__(self) -> BatchRecord:
        try:
            self._is_new = not self.folder.exists()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.folder / LOCK, timeout=0)
            self._lock.acquire()
            self._file = self.path.open("ab", buffering=0)
        except Timeout:
            why = "two at once would write the same files"
            fix = "wait until it ends, then run the same command again"
            raise UserError(f"another batch is writing to {self.folder}", why, fix) from None
        except OSError as error:
            if disk_full(error):
                raise
            why = error.strerror or str(error)
            raise UserError(f"cannot write to {self.folder}", why, "choose another --output folder") from None
        if self._read():  # a batch was here before, and may have been killed
            remove_leftovers(self.folder)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()
        with suppress(OSError):
            if self.path.stat().st_size == 0:  # nothing was made
                self.path.unlink()
                if self._is_new:
                    (self.folder / LOCK).unlink()
        self._lock.release()
        if self._is_new:
            with suppress(OSError):  # it is not empty
                self.folder.rmdir()

    def plan(self, lines: Iterable[BatchLine], voice_of: Callable[[BatchLine], Any]) -> BatchPlan:
        """Find which lines are done. Raises UserError for files in the way that no batch of this folder has made."""
        todo, size, done = set(), 0, 0
        complaints, foreign = [], []
        root = self.folder.resolve()
        for line in lines:
            path = self.folder / line.output
            if not path.resolve().is_relative_to(root):
                foreign.append(f"{path} is a link that leads out of the folder")
                continue
            made = self._found(path, line.output)
            if made is not None and made.inputs == inputs_digest(line, voice_of(line)):
                done += 1
                if made.complaint is not None:
                    complaints.append((line.number, made.complaint))
                continue
            if path.is_dir() or (made is None and not self.overwrite and os.path.lexists(path)):
                foreign.append(f"{path} is a folder" if path.is_dir() else f"{path}")
            todo.add(line.number)
            size += len(line.text.encode())
        if foreign:
            more = [f"and {len(foreign) - SHOWN_FILES} more"] if len(foreign) > SHOWN_FILES else []
            raise UserError(
                f"{len(foreign)} outputs are in the way, which this batch did not make or which were changed since",
                "\n       ".join(foreign[:SHOWN_FILES] + more),
                "choose another --output folder, or add --overwrite",
            )
        return BatchPlan(frozenset(todo), size, done, tuple(complaints))

    def add(self, line: BatchLine, voice: Any, file: Path, complaint: str | None = None) -> None:
        """Note that `file`, whole but still under its temporary name, is about to become the line's output."""
        made = Made(inputs_digest(line, voice), _sha256(file), complaint)
        entry = {"output": line.output, **asdict(made)}
        data = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        if self._file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        os.fsync(self._file.fileno())
        self._made.setdefault(line.output, []).append(made)

    def _found(self, path: Path, output: str) -> Made | None:
        """What the file at `path` was made as; None if there is none, or another one."""
        known = self._made.get(output)
        if not known or not path.is_file():
            return None
        digest = _sha256(path)
        return next((made for made in reversed(known) if made.sha256 == digest), None)

    def _read(self) -> bool:
        """Read what earlier runs have noted; return whether they noted anything."""
        line = b""
        with self.path.open("rb") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                    made = Made(str(entry["inputs"]), str(entry["sha256"]), entry.get("complaint"))
                    self._made.setdefault(entry["output"], []).append(made)
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    continue  # torn when the run was killed: its file had no name yet
        if line and not line.endswith(b"\n"):
            self._file.write(b"\n")
        return bool(line)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
