"""Take stretches out of a stream of sound, one at a time, so that hours need the memory of one stretch."""

from __future__ import annotations

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
