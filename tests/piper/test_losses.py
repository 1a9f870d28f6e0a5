"""Losses are what their formulas say, in float32, and processes that share a batch get the gradients of one."""

from __future__ import annotations

import math
from pathlib import Path

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
    shared_count,
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


def test_without_other_processes_the_shared_count_is_the_mask_s_own():
    mask = (torch.arange(5) < torch.tensor([[2], [4]]))[:, None]
    assert shared_count(mask).item() == 6
    assert duration_loss(torch.tensor([3.0, 9.0]), mask, shared_count(mask)).item() == 2


class _Both(nn.Module):
    """Something that learns from both losses that divide by a count."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dp = StochasticDurationPredictor(VitsConfig(hidden_channels=4))
        self.prior = nn.Linear(3, 6)

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        items = self.dp.loss(batch["x"], batch["mask"], batch["w"], None, batch["noise"])
        m_p, logs_p = self.prior(batch["z"].transpose(1, 2)).transpose(1, 2).chunk(2, dim=1)
        kl = kl_loss(batch["z"], batch["logs_q"], m_p, logs_p, batch["mask"], shared_count(batch["mask"]))
        return kl + duration_loss(items, batch["mask"], shared_count(batch["mask"]))


def _batch() -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    shapes = {"x": 4, "noise": 2, "z": 3, "logs_q": 3}
    mask = (torch.arange(7) < torch.tensor([[7], [5], [1], [2]])).float()[:, None]  # the halves differ: 12 and 3
    w = torch.randint(1, 9, (4, 1, 7), generator=rng) * mask
    return {"mask": mask, "w": w} | {name: torch.randn(4, n, 7, generator=rng) for name, n in shapes.items()}


def _gradients(network: nn.Module) -> list[torch.Tensor]:
    return [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


def _train_half(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    network = nn.parallel.DistributedDataParallel(_Both().eval())
    half = {name: value[2 * rank : 2 * rank + 2] for name, value in _batch().items()}
    network(half).backward()
    torch.save(_gradients(network.module), f"{folder}/gradients{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_half_a_batch_get_the_gradients_of_one(tmp_path: Path):
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    torch.multiprocessing.spawn(_train_half, (tmp_path.as_posix(),), nprocs=2)
    network = _Both().eval()
    network(_batch()).backward()
    for rank in (0, 1):
        made = torch.load(tmp_path / f"gradients{rank}.pt", weights_only=True)
        torch.testing.assert_close(made, _gradients(network), rtol=1e-4, atol=1e-6)


def test_gradients_of_halves_with_the_mean_count_average_to_those_of_the_whole():
    whole = _Both().eval()
    batch = _batch()
    whole(batch).backward()
    halves = _Both().eval()
    mean_count = batch["mask"].sum() / 2
    for half in ({name: value[rows] for name, value in batch.items()} for rows in (slice(0, 2), slice(2, 4))):
        items = halves.dp.loss(half["x"], half["mask"], half["w"], None, half["noise"])
        m_p, logs_p = halves.prior(half["z"].transpose(1, 2)).transpose(1, 2).chunk(2, dim=1)
        kl = kl_loss(half["z"], half["logs_q"], m_p, logs_p, half["mask"], mean_count)
        ((kl + duration_loss(items, half["mask"], mean_count)) / 2).backward()
    torch.testing.assert_close(_gradients(halves), _gradients(whole), rtol=1e-4, atol=1e-6)
