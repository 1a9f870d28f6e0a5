"""How programs end: exit codes and what the person sees."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fish_speech import errors
from fish_speech.errors import UserError

PACKAGE_PARENT = Path(__file__).parents[1]


def ended(main) -> int:
    """Return the exit code that `errors.run` gives `main`."""
    with pytest.raises(SystemExit) as caught:
        errors.run(main)
    return caught.value.code


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


def program(code: str, **options) -> subprocess.Popen:
    """Start a Python program that runs `main`, defined in `code`."""
    text = f"import sys\nfrom fish_speech import errors\n{code}\nerrors.run(main)\n"
    return subprocess.Popen(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=PACKAGE_PARENT,
        env={key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"},  # as at a user's terminal
        **options,
    )


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (2, 2)])
def test_the_code_that_main_returns_is_the_exit_code(returned, code):
    assert ended(lambda: returned) == code


def test_a_user_error_gives_2_and_says_what_why_and_fix(capsys):
    assert ended(raising(UserError("no clips", "the folder is empty", "put some there"))) == 2
    shown = capsys.readouterr()
    assert shown.err == "error: no clips\n  why: the folder is empty\n  fix: put some there\n"
    assert shown.out == ""


def test_an_interrupt_gives_130_without_traceback(capsys):
    assert ended(raising(KeyboardInterrupt())) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_gives_2_and_names_the_file(capsys, number):
    assert ended(raising(OSError(number, "No space left on device", "out/model.pth"))) == 2
    assert "the disk is full while writing out/model.pth" in capsys.readouterr().err


def test_a_full_disk_without_a_file_name_is_told_too(capsys):
    assert ended(raising(OSError(errno.ENOSPC, "No space left on device"))) == 2
    assert "error: the disk is full\n" in capsys.readouterr().err


def test_argparse_keeps_its_own_exit_code():
    assert ended(raising(SystemExit(2))) == 2


@pytest.mark.parametrize("bug", [ValueError("a bug"), OSError(errno.EIO, "Input/output error")])
def test_a_bug_keeps_its_traceback(bug):
    with pytest.raises(type(bug)):
        errors.run(raising(bug))


def test_a_bug_gives_1():
    process = program("def main():\n    return 1 // 0")
    _, shown = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"Traceback" in shown and b"ZeroDivisionError" in shown


@pytest.mark.parametrize("lines", [3, 100_000])  # less than a buffer: noticed only when it is flushed at the end
def test_a_reader_that_goes_away_gives_1_without_noise(lines):
    process = program(
        f"def main():\n    sys.stdin.readline()\n    for i in range({lines}):\n        print('line', i)",
        stdin=subprocess.PIPE,
    )
    process.stdout.close()  # as `| head` does
    process.stdin.write(b"\n")
    process.stdin.close()
    shown = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 1
    assert shown == b""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows ends a process without asking it")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_program_as_an_interrupt(number):
    process = program(
        "import time\ndef main():\n    errors.terminate_like_interrupt()\n    print('ready', flush=True)\n    time.sleep(30)"
    )
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    _, shown = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in shown and b"interrupted" in shown


@pytest.mark.parametrize("through", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_a_user_error_survives_the_way_back_from_a_worker_process(through):
    error = through(UserError("what", "why", "fix"))
    assert (error.what, error.why, error.fix) == ("what", "why", "fix")
    assert str(error) == "error: what\n  why: why\n  fix: fix"


def test_disk_full_knows_other_errors_apart():
    assert errors.disk_full(OSError(errno.EACCES, "Permission denied")) is None
    assert isinstance(errors.disk_full(OSError(errno.ENOSPC, "No space left on device")), UserError)


def test_a_forbidden_file_is_the_users_matter(capsys):
    def forbidden():
        raise PermissionError(13, "Permission denied", "/somewhere/x.wav")

    with pytest.raises(SystemExit) as ended:
        errors.run(forbidden)
    assert ended.value.code == 2
    assert "no permission for /somewhere/x.wav" in capsys.readouterr().err


LOST = """
import os, signal
from fish_speech.errors import run
from fish_speech.log import progress

class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)  # what its handler raises here, Python ignores

def main():
    for number in progress(range(3), "count"):
        Deleted()
        print(number)

run(main)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_an_interrupt_that_comes_while_an_object_is_deleted_is_not_lost():
    result = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=60)
    assert result.returncode == 130 and result.stdout == "0\n", result
