"""NVIDIA's cards and driver as the system sees them, without torch."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .findings import one_line
from .install import run_program

_PCI = Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAYS = "0x10de", ("0x0300", "0x0302")  # PCI vendor; classes: VGA, 3D controller
_QUERY = ("--query-gpu=name,driver_version", "--format=csv,noheader")


@dataclass(frozen=True)
class Nvidia:
    """What was found. `trouble` is what nvidia-smi complains of, where it is there and fails."""

    cards: tuple[str, ...] = ()
    driver: str = ""
    cuda: str = ""  # the newest CUDA that the driver runs
    trouble: str = ""

    def __str__(self) -> str:
        cards = ", ".join(self.cards) or "no card"
        driver = f", driver {self.driver}" if self.driver else ""
        return cards + driver + (f" for CUDA up to {self.cuda}" if self.cuda else "")


def find_nvidia() -> Nvidia:
    """Ask nvidia-smi, which comes with the driver; where it does not answer, look at Linux's list of devices."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return Nvidia(cards=_cards_of_linux())
    try:
        code, output = run_program([program, *_QUERY])
        lines = [line.rsplit(", ", 1) for line in output.splitlines() if ", " in line]
        if code or not lines:
            return Nvidia(cards=_cards_of_linux(), trouble=one_line(output) or f"nvidia-smi ended with {code}")
        newest = re.search(r"CUDA Version: *([\d.]+)", run_program([program])[1])
    except (OSError, subprocess.TimeoutExpired) as error:
        return Nvidia(cards=_cards_of_linux(), trouble=one_line(error))
    cards = tuple(one_line(name) for name, _ in lines)
    return Nvidia(cards, one_line(lines[0][1]), newest[1] if newest else "")


def _cards_of_linux() -> tuple[str, ...]:
    if sys.platform != "linux" or not _PCI.is_dir():
        return ()
    found = []
    for device in sorted(_PCI.iterdir()):
        try:
            vendor, kind = ((device / name).read_text(encoding="ascii").strip() for name in ("vendor", "class"))
        except OSError:
            continue
        if vendor == _NVIDIA and kind[:6] in _DISPLAYS:
            found.append(f"NVIDIA card at {device.name}")
    return tuple(found)
