"""Decoder, duration predictors and spectrograms give the golden answers of Piper, each part alone."""

from __future__ import annotations

import pytest
import torch

from piper_train.models.config import VitsConfig
from piper_train.models.decoder import Decoder
from piper_train.models.durations import DurationPredictor
from piper_train.models.spectrogram import linear_spectrogram, log_mel, mel_of
from piper_train.models.stochastic_durations import StochasticDurationPredictor

from .filled import fill_part

TINY = ("tiny_single", "tiny_multi_high", "tiny_dp")


class Case:
    """A tiny golden case with the parts under test."""

    def __init__(self, piper_golden, name: str):
        self.said, arrays = piper_golden(f"{name}.json"), piper_golden(f"{name}.npz")
        self.arrays = {key: torch.from_numpy(value) for key, value in arrays.items()}
        self.config = VitsConfig.from_mapping(self.said["hparams"])
        predictor = StochasticDurationPredictor if self.config.use_sdp else DurationPredictor
        self.dec = fill_part(Decoder(self.config), "model_g.dec.", self.said)
        self.dp = fill_part(predictor(self.config), "model_g.dp.", self.said)
        self.g = None
        if "sid" in self.arrays:
            table = torch.nn.Embedding(self.config.num_speakers, self.config.gin_channels)
            fill_part(table, "model_g.emb_g.", self.said)
            self.g = table(self.arrays["sid"])[..., None].detach()
        tokens = torch.arange(self.arrays["ids"].size(1))
        self.x_mask = (tokens < self.arrays["ids_lengths"][:, None]).float()[:, None]

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.arrays[name]


@pytest.fixture(scope="module", params=TINY)
def case(request, piper_golden) -> Case:
    return Case(piper_golden, request.param)


def test_parameters_have_the_published_names_and_shapes(case):
    for prefix, part in (("model_g.dec.", case.dec), ("model_g.dp.", case.dp)):
        shapes = {prefix + name: list(value.shape) for name, value in part.state_dict().items()}
        assert shapes == {name: shape for name, shape in case.said["params_g"].items() if name.startswith(prefix)}


@torch.no_grad()
def test_decoder_makes_the_golden_waves(case):
    torch.testing.assert_close(case.dec(case["infer0.dec_in"], case.g), case["infer0.wave"], rtol=0, atol=1e-5)
    masked = case["inferN.z"] * _frames(case["inferN.z"], case["inferN.durations"].sum(1))
    torch.testing.assert_close(case.dec(masked, case.g), case["inferN.wave"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_folded_decoder_makes_the_same_waves(piper_golden):
    for name in TINY:
        case = Case(piper_golden, name)
        case.dec.remove_weight_norm()
        assert not [key for key in case.dec.state_dict() if key.endswith(("weight_g", "weight_v"))]
        torch.testing.assert_close(case.dec(case["infer0.dec_in"], case.g), case["infer0.wave"], rtol=0, atol=1e-5)


@torch.no_grad()
def test_duration_predictor_says_the_golden_log_durations(case):
    x, noise = case["infer0.enc_x"], case.arrays.get("inferN.noise_dp")
    silent = torch.zeros(x.size(0), 2, x.size(2))
    logw = case.dp.log_durations(x, case.x_mask, case.g, silent, 0.0)
    torch.testing.assert_close(logw, case["infer0.logw"], rtol=0, atol=1e-4)
    logw = case.dp.log_durations(x, case.x_mask, case.g, noise, 0.8)
    torch.testing.assert_close(logw, case["inferN.logw"], rtol=0, atol=1e-4)


@torch.no_grad()
def test_duration_loss_of_each_item_is_the_golden_one(case):
    w = case["train.path"].sum(1, keepdim=True).float()
    items = case.dp.loss(case["infer0.enc_x"], case.x_mask, w, case.g, case.arrays.get("train.noise_dp"))
    torch.testing.assert_close(items / case.x_mask.sum(), case["train.l_length"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("rate", [22050, 16000])
def test_spectrogram_and_mel_are_the_golden_ones(piper_golden, rate):
    arrays = {key: torch.from_numpy(value) for key, value in piper_golden("mel_mas.npz").items()}
    audio, spec, mel = (arrays[f"sr{rate}.{name}"] for name in ("audio", "spec", "mel"))
    config = VitsConfig(sample_rate=rate)
    made = linear_spectrogram(audio, 1024, 256, 1024)
    torch.testing.assert_close(made, spec, rtol=0, atol=1e-4)
    torch.testing.assert_close(log_mel(made, config), mel, rtol=0, atol=1e-4)
    torch.testing.assert_close(mel_of(audio[None], config), mel[None], rtol=0, atol=1e-4)


def test_spectrogram_of_a_batch_begins_as_the_golden_one(case):
    made = linear_spectrogram(case["train.audio"][:, 0], 1024, 256, 1024)
    head = case["train.spec_head"]
    torch.testing.assert_close(made[:, :, : head.size(2)], head, rtol=0, atol=1e-4)


def _frames(x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    return (torch.arange(x.size(2)) < lengths[:, None]).float()[:, None]
