"""The text encoder of VITS (arXiv:2106.06103): phoneme ids to the mean and spread of the latents that they stand for."""

import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from .attention import RelativeSelfAttention
from .channel_norm import ChannelNorm
from .config import VitsConfig
from .masks import sequence_mask


class EncodedText(NamedTuple):
    """What the text encoder says of each phoneme."""

    x: Tensor  # (batch, hidden, symbols)
    m: Tensor  # mean of the latents, (batch, channels, symbols)
    logs: Tensor  # ln of their standard deviation, (batch, channels, symbols)
    x_mask: Tensor  # (batch, 1, symbols), 1 for a symbol and 0 for padding


class TextEncoder(nn.Module):
    """Phoneme embedding, a transformer with relative positions, and a projection to the prior's mean and spread."""

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        self.scale = math.sqrt(config.hidden_channels)
        self.emb = nn.Embedding(config.num_symbols, config.hidden_channels)
        nn.init.normal_(self.emb.weight, 0.0, config.hidden_channels**-0.5)
        self.encoder = Transformer(config)
        self.proj = nn.Conv1d(config.hidden_channels, 2 * config.inter_channels, 1)

    def forward(self, ids: Tensor, lengths: Tensor) -> EncodedText:
        """Encode `ids` (batch, symbols) of `lengths` (batch)."""
        embedded = self.emb(ids).transpose(1, 2) * self.scale  # (batch, hidden, symbols)
        x_mask = sequence_mask(lengths, ids.size(1)).to(embedded.dtype)
        x = self.encoder(embedded, x_mask)
        m, logs = (self.proj(x) * x_mask).chunk(2, dim=1)
        return EncodedText(x, m, logs, x_mask)


class Transformer(nn.Module):
    """Layers of attention and convolutional feed-forward, each added to its input and then normalised."""

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        channels, layers = config.hidden_channels, range(config.n_layers)
        self.drop = nn.Dropout(config.p_dropout)
        self.attn_layers = nn.ModuleList(
            RelativeSelfAttention(channels, config.n_heads, config.p_dropout) for _ in layers
        )
        self.norm_layers_1 = nn.ModuleList(ChannelNorm(channels) for _ in layers)
        self.ffn_layers = nn.ModuleList(FeedForward(config) for _ in layers)
        self.norm_layers_2 = nn.ModuleList(ChannelNorm(channels) for _ in layers)

    def forward(self, x: Tensor, x_mask: Tensor) -> Tensor:
        """Transform (batch, channels, symbols); what is masked comes out as 0."""
        x = x * x_mask
        layers = zip(self.attn_layers, self.norm_layers_1, self.ffn_layers, self.norm_layers_2)
        for attend, norm_1, feed_forward, norm_2 in layers:
            x = norm_1(x + self.drop(attend(x, x_mask)))
            x = norm_2(x + self.drop(feed_forward(x, x_mask)))
        return x * x_mask


class FeedForward(nn.Module):
    """Two convolutions over neighbouring phonemes with a rectifier between; silence beyond the ends is 0."""

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        channels, kernel = config.hidden_channels, config.kernel_size
        self.padding = ((kernel - 1) // 2, kernel // 2)
        self.conv_1 = nn.Conv1d(channels, config.filter_channels, kernel)
        self.conv_2 = nn.Conv1d(config.filter_channels, channels, kernel)
        self.drop = nn.Dropout(config.p_dropout)

    def forward(self, x: Tensor, x_mask: Tensor) -> Tensor:
        """Transform (batch, channels, symbols); what is masked comes out as 0."""
        x = self.drop(F.relu(self.conv_1(F.pad(x * x_mask, self.padding))))
        return self.conv_2(F.pad(x * x_mask, self.padding)) * x_mask
