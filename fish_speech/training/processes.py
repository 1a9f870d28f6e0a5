"""The further processes of a run on one machine: started by the first, watched by it, and never left behind.

Only the first process talks to the person. What another says goes to a temporary file, whose end is shown if that one
failed by itself. However a process ends, the others end soon after, with the exit code of the one that failed first.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from ..errors import FAILED, INTERRUPTED, UserError

log = logging.getLogger(__name__)

_POLL_S = 0.5
_GRACE_S = 10.0  # after another process failed, for this one to end by itself
_STOPPING_S = 60.0  # after another process was interrupted, or when all is done: this one may still be saving
_SHOWN = 30  # last lines of a failed process that are shown, where it gave no message
_LAUNCHER = "FISH_SPEECH_LAUNCHER"  # environment variable: the id of the first process, which started this one
_LOST_PEER = ("connection", "peer", "gloo", "nccl", "socket", "broken pipe", "timed out")  # in errors of collectives


class ProcessLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher, the same command once more for each device, with a watch that keeps messages and exit codes."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.children: list[subprocess.Popen[bytes]] = []
        self._said: list[IO[bytes]] = []
        self._done = threading.Event()

    def launch(self, function: Callable, *args: Any, trainer: Any = None, **options: Any) -> Any:
        """Start the others, run `function` here, and see all of them end."""
        try:
            result = super().launch(function, *args, trainer=trainer, **options)
        except Exception as error:
            failed = None if isinstance(error, UserError) else self._failed(_GRACE_S if is_lost_peer(error) else 0)
            if failed is not None:  # this error only followed
                self._end_with(failed)
            self._done.set()
            self.kill(KILL)
            raise
        self._done.set()
        atexit.register(self._wait)  # not here: all of them clear up at the same time
        return result

    def _call_children_scripts(self) -> None:
        self._check_can_spawn_children()
        environment = self.cluster_environment
        os.environ |= {
            "MASTER_ADDR": environment.main_address,
            "MASTER_PORT": str(environment.main_port),
            "NODE_RANK": str(environment.node_rank()),
            "LOCAL_RANK": str(environment.local_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }
        for rank in range(1, self.num_processes):
            said = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
            self._said.append(said)
            self.children.append(
                subprocess.Popen(
                    same_command(),
                    env={**os.environ, "LOCAL_RANK": str(rank), _LAUNCHER: str(os.getpid())},
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                )
            )
        # Lightning's own observer, which gets the empty `procs`, would end this process with SIGKILL: no message, no code.
        threading.Thread(target=self._watch, daemon=True, name="processes").start()

    def kill(self, signum: Any) -> None:
        """Send a signal to all other processes."""
        for child in self.children:
            with contextlib.suppress(OSError):
                child.send_signal(signum)

    def _watch(self) -> None:
        while not self._done.wait(_POLL_S):
            failed = self._failed(0)
            if failed is not None:
                grace = _STOPPING_S if failed.returncode == INTERRUPTED else _GRACE_S
                if not self._done.wait(grace):  # this process hangs in what the other was to answer
                    self._end_with(failed)

    def _failed(self, within_s: float) -> subprocess.Popen[bytes] | None:
        """The first process found to have ended with another exit code than 0, waiting for one `within_s` seconds."""
        deadline = time.monotonic() + within_s
        while True:
            for child in self.children:
                if child.poll():
                    return child
            if time.monotonic() >= deadline:
                return None
            time.sleep(0.1)

    def _end_with(self, failed: subprocess.Popen[bytes]) -> None:
        """End this process at once, as a failed one did, with its message: nothing waits for answers that never come."""
        number, code = self.children.index(failed) + 1, failed.returncode
        self.kill(KILL)
        who = f"process {number + 1} of {self.num_processes}"
        if code < 0:
            message = str(
                UserError(
                    f"{who} was ended from outside by {signal_name(-code)}",
                    "someone did, or the system for lack of memory (dmesg says so)",
                    "the same command continues from the newest checkpoint",
                )
            )
        else:
            said = self._said[number - 1]
            said.seek(0)
            message = f"{who} failed:\n{end_of(said.read().decode('utf-8', errors='replace'))}"
        if code != INTERRUPTED:
            print(message, file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code if code > 0 else FAILED)

    def _wait(self) -> None:
        """See the others end, before this process does; none has anything left to do."""
        deadline = time.monotonic() + _STOPPING_S
        for number, child in enumerate(self.children, 2):
            try:
                code = child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                code = child.wait()
            if code not in (0, INTERRUPTED):
                log.warning(
                    "process %d of %d ended with exit code %d when all was done", number, self.num_processes, code
                )


class WatchedProcesses(ParallelStrategy):
    """A strategy of Lightning's whose processes are started by our launcher; to be named before it in a class."""

    num_nodes: int
    num_processes: int

    def _configure_launcher(self) -> None:
        environment = self.cluster_environment
        if environment is not None and not environment.creates_processes_externally:
            self._launcher = ProcessLauncher(environment, self.num_processes, self.num_nodes)

    def setup_environment(self) -> None:
        """Join the other processes."""
        end_with_launcher()
        super().setup_environment()


KILL = signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL


def same_command() -> list[str]:
    """The command line that started this process."""
    import __main__

    start = [sys.argv[0]] if __main__.__spec__ is None else ["-m", __main__.__spec__.name]
    return [sys.executable, *start, *sys.argv[1:]]


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error may come from another process's end."""
    return isinstance(error, RuntimeError | OSError) and any(word in str(error).lower() for word in _LOST_PEER)


def end_of(said: str) -> str:
    """The message that a program ended with: an error of ours, else a traceback, else its last lines."""
    for start in ("error: ", "Traceback (most recent call last)"):
        place = max(said.rfind("\n" + start) + 1, 0 if said.startswith(start) else -1)
        if place > 0 or said.startswith(start):
            return said[place:].rstrip()
    return "\n".join(said.rstrip().splitlines()[-_SHOWN:])


def signal_name(number: int) -> str:
    """SIGKILL for 9, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def end_with_launcher() -> None:
    """In a process that another one started: end soon after that one is gone, even while waiting for its answer."""
    launcher = os.environ.get(_LAUNCHER)
    if launcher is None or sys.platform == "win32":  # there a closed connection ends the waiting
        return

    def watch() -> None:
        while os.getppid() == int(launcher):
            time.sleep(_POLL_S)
        time.sleep(_GRACE_S)
        os._exit(FAILED)

    threading.Thread(target=watch, daemon=True, name="launcher").start()
