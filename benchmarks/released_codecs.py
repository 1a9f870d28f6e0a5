"""Encoding and decoding the way of the releases, of each kind of codec: the baselines of the codecs' measurements.

Firefly (`reference/fish-1.5.md`): clips padded to the longest in one batch; one pass in one-dimensional layout. Modded
DAC (`reference/openaudio-s1-mini.md`, 7): the same, and its encoder also makes the decoder's input, which nobody takes.
In both, the norms of weights are computed anew in each pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from fish_speech.models import FireflyCodec
from fish_speech.models.codec import Codec
from fish_speech.models.dac import DacCodec


def encode(codec: Codec, waveform: Tensor, lengths: Tensor) -> Tensor:
    """Encode (batch, 1, samples) of which `lengths` (batch,) count -> codes (batch, codebooks, frames)."""
    return _ENCODE[type(codec)](codec, waveform, lengths)


def decode(codec: Codec, codes: Tensor) -> Tensor:
    """Codes (batch, codebooks, frames) -> (batch, 1, samples) in one pass."""
    return _DECODE[type(codec)](codec, codes)


def _encode_firefly(codec: FireflyCodec, waveform: Tensor, lengths: Tensor) -> Tensor:
    return codec.encode(waveform, lengths)[0]


def _decode_firefly(codec: FireflyCodec, codes: Tensor) -> Tensor:
    head = codec.head
    x = head.conv_pre(codec.quantizer.decode(codes))
    for up, block in zip(head.ups, head.resblocks, strict=True):
        x = block(up(F.silu(x)))
    return torch.tanh(head.conv_post(F.silu(x)))


def _encode_dac(codec: DacCodec, waveform: Tensor, lengths: Tensor) -> Tensor:
    quantizer = codec.quantizer
    waveform = F.pad(waveform, (0, -waveform.size(2) % codec.samples_per_frame))
    codes = quantizer.encode(quantizer.before_codes(codec.encoder(waveform)).transpose(1, 2))
    _latents_dac(codec, codes)
    return codes


def _decode_dac(codec: DacCodec, codes: Tensor) -> Tensor:
    return codec.decoder(_latents_dac(codec, codes))


def _latents_dac(codec: DacCodec, codes: Tensor) -> Tensor:
    return codec.quantizer.after_codes(codec.quantizer.decode(codes).transpose(1, 2))


_ENCODE: dict[type, Callable[..., Tensor]] = {FireflyCodec: _encode_firefly, DacCodec: _encode_dac}
_DECODE: dict[type, Callable[..., Tensor]] = {FireflyCodec: _decode_firefly, DacCodec: _decode_dac}
