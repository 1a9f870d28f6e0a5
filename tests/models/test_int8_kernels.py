"""Products with int8 weights: every kernel of torch that is there against floats, and the choice between them."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.errors import UserError
from fish_speech.models import int8_kernels
from fish_speech.models.int8_kernels import (
    KERNELS,
    LEVELS,
    DynamicKernel,
    Int8Kernel,
    OneDnnKernel,
    WeightOnlyKernel,
    best_kernel,
    check_int8,
    quantize_rows,
    saturates,
    works,
)

from ..conftest import REPO

HERE = [kernel for kernel in KERNELS if works(kernel)]


def of(shape: tuple[int, ...], seed: int = 0, power: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) ** power


def exact(values: torch.Tensor, scales: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The product with the rounded weights, in float64."""
    return (x.double() @ (values.double() * scales.double()[:, None]).T).float()


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 300), st.integers(1, 40), st.integers(0, 9), st.floats(1e-6, 1e6), st.sampled_from(["fp32", "bf16"])
)
def test_a_rounded_weight_is_within_half_a_step_of_the_weight(rows, columns, seed, size, dtype):
    weight = of((rows, columns), seed) * size
    weight = weight.bfloat16() if dtype == "bf16" else weight
    values, scales = quantize_rows(weight)
    assert values.dtype == torch.int8 and values.shape == weight.shape and scales.shape == (rows,)
    assert int(values.min()) >= -LEVELS
    distance = (values.double() * scales.double()[:, None] - weight.double()).abs()
    assert bool((distance <= 0.5001 * scales.double()[:, None]).all())  # and the rounding of scales to float32


def test_a_row_of_zeros_stays_zero():
    values, scales = quantize_rows(torch.zeros(3, 5))
    assert not values.any() and bool(scales.isfinite().all())


@pytest.mark.parametrize("kernel", KERNELS)
def test_rows_do_not_depend_on_each_other(kernel):
    if kernel not in HERE:
        pytest.skip(f"{kernel.name} is not on this machine")
    product, x = kernel(*quantize_rows(of((48, 64)))), of((4, 64), 1)
    loud = torch.cat([x, 1e4 * of((1, 64), 2)])
    for fine in (False, True):
        alone, together = product(x, fine), product(loud, fine)[:4]
        assert error(together, alone) < (2e-4 if fine else 0.02)  # a common range would leave nothing of x: error 1


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rows", [0, 1, 2, 3, 9, 70])
@pytest.mark.parametrize("sizes", [(48, 64), (33, 40), (1, 7), (130, 1024)])
def test_kernels_are_close_to_the_product_in_floats(kernel, rows, sizes):
    if kernel not in HERE:
        pytest.skip(f"{kernel.name} is not on this machine")
    values, scales = quantize_rows(of(sizes))
    x, product = of((rows, sizes[1]), 3), kernel(values, scales)
    for fine, bound in ((False, 0.03), (True, 1e-3)):
        found = product(x, fine)
        assert found.shape == (rows, sizes[0]) and found.dtype == torch.float32
        if rows:
            assert error(found, exact(values, scales, x)) < bound


@pytest.mark.parametrize("kernel", KERNELS)
def test_fine_activations_bear_outliers(kernel):
    if kernel not in HERE:
        pytest.skip(f"{kernel.name} is not on this machine")
    values, scales = quantize_rows(of((64, 512)))
    product, x = kernel(values, scales), of((5, 512), 1, power=5)
    coarse, fine = (error(product(x, f), exact(values, scales, x)) for f in (False, True))
    assert fine < 1e-3
    assert kernel is WeightOnlyKernel or coarse > 20 * fine


@pytest.mark.parametrize("kernel", KERNELS)
def test_zeros_one_sign_and_tiny_inputs_give_no_nan(kernel):
    if kernel not in HERE:
        pytest.skip(f"{kernel.name} is not on this machine")
    values, scales = quantize_rows(of((16, 32)))
    product = kernel(values, scales)
    for x in (torch.zeros(1, 32), torch.zeros(3, 32), of((1, 32)).abs(), -of((2, 32)).abs(), 1e-20 * of((2, 32))):
        for fine in (False, True):
            found = product(x, fine)
            assert bool(found.isfinite().all())
            if x.any():
                assert error(found, exact(values, scales, x)) < 0.03
            else:
                assert not found.any()


class OverflowingKernel(Int8Kernel):
    """What processors without VNNI do: pairs of products are added in 16 bits, and cut at their end."""

    name = "overflowing"
    reduced = False

    def __init__(self, values, scales):
        self.values, self.scales = values.long(), scales

    def __call__(self, x, fine=False):
        step = float(x.max() - x.min().clamp(max=0)) / (127 if self.reduced else 255)
        zero = round(float(-x.min().clamp(max=0)) / step)
        rounded = (x / step).round().long() + zero
        pairs = (rounded[:, None] * self.values).unflatten(2, (-1, 2)).sum(dim=3)  # (rows, out, in / 2)
        sums = pairs.clamp(-(1 << 15), (1 << 15) - 1).sum(dim=2) - zero * self.values.sum(dim=1)
        return sums * step * self.scales


class ReducedKernel(OverflowingKernel):
    reduced = True


def test_a_kernel_that_overflows_in_16_bits_is_found_out_and_7_bits_mend_it():
    assert saturates(OverflowingKernel) and not works(OverflowingKernel)
    assert not saturates(ReducedKernel) and works(ReducedKernel)


def test_the_range_of_activations_is_reduced_where_and_only_where_fbgemm_overflows(monkeypatch):
    if DynamicKernel not in HERE:
        pytest.skip("no fbgemm on this machine")
    weight, x = quantize_rows(of((48, 256))), of((3, 256), 1)
    errors = {}
    for overflows in (False, True):
        monkeypatch.setattr(int8_kernels, "_fbgemm_saturates", lambda overflows=overflows: overflows)
        errors[overflows] = error(DynamicKernel(*weight)(x), exact(*weight, x))
    assert 1.5 * errors[False] < errors[True] < 0.03  # a bit less is twice the error
    monkeypatch.undo()
    if torch.cpu._is_vnni_supported():
        assert not int8_kernels._fbgemm_saturates()


def test_the_first_kernel_that_computes_rightly_is_taken():
    class Absent(Int8Kernel):
        name = "absent"

        def __init__(self, values, scales):
            raise NotImplementedError("no such op")

    assert best_kernel((Absent, OverflowingKernel, WeightOnlyKernel)) is WeightOnlyKernel
    assert best_kernel((Absent, OverflowingKernel)) is None
    assert best_kernel() in HERE


def test_without_fbgemm_a_kernel_that_stays_in_torch_is_taken(monkeypatch):
    monkeypatch.setattr(DynamicKernel, "__init__", lambda self, values, scales: torch.ops.quantized.gone)
    assert best_kernel.__wrapped__(KERNELS) in (OneDnnKernel, WeightOnlyKernel)


@pytest.mark.slow
@pytest.mark.parametrize("instructions", ["AVX2", "AVX2_VNNI", "AVX512_CORE"])
def test_on_older_processors_the_choice_still_computes_rightly(instructions):
    """oneDNN can be told to play an older processor; on AVX2 alone its sums overflow, with an error of 0.99."""
    code = (
        "from fish_speech.models.int8_kernels import *; from fish_speech.models.int8_kernels import _error, _extreme\n"
        "kernel = best_kernel((OneDnnKernel, WeightOnlyKernel)); print(kernel.name, _error(kernel, *_extreme()))"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions}
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 0.02


def test_packing_leaves_torchs_engine_as_it_was_and_warns_nobody():
    before = torch.backends.quantized.engine
    best_kernel.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel = best_kernel()
    assert kernel is not None
    other = next((name for name in torch.backends.quantized.supported_engines if name not in ("none", before)), before)
    torch.backends.quantized.engine = other
    try:
        kernel(*quantize_rows(of((16, 32))))
        assert torch.backends.quantized.engine == other
    finally:
        torch.backends.quantized.engine = before


def test_int8_is_refused_off_the_cpu_beside_bf16_and_without_kernels(monkeypatch):
    check_int8("cpu")
    with pytest.raises(UserError, match="does not work on cuda"):
        check_int8("cuda:0")
    with pytest.raises(UserError, match="contradicts --precision bf16"):
        check_int8("cpu", "bf16")
    monkeypatch.setattr(int8_kernels, "best_kernel", lambda: None)
    with pytest.raises(UserError, match="none of torch"):
        check_int8("cpu")
