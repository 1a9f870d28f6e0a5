"""Codes of a reference voice come from anywhere: what is no codes is refused in one message, and runs and fills nothing."""

import io
import os
import pickle

import numpy as np
import pytest

from fish_speech.errors import UserError
from fish_speech.synthesis.voices import read_codes


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
