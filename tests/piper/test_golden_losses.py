"""Losses, gradients and one step of training give the golden answers of Piper, through the whole model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from .golden_step import GoldenModel, drawn, medium_audio

TINY = ("tiny_single", "tiny_multi_high", "tiny_dp")
# Of the golden README: losses 1e-4 relative, gradient norms 2e-3 where they are over 1e-5, after one step 2e-3.
NAMES = {"loss_g", "loss_d", "mel", "kl", "dur", "fm", "gen", "disc"}
NAMES_MRD = {*NAMES, "mrd_fm", "mrd_gen", "mrd_disc"}


@pytest.mark.parametrize("name", [pytest.param("tiny_multi_high", marks=pytest.mark.slow), "tiny_dp"])
@torch.no_grad()
def test_losses_are_the_golden_ones(piper_golden, name):
    said = piper_golden(f"{name}.json")
    model = GoldenModel(said, piper_golden(f"{name}.npz"))
    made, losses = model.losses()
    _check_losses(losses, said["train"]["losses"], 1e-4)
    assert losses.keys() == (NAMES_MRD if name == "tiny_multi_high" else NAMES)
    torch.testing.assert_close(made.path.to(torch.uint8), model.batch["train.path"], rtol=0, atol=0)
    torch.testing.assert_close(made.ids_slice, model.batch["train.ids_slice"], rtol=0, atol=0)
    torch.testing.assert_close(made.y_hat, model.batch["train.y_hat"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_step_of_training_is_the_golden_one(piper_golden, name):
    said = piper_golden(f"{name}.json")
    model = GoldenModel(said, piper_golden(f"{name}.npz"))
    _, losses = model.losses()
    _check_losses(losses, said["train"]["losses"], 1e-4)
    model.backward(losses)
    _check_gradients(model, {**said["train"]["grad_norms"], **said["train"]["grad_norms_d"]})
    model.step()
    _check_losses(model.losses()[1], said["train"]["losses_after_one_step"], 2e-3)


@pytest.mark.slow
def test_a_step_of_training_at_full_size_is_the_golden_one(piper_golden):
    said, arrays = piper_golden("medium.json"), piper_golden("medium.npz")
    seed, samples, rate = said["fill_seed"], said["train"]["n_samples"], said["hparams"]["sample_rate"]
    clips = [medium_audio(f"medium.audio{i}", n, rate, seed) for i, n in enumerate(samples)]
    audio = np.zeros((2, 1, max(samples)), np.float32)
    for row, clip in zip(audio, clips, strict=True):
        row[0, : len(clip)] = clip
    arrays.update(
        {
            "train.audio": audio,
            "train.audio_lengths": np.array(samples),
            "train.spec_lengths": np.array(samples) // 256,
            "train.noise_q": drawn("medium.noise_q", (2, 192, max(samples) // 256), seed),
            "train.noise_dp": drawn("medium.noise_dp", (2, 2, arrays["ids"].shape[1]), seed),
        }
    )
    np.testing.assert_array_equal(drawn("medium.u_slice", (2,), seed, uniform=True), arrays["train.u_slice"])
    model = GoldenModel(said, arrays)
    made, losses = model.losses()
    _check_losses(losses, said["train"]["losses"], 1e-4)
    for name, value in (("path", made.path.to(torch.uint8)), ("ids_slice", made.ids_slice)):
        torch.testing.assert_close(value, model.batch[f"train.{name}"], rtol=0, atol=0)
    for name, value in (("y_hat_head", made.y_hat[:, :, :2000]), ("z_p_slice", made.z_p[:, :6])):
        torch.testing.assert_close(value, model.batch[f"train.{name}"], rtol=0, atol=1e-5)
    items = made.l_length / made.x_mask.sum()
    torch.testing.assert_close(items, model.batch["train.l_length"], rtol=1e-4, atol=0)
    model.backward(losses)
    _check_gradients(model, said["train"]["grad_norms_g_sample"])
    for which in ("g", "d"):
        norms = [_norm(parameter.grad) for parameter in getattr(model, f"params_{which}")]
        assert math.hypot(*norms) == pytest.approx(said["train"][f"grad_norm_{which}_total"], rel=2e-3)
    model.step()
    _check_losses(model.losses()[1], said["train"]["losses_after_one_step"], 2e-3)


def _check_losses(losses: dict[str, torch.Tensor], expected: dict[str, float], tolerance: float) -> None:
    assert {name: value.item() for name, value in losses.items()} == pytest.approx(expected, rel=tolerance)


def _check_gradients(model: GoldenModel, expected: dict[str, float]) -> None:
    parameters = model.named_parameters()
    # The bias of the keys shifts all scores of a query alike, so its gradient is rounding.
    checked = {name for name, norm in expected.items() if norm > 1e-5 and not name.endswith("conv_k.bias")}
    assert len(checked) > 40
    norms = {name: _norm(parameters[name].grad) for name in checked}
    assert norms == pytest.approx({name: expected[name] for name in checked}, rel=2e-3)


def _norm(gradient: torch.Tensor | None) -> float:
    assert gradient is not None
    return gradient.double().norm().item()
