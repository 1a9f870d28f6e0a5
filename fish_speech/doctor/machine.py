"""The machine below everything: Python, operating system, memory, cores."""

from __future__ import annotations

import os
import platform
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .findings import Finding
from .install import allows, run_program, supported_python

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


def memory() -> tuple[int | None, int | None]:
    """Bytes of memory, and bytes that are free or can be made so; None where the system does not say.

    In a container its limit counts, not the machine's memory.
    """
    total, free = _memory_of_system()
    limit, used = _number(Path("/sys/fs/cgroup/memory.max")), _number(Path("/sys/fs/cgroup/memory.current"))
    if total is not None and limit is not None and limit < total:
        total = limit
        if free is not None and used is not None:
            free = max(0, min(free, limit - used))
    return total, free


def _memory_of_system() -> tuple[int | None, int | None]:
    if sys.platform == "linux":
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
        return values["MemTotal"], values.get("MemAvailable")
    if sys.platform == "win32":
        return _memory_of_windows()
    if sys.platform == "darwin":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), free_of_vm_stat(run_program(["vm_stat"])[1])
    return None, None


def free_of_vm_stat(text: str) -> int | None:
    """Bytes that macOS has free or can free at once, by what its program vm_stat prints."""
    page = re.search(r"page size of (\d+) bytes", text)
    counts = dict(re.findall(r"^Pages (free|inactive|speculative): +(\d+)\.", text, re.MULTILINE))
    return int(page[1]) * sum(map(int, counts.values())) if page and counts else None


def _memory_of_windows() -> tuple[int | None, int | None]:
    import ctypes

    class Status(ctypes.Structure):  # MEMORYSTATUSEX
        _fields_ = [("length", ctypes.c_uint32), ("load", ctypes.c_uint32)] + [
            (name, ctypes.c_uint64)
            for name in ("total", "free", "total_page", "free_page", "total_virtual", "free_virtual", "extended")
        ]

    status: Any = Status()
    status.length = ctypes.sizeof(Status)
    windll: Any = getattr(ctypes, "windll")  # noqa: B009 - elsewhere there is none
    if not windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None, None
    return status.total, status.free


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
