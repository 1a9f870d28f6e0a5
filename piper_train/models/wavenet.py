"""The WaveNet block of VITS: gated convolutions over frames, with or without a speaker (arXiv:1609.03499)."""

import torch
from torch import Tensor, nn

from .weight_norm import weight_norm

KERNEL_SIZE = 5  # frames


class WaveNet(nn.Module):
    """Layers of gated convolutions; each adds one part of what it makes to its input and one to the block's output."""

    def __init__(self, channels: int, n_layers: int, gin_channels: int = 0) -> None:
        super().__init__()
        self.channels = channels
        self.in_layers = nn.ModuleList()
        self.res_skip_layers = nn.ModuleList()
        if gin_channels:
            self.cond_layer = weight_norm(nn.Conv1d(gin_channels, 2 * channels * n_layers, 1))
        for layer in range(n_layers):
            gated = nn.Conv1d(channels, 2 * channels, KERNEL_SIZE, padding=KERNEL_SIZE // 2)
            kept = channels if layer == n_layers - 1 else 2 * channels  # the last layer has no next one to add to
            self.in_layers.append(weight_norm(gated))
            self.res_skip_layers.append(weight_norm(nn.Conv1d(channels, kept, 1)))

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None) -> Tensor:
        """Transform (batch, channels, frames), given a speaker vector `g` (batch, gin, 1); masked frames come out 0."""
        conditions = [None] * len(self.in_layers)
        if g is not None:
            conditions = self.cond_layer(g).split(2 * self.channels, dim=1)
        output: Tensor | float = 0.0
        last = len(self.in_layers) - 1
        for layer, (gate, res_skip, condition) in enumerate(zip(self.in_layers, self.res_skip_layers, conditions)):
            gated = gate(x) if condition is None else gate(x) + condition
            signal, opening = gated.chunk(2, dim=1)
            made = res_skip(torch.tanh(signal) * torch.sigmoid(opening))
            if layer < last:
                residual, made = made.chunk(2, dim=1)
                x = (x + residual) * x_mask
            output = output + made
        return output * x_mask
