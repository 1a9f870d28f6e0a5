"""Speak a batch: each line into its own file, one after the other; a line that fails does not stop the others."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DONE, FAILED, UserError
from ..prepare.names import one_line
from .batch_line import BatchLine
from .batch_record import BatchPlan, BatchRecord
from .file_sink import FileSink

log = logging.getLogger(__name__)

SHOWN_FAILURES = 10


@dataclass
class BatchResult:
    """What became of a batch."""

    done: int = 0  # before it began
    spoken: int = 0
    failed: int = 0  # without an output
    poor: int = 0  # with an output that is not good, by what the check of each line says
    first: list[str] = field(default_factory=list)  # the first failures and complaints, with their lines

    @property
    def exit_code(self) -> int:
        """1 if a line failed or is not good."""
        return FAILED if self.failed or self.poor else DONE

    def note(self, number: int, reason: str) -> None:
        """Keep a failure for the summary, if it is among the first."""
        if len(self.first) < SHOWN_FAILURES:
            self.first.append(f"line {number}: {reason}")

    def __str__(self) -> str:
        counts = [f"{self.spoken} spoken", f"{self.done} done before", f"{self.failed} failed", f"{self.poor} not good"]
        return ", ".join(counts[:2] + [text for text in counts[2:] if text[0] != "0"])


def run_batch(
    lines: Iterable[BatchLine],
    speak: Callable[[BatchLine], Iterable[np.ndarray]],
    record: BatchRecord,
    plan: BatchPlan,
    voice_of: Callable[[BatchLine], Any],
    sample_rate: int,
    complaint: Callable[[BatchLine], str | None] = lambda line: None,
    tell: Callable[[Path], None] = lambda path: None,
) -> BatchResult:
    """Speak the lines that are left to do and record each; `plan` and `voice_of` are those of `record.plan`.

    `speak` gives a line's sound in chunks, float32 (samples,), and raises UserError if it cannot. When it is through,
    `complaint` may say why the sound, which is kept, is not good. `tell` gets the path of each new file.
    Ctrl+C, a full disk and errors that are no line's own end the batch; what was made until then stays and is recorded.
    """
    result = BatchResult(done=plan.done, poor=len(plan.complaints))
    for number, complained in plan.complaints:
        result.note(number, f"not good: {complained}")
    pace = _Pace(len(plan.todo), plan.todo_bytes)
    for line in lines:
        if line.number not in plan.todo:
            continue
        started = time.monotonic()
        try:
            seconds, reason = _speak_line(line, speak, record, voice_of(line), sample_rate, complaint)
        except (UserError, RuntimeError, ValueError) as error:
            # torch says with a RuntimeError that memory is short, and a ValueError is a line's own settings': the next
            # line may be fine. What is no UserError may be a bug, so its traceback is told.
            told = f"{error.what}: {error.why}" if isinstance(error, UserError) else repr(error)
            why = one_line(told)[:500]
            result.failed += 1
            result.note(line.number, why)
            log.error("line %d failed: %s", line.number, why, exc_info=not isinstance(error, UserError))
            pace.add(line, 0.0, 0.0)
            continue
        result.spoken += 1
        if reason is not None:
            result.poor += 1
            result.note(line.number, f"not good: {reason}")
            log.warning("line %d is not good: %s", line.number, reason)
        pace.add(line, seconds, time.monotonic() - started)
        tell(record.folder / line.output)
    return result


def _speak_line(
    line: BatchLine,
    speak: Callable[[BatchLine], Iterable[np.ndarray]],
    record: BatchRecord,
    voice: Any,
    sample_rate: int,
    complaint: Callable[[BatchLine], str | None],
) -> tuple[float, str | None]:
    """Speak into the line's file; return its seconds and what is not good about it."""
    reasons: list[str | None] = []

    def note(file: Path) -> None:
        reasons.append(complaint(line))
        record.add(line, voice, file, reasons[0])

    path = record.folder / line.output
    with FileSink(path, sample_rate, before_rename=note) as sink:
        chunks = speak(line)
        try:
            for chunk in chunks:
                sink.write(chunk)
        finally:
            if isinstance(chunks, Generator):
                chunks.close()  # now, not when the error is forgotten: it may hold a thread and the model's cache
        if not sink.samples:
            raise UserError("the model said nothing", "it ended at once", "try another seed or a higher temperature")
    return sink.samples / sample_rate, reasons[0]


class _Pace:
    """Says after each line how far the batch is, how fast it goes, and how long the rest will take by its text."""

    def __init__(self, lines: int, text_bytes: int):
        self._lines, self._left = lines, text_bytes
        self._number = self._spoken = 0
        self._spent = 0.0

    def add(self, line: BatchLine, seconds: float, spent: float) -> None:
        size = len(line.text.encode())
        self._number += 1
        self._left -= size
        if seconds:
            self._spoken += size
            self._spent += spent
            left = _clock(self._left * self._spent / self._spoken)
            speed = f"{seconds:.2f} s of speech in {spent:.1f} s ({seconds / max(spent, 1e-9):.2f} x real time)"
            log.info("%d/%d  %s  %s  %s left", self._number, self._lines, line.output, speed, left)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def tell_path(path: Path) -> None:
    """Name a new file on stdout, at once."""
    sys.stdout.write(f"{path}\n")
    sys.stdout.flush()
