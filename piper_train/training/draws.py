"""Random draws of a training step that belong to a clip, not to its place in a batch.

A clip's noise is a function of the seed, the round (an epoch, or the validation) and the clip's number. So it is the
same however many processes share a batch, however long the others in the batch are, and after resuming.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..models.synthesizer import Draws

if TYPE_CHECKING:
    from ..data.batch import Batch

VALIDATION = "validation"  # the round whose draws are the same at every validation


def key(*parts: object) -> int:
    """A seed of 63 bits from what it shall depend on."""
    digest = hashlib.sha256(" ".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def draws_of(batch: Batch, channels: int, seed: int, turn: int | str) -> Draws:
    """Draw the posterior's and the durations' noise and where each clip is sliced, on the batch's device.

    channels: of the latents; turn: the epoch, or VALIDATION. A clip's draws fill its own length; what lies behind it is
    masked by the model and stays zero.
    """
    device = batch.specs.device
    clips, frames, ids = (tensor.tolist() for tensor in (batch.clips, batch.spec_lengths, batch.id_lengths))
    posterior = torch.zeros(len(clips), channels, batch.specs.size(-1), device=device)  # (batch, channels, frames)
    durations = torch.zeros(len(clips), 2, batch.ids.size(-1), device=device)  # (batch, 2, ids)
    slices = torch.zeros(len(clips), device=device)  # (batch,) from [0, 1)
    generator = torch.Generator(device)
    for row, clip in enumerate(clips):
        generator.manual_seed(key(seed, turn, clip))
        slices[row] = _uniform(generator, device)
        durations[row, :, : ids[row]] = _normal(generator, device, 2, ids[row])
        posterior[row, :, : frames[row]] = _normal(generator, device, channels, frames[row])
    return Draws(posterior=posterior, durations=durations, slices=slices)


def _normal(generator: torch.Generator, device: torch.device, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, device=device)


def _uniform(generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand((), generator=generator, device=device)
