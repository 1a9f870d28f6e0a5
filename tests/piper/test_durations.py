"""Duration predictors: the flows can be walked back, say how they stretch space, and teach nobody but themselves."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from piper_train.models.config import VitsConfig
from piper_train.models.duration_flows import SplineStep, make_steps
from piper_train.models.durations import DurationPredictor
from piper_train.models.stochastic_durations import StochasticDurationPredictor

BATCH, TOKENS = 3, 5
LENGTHS = (5, 3, 1)


@pytest.fixture
def x_mask() -> torch.Tensor:
    return (torch.arange(TOKENS) < torch.tensor(LENGTHS)[:, None]).double()[:, None]


def _random(module: nn.Module, spread: float = 0.7) -> nn.Module:
    """Weights large enough that every bin and the tails are met; double precision, so that errors are rounding."""
    rng = torch.Generator().manual_seed(0)
    for parameter in module.double().parameters():
        parameter.data = spread * torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
    return module.eval()


def _normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_flow_leads_back(x_mask):
    steps = _random(make_steps(8, 3), 0.3)
    x, g = 2 * _normal(BATCH, 2, TOKENS) * x_mask, _normal(BATCH, 8, TOKENS, seed=2)
    y = x
    for step in steps:
        y, _ = step(y, x_mask, g)
    assert (y - x).abs().max() > 1
    for step in reversed(steps):
        y = step.inverse(y, x_mask, g)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-10)


def test_every_step_leads_back_where_it_is_steep(x_mask):
    x, g = 2 * _normal(BATCH, 2, TOKENS) * x_mask, _normal(BATCH, 8, TOKENS, seed=2)
    for step in _random(make_steps(8, 3), 0.7):
        y, _ = step(x, x_mask, g)
        torch.testing.assert_close(step.inverse(y, x_mask, g), x, rtol=0, atol=1e-8)


def test_log_determinants_are_those_of_the_jacobian(x_mask):
    steps = _random(make_steps(8, 3))
    x, g = 2 * _normal(BATCH, 2, TOKENS) * x_mask, _normal(BATCH, 8, TOKENS, seed=2)
    for step in (steps[0], steps[1], steps[2]):  # affine, spline, swap
        _, said = step(x, x_mask, g)
        for item, length in enumerate(LENGTHS):
            one, mask, condition = x[item : item + 1], x_mask[item : item + 1], g[item : item + 1]
            jacobian = torch.autograd.functional.jacobian(lambda v, s=step, m=mask, c=condition: s(v, m, c)[0], one)
            jacobian = jacobian[0, :, :length, 0, :, :length].reshape(2 * length, 2 * length)
            found = torch.linalg.slogdet(jacobian).logabsdet
            torch.testing.assert_close(said[item], found, rtol=0, atol=1e-9)


def test_a_fresh_spline_step_bends_little():
    """Widths and heights begin equal; the slopes begin at softplus(0) = ln 2 between edges of slope 1."""
    step = SplineStep(8, 3)
    x, mask = torch.linspace(-6, 6, 50).expand(1, 2, 50), torch.ones(1, 1, 50)
    y, _ = step(x, mask, torch.randn(1, 8, 50))
    torch.testing.assert_close(y, x, rtol=0, atol=0.2)


@pytest.mark.parametrize("predictor", [DurationPredictor, StochasticDurationPredictor])
def test_padding_changes_neither_loss_nor_durations(predictor, x_mask):
    part = _random(predictor(VitsConfig(hidden_channels=8, num_speakers=2, gin_channels=4)))
    x, g, noise = _normal(BATCH, 8, TOKENS), _normal(BATCH, 4, 1, seed=2), _normal(BATCH, 2, TOKENS, seed=3)
    w = torch.tensor([[1.0, 4, 2, 9, 1], [3, 1, 6, 0, 0], [7, 0, 0, 0, 0]]).double()[:, None]
    together = part.loss(x, x_mask, w, g, noise)
    durations = part.log_durations(x, x_mask, g, noise)
    assert together.shape == (BATCH,) and durations.shape == (BATCH, 1, TOKENS)
    for i, length in enumerate(LENGTHS):
        one = slice(i, i + 1)
        cut = [tensor[one, :, :length] for tensor in (x, x_mask, w)]
        alone = part.loss(*cut, g[one], noise[one, :, :length])
        torch.testing.assert_close(together[one], alone, rtol=1e-9, atol=0)
        alone = part.log_durations(*cut[:2], g[one], noise[one, :, :length])
        torch.testing.assert_close(durations[one, :, :length], alone, rtol=0, atol=1e-9)


@pytest.mark.parametrize("predictor", [DurationPredictor, StochasticDurationPredictor])
def test_neither_the_text_nor_the_speaker_learns_from_durations(predictor):
    part = predictor(VitsConfig(hidden_channels=8, num_speakers=2, gin_channels=4))
    x, g = torch.randn(2, 8, 6, requires_grad=True), torch.randn(2, 4, 1, requires_grad=True)
    part.loss(x, torch.ones(2, 1, 6), torch.ones(2, 1, 6), g).sum().backward()
    assert x.grad is None and g.grad is None
    assert all(parameter.grad is not None for parameter in part.parameters())


def test_the_stochastic_loss_bounds_the_likelihood_of_a_trained_flow(x_mask):
    """The bound holds for any posterior noise in the mean: with both flows the identity it can be worked out by hand."""
    part = StochasticDurationPredictor(VitsConfig(hidden_channels=8)).double().eval()
    for steps in (part.flows, part.post_flows):
        for step in steps:
            if isinstance(step, SplineStep):
                nn.init.constant_(step.proj.bias[20:], math.log(math.expm1(1 - 1e-3)))  # slopes of 1
    w = torch.tensor([[[3.0, 1.0]]]).double()
    noise = torch.tensor([[[0.5, -1.0], [0.2, 0.3]]]).double()
    loss = part.loss(_normal(1, 8, 2), torch.ones(1, 1, 2).double(), w, None, noise)
    u = noise[0, 0].sigmoid()
    log_q = -0.5 * (math.log(2 * math.pi) + noise.square()).sum() - (u.log() + (1 - u).log()).sum()
    z = torch.stack([(w[0, 0] - u).log(), noise[0, 1]])
    log_p = -0.5 * (math.log(2 * math.pi) + z.square()).sum() - (w[0, 0] - u).log().sum()
    torch.testing.assert_close(loss, (log_q - log_p)[None], rtol=1e-9, atol=0)


def test_the_plain_loss_is_the_squared_error_of_log_durations():
    part = DurationPredictor(VitsConfig(hidden_channels=8)).eval()
    x, mask, w = torch.randn(2, 8, 3), torch.ones(2, 1, 3), torch.tensor([[[1.0, 2, 3]], [[4.0, 5, 6]]])
    expected = (part.log_durations(x, mask) - w.log()).square().sum((1, 2))
    torch.testing.assert_close(part.loss(x, mask, w), expected, rtol=1e-5, atol=1e-5)


def test_noise_that_is_not_given_is_drawn_anew_each_time():
    part = StochasticDurationPredictor(VitsConfig(hidden_channels=8)).eval()
    x, mask = torch.randn(2, 8, 6), torch.ones(2, 1, 6)
    one, other = part.log_durations(x, mask), part.log_durations(x, mask)
    assert not torch.equal(one, other)
    silent = [part.log_durations(x, mask, noise_scale=0.0) for _ in range(2)]
    assert torch.equal(*silent)


@pytest.mark.parametrize("predictor", [DurationPredictor, StochasticDurationPredictor])
@torch.no_grad()
def test_under_autocast_the_loss_stays_float32_and_close(predictor, x_mask):
    part = predictor(VitsConfig(hidden_channels=8)).eval()
    x, noise, w = _normal(BATCH, 8, TOKENS).float(), _normal(BATCH, 2, TOKENS).float(), 400 * x_mask.float()
    expected = part.loss(x, x_mask.float(), w, None, noise)
    with torch.autocast("cpu", torch.bfloat16):
        made = part.loss(x, x_mask.float(), w, None, noise)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made, expected, rtol=0.02, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("predictor", [DurationPredictor, StochasticDurationPredictor])
def test_durations_learn_what_they_are_shown(predictor):
    """Tokens of kind 0 last 2 frames and those of kind 1 last 9; a constant would be 64 % of the mean away."""
    torch.manual_seed(0)
    kinds = torch.randint(0, 2, (4, 1, 12))
    x = torch.cat([kinds, 1 - kinds] * 4, dim=1).float()
    w, mask = torch.where(kinds == 1, 9.0, 2.0), torch.ones(4, 1, 12)
    part = predictor(VitsConfig(hidden_channels=8))
    optimizer = torch.optim.AdamW(part.parameters(), 2e-2)
    for _ in range(50):
        optimizer.zero_grad()
        (part.loss(x, mask, w).sum() / mask.sum()).backward()
        optimizer.step()
    said = part.eval().log_durations(x, mask, noise_scale=0.0).exp()
    assert (said - w).abs().mean() / w.mean() < 0.3
