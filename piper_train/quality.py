"""The four qualities of Piper voices, as `model.*` values; configs/piper/ holds the same as yaml for `fit --config`.

Low and medium are the same network at another sample rate; x-low is narrower; high has the larger decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .models.config import VitsConfig

_SMALL_DECODER: dict[str, Any] = {
    "resblock": "2",
    "resblock_kernel_sizes": (3, 5, 7),
    "resblock_dilation_sizes": ((1, 2), (2, 6), (3, 12)),
    "upsample_rates": (8, 8, 4),
    "upsample_initial_channel": 256,
    "upsample_kernel_sizes": (16, 16, 8),
}
_LARGE_DECODER: dict[str, Any] = {
    "resblock": "1",
    "resblock_kernel_sizes": (3, 7, 11),
    "resblock_dilation_sizes": ((1, 3, 5), (1, 3, 5), (1, 3, 5)),
    "upsample_rates": (8, 8, 2, 2),
    "upsample_initial_channel": 512,
    "upsample_kernel_sizes": (16, 16, 4, 4),
}
_NARROW = {"hidden_channels": 96, "inter_channels": 96, "filter_channels": 384}
_WIDE = {"hidden_channels": 192, "inter_channels": 192, "filter_channels": 768}

# Sample rates in Hz. What is not said here (symbols, speakers, spectrogram, layers) is the same in all of them.
QUALITIES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "x-low": MappingProxyType({"sample_rate": 16000, **_NARROW, **_SMALL_DECODER}),
        "low": MappingProxyType({"sample_rate": 16000, **_WIDE, **_SMALL_DECODER}),
        "medium": MappingProxyType({"sample_rate": 22050, **_WIDE, **_SMALL_DECODER}),
        "high": MappingProxyType({"sample_rate": 22050, **_WIDE, **_LARGE_DECODER}),
    }
)
_ALSO_FIXED = ("n_heads", "n_layers", "kernel_size", "filter_length", "hop_length", "win_length")


def quality_of(config: VitsConfig) -> str | None:
    """The quality whose network and sample rate these are, whatever the symbols and speakers; None for any other."""
    for name, values in QUALITIES.items():
        quality = VitsConfig.from_mapping(values)
        if all(getattr(config, key) == getattr(quality, key) for key in (*values, *_ALSO_FIXED)):
            return name
    return None
