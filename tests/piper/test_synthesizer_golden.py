"""The generator gives the golden answers, from the text encoder to the waveform (see tests/golden/piper/README.md)."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from piper_train.models.config import VitsConfig
from piper_train.models.spectrogram import linear_spectrogram
from piper_train.models.synthesizer import Draws, Noise, Synthesizer

from .filled import fill_part

CASES = ("tiny_single", "tiny_multi_high", "tiny_dp")
SOUND = {"rtol": 0, "atol": 1e-5}  # the golden README's tolerances: encoder, latents and wave
LOGW = {"rtol": 0, "atol": 1e-4}
NEG_CENT = {"rtol": 0, "atol": 1e-4}  # two threads instead of one move it by 4e-5


@pytest.fixture(scope="module", params=CASES)
def case(request, piper_golden):
    """A golden case: its json, its arrays as tensors, and its model."""
    facts = piper_golden(f"{request.param}.json")
    arrays = {name: torch.from_numpy(value) for name, value in piper_golden(f"{request.param}.npz").items()}
    return facts, arrays, filled_synthesizer(facts)


def filled_synthesizer(facts: dict) -> Synthesizer:
    return fill_part(Synthesizer(VitsConfig.from_mapping(facts["hparams"])), "model_g.", facts)


def spectrograms(config: VitsConfig, audio: torch.Tensor, samples: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Spectrograms of clips, each made of the clip alone, padded to one length."""
    spec = torch.zeros(len(audio), config.spec_channels, int(frames.max()))
    for row, clip in enumerate(audio[:, 0]):
        alone = linear_spectrogram(clip[: samples[row]], config.filter_length, config.hop_length, config.win_length)
        spec[row, :, : frames[row]] = alone.squeeze()[:, : frames[row]]
    return spec


def train(model: Synthesizer, arrays: dict):
    lengths = arrays["train.spec_lengths"]
    spec = spectrograms(model.config, arrays["train.audio"], arrays["train.audio_lengths"], lengths)
    draws = Draws(arrays["train.noise_q"], arrays.get("train.noise_dp"), arrays["train.u_slice"])
    with torch.no_grad():
        return model(arrays["ids"], arrays["ids_lengths"], spec, lengths, arrays.get("sid"), draws)


def speak(model: Synthesizer, arrays: dict, scales: dict, noise: Noise):
    given = (arrays["ids"], arrays["ids_lengths"], arrays.get("sid"))
    with torch.no_grad():
        return model.infer(*given, scales["noise_scale"], scales["length_scale"], scales["noise_w"], noise)


def test_text_is_encoded_as_golden(case):
    _, arrays, model = case
    with torch.no_grad():
        text = model.enc_p(arrays["ids"], arrays["ids_lengths"])
    assert_close(text.x, arrays["infer0.enc_x"], **SOUND)
    assert_close(text.m, arrays["infer0.enc_m"], **SOUND)
    assert_close(text.logs, arrays["infer0.enc_logs"], **SOUND)


def test_speech_without_noise_is_golden(case):
    facts, arrays, model = case
    spoken = speak(model, arrays, facts["infer0"], Noise())
    assert torch.equal(spoken.durations, arrays["infer0.durations"])
    assert torch.equal(spoken.y_mask, arrays["infer0.y_mask"])
    assert_close(spoken.logw, arrays["infer0.logw"], **LOGW)
    for name in ("z_p", "z", "dec_in", "wave"):
        assert_close(getattr(spoken, name), arrays[f"infer0.{name}"], **SOUND)


def test_speech_with_pinned_noise_is_golden(case):
    facts, arrays, model = case
    noise = Noise(arrays.get("inferN.noise_dp"), arrays["inferN.noise_p"])
    spoken = speak(model, arrays, facts["inferN"], noise)
    assert torch.equal(spoken.durations, arrays["inferN.durations"])
    assert_close(spoken.logw, arrays["inferN.logw"], **LOGW)
    for name in ("z_p", "z", "wave"):
        assert_close(getattr(spoken, name), arrays[f"inferN.{name}"], **SOUND)


def test_a_training_step_with_pinned_draws_is_golden(case):
    _, arrays, model = case
    trained = train(model, arrays)
    assert torch.equal(trained.path, arrays["train.path"].float())
    assert torch.equal(trained.ids_slice, arrays["train.ids_slice"])
    for name in ("z", "m_q", "logs_q", "z_p", "m_p", "logs_p", "y_hat"):
        assert_close(getattr(trained, name), arrays[f"train.{name}"], **SOUND)
    # The golden loss is divided by the symbols of the whole batch.
    assert_close(trained.l_length / trained.x_mask.sum(), arrays["train.l_length"], rtol=1e-4, atol=0)


def test_frames_are_as_likely_under_symbols_as_golden(case):
    from piper_train.models.alignment import log_likelihood

    _, arrays, model = case
    with torch.no_grad():
        text = model.enc_p(arrays["ids"], arrays["ids_lengths"])
    likely = log_likelihood(arrays["train.z_p"], text.m, text.logs)
    assert_close(likely, arrays["train.neg_cent"], **NEG_CENT)


def draw(name: str, shape: tuple[int, ...], seed: int = 0, uniform: bool = False) -> np.ndarray:
    """Noise that the golden README defines by name."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    return rng.random(shape, dtype=np.float32) if uniform else rng.standard_normal(shape, dtype=np.float32)


def medium_clip(number: int, samples: int, rate: int = 22050) -> np.ndarray:
    """The harmonic sound that the golden README defines: clip `number` of the medium case."""
    name, time = f"medium.audio{number}", np.arange(samples) / rate
    c = zlib.crc32(name.encode()) % 97
    phase = 2 * np.pi * np.cumsum(110 + c + 30 * np.sin(2 * np.pi * 2.5 * time)) / rate
    envelope = 0.55 + 0.4 * np.sin(2 * np.pi * 3.1 * time + 0.1 * c)
    sound = 0.25 * envelope * sum(np.sin(h * phase) / h for h in (1, 2, 3, 5, 8))
    return np.clip(sound + 0.02 * draw(name, (samples,)).astype(np.float64), -0.99, 0.99).astype(np.float32)


class TestMedium:
    """The full size."""

    @pytest.fixture(scope="class")
    def medium(self, piper_golden):
        facts = piper_golden("medium.json")
        arrays = {name: torch.from_numpy(value) for name, value in piper_golden("medium.npz").items()}
        return facts, arrays, filled_synthesizer(facts)

    @pytest.mark.parametrize("name", ["infer0", "infer0b", "inferN"])
    def test_medium_speaks_the_golden_waveform(self, medium, name):
        facts, arrays, model = medium
        scales = {"noise_scale": 0.0, "noise_w": 0.0, **facts[name]}
        frames = facts[name]["wave_shape"][2] // 256
        noise = Noise(
            torch.from_numpy(draw("medium.infer.noise_dp", (*arrays["ids"].shape[:1], 2, arrays["ids"].size(1)))),
            torch.from_numpy(draw("medium.infer.noise_p", (len(arrays["ids"]), 192, frames))),
        )
        spoken = speak(model, arrays, scales, noise)
        assert list(spoken.wave.shape) == facts[name]["wave_shape"]
        assert torch.equal(spoken.durations, arrays[f"{name}.durations"])
        assert_close(spoken.wave[:, :, :6000], arrays[f"{name}.wave_head"], **SOUND)
        assert_close(spoken.wave.abs().sum().item(), facts[name]["wave_abs_sum"], rtol=1e-5, atol=0)
        if name == "infer0":
            with torch.no_grad():
                text = model.enc_p(arrays["ids"], arrays["ids_lengths"])
            for part, made in (("enc_x", text.x), ("enc_m", text.m), ("enc_logs", text.logs)):
                assert_close(made[:, :12], arrays[f"infer0.{part}_slice"], **SOUND)
            assert_close(spoken.z[:, :8], arrays["infer0.z_slice"], **SOUND)
            assert_close(spoken.logw, arrays["infer0.logw"], **LOGW)

    def test_medium_trains_as_golden(self, medium):
        facts, arrays, model = medium
        samples = facts["train"]["n_samples"]
        audio = torch.zeros(len(samples), 1, max(samples))
        for number, count in enumerate(samples):
            audio[number, 0, :count] = torch.from_numpy(medium_clip(number, count))
        lengths = torch.tensor([count // 256 for count in samples])
        step = {
            **arrays,
            "train.audio": audio,
            "train.audio_lengths": torch.tensor(samples),
            "train.spec_lengths": lengths,
            "train.noise_q": torch.from_numpy(draw("medium.noise_q", (len(samples), 192, int(lengths.max())))),
            "train.noise_dp": torch.from_numpy(draw("medium.noise_dp", (len(samples), 2, arrays["ids"].size(1)))),
        }
        trained = train(model, step)
        assert torch.equal(trained.path, arrays["train.path"].float())
        assert torch.equal(trained.ids_slice, arrays["train.ids_slice"])
        assert_close(trained.z_p[:, :6], arrays["train.z_p_slice"], **SOUND)
        assert_close(trained.logs_q[:, :6], arrays["train.logs_q_slice"], **SOUND)
        assert_close(trained.y_hat[:, :, :2000], arrays["train.y_hat_head"], **SOUND)
        assert_close(trained.l_length / trained.x_mask.sum(), arrays["train.l_length"], rtol=1e-4, atol=0)
