"""The spline is a monotonic curve with the slope that it says, and its inverse leads back."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from piper_train.models.spline import TAIL_BOUND, spline


def _curves(shape: tuple[int, ...], bins: int, spread: float, seed: int) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(spread * torch.randn(*shape, n, generator=rng, dtype=torch.float64) for n in (bins, bins, bins - 1))


@given(bins=st.integers(2, 12), spread=st.floats(0, 4), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_inverse_leads_back_and_its_slope_is_the_reciprocal(bins, spread, seed):
    x = torch.linspace(-7, 7, 57, dtype=torch.float64).repeat(2, 1)
    curves = _curves((2, 57), bins, spread, seed)
    y, log_slope = spline(x, *curves)
    back, log_slope_back = spline(y, *curves, inverse=True)
    # Bins may be 1e-3 of the whole wide and steep there: a rounding of 1e-16 grows by the slope, at most some 1e6.
    torch.testing.assert_close(back, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(log_slope_back, -log_slope, rtol=0, atol=1e-5)


@given(bins=st.integers(2, 12), spread=st.floats(0, 4), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_curve_rises_from_bound_to_bound_and_is_the_identity_outside(bins, spread, seed):
    x = torch.linspace(-TAIL_BOUND, TAIL_BOUND, 201, dtype=torch.float64)
    one_curve = _curves((1,), bins, spread, seed)
    y, log_slope = spline(x, *(free.expand(201, -1) for free in one_curve))
    assert (y.diff() > 0).all()
    assert y[0] == -TAIL_BOUND and abs(y[-1] - TAIL_BOUND) < 1e-12
    torch.testing.assert_close(log_slope[[0, -1]], torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-9)
    outside = torch.tensor([-1e6, -5.001, 5.001, 40.0], dtype=torch.float64)
    y, log_slope = spline(outside, *(free.expand(4, -1) for free in one_curve))
    assert torch.equal(y, outside) and not log_slope.any()


def test_slope_is_the_derivative_that_autograd_finds():
    curves = _curves((3, 40), 10, 1.5, 0)
    x = torch.linspace(-6, 6, 40, dtype=torch.float64).repeat(3, 1).requires_grad_()
    y, log_slope = spline(x, *curves)
    (derivative,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(log_slope, derivative.log(), rtol=0, atol=1e-10)


def test_free_numbers_of_equal_bins_and_unit_slopes_make_the_identity():
    equal, one = torch.zeros(9, 10), torch.full((9, 9), math.log(math.expm1(1 - 1e-3)))
    x = torch.linspace(-5, 5, 9)
    y, log_slope = spline(x, equal, equal, one)
    torch.testing.assert_close(y, x, rtol=0, atol=1e-5)
    torch.testing.assert_close(log_slope, torch.zeros(9), rtol=0, atol=1e-5)


def test_gradients_are_finite_at_the_edges_of_bins_and_far_outside():
    x = torch.tensor([-1e30, -5.0, -4.0, 0.0, 5.0, 5.0000005, 1e30], requires_grad=True)
    curves = [free.float().requires_grad_() for free in _curves((7,), 10, 3.0, 1)]
    y, log_slope = spline(x, *curves)
    (y.clamp(-9, 9).sum() + log_slope.sum()).backward()
    assert all(tensor.grad.isfinite().all() for tensor in (x, *curves))
