"""Weight norm keeps what a convolution computes, under the names of published voices."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from piper_train.models.weight_norm import remove_weight_norm, weight_norm

CONVOLUTIONS = [
    (lambda: nn.Conv1d(3, 4, 5), (2, 3, 9), (4, 1, 1)),
    (lambda: nn.ConvTranspose1d(3, 6, 4, 2), (2, 3, 9), (3, 1, 1)),  # its first axis is the input
    (lambda: nn.Conv2d(3, 4, (5, 1)), (2, 3, 9, 2), (4, 1, 1, 1)),
]


@pytest.fixture(params=CONVOLUTIONS, ids=["conv", "transposed", "flat"])
def pair(request):
    """A convolution, the same one normed, and an input."""
    make, shape, _ = request.param
    plain = make()
    return plain, weight_norm(copy.deepcopy(plain)), torch.randn(shape)


def test_norming_changes_names_and_nothing_else(pair):
    plain, normed, x = pair
    assert list(normed.state_dict()) == ["bias", "weight_g", "weight_v"]
    torch.testing.assert_close(normed(x), plain(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(normed.weight_v, plain.weight, rtol=0, atol=0)


@pytest.mark.parametrize(("make", "shape", "gain_shape"), CONVOLUTIONS)
def test_the_gain_has_one_number_for_each_entry_of_the_first_axis(make, shape, gain_shape):
    normed = weight_norm(make())
    assert normed.weight_g.shape == gain_shape
    with torch.no_grad():
        normed.bias.zero_()
        once = normed(torch.ones(shape))
        normed.weight_v.mul_(7)  # only its direction counts
        torch.testing.assert_close(normed(torch.ones(shape)), once, rtol=1e-5, atol=1e-6)
        normed.weight_g.mul_(2)
        torch.testing.assert_close(normed(torch.ones(shape)), 2 * once, rtol=1e-5, atol=1e-6)


def test_gradients_are_those_of_torch_s_parametrization(pair):
    plain, normed, x = pair
    torchs = nn.utils.parametrizations.weight_norm(plain)
    for module in (normed, torchs):
        module(x).square().sum().backward()
    original = torchs.parametrizations.weight
    torch.testing.assert_close(normed.weight_g.grad, original.original0.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(normed.weight_v.grad, original.original1.grad, rtol=1e-4, atol=1e-5)


def test_folding_leaves_a_plain_convolution(pair):
    plain, normed, x = pair
    remove_weight_norm(nn.Sequential(nn.Tanh(), nn.Sequential(normed)))
    assert sorted(normed.state_dict()) == ["bias", "weight"]
    torch.testing.assert_close(normed(x), plain(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(normed(x), plain(x), rtol=0, atol=1e-6)  # no hook is left that would fail later


def test_a_normed_convolution_is_copied_and_pickled_after_use(pair):
    _, normed, x = pair
    expected = normed(x)
    for other in (copy.deepcopy(normed), pickle.loads(pickle.dumps(normed))):
        torch.testing.assert_close(other(x), expected, rtol=0, atol=0)
        other(x).sum().backward()
        assert normed.weight_g.grad is None


def test_a_failed_pass_leaves_no_weight_behind(pair):
    _, normed, x = pair
    with pytest.raises(RuntimeError):
        normed(x[:, :1])
    assert "weight" not in vars(normed) and "weight" not in normed.state_dict()
    normed(x).sum().backward()


def test_norming_twice_or_a_module_without_weight_is_refused():
    with pytest.raises(ValueError, match="Conv1d has no weight"):
        weight_norm(weight_norm(nn.Conv1d(1, 1, 1)))
    with pytest.raises(ValueError, match="Tanh has no weight"):
        weight_norm(nn.Tanh())
