"""Worker processes: every task once, errors arrive whole, and no worker outlives its parent."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fish_speech.workers import WorkerLost, run_tasks


def double(value: int) -> int:
    return 2 * value


def fail(value: int) -> int:
    raise OSError(errno.ENOSPC, "No space left on device", "/full/file")


def die(value: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return value


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once(workers):
    assert sorted(run_tasks(double, range(20), workers)) == list(range(0, 40, 2))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_in_a_worker_reaches_the_caller_with_number_and_name(workers):
    with pytest.raises(OSError) as caught:
        list(run_tasks(fail, range(20), workers))
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/full/file")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_worker_is_told():
    with pytest.raises(WorkerLost):
        list(run_tasks(die, range(4), 2))


SLEEPERS = """
import os, pathlib, sys, time
from fish_speech.workers import run_tasks

def sleep(folder):
    pathlib.Path(folder, str(os.getpid())).touch()
    time.sleep(60)

if __name__ == "__main__":
    list(run_tasks(sleep, [sys.argv[1]] * 4, 2))
"""


@pytest.mark.skipif(os.name == "nt", reason="looks at processes as POSIX does")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    script, pids = tmp_path / "sleepers.py", tmp_path / "pids"
    script.write_text(SLEEPERS, encoding="utf-8")
    pids.mkdir()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    parent = subprocess.Popen([sys.executable, str(script), str(pids)], env=environment)
    deadline = time.monotonic() + 30
    while len(list(pids.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = [int(path.name) for path in pids.iterdir()]
    parent.kill()
    parent.wait()
    while any(_runs(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2 and not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # a dead process that nobody has waited for still has a number
    return not (status.exists() and status.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z")
