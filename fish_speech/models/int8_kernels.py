"""Products of float32 rows with int8 weights on the CPU: the kernels of torch that can do it, and which one to take.

Weights are symmetric with a scale per output channel: weight[o, i] ~ values[o, i] * scales[o].

- DynamicKernel (fbgemm) rounds the activations to 8 bits too, and reads weights about as fast as the memory gives them.
  Its ops are deprecated in torch, so nothing outside this class touches them.
- OneDnnKernel does the same with ops that stay; about a fifth slower for a single row, where its rounding is separate ops.
- WeightOnlyKernel keeps activations whole and runs wherever torch runs, at half the speed.
"""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import UserError

log = logging.getLogger(__name__)

LEVELS = 127  # of a weight to each side of zero; -128 is not used
_BLOCK = 128  # rows
_TINY = 1e-30  # instead of a range of zero


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(out, in) floats -> int8 values of the same shape and float32 scales (out,); the error is at most half a scale."""
    values = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(len(weight))
    for start in range(0, len(weight), _BLOCK):  # small blocks stay in the processor's cache
        part = weight[start : start + _BLOCK].detach().float()
        low, high = part.aminmax(dim=1)  # (rows,) each
        largest = torch.maximum(-low, high)
        steps = torch.where(largest > 0, largest, torch.ones_like(largest)) / LEVELS
        values[start : start + _BLOCK] = (part / steps[:, None]).round_()
        scales[start : start + _BLOCK] = steps
    return values, scales


class Int8Kernel:
    """Weights packed for one kernel; called with (rows, in) float32 -> (rows, out) float32.

    With `fine`, what rounding activations to 8 bits leaves over is rounded and multiplied as well: about 14 bits of them
    count. It goes through the kernel as a further row, for which no weight is read again.
    """

    name: str

    def __init__(self, values: Tensor, scales: Tensor):
        raise NotImplementedError

    def __call__(self, x: Tensor, fine: bool = False) -> Tensor:
        raise NotImplementedError

    def for_one_row(self, fine: bool) -> Callable[[Tensor], Tensor]:
        """The same call for contiguous (1, in) alone, with as little around the product as can be."""
        return lambda x: self(x, fine)


class DynamicKernel(Int8Kernel):
    """fbgemm's linear_dynamic: one range of activations per call, so that rows are brought to the same range first.

    Without VNNI instructions it adds pairs of products in 16 bits, which activations of 8 bits overflow: there they get 7.
    """

    name = "fbgemm dynamic"

    def __init__(self, values: Tensor, scales: Tensor, reduce_range: bool | None = None):
        if not {"x86", "fbgemm"} & set(torch.backends.quantized.supported_engines):
            raise NotImplementedError("this torch has no fbgemm")
        self._reduce_range = _fbgemm_saturates() if reduce_range is None else reduce_range
        self._packed = _prepack(values, scales)
        self._multiply = torch.ops.quantized.linear_dynamic.default

    def __call__(self, x: Tensor, fine: bool = False) -> Tensor:
        if x.size(0) == 1:
            return self._same_range(x, fine)
        largest = x.abs().amax(dim=1, keepdim=True).clamp_(min=_TINY)  # (rows, 1)
        return self._same_range(x / largest, fine).mul_(largest)

    def for_one_row(self, fine: bool) -> Callable[[Tensor], Tensor]:
        if fine:
            return lambda x: self._same_range(x, True)
        multiply, packed, reduce_range = self._multiply, self._packed, self._reduce_range
        return lambda x: multiply(x, packed, reduce_range)

    def _same_range(self, x: Tensor, fine: bool) -> Tensor:
        if not fine or not x.numel():
            return self._multiply(x, self._packed, self._reduce_range)
        step, zero = torch._choose_qparams_per_tensor(x, self._reduce_range)  # as the kernel will choose them
        top = LEVELS if self._reduce_range else 2 * LEVELS + 1
        gain = 2 * (min(zero, top - zero) - 1)  # brings the rest, at most half a step, almost to the range of x
        if gain < 2:  # x is all of one sign
            return self._multiply(x, self._packed, self._reduce_range)
        rest = x - torch.fake_quantize_per_tensor_affine(x, step, zero, 0, top)
        whole = self._multiply(torch.cat([x, rest.mul_(gain)]), self._packed, self._reduce_range)
        return torch.add(whole[: len(x)], whole[len(x) :], alpha=1 / gain)


def _prepack(values: Tensor, scales: Tensor) -> torch.ScriptObject:
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    quantized = torch._make_per_channel_quantized_tensor(values, scales.double(), zeros, 0)  # type: ignore[attr-defined]
    with packing_engine():
        return torch.ops.quantized.linear_prepack(quantized, None)


@contextmanager
def packing_engine() -> Iterator[None]:
    """Let torch pack weights for fbgemm, which is its choice on x86 anyway; enter it before threads that pack."""
    before, engines = torch.backends.quantized.engine, torch.backends.quantized.supported_engines
    wanted = [name for name in ("x86", "fbgemm") if name in engines]
    if before in wanted or not wanted:
        yield
        return
    torch.backends.quantized.engine = wanted[0]
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


class OneDnnKernel(Int8Kernel):
    """oneDNN's int8 product, with each row of activations rounded by its own scale."""

    name = "onednn"

    def __init__(self, values: Tensor, scales: Tensor):
        self._packed, self._scales = torch.ops.onednn.qlinear_prepack(values, None), scales
        self._zeros = torch.zeros(len(scales), dtype=torch.int64)
        self._multiply = torch.ops.onednn.qlinear_pointwise.default

    def __call__(self, x: Tensor, fine: bool = False) -> Tensor:
        steps = x.abs().amax(dim=1, keepdim=True).clamp_(min=_TINY) / LEVELS  # (rows, 1)
        scaled = x / steps
        rounded = scaled.round()
        if not fine:
            return self._product(rounded).mul_(steps)
        rest = (scaled - rounded).mul_(2 * LEVELS).round_()
        whole = self._product(torch.cat([rounded, rest]))
        return torch.add(whole[: len(x)], whole[len(x) :], alpha=0.5 / LEVELS).mul_(steps)

    def _product(self, rounded: Tensor) -> Tensor:
        weights = (self._packed, self._scales, self._zeros)
        return self._multiply(rounded.to(torch.int8), 1.0, 0, *weights, None, 1.0, 0, torch.float32, "none", [], "")


class WeightOnlyKernel(Int8Kernel):
    """aten's product of floats with int8 weights."""

    name = "weight-only"

    def __init__(self, values: Tensor, scales: Tensor):
        self._values, self._scales = values.contiguous(), scales

    def __call__(self, x: Tensor, fine: bool = False) -> Tensor:
        if x.size(0) > 8:  # this kernel is made for few rows
            return torch.nn.functional.linear(x, self._values.float()).mul_(self._scales)
        return torch._weight_int8pack_mm(x, self._values, self._scales)


KernelMaker = Callable[[Tensor, Tensor], Int8Kernel]
KERNELS: tuple[type[Int8Kernel], ...] = (DynamicKernel, OneDnnKernel, WeightOnlyKernel)


@functools.cache
def best_kernel(candidates: Sequence[type[Int8Kernel]] = KERNELS) -> type[Int8Kernel] | None:
    """The first of `candidates` that this torch and this CPU compute rightly with; None if there is none."""
    for kernel in candidates:
        if works(kernel):
            log.debug("int8 weights: %s kernel", kernel.name)
            return kernel
    return None


def works(kernel: type[Int8Kernel]) -> bool:
    """Try a small product at the ends of the range, where 16-bit sums overflow, and one in the middle of it."""
    try:
        with warnings.catch_warnings():  # torch says once in a process that the packing op is deprecated
            warnings.filterwarnings("ignore", message=".*deprecated and will be removed.*")
            return (
                _error(kernel, *_extreme()) < 0.02
                and max(_error(kernel, *_ordinary(), fine) for fine in (False, True)) < 0.03
            )
    except (RuntimeError, NotImplementedError, AttributeError):  # an op or an engine that is not there
        return False


def _extreme() -> tuple[Tensor, Tensor]:
    weight = torch.ones(32, 64)
    x = torch.ones(1, 64)
    x[0, -1] = 0.0  # so that the range of the activations starts at zero and its top is rounded to 255
    return weight, x


def _ordinary() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(32, 64, generator=rng), torch.randn(3, 64, generator=rng)


def _error(make: KernelMaker, weight: Tensor, x: Tensor, fine: bool = False) -> float:
    expected = x @ weight.T
    return float((make(*quantize_rows(weight))(x, fine) - expected).norm() / expected.norm())


def saturates(make: KernelMaker) -> bool:
    """Whether the kernel's sums overflow where weights and activations are at the ends of their ranges."""
    return _error(make, *_extreme()) > 0.02


@functools.cache
def _fbgemm_saturates() -> bool:
    return saturates(
        functools.partial(DynamicKernel, reduce_range=False)
    )  # asked of the kernel, not of the CPU's flags


def check_int8(device: str = "cpu", precision: str = "fp32") -> None:
    """Raise UserError where `--quantize int8` cannot work: off the CPU, beside bf16, or without kernels."""
    if torch.device(device).type != "cpu":
        raise UserError(
            f"--quantize int8 does not work on {device}",
            "its kernels are the CPU's",
            "use --device cpu, or --precision bf16 on CUDA, or drop --quantize",
        )
    if precision != "fp32":
        raise UserError(
            f"--quantize int8 contradicts --precision {precision}",
            "int8 weights are multiplied with float32 activations",
            "drop one of the two",
        )
    if best_kernel() is None:
        raise UserError(
            "--quantize int8 does not work here",
            f"none of torch {torch.__version__}'s int8 kernels gives right results on this CPU "
            f"(tried: {', '.join(kernel.name for kernel in KERNELS)})",
            "drop --quantize, or install a torch build from https://pytorch.org/get-started",
        )
