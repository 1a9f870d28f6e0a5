"""Losses are what their formulas say, in float32, and processes that share a batch get the gradients of one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from piper_train.models.config import VitsConfig
from piper_train.models.stochastic_durations import StochasticDurationPredictor
from piper_train.training.losses import (
    discriminator_loss,
    duration_loss,
    feature_loss,
    generator_loss,
    kl_loss,
    mel_loss,
)


def test_scores_are_drawn_to_one_and_zero_and_summed_over_judges():
    real, fake = (
        [torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0]])],
        [torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0]])],
    )
    assert generator_loss(fake).item() == 1.0 + 0.0
    assert discriminator_loss(real, fake).item() == (2.0 + 2.0) + (1.0 + 1.0)


def test_features_are_twice_the_mean_differences_and_real_ones_do_not_learn():
    real = [[torch.tensor([1.0, 2.0], requires_grad=True)], [torch.tensor([5.0], requires_grad=True)]]
    fake = [[torch.tensor([2.0, 4.0], requires_grad=True)], [torch.tensor([4.0], requires_grad=True)]]
    loss = feature_loss(real, fake)
    assert loss.item() == 2 * (1.5 + 1.0)
    loss.backward()
    assert all(layer.grad is None for layers in real for layer in layers)
    assert all(layer.grad is not None for layers in fake for layer in layers)


def test_kl_of_equal_normals_is_zero_in_the_mean():
    rng = torch.Generator().manual_seed(0)
    mean, logs = torch.randn(2, 50, 400, generator=rng), 0.3 * torch.randn(2, 50, 400, generator=rng)
    drawn = mean + torch.randn(2, 50, 400, generator=rng) * logs.exp()
    loss = kl_loss(drawn, logs, mean, logs, torch.ones(2, 1, 400)) / 50
    assert abs(loss.item()) < 4 * math.sqrt(0.5 / 40000)  # four standard errors of the mean of (noise ** 2 - 1) / 2


@given(first=st.integers(1, 6), second=st.integers(1, 6), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_padding_counts_in_no_loss(first, second, seed):
    rng = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(2, 3, 6, generator=rng) for _ in range(4)]
    mask = (torch.arange(6) < torch.tensor([[first], [second]])).float()[:, None]
    together = kl_loss(*tensors, mask)
    alone = [
        kl_loss(*(tensor[i : i + 1, :, :n] for tensor in tensors), torch.ones(1, 1, n))
        for i, n in enumerate((first, second))
    ]
    expected = (alone[0] * first + alone[1] * second) / (first + second)
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_of_half_precision_are_computed_in_float32(dtype):
    """In float16 a sum over 192 channels and 1000 frames would overflow at 65504."""
    half = torch.full((2, 192, 1000), 3.0, dtype=dtype)
    mask = torch.ones(2, 1, 1000, dtype=dtype)
    kl = kl_loss(half, half * 0, half * 0, half * 0, mask)
    assert kl.dtype == torch.float32 and kl.item() == pytest.approx(192 * 4.0)
    assert duration_loss(torch.full((9,), 60000.0, dtype=dtype), mask).isfinite()
    scores = [torch.full((2, 9), 300.0, dtype=dtype)]
    for loss in (generator_loss(scores), discriminator_loss(scores, scores), mel_loss(half, -half)):
        assert loss.dtype == torch.float32 and loss.isfinite()


class _Both(nn.Module):
    """Something that learns from losses that divide by a count and from one that is a mean over clips."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dp = StochasticDurationPredictor(VitsConfig(hidden_channels=4))
        self.prior = nn.Linear(3, 6)

    def forward(self, batch: dict[str, torch.Tensor], count: torch.Tensor | None, clips: int) -> torch.Tensor:
        items = self.dp.loss(batch["x"], batch["mask"], batch["w"], None, batch["noise"])
        m_p, logs_p = self.prior(batch["z"].transpose(1, 2)).transpose(1, 2).chunk(2, dim=1)
        kl = kl_loss(batch["z"], batch["logs_q"], m_p, logs_p, batch["mask"], count)
        share = len(batch["z"]) / clips
        return kl + duration_loss(items, batch["mask"], count) + share * mel_loss(batch["z"], m_p)


def _batch() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    shapes = {"x": 4, "noise": 2, "z": 3, "logs_q": 3}
    mask = (torch.arange(7) < torch.tensor([[7], [5], [1], [2]])).float()[:, None]
    w = torch.randint(1, 9, (4, 1, 7), generator=rng) * mask
    return {"mask": mask, "w": w} | {name: torch.randn(4, n, 7, generator=rng) for name, n in shapes.items()}


def _gradients(network: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("first", [1, 2, 3])
def test_gradients_of_parts_with_the_whole_count_add_up_to_those_of_the_whole(first):
    batch = _batch()
    whole, parts = _Both().eval(), _Both().eval()
    whole(batch, None, 4).backward()
    for rows in (slice(0, first), slice(first, 4)):
        parts({name: value[rows] for name, value in batch.items()}, batch["mask"].sum(), 4).backward()
    torch.testing.assert_close(_gradients(parts), _gradients(whole), rtol=1e-4, atol=1e-6)
