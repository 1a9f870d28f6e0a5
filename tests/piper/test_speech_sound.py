"""The client's arithmetic from the model's samples to 16 bits, and the thread that works ahead."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fish_speech.speaking.sinks import to_pcm16
from piper_train.speech.ahead import ahead
from piper_train.speech.sound import for_sinks, levelled, to_client_pcm16

SOUNDS = arrays(np.float32, st.integers(1, 50), elements=st.floats(-1, 1, width=32))


def test_a_sentence_is_brought_to_full_scale_and_cut_off_towards_zero():
    sound = np.array([0.1, -0.25, 0.0, 0.2], np.float32)
    loud = levelled(sound)
    assert loud.dtype == np.float32 and loud.tolist() == pytest.approx([0.4, -1.0, 0.0, 0.8])
    assert to_client_pcm16(loud).tolist() == [13106, -32767, 0, 26213]  # 13106.8, 26213.6: not rounded
    assert levelled(sound, normalize=False).tolist() == sound.tolist()


def test_volume_comes_after_that_and_what_is_beyond_full_scale_is_held_there():
    sound = np.array([0.1, -0.25], np.float32)
    assert levelled(sound, volume=0.5).tolist() == pytest.approx([0.2, -0.5])
    assert levelled(sound, volume=3.0).tolist() == pytest.approx([1.0, -1.0])
    assert levelled(sound, normalize=False, volume=2.0).tolist() == pytest.approx([0.2, -0.5])


def test_silence_stays_silence():
    assert not levelled(np.full(5, 1e-9, np.float32)).any()
    assert levelled(np.zeros(0, np.float32)).shape == (0,)


@given(SOUNDS)
def test_a_sink_writes_the_clients_samples(sound):
    assert to_pcm16(for_sinks(sound)).tolist() == to_client_pcm16(sound).tolist()


@given(SOUNDS)
def test_what_is_levelled_stays_within_full_scale_and_keeps_its_shape(sound):
    loud = levelled(sound)
    assert loud.shape == sound.shape and np.abs(loud).max() <= 1
    assert np.abs(loud).max() == 1 or not loud.any()


def test_working_ahead_changes_neither_items_nor_their_order():
    assert list(ahead(iter(range(100)))) == list(range(100))
    assert list(ahead(iter(()))) == []


def test_the_next_item_is_made_while_this_one_is_used():
    made = []

    def items():
        for number in range(10):
            made.append(number)
            yield number

    taken = ahead(items())
    assert next(taken) == 0
    deadline = time.monotonic() + 10
    while len(made) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert made == [0, 1, 2]  # one waits, one more cannot be put down
    taken.close()


def test_an_error_comes_after_what_was_made_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    taken = ahead(items())
    assert next(taken) == 1
    with pytest.raises(ValueError, match="broken"):
        next(taken)


def test_closing_ends_the_thread():
    before = threading.active_count()
    taken = ahead(iter(range(1000)))
    next(taken)
    assert threading.active_count() == before + 1
    taken.close()
    assert threading.active_count() == before
