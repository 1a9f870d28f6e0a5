"""The flow of VITS: an invertible map between the latents of sound and those of text (arXiv:1605.08803, mean only)."""

import torch
from torch import Tensor, nn

from .config import VitsConfig
from .wavenet import WaveNet

_COUPLINGS = 4
_LAYERS = 4  # of the WaveNet in each coupling


class Flow(nn.Module):
    """Couplings with a flip of the channels after each, so that both halves get shifted. Volume is preserved."""

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        self.flows = nn.ModuleList()
        for _ in range(_COUPLINGS):
            self.flows.append(Coupling(config))
            self.flows.append(Flip())

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None = None, reverse: bool = False) -> Tensor:
        """Map (batch, channels, frames) from sound's latents to text's, or back with `reverse`; masked frames are 0."""
        for step in reversed(self.flows) if reverse else self.flows:
            x = step(x, x_mask, g, reverse)
        return x


class Coupling(nn.Module):
    """Shift the second half of the channels by what a WaveNet makes of the first, which stays as it is."""

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        half = config.inter_channels // 2
        self.pre = nn.Conv1d(half, config.hidden_channels, 1)
        self.enc = WaveNet(config.hidden_channels, _LAYERS, config.gin_channels)
        self.post = nn.Conv1d(config.hidden_channels, half, 1)
        nn.init.zeros_(self.post.weight)  # a new flow is the identity
        nn.init.zeros_(self.post.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None, reverse: bool) -> Tensor:
        """Shift (batch, channels, frames), or undo that."""
        kept, moved = x.chunk(2, dim=1)
        shift = self.post(self.enc(self.pre(kept) * x_mask, x_mask, g)) * x_mask
        moved = (moved - shift) * x_mask if reverse else moved * x_mask + shift
        return torch.cat([kept, moved], dim=1)


class Flip(nn.Module):
    """Reverse the order of the channels; its own opposite."""

    def forward(self, x: Tensor, x_mask: Tensor, g: Tensor | None, reverse: bool) -> Tensor:
        """Flip (batch, channels, frames)."""
        return x.flip(1)
