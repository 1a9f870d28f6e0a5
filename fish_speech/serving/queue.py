"""One voice, one thread that speaks, and a bounded queue of what it shall say.

The event loop admits requests and fetches their sound; the thread loads the voice and then speaks one request after the
other. A reader that goes away takes its request along: from the queue at once, from the voice within a frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, cast

from .errors import ApiError
from .formats import Encoder, open_encoder
from .limits import Limits

if TYPE_CHECKING:
    import numpy as np

    from ..synthesis.speak import Speaker, SpeechRequest

log = logging.getLogger(__name__)

LOADING, READY, CLOSING, FAILED = "loading", "ready", "closing", "failed"


class HungUp(Exception):
    """Nobody waits for this answer any more."""


class Job:
    """A request for speech, and the bytes of its answer on their way from the thread to the event loop."""

    def __init__(self, request: SpeechRequest, format_name: str, unread_bytes: int):
        self.request, self.format = request, format_name
        self.seconds = 0.0  # of sound so far
        self._loop, self._arrived = asyncio.get_running_loop(), asyncio.Event()
        self._room = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._unread, self._most_unread = 0, unread_bytes
        self._stopped = False
        self._why: Exception = HungUp()  # what the reader is told once it is stopped
        self._over: BaseException | None = None  # StopAsyncIteration: all is said

    def is_stopped(self) -> bool:
        """Whether to stop speaking. Asked by the speaker with every frame."""
        return self._stopped

    def put(self, data: bytes) -> None:
        """Hand bytes to the reader, from the thread; waits while too many are unread."""
        if not data:
            return
        with self._room:
            self._room.wait_for(lambda: self._unread <= self._most_unread or self._stopped)
            self._pieces.append(data)
            self._unread += len(data)
        self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """Say that all is said, or why not; the first word counts."""
        with self._room:
            self._over = self._over or error or StopAsyncIteration()
        self._wake()

    def stop(self, why: Exception | None = None) -> None:
        """Let the answer go: its bytes are dropped, and speaking ends. The reader, if it is there, gets `why`, or HungUp."""
        with self._room:
            self._stopped, self._why = True, why or self._why
            self._pieces.clear()
            self._room.notify_all()
        self._arrived.set()

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises what went wrong, after the bytes before it, and HungUp after stop()."""
        while True:
            if self._stopped:
                raise self._why
            with self._room:
                if self._pieces:
                    data = self._pieces.popleft()
                    self._unread -= len(data)
                    self._room.notify_all()
                    return data
                self._arrived.clear()
                if isinstance(self._over, StopAsyncIteration):
                    return b""
                if self._over is not None:
                    raise self._over
            await self._arrived.wait()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
            self._loop.call_soon_threadsafe(self._arrived.set)


class SpeechQueue:
    """Admits, orders and speaks requests. `load` is called in the thread, once."""

    def __init__(self, load: Callable[[], Speaker], limits: Limits):
        self.limits = limits
        self.state = LOADING
        self.error: BaseException | None = None  # why loading failed
        self.sample_rate = 0  # Hz, once the voice is loaded
        self._load = load
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._open: set[Job] = set()  # of which the reader has not said that it is done
        self._speaking: Job | None = None
        self._typical_s = 5.0  # a running mean of how long a request takes
        self._thread = threading.Thread(target=self._work, name="speech", daemon=True)

    def start(self) -> None:
        """Start loading, then speaking."""
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread has not ended."""
        return self._thread.is_alive()

    @property
    def length(self) -> int:
        """Requests that wait, without the one being spoken."""
        return len(self._waiting)

    @property
    def is_speaking(self) -> bool:
        """Whether a request is being spoken."""
        return self._speaking is not None

    def check_ready(self) -> None:
        """Raise ApiError if nothing can be spoken now."""
        if self.state != READY:
            if self.state == CLOSING:
                raise _ending()
            what = "the model is being loaded" if self.state == LOADING else "the model could not be loaded"
            raise ApiError(503, what, self.state, None, _after(5))

    def submit(self, request: SpeechRequest, format_name: str) -> Job:
        """Queue a request, in the event loop; `release` its job when done. Raises ApiError if there is no room (429)."""
        with self._changed:
            self.check_ready()
            if (
                len(self._waiting) + self.is_speaking > self.limits.waiting
                or len(self._open) >= self.limits.open_requests
            ):
                wait = min(60, max(1, round(self._typical_s)))
                raise ApiError(429, f"the queue is full; try again in {wait} s", "queue_full", None, _after(wait))
            job = Job(request, format_name, self.limits.unread_bytes)
            self._waiting.append(job)
            self._open.add(job)
            self._changed.notify()
        return job

    def release(self, job: Job) -> None:
        """Forget a job, wherever it is; called when its answer is delivered or nobody waits for it."""
        job.stop()
        with self._changed:
            self._open.discard(job)
            with contextlib.suppress(ValueError):
                self._waiting.remove(job)

    def close(self) -> None:
        """Admit no more, and turn away those who wait; the request being spoken goes on."""
        with self._changed:
            if self.state != FAILED:
                self.state = CLOSING
            turned_away, self._waiting = list(self._waiting), deque()
            self._changed.notify()
        for job in turned_away:
            job.end(_ending())

    def cut(self) -> None:
        """Stop the request being spoken, too, and what is not fetched yet. Called in the event loop."""
        for job in list(self._open):
            job.stop(_ending())

    def join(self, timeout_s: float) -> None:
        """Stop what is left and wait for the thread, which ends within a frame; while it loads, it is left alone."""
        self.close()
        for job in list(self._open):
            job.stop()
        if self.sample_rate:
            self._thread.join(timeout_s)

    def _work(self) -> None:
        try:
            speaker = self._load()
        except BaseException as error:
            self.error, self.state = error, FAILED
            return
        self.sample_rate = speaker.sample_rate
        with self._changed:
            if self.state == LOADING:
                self.state = READY
        while (job := self._next()) is not None:
            started = time.monotonic()
            why: Exception | None = None
            try:
                is_whole = _speak(speaker, job)
            except Exception as error:
                is_whole = not job.is_stopped()  # else the speaker only says that it was stopped
                if is_whole:
                    _report(error)
                why = error
            spent = time.monotonic() - started
            self._typical_s += 0.2 * (spent - self._typical_s)
            if not is_whole:
                log.info("a client hung up after %.1f s; the rest is not spoken", spent)
            self._speaking = None
            job.end(why)  # after that, so that there is room for what its client asks next
            job = why = None

    def _next(self) -> Job | None:
        """The next job, waited for; None when closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self.state != READY)
            if not self._waiting:
                return None
            self._speaking = self._waiting.popleft()
            return self._speaking


def _speak(speaker: Speaker, job: Job) -> bool:
    """Generate, encode and hand over, piece by piece. Returns whether to the end, and not until the job was stopped."""
    encoder = _Closing(open_encoder(job.format, speaker.sample_rate))
    sound = speaker.stream(job.request, stop=job.is_stopped)
    with encoder, contextlib.closing(cast("Generator[np.ndarray, None, None]", sound)):
        for chunk in sound:
            if job.is_stopped():
                return False
            if len(chunk):
                job.seconds += len(chunk) / speaker.sample_rate
                job.put(encoder.feed(chunk))
        if not job.seconds:
            raise ApiError(500, "the model said nothing; try another seed", "empty_speech")
        job.put(encoder.finish())
    return True


class _Closing:
    """An encoder that is finished whatever happens."""

    def __init__(self, encoder: Encoder):
        self._encoder: Encoder | None = encoder
        self.feed = encoder.feed

    def __enter__(self) -> _Closing:
        return self

    def finish(self) -> bytes:
        encoder, self._encoder = self._encoder, None
        return encoder.finish() if encoder else b""

    def __exit__(self, *unused: object) -> None:
        self.finish()


def _report(error: Exception) -> None:
    from ..errors import UserError

    if isinstance(error, UserError | ApiError):
        log.warning("not spoken: %s", str(error).replace("\n", " "))
    else:
        log.error("speaking failed", exc_info=error)


def _ending() -> ApiError:
    return ApiError(503, "the server is shutting down", CLOSING, None, _after(5))


def _after(seconds: float) -> dict[str, str]:
    return {"retry-after": f"{seconds:g}"}
