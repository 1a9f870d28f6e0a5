"""Functions that a process of a Ray cluster can import quickly."""

from __future__ import annotations

import os


def what_a_task_gets(task: int) -> tuple[int, list[str], int]:
    """The task, the GPUs that are its own, and the process it runs in."""
    import ray

    return task, ray.get_runtime_context().get_accelerator_ids()["GPU"], os.getpid()


def die(task: int) -> int:
    """End the process without a word."""
    os._exit(7)
