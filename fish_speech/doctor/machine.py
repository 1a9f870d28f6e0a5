"""The machine below everything: Python, operating system, memory, cores."""

from __future__ import annotations

import os
import platform
import struct
import sys
from collections.abc import Iterator
from typing import Any

from ..system_memory import memory
from .findings import Finding
from .install import allows, supported_python

GB = 1e9


def look_at_python() -> Iterator[Finding]:
    """Whether this Python is one that the toolkit and torch run on."""
    version, bits = platform.python_version(), struct.calcsize("P") * 8
    found = f"{platform.python_implementation()} {version}, {bits} bits, {sys.executable}"
    supported = supported_python()
    fix = f"install Python {supported} from https://www.python.org, and the toolkit in a new environment of it"
    if not allows(supported, sys.version_info[:2]):
        yield Finding("python", "wrong", f"{found}: supported is {supported}", fix)
    elif bits < 64:
        yield Finding("python", "wrong", f"{found}: torch exists for 64 bits only", fix)
    else:
        yield Finding("python", "good", f"{found}; supported: {supported}")


def look_at_system() -> Iterator[Finding]:
    """Operating system and processor cores."""
    known = platform.system() in ("Linux", "Darwin", "Windows")
    name = f"{platform.system()} {platform.release()} on {platform.machine()}"
    if known:
        yield Finding("system", "good", name)
    else:
        yield Finding("system", "note", f"{name}: the toolkit is tested on Linux, macOS and Windows")
    yield Finding("cores", "good", f"{cores()} of {os.cpu_count()} may be used")


def cores() -> int:
    """Processor cores that this process may use."""
    affinity: Any = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def look_at_memory() -> Iterator[Finding]:
    """How much memory there is; whether that is enough for a run is `room.look_at_memory_of_a_run`."""
    total, free = memory()
    if total is None:
        yield Finding("memory", "note", "this system does not say how much there is")
    else:
        free_part = "" if free is None else f", {free / GB:.1f} GB free"
        yield Finding("memory", "good", f"{total / GB:.1f} GB{free_part}")
