"""The codec's decoding: whole and in chunks, in time and memory, beside the plain way that the releases have."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from fish_speech.models import FireflyCodec
from fish_speech.synthesis.codec_stream import ChunkDecoder, sound_of

from . import sizes
from .sizes import Scale

MEMORY_LENGTHS = 6  # the sound whose memory is measured is so many times longer than the one whose time is
MEMORY_WAYS = ("chunks", "plain")


def decode(scale: Scale, repeats: int) -> dict[str, float]:
    """Seconds of decoding per second of sound by each way, in turns, and until the first chunk is there.

    whole: `codec.decode`. chunks: as speech is decoded while it is made. plain: one pass over the whole sound, the way
    of the releases. images: the same in two-dimensional layout, as this toolkit decoded before and trains.
    """
    codec = sizes.random_codec(scale)
    codes = _codes(codec, scale.decode_s)
    frames = codes[0].unbind(1)
    ways: dict[str, Callable[[], object]] = {
        "whole": lambda: codec.decode(codes),
        "chunks": lambda: list(sound_of(codec, iter(frames))),
        "images": lambda: codec.head(codec.quantizer.decode(codes)),
        "plain": lambda: plain(codec, codes),
        "first_chunk": lambda: next(sound_of(codec, iter(frames), beside=False)),
    }
    best = dict.fromkeys(ways, float("inf"))
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            for name, work in ways.items():
                start = time.perf_counter()
                work()
                if repeat:
                    best[name] = min(best[name], time.perf_counter() - start)
    first = best.pop("first_chunk")
    return {**{name: spent / scale.decode_s for name, spent in best.items()}, "first_chunk_s": first}


def memory(scale: Scale, way: str) -> dict[str, float]:
    """Decode a long sound by one of MEMORY_WAYS, for whoever watches this process; return the seconds of sound."""
    codec, sound_s = sizes.random_codec(scale), MEMORY_LENGTHS * scale.decode_s
    codes = _codes(codec, sound_s)
    with torch.inference_mode():
        if way == "plain":
            plain(codec, codes)
        else:
            decoder = ChunkDecoder(codec)
            for piece in codes[0].split(codec.piece_frames, dim=1):
                decoder.feed(piece)
    return {"sound_s": sound_s}


def plain(codec: FireflyCodec, codes: torch.Tensor) -> torch.Tensor:
    """Codes (batch, codebooks, frames) -> (batch, 1, samples): one-dimensional layout, weights normalised anew."""
    head = codec.head
    x = head.conv_pre(codec.quantizer.decode(codes))
    for up, block in zip(head.ups, head.resblocks, strict=True):
        x = block(up(F.silu(x)))
    return torch.tanh(head.conv_post(F.silu(x)))


def _codes(codec: FireflyCodec, sound_s: float) -> torch.Tensor:
    """Random codes (1, codebooks, frames) of so much sound."""
    shape = (1, codec.codebooks, round(sound_s * codec.frame_rate))
    return torch.randint(0, codec.codebook_size, shape, generator=torch.Generator().manual_seed(4))
