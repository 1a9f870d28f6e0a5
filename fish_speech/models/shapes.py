"""Build modules as shapes alone, to be given their weights afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class _DrawNothing(TorchFunctionMode):
    """Leaves out what torch imports its compiler for on tensors without memory, 75 to 150 MB and a second or two.

    That is normal_, and the norm and the product that weight normalisation asks for when it is put on a module.
    """

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in (torch.Tensor.normal_, nn.init.normal_):
            return args[0] if args else (kwargs or {})["tensor"]
        if func is torch.norm_except_dim and args[0].is_meta:
            weight, _, dim = args
            return weight.new_empty([size if axis == dim else 1 for axis, size in enumerate(weight.shape)])
        if func is torch._weight_norm and args[0].is_meta:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


@contextmanager
def shapes_only() -> Iterator[None]:
    """Make modules on the meta device, without drawing initial weights."""
    with torch.device("meta"), _DrawNothing():
        yield
