"""Numbers that are none: losses, gradients or weights that a learning rate, or a broken clip, has driven out of the range."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fish_speech.errors import UserError

_FIX = (
    "start from an earlier checkpoint by --model.warmstart_ckpt with a lower --model.learning_rate; "
    "the checkpoints so far are whole and kept"
)


def are_finite(values: Mapping[str, Tensor]) -> bool:
    """Whether every value, a tensor () each, is a number."""
    return bool(torch.stack(list(values.values())).isfinite().all())


def norm_of_gradients(weights: Iterable[nn.Parameter]) -> Tensor:
    """Euclidean norm () of all gradients together; no number where any gradient is none."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    return torch.stack(torch._foreach_norm(gradients)).norm()


def not_finite(values: Mapping[str, Tensor], epoch: int, batch: int) -> UserError:
    """What to tell where losses or gradients are no numbers."""
    wrong = ", ".join(f"{name} is {value.item():g}" for name, value in values.items() if not value.isfinite())
    return UserError(
        f"training has run out of numbers in epoch {epoch}, batch {batch}: {wrong}",
        "the learning rate is too high for these weights, or a clip of this batch is broken",
        f"{_FIX}. In place of 16-mixed, bf16-mixed or 32-true may do",
    )


def refuse_broken(module: nn.Module, epoch: int) -> None:
    """Raise UserError if any weight is no number."""
    if not all(torch.stack(torch.aminmax(weight.detach())).isfinite().all() for weight in module.parameters()):
        raise UserError(
            f"in epoch {epoch} weights are no numbers any more",
            "the learning rate has driven them out of the range",
            _FIX,
        )
