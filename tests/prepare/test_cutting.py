"""Streams of sound: stretches out of them, and reading ahead, which changes nothing but the time it takes."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.prepare.cutting import cut, read_ahead
from fish_speech.timeline import Span


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.lists(st.integers(0, 300), max_size=8, unique=True).map(sorted),
)
def test_stretches_are_what_lies_between_their_times_however_the_stream_is_divided(sizes, marks):
    sound = np.arange(sum(sizes), dtype=np.float32)
    blocks = np.split(sound, np.cumsum(sizes)[:-1])
    spans = [Span(a / 10, b / 10) for a, b in zip(marks[::2], marks[1::2])]
    found = list(cut(blocks, 10, spans))
    assert len(found) == len(spans)
    for span, samples in zip(spans, found):
        np.testing.assert_array_equal(samples, sound[round(10 * span.start_s) : round(10 * span.end_s)])


@pytest.mark.parametrize("count", [0, 1, 50])
def test_reading_ahead_gives_the_same_blocks_in_order(count):
    blocks = [np.full(3, number) for number in range(count)]
    assert [block[0] for block in read_ahead(iter(blocks))] == list(range(count))


def test_what_reading_raises_is_raised_after_the_blocks_before_it():
    def blocks():
        yield np.zeros(1)
        raise OSError("torn")

    stream = read_ahead(blocks())
    assert len(next(stream)) == 1
    with pytest.raises(OSError, match="torn"):
        next(stream)


def test_a_reader_that_is_left_early_has_stopped_reading_and_only_a_few_blocks_were_read():
    read = []

    def blocks():
        for number in range(1000):
            read.append(number)
            yield np.zeros(1)

    before = threading.active_count()
    stream = read_ahead(blocks(), most=2)
    next(stream)
    stream.close()
    assert threading.active_count() == before and len(read) < 10
