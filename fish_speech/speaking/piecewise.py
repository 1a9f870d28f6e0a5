"""Play a stream by a program that takes only files: it is cut at pauses, and each piece is played while the next is made."""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from .file_sink import FileSink
from .sinks import Sink

MIN_PIECE_S = 1.0  # a program takes a moment to start: pieces are not shorter, but for the last
MAX_PIECE_S = 15.0  # without a pause for so long, the quietest place will do
PAUSE_S, PAUSE_LEVEL = 0.12, 0.003  # at least so long under -50 dB of full scale
WINDOW_S = 0.02


class RunningPlayer(Protocol):
    """A program that plays one file."""

    def wait(self) -> None:
        """Wait for its end; raise what went wrong."""

    def stop(self) -> None:
        """End it."""


def cut_at_pause(samples: np.ndarray, sample_rate: int) -> int:
    """Where the first piece of float (samples,) ends: in the middle of its first pause; 0 if it needs more sound first."""
    window = max(1, round(WINDOW_S * sample_rate))
    count = len(samples) // window
    if count * WINDOW_S < MIN_PIECE_S:
        return 0
    levels = np.abs(samples[: count * window]).reshape(count, window).max(axis=1)
    first, needed = round(MIN_PIECE_S / WINDOW_S), round(PAUSE_S / WINDOW_S)
    run = 0
    for index in range(first, count):
        run = run + 1 if levels[index] < PAUSE_LEVEL else 0
        if run == needed:
            return (index + 1 - needed // 2) * window
    if count * WINDOW_S < MAX_PIECE_S:
        return 0
    return (first + int(levels[first:].argmin())) * window


class PieceSink(Sink):
    """Starts `start(path)` for one piece after the other, in a thread. Pieces lie in a temporary folder until played."""

    def __init__(self, sample_rate: int, start: Callable[[Path], RunningPlayer]):
        self._sample_rate, self._start = sample_rate, start
        self._waiting = np.zeros(0, np.float32)
        self._pieces: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._count = 0
        self._error: Exception | None = None
        self._running: RunningPlayer | None = None
        self._lock = threading.Lock()
        self._stopped = False
        self._folder = tempfile.TemporaryDirectory(prefix="fish-speech-play-", ignore_cleanup_errors=True)
        self._thread = threading.Thread(target=self._play, name="player", daemon=True)
        self._thread.start()

    def write(self, chunk: np.ndarray) -> None:
        if self._error is not None:
            raise self._error
        self._waiting = np.concatenate([self._waiting, np.asarray(chunk, np.float32)])
        while end := cut_at_pause(self._waiting, self._sample_rate):
            self._put(self._waiting[:end])
            self._waiting = self._waiting[end:]

    def close(self) -> None:
        try:
            if len(self._waiting):
                self._put(self._waiting)
            self._pieces.put(None)
            while self._thread.is_alive():
                self._thread.join(0.2)  # on Windows, Ctrl+C does not interrupt a wait without end
        finally:
            self.abort()
        if self._error is not None:
            raise self._error

    def abort(self) -> None:
        with self._lock:
            self._stopped = True
            if self._running is not None:
                self._running.stop()
        self._pieces.put(None)
        self._thread.join()
        self._folder.cleanup()

    def _put(self, samples: np.ndarray) -> None:
        self._count += 1
        path = Path(self._folder.name) / f"{self._count:05d}.wav"
        with FileSink(path, self._sample_rate) as sink:
            sink.write(samples)
        self._pieces.put(path)

    def _play(self) -> None:
        try:
            while path := self._pieces.get():
                with self._lock:
                    if self._stopped:
                        return
                    self._running = self._start(path)
                self._running.wait()
                with self._lock:
                    self._running = None
                with suppress(OSError):
                    path.unlink()
        except Exception as error:
            if not self._stopped:
                self._error = error
