"""What a voice is trained to: sound that passes for real, with the right mel, durations and latents.

Each function takes tensors of any precision and computes in float32. Two losses divide by a count of what is not padding.
When processes share a batch, that count must be the whole batch's, or a process with short clips would weigh them more; the
others are means over equal clips, to be weighed by the process's share of them (see objective.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def mel_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Mean absolute difference of log-mels of equal shape."""
    return (real.float() - fake.float()).abs().mean()


def generator_loss(fake_scores: Sequence[Tensor]) -> Tensor:
    """Least squares towards 1, the mean over each discriminator's values, summed over discriminators."""
    return torch.stack([(1 - score.float()).square().mean() for score in fake_scores]).sum()


def discriminator_loss(real_scores: Sequence[Tensor], fake_scores: Sequence[Tensor]) -> Tensor:
    """Least squares of real towards 1 and made towards 0, summed over discriminators."""
    losses = [
        (1 - real.float()).square().mean() + fake.float().square().mean()
        for real, fake in zip(real_scores, fake_scores, strict=True)
    ]
    return torch.stack(losses).sum()


def feature_loss(real_features: Sequence[Sequence[Tensor]], fake_features: Sequence[Sequence[Tensor]]) -> Tensor:
    """Twice the mean absolute difference of each layer's activations, summed over layers; the real ones are targets."""
    losses = [
        (real.detach().float() - fake.float()).abs().mean()
        for reals, fakes in zip(real_features, fake_features, strict=True)
        for real, fake in zip(reals, fakes, strict=True)
    ]
    return 2 * torch.stack(losses).sum()


def duration_loss(item_losses: Tensor, x_mask: Tensor, count: Tensor | None = None) -> Tensor:
    """Mean loss of a token. `item_losses` (batch,) are sums over tokens, `x_mask` is (batch, 1, tokens).

    count: what to divide by, if not the tokens of this mask
    """
    return item_losses.float().sum() / (x_mask.float().sum() if count is None else count)


def kl_loss(
    z_p: Tensor, logs_q: Tensor, m_p: Tensor, logs_p: Tensor, y_mask: Tensor, count: Tensor | None = None
) -> Tensor:
    """Distance of the posterior from the prior in nats per frame, estimated at the drawn latents.

    z_p: drawn latents after the flow; logs_q: of the posterior; m_p, logs_p: of the prior, by frame; all (batch, channels,
    frames); y_mask: (batch, 1, frames); count: what to divide by, if not the frames of this mask
    """
    z_p, logs_q, m_p, logs_p, y_mask = (x.float() for x in (z_p, logs_q, m_p, logs_p, y_mask))
    kl = logs_p - logs_q - 0.5 + 0.5 * (z_p - m_p).square() * (-2 * logs_p).exp()
    return (kl * y_mask).sum() / (y_mask.sum() if count is None else count)
