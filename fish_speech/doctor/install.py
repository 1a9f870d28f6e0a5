"""Programs and packages: run one with a time limit, say how to install it here, and what this toolkit asks for."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

PROJECT = "fish-speech-voice-toolkit"
PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
PROGRAM_LIMIT_S = 30.0
_LINUX: tuple[tuple[str, str, dict[str, str]], ...] = (  # the first that is there; without any, all are named
    ("apt-get", "sudo apt-get install {}", {}),
    ("dnf", "sudo dnf install {}", {"ffmpeg": "ffmpeg-free"}),
    ("pacman", "sudo pacman -S {}", {}),
    ("zypper", "sudo zypper install {}", {}),
)
_WINGET = {"ffmpeg": "Gyan.FFmpeg"}


def run_program(command: Sequence[str], limit_s: float = PROGRAM_LIMIT_S) -> tuple[int, str]:
    """Return a program's exit code and all it says. Raises OSError if it cannot start, TimeoutExpired if it hangs."""
    result = subprocess.run(
        list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s
    )
    return result.returncode, result.stdout.decode("utf-8", "replace")


def install_program(name: str, system: str | None = None) -> str:
    """The command that installs a program on this platform. `system` as platform.system() says it."""
    system = system or platform.system()
    if system == "Darwin":
        return f"brew install {name}"
    if system == "Windows":
        return f"winget install {_WINGET.get(name, name)}, then open a new terminal"
    lines = [(program, line.format(names.get(name, name))) for program, line, names in _LINUX]
    here = next((line for program, line in lines if shutil.which(program)), None)
    return here or f"{lines[0][1]} (Debian, Ubuntu), {lines[1][1]} (Fedora), or your system's way to install {name}"


def install_driver(system: str | None = None) -> str:
    """How to get NVIDIA's driver on this platform."""
    system = system or platform.system()
    if system == "Windows":
        return "install the driver from https://www.nvidia.com/drivers and restart"
    if shutil.which("ubuntu-drivers"):
        return "sudo ubuntu-drivers install, and restart"
    if shutil.which("apt-get"):
        return "sudo apt-get install nvidia-driver (Debian: its section non-free), and restart"
    if shutil.which("dnf"):
        return "sudo dnf install akmod-nvidia (of RPM Fusion), and restart"
    return "install your distribution's NVIDIA driver, or that of https://www.nvidia.com/drivers, and restart"


def install_toolkit() -> str:
    """The command that installs what this toolkit needs."""
    if PYPROJECT.is_file():
        return f"in {PYPROJECT.parent}: pip install -e ."
    return f"pip install --upgrade {PROJECT}"


def supported_python() -> str:
    """The Python versions that this toolkit runs on, as a version specifier."""
    if PYPROJECT.is_file():  # Python 3.10 has no tomllib; the line is ours, and a test reads it with tomllib too
        found = re.search(r'^requires-python = "([^"]+)"$', PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1]
    return metadata.metadata(PROJECT)["Requires-Python"]


def allows(specifier: str, version: tuple[int, int]) -> bool:
    """Whether a specifier of major.minor bounds allows a version; for Python itself, which may have no packages yet."""
    bounds = re.findall(r"(>=|<)\s*(\d+)\.(\d+)", specifier)
    return all(
        version >= (int(major), int(minor)) if sign == ">=" else version < (int(major), int(minor))
        for sign, major, minor in bounds
    )


def requirements() -> dict[str, str]:
    """The packages that this toolkit cannot do without: name on PyPI -> version specifier."""
    if PYPROJECT.is_file():
        text = PYPROJECT.read_text(encoding="utf-8")
        block = re.search(r"^dependencies = \[$(.*?)^\]$", text, re.MULTILINE | re.DOTALL)
        lines = re.findall(r'^\s*"([^"]+)",?$', block[1], re.MULTILINE) if block else []
    else:
        lines = [line for line in metadata.requires(PROJECT) or [] if "extra ==" not in line]
    found = (re.match(r"([\w.-]+)(?:\[[\w,-]*\])?\s*\(?([^;)]*)", line) for line in lines)
    return {match[1]: match[2].strip() for match in found if match}


def in_range(version: str, specifier: str) -> bool:
    """Whether a version is one that `specifier` allows, pre-releases too."""
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)


def is_newer(version: str, specifier: str) -> bool:
    """Whether a version that is not allowed is past the newest that is."""
    from packaging.specifiers import SpecifierSet

    return not in_range(version, specifier) and all(
        bound.contains(version, prereleases=True) for bound in SpecifierSet(specifier) if bound.operator in (">=", ">")
    )
