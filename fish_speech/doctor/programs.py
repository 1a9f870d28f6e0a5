"""The programs ffmpeg and ffprobe, which read what libsndfile cannot."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

from .findings import Finding, one_line
from .install import PROGRAM_LIMIT_S, install_program, run_program


def look_at_ffmpeg() -> Iterator[Finding]:
    """Find both programs and start them; ffprobe comes with ffmpeg."""
    for name in ("ffmpeg", "ffprobe"):
        yield look_at_program(name)


def look_at_program(name: str) -> Finding:
    """Find and start one of ffmpeg's programs."""
    path, fix = shutil.which(name), install_program("ffmpeg")
    if path is None:
        return Finding(name, "wrong", "not found on PATH: m4a, AAC, wma, webm and video cannot be read", fix)
    fix = f"remove {path} or mend it; a working one: {fix}"
    try:
        code, output = run_program([path, "-version"])
    except subprocess.TimeoutExpired:
        return Finding(name, "wrong", f"{path} does not answer within {PROGRAM_LIMIT_S:g} s", fix)
    except OSError as error:
        return Finding(name, "wrong", f"{path} cannot be started: {one_line(error)}", fix)
    version = re.match(rf"{name} version (\S+)", output)
    if code or not version:
        said = one_line(output) or "nothing"
        return Finding(name, "wrong", f"{path} -version ended with {code} and says: {said}", fix)
    return Finding(name, "good", f"{version[1]}, {path}")


def ffmpeg_works() -> bool:
    """Whether both programs run: one that hangs must not be given files."""
    return all(look_at_program(name).state == "good" for name in ("ffmpeg", "ffprobe"))
