"""Where sound goes while it is made: what all such places have in common, and streams that grow. Files: file_sink.py.

Chunks are float32 (samples,) in [-1, 1] and go out at once as 16-bit PCM, so that memory stays flat.
"""

from __future__ import annotations

import errno
import os
import select
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import BinaryIO, TypeVar

import numpy as np

from ..errors import FAILED

S = TypeVar("S", bound="Sink")

WIDTH = 2  # bytes per sample
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_UNKNOWN = 0xFFFFFFFF  # the size in a header of a stream that nobody knows the end of, as ffmpeg and sox write it
MAX_WAV_BYTES = _UNKNOWN - _HEADER.size


class SinkClosed(BrokenPipeError):
    """Whoever took the sound does not want more: a reader like `head -c` ended, or the player was closed.

    No mistake to tell of: end quietly with `exit_code`.
    """

    def __init__(self, exit_code: int = FAILED):
        super().__init__(errno.EPIPE, os.strerror(errno.EPIPE))
        self.exit_code = exit_code


class PlayerFailed(Exception):
    """A player ended with an error; the message says which, its exit code and what it said."""


class Sink(ABC):
    """Takes chunks until it is closed or aborted. As a context manager: closed at the end, aborted by an exception."""

    @abstractmethod
    def write(self, chunk: np.ndarray) -> None:
        """Take float (samples,). Raises SinkClosed, OSError, and ValueError for samples that are no numbers."""

    @abstractmethod
    def close(self) -> None:
        """Finish: all that was written is where it belongs, or an exception says why not."""

    @abstractmethod
    def abort(self) -> None:
        """Stop at once; of a file, nothing is left. Raises nothing."""

    def __enter__(self: S) -> S:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def to_pcm16(chunk: np.ndarray) -> np.ndarray:
    """Round float (samples,) to int16, the nearest of 1 / 32768; what is beyond full scale is held there, not wrapped."""
    chunk = np.asarray(chunk)
    if chunk.ndim != 1:
        raise ValueError(f"a chunk is (samples,), not {chunk.shape}")
    scaled = np.rint(chunk.astype(np.float64) * 32768.0)
    if not np.isfinite(scaled).all():
        raise ValueError("refusing to write NaN or infinite samples")
    return np.clip(scaled, -32768, 32767).astype("<i2")


def wav_header(sample_rate: int, data_bytes: int | None) -> bytes:
    """The 44 bytes before mono 16-bit PCM; None: of unknown length."""
    size = _UNKNOWN if data_bytes is None else data_bytes
    riff = min(size + _HEADER.size - 8, _UNKNOWN)
    return _HEADER.pack(
        b"RIFF", riff, b"WAVE", b"fmt ", 16, 1, 1, sample_rate, sample_rate * WIDTH, WIDTH, 8 * WIDTH, b"data", size
    )


class StreamSink(Sink):
    """An open binary stream that grows as sound is made: raw samples, or a WAV file of unknown length.

    The stream is closed at the end. If it is a file, as in `-o - > speech.wav`, its header is put right before.
    """

    def __init__(self, stream: BinaryIO, sample_rate: int, raw: bool = False):
        self._stream, self._sample_rate, self._raw = stream, sample_rate, raw
        self._samples = 0
        self._start = None if raw else _start_of(stream)
        if not raw:
            self._put(wav_header(sample_rate, None))

    def write(self, chunk: np.ndarray) -> None:
        pcm = to_pcm16(chunk)
        self._samples += len(pcm)
        self._put(pcm.tobytes())

    def close(self) -> None:
        size = self._samples * WIDTH
        try:
            if self._start is not None and size <= MAX_WAV_BYTES:
                self._stream.seek(self._start)
                self._put(wav_header(self._sample_rate, size))
                self._stream.seek(self._start + _HEADER.size + size)
        except BaseException:
            self.abort()
            raise
        self._stream.close()

    def abort(self) -> None:
        with suppress(OSError):
            self._stream.close()

    def _put(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                written = self._stream.write(view)
                if written is None:  # a pipe that another program has made non-blocking is full
                    select.select([], [self._stream], [])
                view = view[written or 0 :]
            self._stream.flush()
        except OSError as error:
            if error.errno == errno.EPIPE or (os.name == "nt" and error.errno == errno.EINVAL):
                raise SinkClosed from None
            raise


class Tee(Sink):
    """Gives the same sound to several sinks. A player that is closed or fails is left out, and told of at the end."""

    def __init__(self, sinks: Sequence[Sink]):
        self._sinks = list(sinks)
        self._lost: SinkClosed | PlayerFailed | None = None

    def write(self, chunk: np.ndarray) -> None:
        self._each(lambda sink: sink.write(chunk))

    def close(self) -> None:
        self._each(lambda sink: sink.close())
        if isinstance(self._lost, PlayerFailed):
            raise self._lost

    def abort(self) -> None:
        for sink in self._sinks:
            sink.abort()

    def _each(self, do: Callable[[Sink], None]) -> None:
        for sink in list(self._sinks):
            try:
                do(sink)
            except (SinkClosed, PlayerFailed) as error:
                sink.abort()
                self._sinks.remove(sink)
                self._lost = error
                if not self._sinks:
                    raise


def _start_of(stream: BinaryIO) -> int | None:
    """Where the header will be if it can be written again; None of a pipe, a terminal, and a file opened to append."""
    try:
        if not stream.seekable():
            return None
        if os.name != "nt":
            import fcntl

            if fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_APPEND:
                return None
        return stream.tell()
    except (OSError, ValueError, AttributeError):
        return None
