"""Errors a person can fix, and the exit code each ending of a program has.

0 done, 1 the run failed (some items did not make it, or a bug), 2 the request was wrong, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

log = logging.getLogger(__name__)

DONE, FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
_CONTINUE = "interrupted; run the same command again to continue"
_noted: list[int] = []  # signals that came while `run` was at work


class UserError(Exception):
    """A problem the user can fix. `fix` is a command or an action, printed last."""

    def __init__(self, what: str, why: str, fix: str):
        super().__init__(f"error: {what}\n  why: {why}\n  fix: {fix}")
        self.what, self.why, self.fix = what, why, fix

    def __reduce__(self):  # the default drops arguments when a worker process hands the error back
        return type(self), (self.what, self.why, self.fix)


def disk_full(error: OSError) -> UserError | None:
    """Return what to tell the user when `error` means that no space is left, else None."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    where = f" while writing {error.filename}" if error.filename else ""
    return UserError(
        f"the disk is full{where}",
        "the output is written under a temporary name first; what was there before is unharmed",
        "free some space or choose an output folder on another disk, then run the same command again",
    )


def run(main: Callable[[], int | None]) -> None:
    """Run `main` and exit with its code. UserError and a full disk give 2 without traceback, Ctrl+C gives 130."""
    interrupted = _note_interrupt()
    try:
        code = main()
        if sys.stdout is not None:
            sys.stdout.flush()  # here, not while Python shuts down: a reader that is gone would make the exit code 120
    except UserError as error:
        print(error, file=sys.stderr)
        code = WRONG_REQUEST
    except KeyboardInterrupt:
        print(_CONTINUE, file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader of our output went away, as in `... | head`
        with contextlib.suppress(OSError, ValueError):  # what is left in the buffer goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except PermissionError as error:
        what, fix = f"no permission for {error.filename}", "choose another folder, or change its owner or mode"
        print(UserError(what, str(error.strerror), fix), file=sys.stderr)
        code = WRONG_REQUEST
    except OSError as error:
        full = disk_full(error)
        if full is None:
            raise
        print(full, file=sys.stderr)
        code = WRONG_REQUEST
    except ImportError:  # Ctrl+C while a compiled module is loaded comes out as this
        if not interrupted:
            raise
        print(_CONTINUE, file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code or DONE)


def _note_interrupt() -> list[int]:
    """Let Ctrl+C raise KeyboardInterrupt as ever, and be noted in the list that is returned."""
    _noted.clear()

    def note(number: int, frame: FrameType | None) -> None:
        _noted.append(number)
        signal.default_int_handler(number, frame)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)
    return _noted


def raise_lost_interrupt() -> None:
    """Raise KeyboardInterrupt if Ctrl+C came and was lost: Python ignores what is raised while an object is deleted.

    For loops that take long; where the interrupt is on its way out, nobody calls this any more.
    """
    if _noted:
        raise KeyboardInterrupt


def terminate_like_interrupt() -> None:
    """Let SIGTERM end the program as Ctrl+C does, so that temporary files are removed. Call from a main thread."""
    if hasattr(signal, "SIGTERM"):
        as_interrupt = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGTERM, as_interrupt if callable(as_interrupt) else signal.default_int_handler)
