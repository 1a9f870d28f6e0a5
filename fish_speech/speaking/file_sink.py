"""A sound file that appears when it is whole: WAV or FLAC, written to disk as it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import atomic_path
from .sinks import MAX_WAV_BYTES, WIDTH, Sink, to_pcm16, wav_header


class FileSink(Sink):
    """A .wav or .flac that gets its name when it is whole.

    `before_rename` is called with the temporary path of the whole file; if it raises, there is no file.
    """

    def __init__(self, path: Path, sample_rate: int, before_rename: Callable[[Path], None] | None = None):
        self.path, self.samples = Path(path), 0
        self._sample_rate, self._before_rename = sample_rate, before_rename
        self._flac: Any = None
        self._file: _NotingErrors | None = None
        self._stack = ExitStack()
        self._temporary = self._stack.enter_context(atomic_path(self.path))
        try:
            with self._naming():
                self._open()
        except BaseException:
            self.abort()
            raise

    def _open(self) -> None:
        self._file = _NotingErrors(self._temporary.open("w+b", buffering=0))
        if self.path.suffix.lower() != ".flac":
            self._file.put(wav_header(self._sample_rate, None))
            return
        import soundfile

        with self._file.raising():
            rate = self._sample_rate
            self._flac = soundfile.SoundFile(self._file, "w", rate, 1, subtype="PCM_16", format="FLAC")

    def write(self, chunk: np.ndarray) -> None:
        pcm = to_pcm16(chunk)
        self.samples += len(pcm)
        with self._naming():
            self._put(pcm)

    def _put(self, pcm: np.ndarray) -> None:
        assert self._file is not None
        if self._flac is not None:
            with self._file.raising():
                self._flac.write(pcm)
        elif self.samples * WIDTH > MAX_WAV_BYTES:
            raise UserError(f"{self.path} grows beyond 4 GB", "a WAV file cannot", "write a .flac, or split the text")
        else:
            self._file.put(pcm.data)

    def close(self) -> None:
        try:
            with self._naming():
                self._finish()
        except BaseException:
            self.abort()
            raise
        self._stack.close()

    def _finish(self) -> None:
        assert self._file is not None
        if self._flac is not None:
            with self._file.raising():
                self._flac.close()
        else:
            self._file.file.seek(0)
            self._file.put(wav_header(self._sample_rate, self.samples * WIDTH))
        self._file.file.close()
        if self._before_rename is not None:
            self._before_rename(self._temporary)

    @contextmanager
    def _naming(self) -> Iterator[None]:
        """Say in errors of the system which file could not be written."""
        try:
            yield
        except OSError as error:
            if error.filename is None:
                error.filename = str(self.path)
            raise

    def abort(self) -> None:
        if self._flac is not None:
            with suppress(Exception):
                self._flac.close()
        if self._file is not None:
            with suppress(OSError):
                self._file.file.close()
        with suppress(RuntimeError):
            self._stack.__exit__(RuntimeError, RuntimeError("stopped"), None)  # atomic_path removes the file


class _NotingErrors:
    """A file for libsndfile, whose callbacks cannot raise: what went wrong is kept, and raised by `raising`.

    The file has no buffer, so that only writing can fail.
    """

    def __init__(self, file: FileIO):
        self.file = file
        self.error: OSError | None = None
        self.seek, self.tell, self.read = file.seek, file.tell, file.read

    def put(self, data: bytes | memoryview) -> None:
        """Write all of it, or raise OSError."""
        view = memoryview(data).cast("B")
        while view:
            view = view[self.file.write(view) :]

    def write(self, data: bytes) -> int:
        """What libsndfile calls."""
        try:
            self.put(data)
        except OSError as error:
            self.error = error
            return 0
        return len(data)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Raise the file's own error rather than what libsndfile makes of it."""
        try:
            yield
        finally:
            if self.error is not None:
                raise self.error
