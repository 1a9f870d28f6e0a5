"""Weight normalisation with the parameter names of published voices: weight = weight_g * weight_v / |weight_v|.

The norm runs over all axes but the first, which for a transposed convolution is the input channel (Salimans and Kingma,
arXiv:1602.07868). torch.nn.utils.weight_norm has these names too but is deprecated, cannot be copied or pickled, and
keeps the graph of the last step alive; torch's newer parametrization calls the two tensors otherwise.
"""

from typing import Any, TypeVar

import torch
from torch import nn

AnyConvolution = TypeVar("AnyConvolution", bound=nn.Module)


def weight_norm(module: AnyConvolution) -> AnyConvolution:
    """Replace the parameter `weight` of a convolution by `weight_g` and `weight_v`; what it computes stays the same.

    Raises ValueError for a module that has no weight, or that is normed already.
    """
    weight = module._parameters.pop("weight", None)
    if weight is None:
        raise ValueError(f"{type(module).__name__} has no weight that could be normed")
    module.weight_g = nn.Parameter(torch.norm_except_dim(weight.detach(), 2, 0))
    module.weight_v = nn.Parameter(weight.detach())
    module.register_forward_pre_hook(_make_weight)
    module.register_forward_hook(_drop_weight, always_call=True)
    return module


def remove_weight_norm(root: nn.Module) -> None:
    """Fold every normed convolution inside `root` (itself included) to one with a plain `weight`, for inference."""
    for module in root.modules():
        if "weight_v" not in module._parameters:
            continue
        weight = _folded(module).detach()
        for hooks, hook in ((module._forward_pre_hooks, _make_weight), (module._forward_hooks, _drop_weight)):
            for key in [key for key, known in hooks.items() if known is hook]:
                del hooks[key]
                module._forward_hooks_always_called.pop(key, None)
        del module.weight_g, module.weight_v
        module.weight = nn.Parameter(weight)


def _folded(module: nn.Module) -> torch.Tensor:
    return torch._weight_norm(module._parameters["weight_v"], module._parameters["weight_g"], 0)  # type: ignore[arg-type]


def _make_weight(module: nn.Module, inputs: Any) -> None:
    module.weight = _folded(module)


def _drop_weight(module: nn.Module, inputs: Any, output: Any) -> None:
    module.__dict__.pop("weight", None)  # always called, so that a failed step leaves nothing behind either
