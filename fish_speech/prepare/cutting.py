"""Streams of sound: take stretches out of one, in the memory of one stretch, and read ahead in another thread."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ..timeline import Span


def cut(blocks: Iterable[np.ndarray], sample_rate: int, spans: Sequence[Span]) -> Iterator[np.ndarray]:
    """Yield the samples of each span, float32 (samples,), from a stream that starts at 0 s.

    Spans must be sorted and must not overlap. A span that goes beyond the end of the stream is cut short there.
    """
    wanted = iter(spans)
    span = next(wanted, None)
    parts: list[np.ndarray] = []
    position = 0  # samples before this block
    for block in blocks:
        while span is not None:
            start, end = round(span.start_s * sample_rate) - position, round(span.end_s * sample_rate) - position
            if start < len(block):
                parts.append(block[max(0, start) : end])
            if end > len(block):
                break
            yield _joined(parts)
            parts, span = [], next(wanted, None)
        position += len(block)
        if span is None:
            return
    while span is not None:
        yield _joined(parts)
        parts, span = [], next(wanted, None)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def read_ahead(blocks: Iterable[np.ndarray], most: int = 2) -> Iterator[np.ndarray]:
    """Yield `blocks` while a thread reads up to `most` further ones. What reading raises is raised here, in its place."""
    ready: queue.Queue[np.ndarray | BaseException | None] = queue.Queue(most)
    stopped = threading.Event()

    def read() -> None:
        end: BaseException | None = None
        try:
            for block in blocks:
                put(block)
                if stopped.is_set():
                    return
        except BaseException as error:
            end = error
        put(end)

    def put(item: np.ndarray | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                return ready.put(item, timeout=0.1)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        reader.join()  # nobody else may read or close the file before
