"""From text to sound: sampling, generation with cached keys and values, voices and speech."""

from .generate import generate, generate_columns
from .sampling import SamplingConfig

__all__ = ["SamplingConfig", "generate", "generate_columns"]
