"""A batch: a JSONL file whose lines are texts to say, each with its own output and, if it likes, its own settings.

All lines are checked before anything is loaded or written, one at a time, so that a batch may be larger than memory.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, BinaryIO

from ..errors import UserError, disk_full
from ..prepare.names import one_line
from .batch_line import BatchLine, LineSettings, parse_line
from .output_names import TakenNames

MAX_LINE_BYTES = 1 << 20
MAX_LINES = 1_000_000
MAX_BATCH_BYTES = 1 << 30
SHOWN_PROBLEMS = 10
_IN_MEMORY = 8 << 20  # bytes of a batch that are kept in memory; a longer one lies in a temporary file


class Batch:
    """The lines of a checked batch, as they were when they were checked. Close it, or use it as a context manager."""

    def __init__(self, defaults: LineSettings, spool: IO[bytes]):
        self.defaults = defaults
        self.count = self.text_bytes = 0
        self._spool = spool

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[BatchLine]:
        self._spool.seek(0)
        number = 0
        while line := self._spool.readline():
            number += 1
            if line.strip():
                position = self._spool.tell()
                yield parse_line(line, number, self.defaults)
                self._spool.seek(position)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *error: object) -> None:
        self._spool.close()


def batch_source(batch: Path) -> Path | BinaryIO:
    """Where a batch is read from: its file, or stdin for -. Raises UserError where stdin is closed."""
    if str(batch) != "-":
        return batch
    if sys.stdin is None:
        raise UserError("there is no batch on stdin", "it is closed", "give the lines to stdin, or a file to --batch")
    return sys.stdin.buffer


def read_batch(
    source: Path | BinaryIO,
    defaults: LineSettings | None = None,
    check: Callable[[BatchLine], None] | None = None,
) -> Batch:
    """Check every line of a JSONL file, or of an open stream such as sys.stdin.buffer, and return the batch.

    A line is an object: `text` and, all optional, `output` (a .wav or .flac inside the output folder) or `id` (the same
    without suffix; neither: the line's number, 0001.wav), and the fields of LineSettings. `check` may refuse a line by
    a ValueError or UserError of its own, for a voice that does not exist, say.

    Raises UserError that names the first wrong lines, and for a batch without lines or beyond the limits above.
    """
    name = str(source) if isinstance(source, Path) else "the batch on stdin"
    spool = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - the batch closes it
    try:
        batch, names, problems = Batch(defaults or LineSettings(), spool), TakenNames(), _Problems()
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(source.open("rb")) if isinstance(source, Path) else source
                for number, line in _copied_lines(file, spool, problems):
                    _check_line(batch, line, number, names, check, problems)
            except OSError as error:
                if disk_full(error):  # of the folder for temporary files
                    raise
                why = error.strerror or str(error)
                raise UserError(f"cannot read {name}", why, "check the path of --batch") from None
        problems.refuse(name)
        if not batch.count:
            example = '{"text": "Hello there.", "output": "hello.wav"}'
            raise UserError(f"{name} has no lines", "there is nothing to say", f"give a line per output: {example}")
    except BaseException:
        spool.close()
        raise
    return batch


class _Problems:
    """What is wrong with a batch: how many lines, and the first of them in words."""

    def __init__(self) -> None:
        self.count, self.first = 0, list[str]()

    def add(self, number: int, reason: str) -> None:
        self.count += 1
        if self.count <= SHOWN_PROBLEMS:
            self.first.append(f"line {number}: {one_line(reason)[:300]}")

    def refuse(self, name: str) -> None:
        if not self.count:
            return
        more = [f"and {self.count - SHOWN_PROBLEMS} more"] if self.count > SHOWN_PROBLEMS else []
        what = f"1 line of {name} is wrong" if self.count == 1 else f"{self.count} lines of {name} are wrong"
        raise UserError(what, "\n       ".join(self.first + more), "correct them; nothing was spoken or written")


def _copied_lines(file: BinaryIO, spool: IO[bytes], problems: _Problems) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank, with their number, after all have been copied to `spool`.

    A line beyond the limit ends the reading: it may well have no end.
    """
    number = size = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number, size = number + 1, size + len(line)
        if len(line) > MAX_LINE_BYTES:
            problems.add(number, "it is longer than 1 MB; what follows was not read")
            return
        if number > MAX_LINES or size > MAX_BATCH_BYTES:
            problems.add(number, f"a batch ends before it: {MAX_LINES:,} lines or 1 GB; split the file")
            return
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        spool.write(line if line.endswith(b"\n") else line + b"\n")
        if line.strip():
            yield number, line


def _check_line(
    batch: Batch,
    line: bytes,
    number: int,
    names: TakenNames,
    check: Callable[[BatchLine], None] | None,
    problems: _Problems,
) -> None:
    try:
        parsed = parse_line(line, number, batch.defaults)
        other = names.take(parsed.output, number)
        if other is not None:
            raise ValueError(f"output {parsed.output[:80]!r} is in the way of the output of line {other}")
        if check is not None:
            check(parsed)
    except ValueError as error:
        problems.add(number, str(error))
    except UserError as error:
        problems.add(number, f"{error.what}: {error.why}")
    else:
        batch.count += 1
        batch.text_bytes += len(parsed.text.encode())
