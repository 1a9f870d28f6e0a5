"""Run the stages as child processes: clean memory for each, output shown as it comes and kept in a log file."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from .errors import DONE, FAILED, INTERRUPTED, WRONG_REQUEST

log = logging.getLogger(__name__)

ROOT = Path(__file__).parents[1]
_KILLED = -9  # exit code of a child that SIGKILL ended; Windows has none


@dataclass(frozen=True)
class Step:
    """A stage to run: its name for the log, and the arguments after the Python interpreter."""

    name: str
    arguments: Sequence[str]
    left_out_is_fine: bool = False  # exit code 1 of a batch, some items left out, does not stop the pipeline
    dispensable: bool = False  # if it fails, the others run all the same, and the pipeline ends with FAILED
    late: Callable[[], Sequence[str]] | None = None  # further arguments, settled when the step's turn has come


def run_steps(steps: Sequence[Step], log_folder: Path) -> int:
    """Run steps in order until one fails; return 0 or the exit code of the one that did not end well."""
    result = DONE
    for number, step in enumerate(steps, 1):
        if step.late is not None:
            step = replace(step, arguments=[*step.arguments, *step.late()], late=None)
        log.info("[%d/%d] %s: %s", number, len(steps), step.name, command_line(step))
        code = run_step(step, log_folder / f"{step.name}.log")
        if code == FAILED and step.left_out_is_fine:
            log.warning("%s left items out (listed above); going on", step.name)
        elif code in (FAILED, WRONG_REQUEST) and step.dispensable:
            log.warning("%s ended with exit code %d; going on without it", step.name, code)
            result = FAILED
        elif code != DONE:
            log.error(
                "%s ended with exit code %d; its output is in %s", step.name, code, log_folder / f"{step.name}.log"
            )
            if code == _KILLED:
                log.error(
                    "it was killed from outside, by the system most likely, which was out of memory: "
                    "use a smaller --batch-size, --max-length or --batch-size-extract; the same command continues"
                )
            return code if code in (WRONG_REQUEST, INTERRUPTED) else FAILED
    return result


def command_line(step: Step) -> str:
    """The step as it could be typed, as far as it is settled."""
    return f"python {subprocess.list2cmdline(step.arguments)}"


def run_step(step: Step, log_file: Path | None) -> int:
    """Run one step to its end, passing Ctrl+C and SIGTERM on to it; return its exit code. None keeps no log."""
    if log_file is None:
        log_file = Path(os.devnull)
    else:
        log_file.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log_file.open("ab", buffering=0) as record:
        child = subprocess.Popen(
            [sys.executable, *step.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=environment,
            **_own_group(),
        )
        with _signals_passed_to(child):
            threads = [
                threading.Thread(target=_copy, args=(source, target, record), daemon=True)
                for source, target in ((child.stdout, sys.stdout), (child.stderr, sys.stderr))
            ]
            for thread in threads:
                thread.start()
            code = child.wait()
            for thread in threads:
                thread.join()
    return INTERRUPTED if code < 0 and -code in (signal.SIGINT, signal.SIGTERM) else code


def _copy(source: IO[bytes] | None, target: Any, record: IO[bytes]) -> None:
    """Pass bytes on as they come, so that progress shows, and keep them.

    Neither a closed terminal nor a full disk ends this loop: the step would wait for ever for its output to be read.
    """
    assert source is not None
    while chunk := os.read(source.fileno(), 1 << 16):
        with contextlib.suppress(OSError):
            record.write(chunk)
        with contextlib.suppress(OSError, ValueError):
            target.buffer.write(chunk)
            target.flush()


def _own_group() -> dict[str, Any]:
    """Popen options that keep the terminal's Ctrl+C from reaching the child twice: we pass it on ourselves."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "linux":
        options["preexec_fn"] = _end_with_parent
    return options


def _end_with_parent() -> None:
    """Ask Linux to stop this child when its parent is killed, so that no training goes on unseen."""
    with contextlib.suppress(Exception):
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def _signals_passed_to(child: subprocess.Popen) -> Iterator[None]:
    def forward(number: int, frame: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.CTRL_BREAK_EVENT if os.name == "nt" else number)  # type: ignore[attr-defined]

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name)]
    previous = {number: signal.signal(number, forward) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
