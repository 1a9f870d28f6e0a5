"""What a Piper voice is: the sizes of its VITS generator and of its spectrograms, checked when made.

Names and defaults are those of the `model.*` options; the defaults are the quality medium.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

# A config from elsewhere must not ask for all memory. The largest published voice has 904 speakers and 768 channels.
_MOST = {
    "num_symbols": 1 << 16,
    "num_speakers": 1 << 16,
    "n_layers": 64,
    "sample_rate": 192_000,
    "segment_size": 1 << 22,
}
_MOST_WIDE = 1 << 13  # any other size
_MOST_STAGES = 12  # up-sampling stages, and residual blocks of each
_LONGEST_LITERAL = 1000  # characters of a sequence that is written as text
_DILATIONS = {"1": 3, "2": 2}  # dilated convolutions of a residual block of each type
_SIZES = {
    "num_symbols", "num_speakers", "sample_rate", "upsample_initial_channel", "filter_length", "hop_length",
    "win_length", "mel_channels", "inter_channels", "hidden_channels", "filter_channels", "n_heads", "n_layers",
    "kernel_size", "segment_size",
}  # fmt: skip


@dataclass(frozen=True)
class VitsConfig:
    """Sizes of a generator and of the sound that it makes. Raises ValueError, naming the option, for what cannot be."""

    num_symbols: int = 256  # rows of the phoneme embedding
    num_speakers: int = 1
    sample_rate: int = 22050  # Hz
    resblock: str = "2"  # residual blocks of the decoder: "1" is the larger
    resblock_kernel_sizes: tuple[int, ...] = (3, 5, 7)
    resblock_dilation_sizes: tuple[tuple[int, ...], ...] = ((1, 2), (2, 6), (3, 12))
    upsample_rates: tuple[int, ...] = (8, 8, 4)
    upsample_initial_channel: int = 256  # halved at each stage
    upsample_kernel_sizes: tuple[int, ...] = (16, 16, 8)
    filter_length: int = 1024  # samples of a Fourier transform
    hop_length: int = 256  # samples per frame
    win_length: int = 1024  # samples
    mel_channels: int = 80
    mel_fmin: float = 0.0  # Hz
    mel_fmax: float | None = None  # Hz; None is half the sample rate
    inter_channels: int = 192  # of the latents
    hidden_channels: int = 192
    filter_channels: int = 768  # of the text encoder's feed-forward layers
    n_heads: int = 2
    n_layers: int = 6  # of the text encoder
    kernel_size: int = 3  # of the text encoder's feed-forward layers
    p_dropout: float = 0.1
    gin_channels: int = 0  # of the speaker vector; 0 becomes 512 with several speakers
    use_sdp: bool = True  # durations are drawn (stochastic predictor), not regressed
    segment_size: int = 8192  # samples that the decoder makes for each clip while training

    def __post_init__(self) -> None:
        if self.num_speakers != 1 and self.gin_channels == 0:
            object.__setattr__(self, "gin_channels", 512)
        _check_sizes(self)
        _check_decoder(self)
        _check_sound(self)
        _check_width(self)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> VitsConfig:
        """Make a config of `model.*` values; unknown keys are ignored, missing ones take their default.

        Sequences may be lists or text that holds a Python literal, and `resblock` the number 1 or 2. Raises ValueError.
        """
        known = {field.name for field in fields(cls)}
        return cls(**{name: _cleaned(name, value) for name, value in mapping.items() if name in known})

    def to_mapping(self) -> dict[str, Any]:
        """Every value as plain numbers, text and lists: from_mapping's opposite, fit for JSON and yaml."""
        return {name: _listed(value) for name, value in asdict(self).items()}

    @property
    def spec_channels(self) -> int:
        """Bins of a linear spectrogram."""
        return self.filter_length // 2 + 1

    @property
    def segment_frames(self) -> int:
        """Frames that the decoder makes for each clip while training."""
        return self.segment_size // self.hop_length

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.sample_rate / self.hop_length


def _cleaned(name: str, value: Any) -> Any:
    """One `model.*` value as the config holds it."""
    if name == "resblock":
        return value if isinstance(value, bool) else str(value).strip()
    if name == "resblock_dilation_sizes":
        return tuple(_whole_numbers(name, row) for row in _sequence(name, value))
    if name in ("resblock_kernel_sizes", "upsample_rates", "upsample_kernel_sizes"):
        return _whole_numbers(name, value)
    return value


def _sequence(name: str, value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value.strip()) if len(value) <= _LONGEST_LITERAL else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            value = None
    if not isinstance(value, list | tuple):
        raise ValueError(f"{name} must be a list such as {_listed(getattr(VitsConfig, name))}")
    return list(value)


def _whole_numbers(name: str, value: Any) -> tuple[int, ...]:
    numbers = _sequence(name, value)
    if not all(type(number) is int and 0 < number <= _MOST_WIDE for number in numbers):
        raise ValueError(f"{name} must hold whole numbers from 1 to {_MOST_WIDE}; it is {_listed(numbers)!s:.100}")
    return tuple(numbers)


def _listed(value: Any) -> Any:
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _check_sizes(config: VitsConfig) -> None:
    for name in _SIZES:
        value, most = getattr(config, name), _MOST.get(name, _MOST_WIDE)
        if type(value) is not int or not 0 < value <= most:
            raise ValueError(f"{name} is {value!r:.40}; it must be a whole number from 1 to {most}")
    if type(config.gin_channels) is not int or not 0 <= config.gin_channels <= _MOST_WIDE:
        raise ValueError(
            f"gin_channels is {config.gin_channels!r:.40}; it must be a whole number from 0 to {_MOST_WIDE}"
        )
    if not _is_number(config.p_dropout) or not 0 <= config.p_dropout < 1:
        raise ValueError(f"p_dropout is {config.p_dropout!r:.40}; it must be at least 0 and below 1")
    if type(config.use_sdp) is not bool:
        raise ValueError(f"use_sdp is {config.use_sdp!r:.40}; it must be true or false")


def _check_decoder(config: VitsConfig) -> None:
    rates, kernels = config.upsample_rates, config.upsample_kernel_sizes
    if config.resblock not in _DILATIONS:
        raise ValueError(f"resblock is {config.resblock!r:.40}; it must be 1 or 2")
    if not 0 < len(rates) <= _MOST_STAGES or len(kernels) != len(rates):
        raise ValueError(f"upsample_rates {_listed(rates)} and upsample_kernel_sizes {_listed(kernels)} must pair up")
    if math.prod(rates) != config.hop_length:
        raise ValueError(
            f"upsample_rates {_listed(rates)} make {math.prod(rates)} samples of a frame, but hop_length is "
            f"{config.hop_length}; their product must equal it"
        )
    if any(kernel < rate or (kernel - rate) % 2 for rate, kernel in zip(rates, kernels)):
        raise ValueError(
            f"upsample_kernel_sizes {_listed(kernels)} must be upsample_rates {_listed(rates)} plus an even number each"
        )
    if config.upsample_initial_channel % (1 << len(rates)):
        raise ValueError(
            f"upsample_initial_channel is {config.upsample_initial_channel}; {len(rates)} stages halve it, so it must "
            f"be a multiple of {1 << len(rates)}"
        )
    blocks, dilations = config.resblock_kernel_sizes, config.resblock_dilation_sizes
    if not 0 < len(blocks) <= _MOST_STAGES or len(blocks) != len(dilations) or any(size % 2 == 0 for size in blocks):
        raise ValueError(
            f"resblock_kernel_sizes {_listed(blocks)} must be odd numbers, one for each of resblock_dilation_sizes "
            f"{_listed(dilations)!s:.200}"
        )
    if any(len(row) != _DILATIONS[config.resblock] for row in dilations):
        raise ValueError(
            f"resblock_dilation_sizes {_listed(dilations)!s:.200} must hold {_DILATIONS[config.resblock]} numbers in "
            f"each list, since resblock is {config.resblock}"
        )


def _check_sound(config: VitsConfig) -> None:
    if config.filter_length % 2 or config.win_length > config.filter_length or config.hop_length > config.win_length:
        raise ValueError(
            f"filter_length {config.filter_length}, win_length {config.win_length} and hop_length {config.hop_length} "
            "must not grow in this order, and filter_length must be even"
        )
    if (config.filter_length - config.hop_length) % 2:
        raise ValueError(
            f"filter_length minus hop_length is {config.filter_length - config.hop_length}; it must be even"
        )
    if config.segment_size % config.hop_length:
        raise ValueError(
            f"segment_size is {config.segment_size}; it must be a multiple of hop_length, {config.hop_length}"
        )
    top = config.sample_rate / 2 if config.mel_fmax is None else config.mel_fmax
    if (
        not _is_number(config.mel_fmin)
        or not _is_number(top)
        or not 0 <= config.mel_fmin < top <= config.sample_rate / 2
    ):
        raise ValueError(
            f"mel_fmin {config.mel_fmin!r:.40} and mel_fmax {config.mel_fmax!r:.40} must rise and lie between 0 and half "
            f"the sample rate, {config.sample_rate / 2:g} Hz"
        )


def _check_width(config: VitsConfig) -> None:
    if config.hidden_channels % config.n_heads:
        raise ValueError(f"hidden_channels {config.hidden_channels} must be a multiple of n_heads, {config.n_heads}")
    if config.hidden_channels < 2:
        raise ValueError("hidden_channels is 1; the duration predictor needs two")
    if config.inter_channels % 2:
        raise ValueError(f"inter_channels is {config.inter_channels}; the flow halves the latents, so it must be even")
    if config.num_speakers == 1 and config.gin_channels:
        raise ValueError(
            f"gin_channels is {config.gin_channels} with one speaker; it is the size of a speaker vector, so leave it 0"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
