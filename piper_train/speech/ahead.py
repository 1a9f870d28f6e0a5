"""Make the next sentence while this one is given out, so that a slow computer plays without a gap."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

_LOOK_S = 0.2  # how often a waiting thread looks whether it is still wanted


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield `items`, which a thread of their own makes, one more than was taken. What goes wrong there is raised here.

    Closing the iterator lets the thread end after the item it is at, and waits for that.
    """
    made: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(1)
    unwanted = threading.Event()

    def put(entry: tuple[T | None, BaseException | None]) -> None:
        while not unwanted.is_set():
            with suppress(queue.Full):
                made.put(entry, timeout=_LOOK_S)
                return

    def work() -> None:
        try:
            for item in items:
                put((item, None))
                if unwanted.is_set():
                    return
            put((None, StopIteration()))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, name="sentences", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item, error = made.get(timeout=_LOOK_S)  # a wait without an end would not hear Ctrl+C on Windows
            except queue.Empty:
                continue
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        unwanted.set()
        thread.join()
