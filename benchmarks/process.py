"""Run a child process and watch its memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

INTERVAL_S = 0.01  # between two looks at the child's memory


@dataclass(frozen=True)
class Finished:
    """What a child process left."""

    output: str
    seconds: float  # wall clock, start-up included
    peak_rss: int  # bytes, pages of mapped files included; exact on Linux and Windows, sampled elsewhere
    peak_anonymous: int | None  # bytes without pages of files, sampled; None where the system does not say

    @property
    def figures(self) -> dict[str, Any]:
        """The JSON of the last line it printed."""
        return json.loads(self.output.splitlines()[-1])


def run(*arguments: str | Path) -> Finished:
    """Run `python -m ARGUMENTS`; raise RuntimeError with the end of its output if it fails."""
    command = [sys.executable, "-m", *map(str, arguments)]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as err:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err)
        try:
            peak, anonymous = _watch(process)
        except BaseException:
            process.kill()
            process.wait()
            raise
        elapsed = time.perf_counter() - start
        for stream in (out, err):
            stream.seek(0)
        output, errors = out.read(), err.read()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{(output + errors)[-4000:]}")
    return Finished(output, elapsed, peak, anonymous)


def _watch(process: subprocess.Popen) -> tuple[int, int | None]:
    peak, anonymous = 0, None
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            memory = watched.memory_info()
            peak = max(peak, memory.rss, getattr(memory, "peak_wset", 0), _high_water(process.pid))
            if hasattr(memory, "shared"):  # Linux: resident pages of files and shared memory
                anonymous = max(anonymous or 0, memory.rss - memory.shared)
        except psutil.Error:  # it ended meanwhile
            pass
        time.sleep(INTERVAL_S)
    return peak, anonymous


def _high_water(pid: int) -> int:
    """Linux's own record of the largest resident size, in bytes; 0 elsewhere."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024
