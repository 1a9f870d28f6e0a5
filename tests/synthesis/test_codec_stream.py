"""Decoding in chunks equals decoding at once, stops when it is told to, and needs no more memory for longer sounds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fish_speech.models import FireflyCodec, FireflyConfig, load_codec
from fish_speech.synthesis import codec_stream
from fish_speech.synthesis.codec_stream import CHUNK, FIRST_CHUNK, ChunkDecoder, sound_of

from ..conftest import REPO

FRAMES = 3 * CHUNK + FIRST_CHUNK + 2  # the last chunk is not full
CUTS = st.lists(st.integers(0, FRAMES), max_size=6).map(sorted)
CLOSE = {"rtol": 0, "atol": 1e-5}  # other sums of the same numbers
THREADS = pytest.mark.parametrize("beside", [False, True], ids=["in this thread", "in a thread"])


def odd_codec() -> FireflyCodec:
    """Rates, kernels and widths all different; kernels that are no multiple of their rate, one of a single row."""
    torch.manual_seed(5)
    head = {
        "hop_length": 30,
        "upsample_rates": (5, 3, 2),
        "upsample_kernel_sizes": (11, 3, 5),
        "resblock_kernel_sizes": (3, 1, 4),
        "resblock_dilation_sizes": ((1, 3), (2,), (1, 2, 4)),
        "num_mels": 12,
        "upsample_initial_channel": 24,
        "pre_conv_kernel_size": 5,
        "post_conv_kernel_size": 3,
    }
    config = {
        "spec_transform": {"n_mels": 20, "n_fft": 64, "hop_length": 30, "win_length": 64},
        "backbone": {"input_channels": 20, "depths": (1,), "dims": (12,)},
        "quantizer": {"input_dim": 12, "n_groups": 3, "levels": (8, 5), "downsample_factor": (3, 2)},
        "head": head,
    }
    codec: Any = FireflyCodec(FireflyConfig.from_mapping(config)).eval()
    with torch.no_grad():
        codec.head.conv_post.conv.parametrizations.weight.original0.mul_(20)  # loud enough to compare
        for _, block in codec.quantizer.upsample:
            block.gamma.fill_(0.5)
    return codec


@pytest.fixture(scope="module", params=["odd", "golden", "minnow"])
def codec_and_codes(request, golden, fill) -> tuple[FireflyCodec, Tensor]:
    """A codec and codes (codebooks, FRAMES)."""
    if request.param == "golden":
        codec = fill(FireflyCodec(FireflyConfig.from_mapping(golden("codec_tiny.json")["config"]))).eval()
        codes = torch.from_numpy(golden("codec_tiny.npz")["codes"]).long()[0]
        return codec, codes.repeat(1, -(-FRAMES // codes.size(1)))[:, :FRAMES]
    codec = odd_codec() if request.param == "odd" else load_codec(REPO / "checkpoints/minnow/codec.pth")
    rng = torch.Generator().manual_seed(1)
    return codec, torch.randint(0, codec.codebook_size, (codec.codebooks, FRAMES), generator=rng)


@pytest.fixture()
def codec() -> FireflyCodec:
    return odd_codec()


def codes_for(codec: FireflyCodec, frames: int = FRAMES) -> Tensor:
    rng = torch.Generator().manual_seed(2)
    return torch.randint(0, codec.codebook_size, (codec.codebooks, frames), generator=rng)


def by_modules(codec: FireflyCodec, codes: Tensor) -> Tensor:
    """The sound (samples,) as training makes it: the modules on the whole, nothing folded, nothing kept."""
    with torch.no_grad():
        return codec.head(codec.quantizer.decode(codes[None]))[0, 0]


def codec_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("codec")]


def test_decoding_at_once_equals_the_modules_of_training(codec_and_codes):
    codec, codes = codec_and_codes
    expected = by_modules(codec, codes)
    assert expected.std() > 1e-3
    torch.testing.assert_close(codec.decode(codes[None])[0, 0], expected, **CLOSE)


@given(cuts=CUTS)
@settings(max_examples=8, deadline=None)
def test_chunks_cut_anywhere_add_up_to_the_whole(codec_and_codes, cuts):
    codec, codes = codec_and_codes
    decoder = ChunkDecoder(codec)
    chunks = [decoder.feed(codes[:, a:b]) for a, b in zip([0, *cuts], [*cuts, FRAMES], strict=True)]
    assert [len(chunk) for chunk in chunks] == [
        (b - a) * codec.samples_per_frame for a, b in zip([0, *cuts], [*cuts, FRAMES], strict=True)
    ]
    assert all(chunk.dtype == np.float32 for chunk in chunks)
    whole = codec.decode(codes[None])[0, 0]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(chunks)), whole, **CLOSE)


@THREADS
def test_the_sound_of_frames_is_the_whole_and_the_same_each_time(codec_and_codes, beside):
    codec, codes = codec_and_codes
    once, again = (list(sound_of(codec, iter(codes.unbind(1)), beside)) for _ in range(2))
    assert [chunk.tobytes() for chunk in once] == [chunk.tobytes() for chunk in again]
    whole = codec.decode(codes[None])[0, 0]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(once)), whole, **CLOSE)


def test_a_thread_changes_no_bit_of_the_sound(codec):
    frames = codes_for(codec).unbind(1)
    alone, beside = (np.concatenate(list(sound_of(codec, iter(frames), way))) for way in (False, True))
    assert alone.tobytes() == beside.tobytes()


@given(count=st.integers(0, 2 * CHUNK + FIRST_CHUNK))
@settings(max_examples=10, deadline=None)
def test_chunks_end_where_the_index_of_the_frame_says(count):
    codec = odd_codec()
    codes = codes_for(codec, count)
    lengths = [len(chunk) // codec.samples_per_frame for chunk in sound_of(codec, iter(codes.unbind(1)))]
    expected = [FIRST_CHUNK, CHUNK, CHUNK]
    assert sum(lengths) == count and all(lengths)
    assert lengths[:-1] == expected[: max(0, len(lengths) - 1)]


@THREADS
def test_no_frames_give_no_sound(codec, beside):
    assert list(sound_of(codec, iter(()), beside)) == []
    assert len(ChunkDecoder(codec).feed(codes_for(codec, 0))) == 0


def test_codes_beyond_the_codec_are_its_last_ones(codec):
    codes = codes_for(codec, 5)
    codes[1, 2], clamped = codec.codebook_size + 7, codes.clone()
    clamped[1, 2] = codec.codebook_size - 1
    assert np.array_equal(ChunkDecoder(codec).feed(codes), ChunkDecoder(codec).feed(clamped))


class Frames:
    """An endless iterator of frames that knows whether it was closed, and in which thread it ran."""

    def __init__(self, codec: FireflyCodec, fails_at: int = -1):
        self.frame, self.fails_at = codes_for(codec, 1)[:, 0], fails_at
        self.made, self.closed = 0, False
        self.threads: set[int] = set()

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        self.threads.add(threading.get_ident())
        if self.made == self.fails_at:
            raise RuntimeError("out of frames")
        self.made += 1
        return self.frame

    def close(self) -> None:
        self.closed = True


@THREADS
def test_closing_stops_both_sides_and_leaves_no_thread(codec, beside):
    frames = Frames(codec)
    sound = sound_of(codec, frames, beside)
    next(sound)
    made = frames.made
    assert made < 100 and bool(codec_threads()) == beside
    sound.close()
    assert frames.closed and frames.made == made and not codec_threads()
    assert frames.threads == {threading.get_ident()}


@THREADS
def test_an_error_of_the_frames_reaches_the_caller_and_leaves_no_thread(codec, beside):
    frames = Frames(codec, fails_at=FIRST_CHUNK + CHUNK + 3)
    with pytest.raises(RuntimeError, match="out of frames"):
        list(sound_of(codec, frames, beside))
    assert frames.closed and not codec_threads()


@THREADS
def test_an_error_of_decoding_reaches_the_caller_and_stops_the_frames(codec, beside):
    frames = Frames(codec)
    frames.frame = frames.frame[:-1]  # a codebook is missing
    with pytest.raises(ValueError):
        for _ in sound_of(codec, frames, beside):
            pass
    assert frames.closed and not codec_threads()
    assert frames.made <= FIRST_CHUNK + CHUNK * (codec_stream.MOST_WAITING + 1)


def test_generation_waits_for_a_decoder_that_is_slower(codec, monkeypatch):
    gate = threading.Event()
    plain = ChunkDecoder.feed
    monkeypatch.setattr(ChunkDecoder, "feed", lambda self, codes: gate.wait(10) and plain(self, codes))
    frames = Frames(codec)
    timer = threading.Timer(0.2, gate.set)
    timer.start()
    sound = sound_of(codec, frames, beside=True)
    next(sound)
    timer.join()
    assert frames.made <= FIRST_CHUNK + CHUNK * codec_stream.MOST_WAITING
    sound.close()


def test_what_is_kept_between_chunks_does_not_grow(codec):
    decoder = ChunkDecoder(codec)
    decoder.feed(codes_for(codec, 1))
    sizes = {past.shape for past in decoder._decode._past.values()}
    kept = sum(past.numel() for past in decoder._decode._past.values())
    for count in (1, 7, 40):
        decoder.feed(codes_for(codec, count))
        assert {past.shape for past in decoder._decode._past.values()} == sizes
        assert sum(past.untyped_storage().nbytes() // 4 for past in decoder._decode._past.values()) == kept


def test_two_sounds_in_turns_do_not_mix(codec):
    one, other = codes_for(codec), codes_for(codec).flip(1)
    decoders = ChunkDecoder(codec), ChunkDecoder(codec)
    made = ([], [])
    for start in range(0, FRAMES, 6):
        for codes, decoder, chunks in zip((one, other), decoders, made, strict=True):
            chunks.append(decoder.feed(codes[:, start : start + 6]))
    for codes, chunks in zip((one, other), made, strict=True):
        expected = codec.decode(codes[None])[0, 0]
        torch.testing.assert_close(torch.from_numpy(np.concatenate(chunks)), expected, **CLOSE)
