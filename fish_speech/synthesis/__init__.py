"""From text to sound: sampling, generation with cached keys and values, voices, effects and speech.

torch is loaded when one of the names below is first asked for: voices are listed and the cache is looked at without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .generation import generate, generate_columns
    from .sampling import SamplingConfig

__all__ = ["SamplingConfig", "generate", "generate_columns"]


def __getattr__(name: str) -> Any:
    """Look up one of the names above where it is defined."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{'sampling' if name == 'SamplingConfig' else 'generation'}"), name)
