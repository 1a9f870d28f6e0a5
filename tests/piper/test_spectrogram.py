"""Spectrograms keep time and precision, and say what is too short for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from piper_train.models.config import VitsConfig
from piper_train.models.spectrogram import linear_spectrogram, log_mel, mel_filters, mel_of


@given(samples=st.integers(385, 3000))
@settings(deadline=None, max_examples=30)
def test_there_is_a_frame_for_each_whole_hop(samples):
    assert linear_spectrogram(torch.zeros(samples), 1024, 256, 1024).shape == (513, samples // 256)
    assert mel_of(torch.zeros(2, samples), VitsConfig()).shape == (2, 80, samples // 256)


def test_a_batch_gives_what_each_row_gives_alone():
    audio = torch.randn(3, 2000)
    together = mel_of(audio, VitsConfig())
    for row, mel in zip(audio, together, strict=True):
        torch.testing.assert_close(mel_of(row, VitsConfig()), mel, rtol=0, atol=1e-5)


def test_a_tone_lies_in_the_band_of_its_pitch():
    config = VitsConfig(sample_rate=16000)
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(4096) / 16000)
    assert linear_spectrogram(tone, 1024, 256, 1024)[:, 8].argmax() == 1000 * 1024 // 16000
    centres = mel_filters(16000, 1024, 80, 0, 8000) @ np.linspace(0, 8000, 513)
    centres /= mel_filters(16000, 1024, 80, 0, 8000).sum(1)
    assert abs(centres[mel_of(tone, config)[:, 8].argmax()] - 1000) < 50


def test_bands_keep_within_their_limits():
    bank = mel_filters(22050, 1024, 40, 500, 5000)
    frequencies = np.linspace(0, 11025, 513)
    assert bank.shape == (40, 513) and bank.dtype == np.float32
    assert not bank[:, (frequencies <= 500) | (frequencies >= 5000)].any()
    assert (bank.sum(1) > 0).all()
    step = 22050 / 1024
    np.testing.assert_allclose(bank[20:].sum(1) * step, 1, atol=0.02)  # each triangle has area 1


def test_mel_limits_of_the_config_are_heard():
    audio = torch.randn(2000)
    low = mel_of(audio, VitsConfig(mel_fmax=4000.0, mel_fmin=100.0))
    bank = torch.from_numpy(mel_filters(22050, 1024, 80, 100, 4000))
    expected = (bank @ linear_spectrogram(audio, 1024, 256, 1024)).clamp(min=1e-5).log()
    torch.testing.assert_close(low, expected, rtol=0, atol=1e-5)


def test_audio_too_short_to_be_reflected_is_refused_by_its_length():
    with pytest.raises(ValueError, match="384 samples are too few for a spectrogram; it needs 385"):
        linear_spectrogram(torch.zeros(384), 1024, 256, 1024)
    with pytest.raises(ValueError, match="0 samples are too few"):
        mel_of(torch.zeros(1, 0), VitsConfig())


def test_autocast_and_half_precision_input_change_nothing():
    audio = torch.randn(2, 4096)
    expected = mel_of(audio, VitsConfig())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(mel_of(audio, VitsConfig()), expected, rtol=0, atol=0)
    assert mel_of(audio.bfloat16(), VitsConfig()).dtype == torch.float32


def test_a_first_use_in_inference_mode_does_not_spoil_training():
    config = VitsConfig(sample_rate=8000, win_length=700)  # a window and a filter bank that no other test makes
    with torch.inference_mode():
        mel_of(torch.randn(2000), config)
    audio = torch.randn(2000, requires_grad=True)
    mel_of(audio, config).sum().backward()
    assert audio.grad is not None and audio.grad.isfinite().all()


def test_silence_has_finite_mel_and_gradient():
    audio = torch.zeros(2000, requires_grad=True)
    linear = linear_spectrogram(audio, 1024, 256, 1024)
    torch.testing.assert_close(linear, torch.full_like(linear, 1e-3), rtol=1e-6, atol=0)
    mel = log_mel(linear, VitsConfig())
    mel.sum().backward()
    assert mel.isfinite().all() and audio.grad is not None and audio.grad.isfinite().all()
