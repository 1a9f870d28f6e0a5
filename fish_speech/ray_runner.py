"""Run one function over many tasks on a Ray cluster: the same as workers.run_tasks, on several machines.

Every machine must see the same files under the same names, and have this package installed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from .errors import UserError
from .extras import require
from .workers import WorkerLost

Task = TypeVar("Task")
Result = TypeVar("Result")

_ROOT = Path(__file__).parents[1]
_AHEAD = 2  # tasks handed out for each core or GPU: enough to keep it busy


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster that this process is connected to."""

    ray: ModuleType
    cpus: int
    gpus: int

    def __str__(self) -> str:
        return f"a Ray cluster of {self.cpus} CPUs" + (f" and {self.gpus} GPUs" if self.gpus else "")

    def run(self, function: Callable[[Task], Result], tasks: Iterable[Task], gpus: int = 0) -> Iterator[Result]:
        """Yield `function(task)` for every task as each is done, in any order; each runs with `gpus` GPUs of its own.

        The first error of a task is raised here as it was. Raises WorkerLost if a process or a machine died twice.
        """
        # A process serves many tasks (max_calls 0), with GPUs too, where Ray would start a new one for each by itself:
        # what a task loads, such as a codec, is loaded once.
        remote = self.ray.remote(max_retries=1, max_calls=0, num_gpus=gpus)(function)
        remaining = iter(tasks)
        at_once = max(1, self.gpus // gpus if gpus else self.cpus)
        running = [remote.remote(task) for task in islice(remaining, _AHEAD * at_once)]
        while running:
            done, running = self.ray.wait(running)
            for reference in done:
                yield self._result(reference)
            running += [remote.remote(task) for task in islice(remaining, len(done))]

    def _result(self, reference: Any) -> Any:
        lost = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except lost.RayTaskError as error:
            raise error.cause from None
        except (lost.WorkerCrashedError, lost.OutOfMemoryError, lost.NodeDiedError) as error:
            reason = " ".join(str(error).split())[:300]
            raise WorkerLost(f"a process of the Ray cluster died: {reason}") from None


@contextmanager
def ray_cluster() -> Iterator[Cluster]:
    """Connect to the cluster that RAY_ADDRESS names, else one that runs on this machine, else start one for so long.

    Raises UserError if ray is not installed or not reached.
    """
    ray = require("ray", "--runner ray", "ray")
    started = not ray.is_initialized()
    if started:
        _connect(ray)
    try:
        has = ray.cluster_resources()
        yield Cluster(ray, max(1, int(has.get("CPU", 1))), int(has.get("GPU", 0)))
    finally:
        if started:
            ray.shutdown()


def run_on_ray(function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
    """Yield `function(task)` for every task as each is done, in any order: see `ray_cluster` and `Cluster.run`."""
    with ray_cluster() as cluster:
        yield from cluster.run(function, tasks)


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
