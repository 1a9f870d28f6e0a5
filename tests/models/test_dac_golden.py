"""The modded DAC codec gives the golden features, codes and sounds, small and full size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fish_speech.models import codec_config
from fish_speech.models.dac import DacCodec, DacConfig
from fish_speech.models.shapes import shapes_only

FEATURES = {"rtol": 0, "atol": 2e-4}  # the golden README's tolerance
FULL = {"rtol": 0, "atol": 5e-3}


@pytest.fixture(scope="module")
def answer(s1_golden):
    return {name: torch.from_numpy(value) for name, value in s1_golden("codec.npz").items()}


def test_names_shapes_and_their_order_equal_the_golden_ones(s1_golden, small_dac):
    shapes = [(name, list(p.shape)) for name, p in small_dac.named_parameters()]
    assert shapes == list(s1_golden("manifest.json")["models"]["codec"]["parameters"].items())
    assert list(small_dac.state_dict()) == [name for name, _ in shapes]


def test_names_and_shapes_of_the_released_codec_equal_the_golden_ones(s1_golden):
    with shapes_only():
        codec = DacCodec(DacConfig.from_mapping(codec_config("modded_dac_vq")))
    shapes = [(name, list(p.shape)) for name, p in codec.named_parameters()]
    assert shapes == list(s1_golden("full.json")["codec"]["parameters"].items())
    assert sum(p.numel() for p in codec.parameters()) == 391_430_530
    assert codec.config == DacConfig()


def test_features_codes_and_sound_equal_the_golden_ones(small_dac, answer):
    codec, wave = small_dac, answer["wave"][None, None]
    with torch.no_grad():
        latents = codec.encoder(torch.nn.functional.pad(wave, (0, -wave.size(2) % codec.samples_per_frame)))
        torch.testing.assert_close(latents, answer["encoder_out"], **FEATURES)
        torch.testing.assert_close(codec.quantizer.before_codes(latents), answer["pre_module_out"], **FEATURES)
    codes, frames = codec.encode(wave)
    assert codes.dtype == torch.int64 and torch.equal(codes, answer["codes"])
    assert frames.tolist() == answer["code_lengths"].tolist()
    sound = codec.decode(codes, frames)
    torch.testing.assert_close(sound, answer["decoded"], **FEATURES)
    assert (frames * codec.samples_per_frame).tolist() == answer["decoded_lengths"].tolist()


def test_a_batch_of_different_lengths_equals_the_golden_one(small_dac, answer):
    codes, frames = small_dac.encode(answer["batch_wave"], answer["batch_lengths"])
    assert torch.equal(codes, answer["batch_codes"])
    assert frames.tolist() == answer["batch_code_lengths"].tolist()


def test_any_codes_sound_as_the_golden_ones_and_too_large_ones_as_the_last(small_dac, answer):
    codes = answer["random_codes"]
    sizes = torch.tensor(small_dac.codebook_sizes)[:, None]
    assert (codes >= sizes).float().mean() > 0.1
    sound = small_dac.decode(codes)
    torch.testing.assert_close(sound, answer["random_decoded"], **FEATURES)
    assert torch.equal(sound, small_dac.decode(codes.minimum(sizes - 1)))


def golden_wave() -> torch.Tensor:
    """The sound of the full-size answers, by the formula in full.json."""
    samples = 44100
    t, rng = np.arange(samples) / samples, np.random.default_rng(303)
    tone = 0.3 * np.sin(2 * np.pi * 300 * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t))
    return torch.from_numpy((tone + 0.05 * rng.standard_normal(samples)).astype(np.float32))


@pytest.mark.slow
def test_full_size_codec_equals_the_golden_one(s1_golden, filled_dac):
    info, answer = s1_golden("full.json")["codec"], s1_golden("full.npz")
    codec = filled_dac(DacConfig(), info["seed"], info["override"])
    wave = golden_wave()
    torch.testing.assert_close(wave[:2048], torch.from_numpy(answer["codec_wave"]))
    padded = torch.nn.functional.pad(wave[None, None], (0, -wave.numel() % codec.samples_per_frame))
    with torch.no_grad():
        latents = codec.encoder(padded)
        before = codec.quantizer.before_codes(latents)
    torch.testing.assert_close(latents[0, ::16], torch.from_numpy(answer["codec_encoder_out"]), **FULL)
    torch.testing.assert_close(before[0, ::8], torch.from_numpy(answer["codec_pre_module_out"]), **FULL)
    expected = torch.from_numpy(answer["codec_codes"]).long()
    codes, frames = codec.encode(wave[None, None])
    assert (codes == expected).float().mean() >= 0.99
    assert frames.tolist() == [22]
    sound = codec.decode(expected)
    assert list(sound.shape) == info["decoded_shape"]
    torch.testing.assert_close(sound[0, 0, ::7], torch.from_numpy(answer["codec_decoded"]), **FULL)
    assert abs(float(sound.double().sum()) - info["decoded_sum"]) < 5e-3 * sound.numel()
