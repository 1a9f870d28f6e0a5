"""Every format, decoded again, is the sound that went in, whatever the pieces it came in."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.serving.formats import FORMATS, open_encoder, rate_of

# MP3 brings a frame of 1152 samples for a header, the encoder's delay of about one, and fills its last two; others give
# exactly what went in.
PADDING = {"mp3": 4 * 1152}


def speechlike(rate: int, seconds: float) -> np.ndarray:
    """A rising tone that swells and fades."""
    time = np.arange(round(rate * seconds)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 * time + 60 * time**2)) * np.sin(3 * time) ** 2).astype(np.float32)


def encode(name: str, rate: int, sound: np.ndarray, piece: int) -> tuple[bytes, int]:
    """The bytes, and how many of them came before the end."""
    encoder = open_encoder(name, rate)
    before = b"".join(encoder.feed(sound[at : at + piece]) for at in range(0, len(sound), piece))
    return before + encoder.finish(), len(before)


def decode(name: str, data: bytes) -> tuple[np.ndarray, int]:
    if name == "pcm":
        return np.frombuffer(data, "<i2").astype(np.float32) / 32768, 24000
    return soundfile.read(io.BytesIO(data), dtype="float32")


@pytest.mark.parametrize("rate", [16000, 24000, 44100])
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_decodes_to_the_sound_that_went_in(name, rate):
    import soxr

    sound = speechlike(rate, 2.0)
    data, _ = encode(name, rate, sound, 2048)
    back, rate_back = decode(name, data)
    assert rate_back == rate_of(name, rate)
    expected = soxr.resample(sound, rate, rate_back) if rate != rate_back else sound
    assert 0 <= len(back) - len(expected) <= PADDING.get(name, 1)
    delay = int(np.argmax(np.correlate(back[: 3 * rate // 2], expected[rate // 2 : rate], "valid"))) - rate // 2
    aligned = back[delay : delay + len(expected)] if delay >= 0 else back[: len(expected)]
    likeness = np.corrcoef(aligned[: len(expected)], expected[: len(aligned)])[0, 1]
    assert likeness > (0.9999 if name in ("wav", "pcm", "flac") else 0.99)


@pytest.mark.parametrize("name", FORMATS)
def test_formats_that_stream_give_bytes_before_the_end_and_flac_gives_all_at_the_end(name):
    data, before = encode(name, 24000, speechlike(24000, 3.0), 2048)
    if FORMATS[name].streams:
        assert before > 0.5 * len(data)
    else:
        assert before == 0 and len(data) > 1000


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["wav", "pcm", "mp3", "flac"]), st.integers(1, 30000), st.integers(0, 40000))
def test_the_bytes_do_not_depend_on_how_the_sound_was_cut(name, piece, length):
    sound = speechlike(24000, 2.0)[:length]
    assert encode(name, 24000, sound, max(piece, 100))[0] == encode(name, 24000, sound, 48000)[0]


def test_a_long_opus_in_one_piece_does_not_crash():
    back, _ = decode("opus", encode("opus", 44100, speechlike(44100, 20.0), 20 * 44100)[0])
    assert len(back) == pytest.approx(20 * 48000, abs=1)


def test_a_streamed_wav_says_the_largest_length_and_is_read_to_its_end():
    data, _ = encode("wav", 44100, speechlike(44100, 1.0), 1000)
    assert data[:4] == b"RIFF" and struct.unpack("<I", data[40:44]) == (0xFFFFFFFF,)
    assert len(decode("wav", data)[0]) == 44100


def test_flac_knows_its_length():
    data, _ = encode("flac", 44100, speechlike(44100, 1.5), 1000)
    assert soundfile.info(io.BytesIO(data)).frames == 66150


def test_sound_beyond_full_scale_is_clipped_and_never_wraps_around():
    data, _ = encode("pcm", 24000, np.array([2.0, -2.0, 1.0, -1.0, 0.0], np.float32), 5)
    assert np.frombuffer(data, "<i2").tolist() == [32767, -32768, 32767, -32768, 0]


@pytest.mark.parametrize("name", FORMATS)
def test_an_encoder_that_was_fed_nothing_ends_quietly(name):
    open_encoder(name, 44100).finish()
