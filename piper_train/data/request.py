"""What a data set is prepared with: the `data.*` options that preparation needs."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

from fish_speech.errors import UserError
from piper_train.phonemes.phonemizer import SOURCES
from piper_train.quality import QUALITIES
from piper_train.voice_config import PHONEME_TYPES

from .entries import Preparation

DATASET_TYPES = ("text", "phoneme_ids")
_SAMPLE_RATES = (8000, 96000)  # Hz
_AT_LEAST_1 = (
    "num_symbols", "num_speakers", "filter_length", "hop_length", "segment_size", "max_phoneme_ids", "workers",
)  # fmt: skip
_KNOWN = {
    "dataset_type": DATASET_TYPES,
    "phoneme_type": PHONEME_TYPES,
    "phoneme_source": SOURCES,
    "quality": tuple(QUALITIES),
}


@dataclass(frozen=True)
class PrepareRequest:
    """Names and defaults are those of the data module. Wrong values raise UserError when it is made."""

    csv_path: Path  # metadata.csv, a folder with one, or a folder of prepare_dataset.py
    cache_dir: Path
    config_path: Path  # the voice's config.json, written
    espeak_voice: str
    voice_name: str = ""  # config.json's `dataset`
    audio_dir: Path | None = None  # None: the folder of csv_path, and its wavs/
    sample_rate: int = 22050  # Hz
    num_symbols: int = 256
    num_speakers: int = 1
    filter_length: int = 1024
    hop_length: int = 256
    segment_size: int = 8192  # samples of a training slice
    trim_silence: bool = True
    keep_seconds_before_silence: float = 0.25
    keep_seconds_after_silence: float = 0.25
    phoneme_type: str | None = None  # None: espeak
    dataset_type: str = "text"
    phonemes_path: Path | None = None  # table of phonemes, JSON
    vowel_clusters: str | None = None  # JSON text
    phoneme_source: str = "auto"  # auto, piper, espeak-ng
    min_seconds: float | None = None  # of a clip without its silence; None: a training slice
    max_seconds: float = 30.0
    max_phoneme_ids: int | None = None  # None: no limit
    quality: str | None = None  # config.json's audio.quality
    workers: int | None = None  # processes; None: as many as are of use

    def __post_init__(self):
        problems = list(self._problems())
        if problems:
            raise UserError("the options of the data set do not fit", "; ".join(problems), "correct them")

    def _problems(self):
        low, high = _SAMPLE_RATES
        if not low <= self.sample_rate <= high:
            yield f"sample_rate is {self.sample_rate}; voices have {low} to {high} Hz"
        for name in _AT_LEAST_1:
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name} is {value}; it is at least 1"
        for name in ("keep_seconds_before_silence", "keep_seconds_after_silence", "max_seconds", "min_seconds"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                yield f"{name} is {value}; it is a number of at least 0"
        for name, known in _KNOWN.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                yield f"{name} is {value!r}; known are {', '.join(known)}"
        if self.phoneme_type == "text" and self.vowel_clusters:
            yield "vowel_clusters have no effect with phoneme_type text: each character is a phoneme"
        if not self.espeak_voice.strip():
            yield "espeak_voice is empty; say a language such as ru or en-us"
        if self.shortest_s >= self.max_seconds:
            yield f"clips of {self.shortest_s:.2f} s at least and {self.max_seconds:g} s at most leave nothing"

    @property
    def preparation(self) -> Preparation:
        """How recordings become sound."""
        margins = (self.keep_seconds_before_silence, self.keep_seconds_after_silence)
        return Preparation(self.sample_rate, self.trim_silence, *map(float, margins))

    @property
    def shortest_s(self) -> float:
        """Seconds of the shortest clip: a training slice, and in any case what a spectrogram can be padded from."""
        wanted = self.segment_size / self.sample_rate if self.min_seconds is None else self.min_seconds
        fewest = max((self.filter_length - self.hop_length) // 2 + 1, self.hop_length)
        return max(wanted, fewest / self.sample_rate)

    def key(self) -> str:
        """Name the request in a few characters: other options, another index."""
        shaping = {
            name: str(value)
            for name, value in sorted(vars(self).items())
            if name not in ("config_path", "voice_name", "quality", "workers", "cache_dir")
        }
        shaping["csv_path"] = str(Path(self.csv_path).resolve())
        return hashlib.blake2b(json.dumps(shaping).encode(), digest_size=8).hexdigest()
