"""Run the checks in a child process, and go on with the next one where a check kills it or hangs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .findings import Finding, one_line, report

log = logging.getLogger(__name__)

_ROOT = Path(__file__).parents[2]
_START_LIMIT_S = 120.0  # for Python to start and name its first check


def main(model_version: str, device: str = "auto", base: Path | None = None) -> int:
    """Print what is found to stdout; return 0 if nothing is wrong, else 1."""
    log.info("looking at this machine; half a minute, longer for large weights")
    findings = diagnose(model_version, device, base)
    text = report(findings) + "\n"
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    return int(any(finding.state == "wrong" for finding in findings))


def diagnose(model_version: str, device: str = "auto", base: Path | None = None) -> list[Finding]:
    """Look at everything that a training with this model needs. Never raises for what it finds, and ends in time."""
    request = {"model_version": model_version, "device": device, "base": None if base is None else os.fspath(base)}
    return supervised([sys.executable, "-m", "fish_speech.doctor.child", json.dumps(request)])


@dataclass
class _Progress:
    """How far the child is, by its own words."""

    findings: list[Finding] = field(default_factory=list)
    number: int = -1  # of the check that it began last
    name: str = ""
    limit_s: float = _START_LIMIT_S
    done: bool = False

    def take(self, line: str) -> None:
        """Note one line of the child."""
        message = json.loads(line)
        if "begin" in message:
            self.number, self.name, self.limit_s = message["begin"], message["name"], message["limit_s"]
        elif "finding" in message:
            self.findings.append(Finding(**message["finding"]))
        self.done |= "done" in message


def supervised(command: Sequence[str], start_limit_s: float = _START_LIMIT_S) -> list[Finding]:
    """Run `command` with the number of the first check added, again after each check that ended it."""
    findings: list[Finding] = []
    first = 0
    while True:
        progress = _Progress(limit_s=start_limit_s)
        ending = _run([*command, str(first)], progress)
        findings += progress.findings
        if progress.done:
            return findings
        if progress.number < first:
            findings.append(
                Finding("doctor", "wrong", f"the checks cannot be run: {ending}", "install the toolkit anew")
            )
            return findings
        fix = "run the doctor again; if it repeats, install again what this check is about, since a training would end so too"
        findings.append(Finding(progress.name, "wrong", f"the check did not end: {ending}", fix))
        first = progress.number + 1


def _run(command: Sequence[str], progress: _Progress) -> str:
    """Feed the child's lines to `progress` until it ends or takes too long; return how it ended."""
    environment = {**os.environ, "PYTHONUTF8": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with _words() as words:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=words,
            env=environment,
            encoding="utf-8",
            errors="replace",
            start_new_session=os.name != "nt",  # so that programs it started can be ended with it
        )
        try:
            for line in _lines(child, progress):
                progress.take(line)
            code = child.wait(timeout=10)
        except (queue.Empty, subprocess.TimeoutExpired):
            return f"no answer within {progress.limit_s:g} s"
        except (ValueError, TypeError, KeyError) as error:
            return f"it said something else than findings ({one_line(error)})"
        finally:
            _end(child)
        return _reason(code, words)


@contextlib.contextmanager
def _words() -> Iterator[IO[bytes] | int]:
    """Where the child's stderr goes: a file, or nowhere on a machine whose temporary folder cannot be written."""
    with contextlib.ExitStack() as stack:
        try:
            words: IO[bytes] | int = stack.enter_context(tempfile.TemporaryFile())
        except OSError:
            words = subprocess.DEVNULL
        yield words


def _lines(child: subprocess.Popen[str], progress: _Progress) -> Iterator[str]:
    """The lines of the child; raises queue.Empty when the next takes longer than the check may."""
    lines: queue.Queue[str | None] = queue.Queue()
    stdout = child.stdout
    assert stdout is not None

    def read() -> None:
        with contextlib.suppress(ValueError, OSError):  # closed while it was read
            for line in stdout:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (line := lines.get(timeout=progress.limit_s)) is not None:
        yield line


def _end(child: subprocess.Popen[str]) -> None:
    """Kill the child, and on POSIX the programs that it started."""
    with contextlib.suppress(OSError):
        if os.name != "nt":
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=10)


def _reason(code: int, words: Any) -> str:
    """Why a child ended early: the signal, or the last line that it said."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"the process was ended by {signal.Signals(-code).name}"
    said = ""
    if not isinstance(words, int):
        words.seek(0)
        said = next(
            (line for line in reversed(words.read().decode("utf-8", "replace").splitlines()) if line.strip()), ""
        )
    return f"the process ended with {code}" + (f": {one_line(said)}" if said else "")
