"""The sounds of the rows: entries that are there are kept, the rest made, in several processes where it pays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fish_speech.audio import AudioError
from fish_speech.errors import UserError
from fish_speech.log import progress
from fish_speech.workers import WorkerLost, run_tasks

from .entries import Facts, Preparation, Torn, content_of, entry_path, make_entry, read_facts
from .index import Index
from .left_out import LeftOut
from .request import PrepareRequest
from .rows import Row

_MOST_WORKERS = 8
_CLIPS_PER_WORKER = 24  # that pay for its start
_63_BITS = (1 << 63) - 1

Signature = tuple[int, int, int, int]


class Sound(NamedTuple):
    """A recording and its entry."""

    signature: Signature
    content: bytes
    facts: Facts


class _Task(NamedTuple):
    position: int
    recording: Path
    cache_dir: Path
    preparation: Preparation


class _Done(NamedTuple):
    position: int
    content: bytes = b""
    facts: Facts | None = None
    made: bool = False
    reason: str = ""  # why there is no entry


class Sounds:
    """Finds or makes the entries of recordings."""

    def __init__(self, request: PrepareRequest, before: Index | None):
        self.request = request
        self.known: dict[str, tuple[Signature, bytes]] = {
            clip.recording: (clip.signature, clip.content) for clip in before or ()
        }
        self.made = self.kept = 0

    def of(self, rows: Sequence[Row], left_out: LeftOut) -> Iterator[tuple[Row, Sound]]:
        """Yield each row that has a sound, in order."""
        signatures: dict[int, Signature] = {}
        done: dict[int, _Done] = {}
        tasks = []
        for position, row in enumerate(rows):
            try:
                signatures[position] = _signature(row.audio)
            except OSError as error:
                done[position] = _Done(position, reason=f"unreadable file: {error.strerror}")
                continue
            signature, content = self.known.get(str(row.audio), (None, b""))
            facts = self._facts(content) if signature == signatures[position] else None
            if facts is not None:
                done[position] = _Done(position, content, facts)
            else:
                tasks.append(_Task(position, row.audio, self.request.cache_dir, self.request.preparation))
        done.update((result.position, result) for result in self._run(tasks))
        for position, row in enumerate(rows):
            result = done[position]
            if result.facts is None:
                reason, _, details = result.reason.partition(":")
                left_out.add(reason, row.where, details.strip())
                continue
            self.made += result.made
            self.kept += not result.made
            yield row, Sound(signatures[position], result.content, result.facts)

    def _facts(self, content: bytes) -> Facts | None:
        try:
            return read_facts(entry_path(self.request.cache_dir, content, self.request.preparation))
        except Torn:
            return None

    def _run(self, tasks: Sequence[_Task]) -> Iterator[_Done]:
        useful = min(_MOST_WORKERS, os.cpu_count() or 1, -(-len(tasks) // _CLIPS_PER_WORKER))
        workers = min(useful, self.request.workers) if self.request.workers is not None else useful
        try:
            if tasks:
                yield from progress(run_tasks(make_sound, tasks, workers), "prepare", len(tasks), "clip")
        except WorkerLost as error:
            raise UserError(
                "a worker process died", str(error), "run the same command with --data.prepare_workers 1"
            ) from None


def _signature(path: Path) -> Signature:
    status = path.stat()
    size, mtime, ctime, inode = status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
    return size, mtime & _63_BITS, ctime & _63_BITS, inode & _63_BITS


def make_sound(task: _Task) -> _Done:
    """Find or make the entry of one recording, in whatever process."""
    try:
        content = content_of(task.recording)
    except OSError as error:
        return _Done(task.position, reason=f"unreadable file: {error.strerror}")
    path = entry_path(task.cache_dir, content, task.preparation)
    try:
        return _Done(task.position, content, read_facts(path))
    except Torn:
        pass
    try:
        return _Done(task.position, content, make_entry(task.recording, path, task.preparation), True)
    except AudioError as error:
        return _Done(task.position, reason=error.reason)
