"""The two families as tests that are the same for both need to know them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..conftest import S1_RATE, S1_SAMPLES_PER_FRAME
from .scripts import BASE, S1_BASE


@dataclass(frozen=True)
class Family:
    """A model version and the small folder that stands for it."""

    version: str
    fixture: str  # of the small folder
    place: Path  # where the scripts look for it
    codebooks: int
    sample_rate: int  # Hz
    samples_per_frame: int

    @property
    def flags(self) -> tuple[str, str]:
        """Of finetune_tts.py and others."""
        return ("--model-version", self.version)


FAMILIES = {
    "1.5": Family("1.5", "small_base", BASE, 8, 44100, 2048),
    "s1-mini": Family("s1-mini", "small_s1_base", S1_BASE, 10, S1_RATE, S1_SAMPLES_PER_FRAME),
}
