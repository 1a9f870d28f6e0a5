"""How much memory this system has, and how much of it a program can still get."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any


def memory() -> tuple[int | None, int | None]:
    """Bytes of memory, and bytes that are free or can be made so; None where the system does not say.

    In a container its limit counts, not the machine's memory.
    """
    total, free = _memory_of_system()
    limit, used = _number(Path("/sys/fs/cgroup/memory.max")), _number(Path("/sys/fs/cgroup/memory.current"))
    if total is not None and limit is not None and limit < total:
        total = limit
        if free is not None and used is not None:
            free = max(0, min(free, limit - used + _cached(Path("/sys/fs/cgroup/memory.stat"))))
    return total, free


def _memory_of_system() -> tuple[int | None, int | None]:
    if sys.platform == "linux":
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        values = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.endswith(" kB")}
        return values["MemTotal"], values.get("MemAvailable")
    if sys.platform == "win32":
        return _memory_of_windows()
    if sys.platform == "darwin":
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), free_of_vm_stat(_said_by_vm_stat())
    return None, None


def free_of_vm_stat(text: str) -> int | None:
    """Bytes that macOS has free or can free at once, by what its program vm_stat prints."""
    page = re.search(r"page size of (\d+) bytes", text)
    counts = dict(re.findall(r"^Pages (free|inactive|speculative): +(\d+)\.", text, re.MULTILINE))
    return int(page[1]) * sum(map(int, counts.values())) if page and counts else None


def _said_by_vm_stat() -> str:
    try:
        return subprocess.run(["vm_stat"], capture_output=True, text=True, timeout=30, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


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


def _cached(path: Path) -> int:
    """Bytes of files that a container's system would give up, by its memory.stat; they count as used there."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
