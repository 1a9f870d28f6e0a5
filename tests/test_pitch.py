"""The tests' own measure of pitch is right where the pitch is known."""

import numpy as np
import pytest

from .pitch import median_pitch, pitch_track


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("hz", [85.0, 123.4, 220.0, 431.0])
def test_the_pitch_of_a_buzz_with_overtones_is_found(hz, rate):
    time = np.arange(rate) / rate
    sound = sum(np.sin(2 * np.pi * hz * n * time + n) / n for n in range(1, 9))
    noisy = sound + 0.05 * np.random.default_rng(0).standard_normal(rate)
    assert median_pitch(noisy, rate) == pytest.approx(hz, rel=0.005)


def test_noise_has_none():
    noise = np.random.default_rng(0).standard_normal(16000)
    assert len(pitch_track(noise, 16000)) < 10
