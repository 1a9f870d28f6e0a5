"""Optional packages: import one, or say how to get it."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from .errors import UserError


def how_to_install(extra: str = "eval") -> str:
    """The command that installs one of the toolkit's extras."""
    return f"pip install 'fish-speech-voice-toolkit[{extra}]'"


def require(module: str, purpose: str, extra: str = "eval", fix: str = "") -> ModuleType:
    """Import an optional module; raise UserError that names what it is for if it is missing or broken.

    `extra` is the toolkit's extra that brings it; `fix`, where given, is said instead of how to install that.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{purpose} needs the package {module}", str(error), fix or how_to_install(extra)) from error


def missing(*modules: str) -> list[str]:
    """Those of `modules` that are not installed. Imports none of them."""
    return [module for module in modules if importlib.util.find_spec(module) is None]
