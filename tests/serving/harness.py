"""Real servers on free ports: with minnow, or with a speaker whose every frame the test lets through."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np

from fish_speech.serving.app import create_app
from fish_speech.serving.http import SpeechServer, bind
from fish_speech.serving.limits import Limits
from fish_speech.serving.queue import READY, SpeechQueue
from fish_speech.serving.voices import VoiceShelf

RATE = 24000  # Hz
FRAME = 2048  # samples


def frame(number: int) -> np.ndarray:
    """A frame of a tone that rises with its number."""
    return (0.3 * np.sin(2 * np.pi * (200 + 40 * number) * np.arange(FRAME) / RATE)).astype(np.float32)


class Stopped(Exception):
    """As the real speaker raises when it is stopped."""


class GatedSpeaker:
    """Speaks as many frames as the text has letters, each when the test lets it; a "!" fails."""

    sample_rate = RATE

    def __init__(self, is_open: bool = False):
        self.gate = threading.Semaphore(1_000_000 if is_open else 0)
        self.texts: list[str] = []  # begun
        self.frames: list[int] = []  # generated, of each
        self.ended: list[str] = []  # how each ended

    def let(self, frames: int) -> None:
        for _ in range(frames):
            self.gate.release()

    def stream(self, request: Any, stop: Callable[[], bool]) -> Iterator[np.ndarray]:
        self.texts.append(request.text)
        self.frames.append(0)
        how = "closed"
        try:
            for number, letter in enumerate(request.text):
                while not self.gate.acquire(timeout=0.01):
                    if stop():
                        how = "stopped"
                        raise Stopped
                if letter == "!":
                    how = "failed"
                    raise ZeroDivisionError("a bug")
                self.frames[-1] += 1
                if letter != "0":
                    yield frame(number)
            how = "done"
        finally:
            self.ended.append(how)


class Served:
    """A running server."""

    def __init__(self, queue: SpeechQueue, server: SpeechServer, port: int, key: str | None):
        self.queue, self.server, self.port, self.key = queue, server, port, key
        self.url = f"http://127.0.0.1:{port}"
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=60, verify=False)

    def say(self, text: str, **fields: Any) -> httpx.Response:
        return self.client.post("/v1/audio/speech", json={"input": text, **fields})


def raw_request(served: Served, text: str, form: str = "pcm") -> socket.socket:
    """A client in bytes, which can hang up and read as it likes."""
    body = f'{{"input": "{text}", "response_format": "{form}"}}'.encode()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)  # what it does not read shall stay with the server
    client.connect(("127.0.0.1", served.port))
    head = f"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    client.sendall(head.encode() + b"\r\n\r\n" + body)
    return client


def until(true: Callable[[], Any], seconds: float = 20) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


@contextlib.contextmanager
def serving(
    load: Callable[[], Any], shelf: VoiceShelf, limits: Limits | None = None, key: str | None = None, ready=True
):
    """Run a server in a thread while the block runs."""
    queue = SpeechQueue(load, limits or Limits())
    names = {"127.0.0.1", "localhost", "::1"}
    taken = bind("127.0.0.1", 0)
    port = taken.getsockname()[1]
    server = SpeechServer(create_app(queue, shelf, "minnow", key, names), queue)
    thread = threading.Thread(target=server.run, args=([taken],), daemon=True)
    queue.start()
    thread.start()
    served = Served(queue, server, port, key)
    try:
        until(lambda: server.started and (queue.state == READY or not ready))
        yield served
    finally:
        served.client.close()
        server.should_exit = True
        thread.join(60)
        queue.join(10)
        assert not thread.is_alive()
