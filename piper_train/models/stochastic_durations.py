"""Stochastic duration predictor: how long each phoneme lasts, drawn anew each time (VITS, arXiv:2106.06103, section 2.2.2).

A normalising flow turns two channels of noise per phoneme into log durations. Durations are whole numbers and one
channel, so training adds two channels of its own: u in (0, 1), which is taken from the duration, and a free one. A second
flow, which sees the durations, draws both; the loss is a bound on the likelihood of the durations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .duration_flows import SeparableStack, SplineStep, make_steps

if TYPE_CHECKING:
    from .config import VitsConfig

KERNEL = 3
LAYERS = 3
DROPOUT = 0.5
LEAST_FRAMES = 1e-5  # of a duration after u is taken from it


class StochasticDurationPredictor(nn.Module):
    """Draws log durations from noise. It learns from the alignment without teaching the text encoder."""

    def __init__(self, config: VitsConfig):
        super().__init__()
        channels = config.hidden_channels
        self.pre = nn.Conv1d(channels, channels, 1)
        self.convs = SeparableStack(channels, KERNEL, LAYERS, DROPOUT)
        self.proj = nn.Conv1d(channels, channels, 1)
        self.flows = make_steps(channels, KERNEL)
        self.post_pre = nn.Conv1d(1, channels, 1)
        self.post_convs = SeparableStack(channels, KERNEL, LAYERS, DROPOUT)
        self.post_proj = nn.Conv1d(channels, channels, 1)
        self.post_flows = make_steps(channels, KERNEL)
        if config.gin_channels:
            self.cond = nn.Conv1d(config.gin_channels, channels, 1)

    def loss(
        self, x: Tensor, x_mask: Tensor, w: Tensor, g: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Bound on the negative log-likelihood of durations, summed over tokens, in nats -> (batch,).

        x: text encoding (batch, hidden_channels, tokens); x_mask: (batch, 1, tokens); w: frames of each token
        (batch, 1, tokens); g: speaker vector (batch, gin_channels, 1); noise: standard normal (batch, 2, tokens), drawn
        here if not given
        """
        w = _at_least_float32(w)
        x = self._encode(x, x_mask, g)
        durations = self.post_proj(self.post_convs(self.post_pre(w), x_mask)) * x_mask

        noise = self._noise(noise, w) * x_mask
        drawn, log_stretch = self._run(self.post_flows, noise, x_mask, x + durations)
        free, other = drawn.split(1, dim=1)
        log_stretch = log_stretch + ((F.logsigmoid(free) + F.logsigmoid(-free)) * x_mask).sum((1, 2))
        log_q = _log_normal(noise, x_mask) - log_stretch

        rest = (w - free.sigmoid() * x_mask) * x_mask
        log_rest = rest.clamp(min=LEAST_FRAMES).log() * x_mask
        z, log_stretch = self._run(self.flows, torch.cat([log_rest, other], dim=1), x_mask, x)
        log_p = _log_normal(z, x_mask) + log_stretch - log_rest.sum((1, 2))
        return log_q - log_p

    def log_durations(
        self,
        x: Tensor,
        x_mask: Tensor,
        g: Tensor | None = None,
        noise: Tensor | None = None,
        noise_scale: float | Tensor = 1.0,
    ) -> Tensor:
        """Draw the logarithm of the frames of each token, (batch, 1, tokens).

        noise: standard normal (batch, 2, tokens) before it is scaled; drawn here if not given
        """
        x = self._encode(x, x_mask, g)
        z = self._noise(noise, _at_least_float32(x_mask)) * noise_scale
        # The last spline step on the way back bends only the channel that is thrown away: leave it out.
        spared = next(step for step in self.flows if isinstance(step, SplineStep))
        for step in reversed(self.flows):
            if step is not spared:
                z = step.inverse(z, x_mask, x)  # type: ignore[operator]
        return z[:, :1]

    def _encode(self, x: Tensor, x_mask: Tensor, g: Tensor | None) -> Tensor:
        x = self.pre(x.detach())
        if g is not None:
            x = x + self.cond(g.detach())
        return self.proj(self.convs(x, x_mask)) * x_mask

    def _noise(self, given: Tensor | None, like: Tensor) -> Tensor:
        """(batch, 2, tokens) standard normal, at least float32."""
        return torch.randn_like(like.expand(-1, 2, -1)) if given is None else given.to(like)

    def _run(self, steps: nn.ModuleList, x: Tensor, x_mask: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.size(0))
        for step in steps:
            x, log_stretch = step(x, x_mask, g)
            total = total + log_stretch
        return x, total


def _log_normal(x: Tensor, x_mask: Tensor) -> Tensor:
    """Log-density of (batch, 2, tokens) under the standard normal, summed over what is not masked -> (batch,)."""
    return (-0.5 * (math.log(2 * math.pi) + x.square()) * x_mask).sum((1, 2))


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
