"""Build modules as shapes alone, to be given their weights afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class _DrawNothing(TorchFunctionMode):
    """Leaves out normal_: for a tensor without memory it would import torch's compiler, 75 MB and a second or more."""

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in (torch.Tensor.normal_, nn.init.normal_):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def shapes_only() -> Iterator[None]:
    """Make modules on the meta device, without drawing initial weights."""
    with torch.device("meta"), _DrawNothing():
        yield
