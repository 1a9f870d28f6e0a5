"""Silence at the ends and speaking rate, on sounds whose answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.evaluation import measure_timing, speaking_rate

RATE = 8000


def tone(seconds: float, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE))


def test_silence_at_both_ends_is_found_and_a_pause_inside_is_speech():
    timing = measure_timing(np.concatenate([silence(0.2), tone(0.5), silence(0.4), tone(0.1), silence(0.7)]), RATE)
    assert timing.duration_s == pytest.approx(1.9)
    assert timing.leading_silence_s == pytest.approx(0.2, abs=0.011)  # a frame is 0.01 s
    assert timing.trailing_silence_s == pytest.approx(0.7, abs=0.011)
    assert timing.speech_s == pytest.approx(1.0, abs=0.021)


def test_noise_far_below_the_speech_is_silence():
    noise = np.random.default_rng(0).normal(0, 0.0005, 2 * RATE)
    noise[: RATE // 2] += tone(0.5)
    assert measure_timing(noise, RATE).trailing_silence_s == pytest.approx(1.5, abs=0.011)


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(100), tone(0.5, 1e-5)])
def test_a_silent_clip_has_no_speech(samples):
    assert measure_timing(samples, RATE).speech_s == 0


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), max_size=400), st.sampled_from([7, 100, 8000]))
def test_parts_are_never_negative_and_never_longer_than_the_clip(samples, rate):
    timing = measure_timing(np.array(samples), rate)
    assert min(timing.leading_silence_s, timing.trailing_silence_s, timing.speech_s) >= 0
    assert timing.leading_silence_s + timing.trailing_silence_s <= timing.duration_s + 1e-9


def test_speaking_rate_counts_spelled_out_words_and_their_letters():
    pytest.importorskip("num2words", reason="the eval extra is not installed")
    assert speaking_rate("Gate 22!", 2.0) == {"words_per_s": 1.5, "characters_per_s": 6.5}
    assert speaking_rate("Gate", 0.0) is None
