"""Sparse dropout draws what dropout should, and its backward pass is the forward pass's."""

import math

import pytest
import torch

from fish_speech.models.dropout import Dropout, dropout, dropped_positions


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_dropped_positions_are_independent_with_the_asked_rate(rate):
    torch.manual_seed(0)
    count = 400_000
    positions = dropped_positions(count, rate)
    assert positions.min() >= 0 and positions.max() < count and (positions.diff() > 0).all()
    spread = math.sqrt(count * rate * (1 - rate))
    assert abs(len(positions) - count * rate) < 5 * spread
    neighbours = (positions.diff() == 1).sum().item()  # independent: a share `rate` of them
    assert abs(neighbours - len(positions) * rate) < 5 * math.sqrt(len(positions) * rate)
    for half in (positions < count // 2, positions % 2 == 0):
        assert abs(half.sum().item() - count * rate / 2) < 5 * spread


def test_short_inputs_are_dropped_at_the_same_rate():
    torch.manual_seed(0)
    dropped = sum(len(dropped_positions(3, 0.1)) for _ in range(4000))
    assert abs(dropped - 1200) < 5 * math.sqrt(12000 * 0.09)
    assert len(dropped_positions(0, 0.1)) == 0


def test_kept_elements_and_their_gradients_are_scaled_alike():
    torch.manual_seed(0)
    x = torch.randn(7, 11, 13).transpose(0, 2).requires_grad_()
    y = dropout(x, 0.2)
    y.sum().backward()
    kept = y != 0
    torch.testing.assert_close(y[kept], x[kept] / 0.8)
    torch.testing.assert_close(x.grad, kept / 0.8)
    assert Dropout(0.2).eval()(x) is x
