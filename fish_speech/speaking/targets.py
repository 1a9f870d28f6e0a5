"""Where `-o` leads: a file, stdout, or a pipe or device that has a name. Asked before anything is loaded."""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..errors import UserError
from .file_sink import FileSink
from .output_names import SUFFIXES
from .sinks import Sink, StreamSink

STDOUT = Path("-")
FORMATS = ("wav", "flac", "raw")


@dataclass(frozen=True)
class Target:
    """A place for sound, checked but not opened."""

    path: Path  # STDOUT for stdout
    is_stream: bool  # grows while it is made, and is no file that can be named afterwards
    raw: bool = False  # 16-bit little-endian PCM without a header

    def open(self, sample_rate: int) -> Sink:
        """Open it. A named pipe is waited for until somebody reads it."""
        if not self.is_stream:
            return FileSink(self.path, sample_rate)
        stream = stdout_stream() if self.path == STDOUT else self.path.open("wb", buffering=0)
        return StreamSink(stream, sample_rate, self.raw)


def output_target(output: Path, form: str | None = None) -> Target:
    """Check `-o OUTPUT` with `--format FORM` (None: by its suffix, WAV for a stream). Raises UserError."""
    if output == STDOUT:
        if sys.stdout is None or sys.stdout.isatty():
            raise UserError(
                "cannot write sound to a terminal", "it is no text", "use -o FILE.wav, | a program, or --play"
            )
        return _stream(output, form)
    try:
        mode = output.stat().st_mode
    except OSError:  # not there yet
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise UserError(f"cannot write {output}", "it is a folder", f"use -o {output / 'speech.wav'}")
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or str(output).startswith("\\\\.\\pipe\\"):
        if stat.S_ISCHR(mode) and _is_terminal(output):
            raise UserError(f"cannot write sound to {output}", "it is a terminal", "use -o FILE.wav or --play")
        return _stream(output, form)
    suffix = output.suffix.lower()
    if form == "raw":
        raise UserError(f"cannot write raw sound to {output}", "raw goes to stdout or a named pipe", "use -o -")
    if suffix not in SUFFIXES or (form is not None and suffix != f".{form}"):
        fix = output.with_suffix(f".{form or 'wav'}") if output.name else "speech.wav"
        why = "output is a WAV or FLAC file" if form is None else f"--format {form} and the suffix do not agree"
        raise UserError(f"cannot write {output}", why, f"use -o {fix}")
    _check_folder(output)
    return Target(output, is_stream=False)


def stdout_stream() -> BinaryIO:
    """stdout for bytes, unbuffered: what cannot be written is known at once, and nothing waits for the interpreter's end.

    Python opens it without translation of line ends, on Windows too. Closing it leaves sys.stdout as it is.
    """
    sys.stdout.flush()
    return os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)


def _stream(output: Path, form: str | None) -> Target:
    if form == "flac":
        raise UserError("FLAC cannot be streamed", "its header needs the end", "use --format wav, or -o FILE.flac")
    raw = form == "raw" or (form is None and output.suffix.lower() in (".raw", ".pcm"))
    return Target(output, is_stream=True, raw=raw)


def _check_folder(output: Path) -> None:
    """Raise UserError where the folder of `output` cannot be made or written to, as far as the system tells before."""
    there = next((folder for folder in output.parents if folder.exists()), None)
    if there is None:
        return
    if not there.is_dir():
        raise UserError(f"cannot write {output}", f"{there} is no folder", "choose another -o")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {output}", f"you may not write in {there}", "choose another -o")


def _is_terminal(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return False
    try:
        return os.isatty(descriptor)
    finally:
        os.close(descriptor)
