"""What the processes of a run tell each other: sums, agreement, and the gradients of a step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors
from torch.distributed.tensor import DTensor

_BUCKET_BYTES = 64 << 20  # gradients that travel together


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """Add up a tensor over all processes; with one process it is `values` itself."""
    if world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def any_process(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is true in any process; each must ask."""
    if world_size() == 1:
        return flag
    return bool(summed(torch.tensor(float(flag), device=device)) > 0)


@torch.no_grad()
def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace each gradient by its sum over all processes; a parameter without one counts as zero.

    Gradients of a sharded model (FSDP2) have met in the backward pass already, as their mean.
    """
    if world_size() == 1:
        return
    parameters = list(parameters)
    if any(isinstance(parameter, DTensor) for parameter in parameters):
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(world_size())
        return
    for bucket in _buckets(parameters):
        flat = _flatten_dense_tensors(bucket)
        dist.all_reduce(flat)
        for gradient, total in zip(bucket, _unflatten_dense_tensors(flat, bucket), strict=True):
            gradient.copy_(total)


def clip_gradients(parameters: Iterable[torch.nn.Parameter], largest: float | None) -> Tensor:
    """Scale the gradients so that their norm together is `largest` at most; return the norm before that.

    None, 0 and less do not limit it. A sharded model's gradients count with the parts of all processes.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, largest if largest and largest > 0 else float("inf"))
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _buckets(parameters: Iterable[torch.nn.Parameter]) -> Iterator[list[Tensor]]:
    """Gradients of one dtype, some at a time, in the order of the parameters: the same in every process."""
    waiting: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        bucket = waiting.setdefault(parameter.grad.dtype, [])
        bucket.append(parameter.grad)
        if sum(gradient.numel() * gradient.element_size() for gradient in bucket) >= _BUCKET_BYTES:
            yield waiting.pop(parameter.grad.dtype)
    yield from waiting.values()
