"""Optional packages that measures need: import one, or say how to get it."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from ..errors import UserError

INSTALL = "pip install 'fish-speech-voice-toolkit[eval]'"


def require(module: str, purpose: str) -> ModuleType:
    """Import an optional module; raise UserError that names what it is for if it is missing or broken."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"{purpose} needs the package {module}", str(error), INSTALL) from error


def missing(*modules: str) -> list[str]:
    """Those of `modules` that are not installed. Imports none of them."""
    return [module for module in modules if importlib.util.find_spec(module) is None]
