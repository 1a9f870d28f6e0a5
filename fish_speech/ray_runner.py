"""Run one function over many tasks on a Ray cluster: the same as workers.run_tasks, on several machines.

Every machine must see the same files under the same names, and have this package installed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

from .errors import UserError
from .extras import require

Task = TypeVar("Task")
Result = TypeVar("Result")

_ROOT = Path(__file__).parents[1]
_AHEAD = 2  # tasks handed out for each core: enough to keep it busy


def run_on_ray(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """Yield `function(task)` for every task as each is done, in any order.

    Takes the cluster that RAY_ADDRESS names, else one that runs on this machine, else starts one for the time of the
    run. The first error of a task is raised here as it was. Raises UserError if ray is not installed or not reached.
    """
    ray = require("ray", "--runner ray", "ray")
    started = not ray.is_initialized()
    if started:
        _connect(ray)
    try:
        remote = ray.remote(max_retries=1)(function)
        remaining = iter(tasks)
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        running = [remote.remote(task) for task in islice(remaining, _AHEAD * cores)]
        while running:
            done, running = ray.wait(running)
            for reference in done:
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
            running += [remote.remote(task) for task in islice(remaining, len(done))]
    finally:
        if started:
            ray.shutdown()


def _connect(ray) -> None:
    options = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}},
    }
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address is None:
            ray.init(include_dashboard=False, **options)
        else:
            _knock(address)
            ray.init(address=address, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"no Ray cluster at {address or 'this machine'}",
            " ".join(str(error).split())[:300],
            "start one with `ray start --head`, set RAY_ADDRESS to it, or leave out --runner ray",
        ) from None


def _knock(address: str) -> None:
    """Raise OSError if nobody answers at HOST:PORT; Ray itself asks for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        with socket.create_connection((host, int(port)), timeout=10):
            pass
