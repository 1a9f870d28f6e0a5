"""The codecs: encoding and decoding, whole and in chunks, in time and memory, beside the plain way that the releases have."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from fish_speech.models import FireflyCodec
from fish_speech.models.codec import Codec
from fish_speech.synthesis.codec_stream import ChunkDecoder, sound_of

from . import released_codecs, sizes
from .sizes import Scale

MEMORY_LENGTHS = 6  # the sound whose memory is measured is so many times longer than the one whose time is
MEMORY_WAYS = ("encode", "encode-padded", "chunks", "plain")


def encode(scale: Scale, repeats: int) -> dict[str, float]:
    """Seconds of audio per second: as the toolkit encodes, one clip at a time, and padded to the longest in one batch."""
    codec, clips = sizes.random_codec(scale), sizes.random_clips(scale, scale.clips_s)
    padded, lengths = _padded(clips)
    ways: dict[str, Callable[[], object]] = {
        "speed": lambda: codec.encode_clips(clips),
        "alone_speed": lambda: [codec.encode(clip[None, None], torch.tensor([len(clip)])) for clip in clips],
        "padded_speed": lambda: released_codecs.encode(codec, padded, lengths),
    }
    return {name: sum(scale.clips_s) / spent for name, spent in _spent(ways, repeats, statistics.median).items()}


def decode(scale: Scale, repeats: int) -> dict[str, float]:
    """Seconds of decoding per second of sound by each way, in turns, and until the first chunk is there.

    whole: `codec.decode`. chunks: as speech is decoded while it is made. plain: one pass over the whole sound, the way
    of the releases. images, of firefly codecs: the same in two-dimensional layout, as this toolkit decoded before and
    trains.
    """
    codec = sizes.random_codec(scale)
    codes = _codes(codec, scale.decode_s)
    frames = codes[0].unbind(1)
    ways: dict[str, Callable[[], object]] = {
        "whole": lambda: codec.decode(codes),
        "chunks": lambda: list(sound_of(codec, iter(frames))),
        "plain": lambda: released_codecs.decode(codec, codes),
        "first_chunk": lambda: next(sound_of(codec, iter(frames), beside=False)),
    }
    if isinstance(codec, FireflyCodec):
        ways["images"] = lambda: codec.head(codec.quantizer.decode(codes))
    best = _spent(ways, repeats, min)
    first = best.pop("first_chunk")
    return {**{name: spent / scale.decode_s for name, spent in best.items()}, "first_chunk_s": first}


@torch.inference_mode()
def _spent(
    ways: dict[str, Callable[[], object]], repeats: int, pick: Callable[[list[float]], float]
) -> dict[str, float]:
    """The time of each of `ways` in seconds, of `repeats` after one warm-up; they take turns, as the machine's load does."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: pick(found) for name, found in times.items()}


def memory(scale: Scale, way: str) -> dict[str, float]:
    """Encode clips, or decode a long sound, by one of MEMORY_WAYS, for whoever watches this process; the seconds of sound.

    Padded and plain are the ways of the releases.
    """
    codec, sound_s = sizes.random_codec(scale), MEMORY_LENGTHS * scale.decode_s
    codes = _codes(codec, sound_s)
    with torch.inference_mode():
        if way.startswith("encode"):
            clips = sizes.random_clips(scale, scale.clips_s)
            sound_s = sum(scale.clips_s)
            if way == "encode":
                codec.encode_clips(clips)
            else:
                released_codecs.encode(codec, *_padded(clips))
        elif way == "plain":
            released_codecs.decode(codec, codes)
        else:
            decoder = ChunkDecoder(codec)
            for piece in codes[0].split(codec.piece_frames, dim=1):
                decoder.feed(piece)
    return {"sound_s": sound_s}


def _padded(clips: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips (samples,) as one batch (batch, 1, samples), and their lengths."""
    return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)[:, None], torch.tensor(
        [len(clip) for clip in clips]
    )


def _codes(codec: Codec, sound_s: float) -> torch.Tensor:
    """Random codes (1, codebooks, frames) of so much sound."""
    rng, frames = torch.Generator().manual_seed(4), round(sound_s * codec.frame_rate)
    return torch.stack([torch.randint(0, size, (1, frames), generator=rng) for size in codec.codebook_sizes], dim=1)
