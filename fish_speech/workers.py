"""Run one function over many tasks in worker processes, on Linux, macOS and Windows alike.

Workers are spawned, never forked (threads and CUDA do not survive a fork). They end with their parent even if it is
killed, and leave Ctrl+C to it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.connection import wait as wait_for_sentinel
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of spawned processes that end with this one and leave Ctrl+C to it."""
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)


class WorkerLost(Exception):
    """A worker process died without a word: killed from outside, most often for want of memory."""


def run_tasks(function: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """Yield `function(task)` for every task as each is done, in any order; with one worker in this process, in order.

    `function` must be importable and tasks and results picklable. The first error of a task ends the loop: it is
    raised here, OSError of a full disk included, tasks not yet started are dropped, and running ones are waited for.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    remaining = iter(tasks)
    pool = process_pool(workers)
    try:
        running: set[Future[Result]] = {pool.submit(function, task) for task in islice(remaining, 2 * workers)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            running |= {pool.submit(function, task) for task in islice(remaining, len(done))}
    except (KeyboardInterrupt, GeneratorExit):
        for process in multiprocessing.active_children():  # a task may take hours: nobody waits for it
            process.terminate()
        raise
    except BrokenProcessPool as error:
        raise WorkerLost("a worker process was killed, most likely for want of memory") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; the parent decides what ends
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait_for_sentinel([sentinel])
    os._exit(1)  # what was being written stays under its temporary name, which the next run removes
