"""Sound to bytes while it is made: WAV, PCM, MP3, Opus piece by piece, FLAC as a whole.

A WAV header that is sent before its end is known says the largest length, as streams do. FLAC could be streamed too,
but without the length in its head libsndfile, and all that read with it, cannot read the file: so it is sent whole.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..speaking.sinks import to_pcm16, wav_header

_BLOCK = 8192  # samples per write: libsndfile crashes on long Vorbis and Opus writes
PCM_RATE = 24000  # Hz: what clients of OpenAI's API take headerless sound for
_OPUS_RATES = (8000, 12000, 16000, 24000, 48000)  # Hz


class Encoder(Protocol):
    """Takes sound, float32 (samples,), and gives bytes, which may come later."""

    def feed(self, sound: np.ndarray) -> bytes:
        """The bytes that are ready after `sound`; a header comes with the first."""

    def finish(self) -> bytes:
        """The rest; frees what the encoder holds. To be called once, also when the sound is broken off."""


@dataclass(frozen=True)
class Format:
    """A value of response_format."""

    name: str
    media_type: str
    streams: bool = True  # False: one answer at the end
    container: str = ""  # libsndfile's name; empty: written here
    subtype: str = ""


FORMATS = {
    found.name: found
    for found in (
        Format("mp3", "audio/mpeg", container="MP3", subtype="MPEG_LAYER_III"),
        Format("opus", "audio/ogg", container="OGG", subtype="OPUS"),
        Format("flac", "audio/flac", streams=False, container="FLAC", subtype="PCM_16"),
        Format("wav", "audio/wav"),
        Format("pcm", f"audio/pcm;rate={PCM_RATE};channels=1"),
    )
}


def available(name: str) -> bool:
    """Whether this machine's libsndfile can write a format: an old one lacks MP3."""
    import soundfile

    wanted = FORMATS[name]
    return not wanted.container or wanted.subtype in soundfile.available_subtypes(wanted.container)


def rate_of(name: str, sample_rate: int) -> int:
    """The rate in Hz that sound of `sample_rate` is sent with: its own where the format has it."""
    if name == "pcm":
        return PCM_RATE
    if name == "opus":
        return next((rate for rate in _OPUS_RATES if rate >= sample_rate), _OPUS_RATES[-1])
    return sample_rate


def open_encoder(name: str, sample_rate: int) -> Encoder:
    """An encoder of sound of `sample_rate` Hz."""
    rate = rate_of(name, sample_rate)
    encoder: Encoder
    if FORMATS[name].container:
        encoder = _SoundFileEncoder(FORMATS[name], rate)
    else:
        encoder = _PcmEncoder(wav_header(rate, None) if name == "wav" else b"")
    return encoder if rate == sample_rate else _Resampled(encoder, sample_rate, rate)


class _PcmEncoder:
    """16-bit little-endian samples after an optional header."""

    def __init__(self, header: bytes = b""):
        self._header = header

    def feed(self, sound: np.ndarray) -> bytes:
        header, self._header = self._header, b""
        return header + to_pcm16(sound).tobytes()

    def finish(self) -> bytes:
        return b""


class _SoundFileEncoder:
    """What libsndfile writes. Where it would go back and complete a header that is sent already, that is left out."""

    def __init__(self, form: Format, rate: int):
        import soundfile

        # A constant bit rate of 112 kbit/s: the length of other MP3 is only known from a header written at the end.
        constant: dict[str, Any] = {"bitrate_mode": "CONSTANT", "compression_level": 0.7 if rate >= 32000 else 0.3}
        settings = constant if form.name == "mp3" else {}
        self._pipe = _Pipe() if form.streams else None
        self._target: io.RawIOBase | io.BytesIO = self._pipe or io.BytesIO()
        self._file = soundfile.SoundFile(
            self._target, "w", rate, 1, format=form.container, subtype=form.subtype, **settings
        )

    def feed(self, sound: np.ndarray) -> bytes:
        for start in range(0, len(sound), _BLOCK):
            self._file.write(np.clip(sound[start : start + _BLOCK], -1, 1))
        return self._pipe.take() if self._pipe else b""

    def finish(self) -> bytes:
        self._file.close()
        if self._pipe:
            return self._pipe.take()
        assert isinstance(self._target, io.BytesIO)
        return self._target.getvalue()


class _Pipe(io.RawIOBase):
    """A file that gives away what is appended, and forgets what is written over what it gave away."""

    def __init__(self) -> None:
        super().__init__()
        self._position, self._end, self._given = 0, 0, 0
        self._kept = bytearray()  # bytes from _given to _end

    def write(self, data: Any) -> int:
        data = bytes(data)
        skipped = max(0, self._given - self._position)
        start = self._position + skipped - self._given
        fresh = data[skipped:]
        self._kept[start : start + len(fresh)] = fresh
        self._position += len(data)
        self._end = max(self._end, self._position)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        return b""

    def take(self) -> bytes:
        """What was written since the last time."""
        data = bytes(self._kept)
        self._kept.clear()
        self._given += len(data)
        return data


class _Resampled:
    """An encoder behind a change of the sample rate."""

    def __init__(self, encoder: Encoder, rate_in: int, rate_out: int):
        import soxr

        self._encoder = encoder
        self._stream = soxr.ResampleStream(rate_in, rate_out, 1, dtype="float32")

    def feed(self, sound: np.ndarray) -> bytes:
        return self._encoder.feed(self._stream.resample_chunk(np.ascontiguousarray(sound, np.float32)))

    def finish(self) -> bytes:
        rest = self._stream.resample_chunk(np.zeros(0, np.float32), last=True)
        return self._encoder.feed(rest) + self._encoder.finish()
