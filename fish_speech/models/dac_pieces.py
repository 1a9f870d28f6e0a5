"""Encode and decode piece by piece: the same sums as the modules of the modded DAC codec, with folded weights.

Everything is causal, so a piece needs of all earlier ones only the last rows that each convolution saw and the last keys
and values of each transformer: memory stays flat however long the sound is. A snake is x + sin(alpha x)^2 / alpha; its
alpha goes into the weights before it and 1 / alpha into those after it, which leaves v + sin(v)^2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from .convnext import ConvNeXtBlock
from .dac_layers import ResidualUnit, Snake
from .folded_conv import FoldedConv, Past
from .windowed_transformer import WindowCache, WindowedTransformer

if TYPE_CHECKING:
    from .dac import DacCodec

CONV_FRAMES = 16  # of codes, that convolutions take at once on a CPU: the activations of more fall out of its cache
PIECE_FRAMES = 64  # of codes, that transformers take at once on a CPU: these read all their weights for every piece
LEAST_ALPHA = 1e-6  # of a snake, which then differs from x by less than 1e-6 x^2
IN_CACHE = 1 << 15  # numbers that a snake takes through all its steps at once on a CPU


class SoundState:
    """What the layers know of one sound so far."""

    def __init__(self) -> None:
        self.past = Past()
        self.caches: dict[object, WindowCache] = {}  # by transformer


class FoldedLayer(Protocol):
    """A layer ready for use, shared by any number of sounds."""

    def follow(self, x: Tensor, state: SoundState) -> Tensor:
        """(batch, 1, time, channels) that follows what `state` knows -> what the layer makes of it."""


class FoldedPlain:
    """A convolution."""

    def __init__(self, module: nn.Module, dtype: torch.dtype):
        self.conv = FoldedConv(module, dtype)  # type: ignore[arg-type]

    def follow(self, x: Tensor, state: SoundState) -> Tensor:
        return self.conv(state.past.before(self, x, self.conv.left))


class FoldedSnake:
    """A snake and the convolution after it; `scale` (channels,) multiplies the result."""

    def __init__(self, snake: nn.Module, module: nn.Module, dtype: torch.dtype, scale: Tensor | None = None):
        alpha = _alpha(snake)
        self.alpha = alpha.to(dtype)
        self.conv = FoldedConv(module, dtype, scale_in=1 / alpha, scale_out=scale)  # type: ignore[arg-type]

    def follow(self, x: Tensor, state: SoundState) -> Tensor:
        return self.conv(state.past.before(self, x, self.conv.left, self._write))

    def _write(self, x: Tensor, out: Tensor) -> None:
        _wave(x, out, self.alpha)


class FoldedUnit:
    """A residual unit."""

    def __init__(self, unit: ResidualUnit, dtype: torch.dtype):
        first, wide, second, across = unit.block
        alpha = _alpha(second)
        self.wide = FoldedSnake(first, wide, dtype, scale=alpha)
        self.across = FoldedConv(across, dtype, scale_in=1 / alpha)  # type: ignore[arg-type]

    def follow(self, x: Tensor, state: SoundState) -> Tensor:
        y = self.wide.follow(x, state)
        return self.across(_wave(y, y)).add_(x)


class FoldedConvNeXt:
    """A ConvNeXt block."""

    def __init__(self, block: ConvNeXtBlock, dtype: torch.dtype):
        self.depthwise, self.block = FoldedConv(block.dwconv, dtype), block

    def follow(self, x: Tensor, state: SoundState) -> Tensor:
        y = self.depthwise(state.past.before(self, x, self.depthwise.left))
        return x + self.block.gamma * self.block.mlp(y)


class FoldedTransformer:
    """A windowed transformer; nothing is folded."""

    def __init__(self, transformer: WindowedTransformer):
        self.transformer = transformer

    def follow(self, x: Tensor, state: SoundState) -> Tensor:
        cache = state.caches.setdefault(self, WindowCache())
        return self.transformer.follow(x[:, 0], cache)[:, None]


def folded(modules: Iterable[nn.Module], dtype: torch.dtype) -> list[FoldedLayer]:
    """Fold the layers inside `modules`, in order. `dtype` is that of convolutions."""
    layers: list[FoldedLayer] = []
    snake: nn.Module | None = None
    for module in _flat(modules):
        if isinstance(module, ResidualUnit):
            layers.append(FoldedUnit(module, dtype))
        elif isinstance(module, ConvNeXtBlock):
            layers.append(FoldedConvNeXt(module, dtype))
        elif isinstance(module, WindowedTransformer):
            layers.append(FoldedTransformer(module))
        elif isinstance(module, Snake):
            snake = module
        else:
            layers.append(FoldedPlain(module, dtype) if snake is None else FoldedSnake(snake, module, dtype))
            snake = None
    return layers


class FoldedEncoder:
    """The weights that turn sound into codes, folded. All is float32: codes must be the same on any machine."""

    def __init__(self, codec: DacCodec):
        self.quantizer = codec.quantizer
        modules = [*codec.encoder.block, *self.quantizer.downsample, self.quantizer.pre_module]
        layers = folded(modules, torch.float32)
        first = next(index for index, layer in enumerate(layers) if isinstance(layer, FoldedTransformer))
        self.convs, self.rest = layers[:first], layers[first:]
        self.piece_samples = conv_frames(codec.device) * codec.samples_per_frame


class PieceEncoder:
    """Encodes one sound, or a batch of them, piece after piece."""

    def __init__(self, weights: FoldedEncoder):
        self.weights, self._state = weights, SoundState()

    @torch.no_grad()
    def __call__(self, waveform: Tensor) -> Tensor:
        """(batch, samples), whole frames that follow those so far -> codes (batch, codebooks, frames) int64."""
        pieces = waveform[:, None, :, None].split(self.weights.piece_samples, dim=2)  # (batch, 1, samples, 1) each
        x = torch.cat([_run(self.weights.convs, piece, self._state) for piece in pieces], dim=2)
        return self.weights.quantizer.encode(_run(self.weights.rest, x, self._state)[:, 0])


class FoldedDecoder:
    """The weights that turn codes into sound, folded.

    dtype: of the decoder's convolutions; what comes before them stays float32.
    """

    def __init__(self, codec: DacCodec, dtype: torch.dtype):
        self.quantizer, self.head_dtype = codec.quantizer, dtype
        self.before = folded([self.quantizer.post_module, *self.quantizer.upsample], torch.float32)
        self.head = folded(codec.decoder.model, dtype)
        self.piece_rows = conv_frames(codec.device) * math.prod(codec.config.quantizer.downsample_factor)


class PieceDecoder:
    """Decodes one sound, or a batch of them, piece after piece."""

    def __init__(self, weights: FoldedDecoder):
        self.weights, self._state = weights, SoundState()

    @torch.no_grad()
    def __call__(self, codes: Tensor) -> Tensor:
        """Codes (batch, codebooks, frames) that follow those so far -> their sound (batch, samples), float32."""
        w = self.weights
        x = w.quantizer.decode(codes)[:, None]  # (batch, 1, frames, channels)
        if not codes.size(2):
            return x.new_zeros(codes.size(0), 0)
        pieces = _run(w.before, x, self._state).to(w.head_dtype).split(w.piece_rows, dim=2)
        sound = torch.cat([_run(w.head, piece, self._state) for piece in pieces], dim=2)
        return torch.tanh(sound.float()).flatten(1)


def conv_frames(device: torch.device) -> int:
    """Frames of codes that convolutions take at once: what fits into the caches of a CPU, many elsewhere."""
    return CONV_FRAMES if device.type == "cpu" else 32 * CONV_FRAMES


def _run(layers: Iterable[FoldedLayer], x: Tensor, state: SoundState) -> Tensor:
    for layer in layers:
        x = layer.follow(x, state)
    return x


def _wave(x: Tensor, out: Tensor, alpha: Tensor | None = None) -> Tensor:
    """Write v + sin(v)^2 into `out`, v being x times alpha (channels,); both are (batch, 1, time, channels)."""
    rows = max(1, IN_CACHE // x.size(3)) if x.device.type == "cpu" else max(1, x.size(2))
    for part, made in zip(x.split(rows, dim=2), out.split(rows, dim=2), strict=True):
        if alpha is not None:
            torch.mul(part, alpha, out=made)
        sine = torch.sin(made)
        made.addcmul_(sine, sine)
    return out


def _alpha(snake: nn.Module) -> Tensor:
    """A snake's alpha (channels,), kept from zero, by which weights are divided."""
    alpha = snake.alpha.detach().flatten()  # type: ignore[operator, union-attr]
    return torch.where(alpha.abs() < LEAST_ALPHA, LEAST_ALPHA, alpha)


def _flat(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """The layers inside sequences and blocks of layers, in order; a residual unit is one layer."""
    for module in modules:
        inner = module if isinstance(module, nn.Sequential) else getattr(module, "block", None)
        if isinstance(module, ResidualUnit) or not isinstance(inner, nn.Sequential):
            yield module
        else:
            yield from _flat(inner)
