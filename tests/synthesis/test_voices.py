"""Codes of a reference voice come from anywhere: what is no codes is refused in one message, and runs and fills nothing."""

import io
import os
import pickle

import numpy as np
import pytest

from fish_speech.audio import write_wav
from fish_speech.errors import UserError
from fish_speech.models import load_codec
from fish_speech.synthesis.voices import encode_reference, read_codes

from ..conftest import CODEC_FILE


def npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body


def described(shape: str, kind: str = "'<i4'") -> str:
    return f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n"


def archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, codes=np.zeros((4, 3), np.int32))
    return buffer.getvalue()


class Runs:
    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no numbers",
        archive(),
        pickle.dumps(Runs()),
        npy(described("(4, 3)", "'|O'"), pickle.dumps(Runs())),
        npy(described("(4, 100000000000)"), b"12"),
        npy(described("(4, -3)"), b"12"),
        npy(described("(4, 3)"), b"torn"),
        npy(described("(4, 3)", "('<i4', (1000000000,))"), b"12"),
        npy(described("(" * 4000 + ")" * 4000)),
        npy("{'descr': '<i4',,\n"),
        npy(described("(4, 3)", "'<f4'"), bytes(48)),
        npy(described("(12,)"), bytes(48)),
        npy(described("(4, 0)")),
        bytes(9 << 20),
    ],
    ids=lambda content: ascii(content[:40]),
)
def test_what_is_no_codes_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voice.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"voice\.npy"):
        read_codes(tmp_path / "voice.npy", 4, 1024)
    assert [path.name for path in tmp_path.iterdir()] == ["voice.npy"]


@pytest.mark.parametrize("codes", [np.arange(20).reshape(4, 5), np.arange(20, dtype=np.uint8).reshape(1, 5, 4)])
def test_codes_of_any_whole_type_are_read_and_rows_beyond_the_models_are_dropped(tmp_path, codes, caplog):
    for order in (np.ascontiguousarray, np.asfortranarray):
        np.save(tmp_path / "voice.npy", order(codes))
        read = read_codes(tmp_path / "voice.npy", 3, 1024)
        assert read.dtype == np.int64 and np.array_equal(read, codes.reshape(codes.shape[-2:])[:3])
        assert f"has {codes.shape[-2]} codebooks, this model 3" in caplog.text
        caplog.clear()
        read_codes(tmp_path / "voice.npy", codes.shape[-2], 1024)
        assert not caplog.records


S1_SIZES = (4096, *[1024] * 9)


@pytest.mark.parametrize(
    ("rows", "sizes", "whose"),
    [
        (10, (1024,) * 8, "10 codebooks (as OpenAudio S1-mini has), this model reads 8"),
        (8, (1024,) * 6, "8 codebooks (as Fish Speech 1.5 has), this model reads 6"),
        (8, S1_SIZES, "(8, 20) (as Fish Speech 1.5 has); expected whole numbers (10"),
        (6, S1_SIZES, "(6, 20) (as minnow has); expected whole numbers (10"),
    ],
)
def test_codes_of_another_model_version_are_refused_by_its_name(tmp_path, rows, sizes, whose):
    np.save(tmp_path / "voice.npy", np.arange(rows * 20).reshape(rows, 20))
    with pytest.raises(UserError, match=r"voice\.npy") as caught:
        read_codes(tmp_path / "voice.npy", len(sizes), sizes)
    assert whose in caught.value.why and "--create-reference" in caught.value.fix


def test_every_codebook_is_held_to_its_own_size(tmp_path):
    codes = np.stack([np.full(20, size - 1) for size in S1_SIZES])
    np.save(tmp_path / "voice.npy", codes)
    assert np.array_equal(read_codes(tmp_path / "voice.npy", 10, S1_SIZES), codes)
    for row in (0, 1, 9):
        changed = codes.copy()
        changed[row, 7] += 1
        np.save(tmp_path / "voice.npy", changed)
        with pytest.raises(UserError) as caught:
            read_codes(tmp_path / "voice.npy", 10, S1_SIZES)
        assert caught.value.why == f"codes in codebook {row} must be 0-{S1_SIZES[row] - 1}"


def test_a_recording_is_encoded_by_any_codec_down_to_the_shortest_it_takes(tmp_path, small_base, small_s1_base):
    for weights in (small_base / CODEC_FILE, small_s1_base / "codec.pth"):
        codec = load_codec(weights)
        least = codec.config.least_samples
        for samples in (least - 1, least, 5 * codec.samples_per_frame + 1):
            path = tmp_path / f"{samples}.wav"
            write_wav(path, 0.3 * np.sin(np.arange(samples) / 20).astype(np.float32), codec.sample_rate)
            if samples < least:
                with pytest.raises(UserError, match="shorter than"):
                    encode_reference(codec, path)
            else:
                codes = encode_reference(codec, path)
                assert codes.dtype == np.int32 and codes.shape == (codec.codebooks, codec.config.frames_of(samples))
