"""int8 weights for speaking on the CPU: a quarter of the memory, and of the bytes that a decode step has to read.

What is read at each step becomes int8 with a scale per output channel. Tables of which a step looks up a row stay
exact: in bfloat16 where their values are bfloat16 values, as in the released files.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from .dual_ar import DualAR
from .int8_kernels import best_kernel, check_int8, packing_engine, quantize_rows
from .lora import is_lora_name

__all__ = ["CompactEmbedding", "CompactLinear", "Int8Linear", "SplitInt8Linear", "check_int8", "quantize_int8"]


class _ForSpeaking(nn.Module):
    """A module that can neither be trained nor saved: its weights are rounded."""

    def train(self, mode: bool = True) -> _ForSpeaking:
        if mode:
            raise RuntimeError("int8 weights cannot be trained; load the model without quantize_int8")
        return super().train(mode)

    def _save_to_state_dict(self, *args: Any) -> NoReturn:
        raise RuntimeError("int8 weights are not saved; save the model before quantize_int8")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise RuntimeError("int8 weights are not pickled or copied; load the model again")


class Int8Linear(_ForSpeaking):
    """A linear layer with int8 weights, one scale per output channel, that takes and gives floats.

    Activations are rounded to 8 bits as well, by the range of each row (token), never by that of all rows together, or
    to about 14 where `fine` is true.
    Made from `weight` (out, in) and `bias` (out,), which it does not keep. Raises RuntimeError without a kernel for it.
    """

    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None, fine: bool = False):
        super().__init__()
        kernel = best_kernel()
        if kernel is None:
            raise RuntimeError("torch has no int8 kernel for this CPU; call check_int8 first")
        self.out_features, self.in_features = weight.shape
        self.fine = fine
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone())
        self._product = kernel(*quantize_rows(weight))
        # The same for one contiguous float32 row (1, in) -> a fresh (1, out), with nothing around the kernel.
        self.row_product = self._product.for_one_row(fine) if bias is None else None
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the dtype of x."""
        out = self._product(x.reshape(-1, self.in_features).float(), self.fine)
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bias={self.bias is not None}, {self._product.name}"


class SplitInt8Linear(_ForSpeaking):
    """An int8 projection of which mostly the first outputs are wanted: packed apart, because packed rows cannot be cut."""

    def __init__(self, weight: Tensor, count: int):
        super().__init__()
        self.first, self.rest = Int8Linear(weight[:count]), Int8Linear(weight[count:])
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out), in the dtype of x."""
        return torch.cat([self.first(x), self.rest(x)], dim=-1)


class _Compact(_ForSpeaking):
    """A matrix of which few rows are used: held small, given as float32."""

    weight: Tensor  # (rows, dim)

    def __init__(self, weight: Tensor):
        super().__init__()
        self.register_buffer("weight", _compact(weight))
        self.training = False


class CompactEmbedding(_Compact):
    """A table of which rows are looked up."""

    def forward(self, ids: Tensor) -> Tensor:
        """Ids (...) -> rows (..., dim) float32."""
        return nn.functional.embedding(ids, self.weight).float()


class CompactLinear(_Compact):
    """A projection to a vocabulary of which speech needs few rows (`rows`); exact, and slow when asked for all."""

    CHUNK = 4096  # rows widened at a time

    def rows(self, ids: Tensor) -> Tensor:
        """The weights of some outputs: ids (rows,) -> (rows, dim) float32."""
        return self.weight[ids].float()

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., vocab)."""
        parts = [nn.functional.linear(x, part.to(x.dtype)) for part in self.weight.split(self.CHUNK)]
        return torch.cat(parts, dim=-1)


def _compact(weight: Tensor) -> Tensor:
    """A copy in bfloat16 if that loses nothing, else in float32."""
    weight = weight.detach()
    if weight.dtype == torch.bfloat16:
        return weight.clone()
    small = weight.to(torch.bfloat16)
    same = all(torch.equal(a.to(b.dtype), b) for a, b in zip(small.split(4096), weight.split(4096), strict=True))
    return small if same else weight.float().clone()


@torch.no_grad()
def quantize_int8(model: DualAR) -> None:
    """Turn the weights of all layers of `model` to int8, in place and layer by layer: each float layer is freed at once.

    The model may be float32, or bfloat16 as its file is; afterwards it computes in float32. Raises UserError off the
    CPU or without kernels, ValueError for a model whose adapters are not merged.
    """
    check_int8(str(model.device))
    if any(is_lora_name(name) for name, _ in model.named_parameters()):
        raise ValueError("the model has adapters; merge them before quantize_int8")
    model.eval().requires_grad_(False)
    places = [place for blocks in (model.layers, model.fast_layers) for place in _linears(blocks)]
    places += [(model, name) for name in ("fast_project_in", "fast_output") if hasattr(model, name)]
    drawn = model.config.residual_codes
    with packing_engine(), ThreadPoolExecutor(torch.get_num_threads()) as threads:  # packing is serial within torch
        for _ in threads.map(lambda place: _quantize(place, drawn), places):
            pass
    for name in ("codebook_embeddings", "fast_embeddings"):
        setattr(model, name, CompactEmbedding(getattr(model, name).weight))
    if not model.config.tie_word_embeddings:
        model.output = CompactLinear(model.output.weight)  # type: ignore[assignment]
        model.embeddings = CompactEmbedding(model.embeddings.weight)  # type: ignore[assignment]
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.float32, copy=True)  # nothing stays mapped to a file


def _linears(blocks: nn.Module) -> list[tuple[nn.Module, str]]:
    """The plain linear layers within `blocks`, as (owner, attribute)."""
    names = [name for name, module in blocks.named_modules() if type(module) is nn.Linear]
    return [(blocks.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in names]


@torch.no_grad()
def _quantize(place: tuple[nn.Module, str], drawn: int) -> None:
    owner, name = place
    linear = getattr(owner, name)
    if name == "fast_output" and drawn < linear.out_features:
        setattr(owner, name, SplitInt8Linear(linear.weight, drawn))
        return
    # What gating gives w2 has far outliers: with 8 bits there, the divergence from float32 is twice as large.
    setattr(owner, name, Int8Linear(linear.weight, linear.bias, fine=name == "w2"))
