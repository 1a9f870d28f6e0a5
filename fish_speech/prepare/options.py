"""What a person asks of a preparation."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..recognition import Recognizer
from .names import one_line
from .segments import Limits
from .speech import SilenceThreshold, SileroVad

SAMPLE_RATE = 44100  # Hz of clips; the highest that a model version's codec takes, and extraction resamples
TARGET_LUFS = -23.0  # integrated loudness of a normalized clip (EBU R 128)
TRUE_PEAK_DBTP = -1.0  # no normalized clip goes above


@dataclass(frozen=True)
class Recognition:
    """Which recogniser, so that any process can load it."""

    asr: str  # whisper, faster-whisper or pocketsphinx
    whisper_model: str | None = None
    language: str | None = None  # None: as the recogniser hears
    # How to load it changes no clip: these are no part of what a clip is made with (see plan.digest).
    device: str = field(default="auto", repr=False)
    download: bool = field(default=False, repr=False)  # fetch the model if it is not here

    @property
    def label(self) -> str:
        """What the manifest calls it."""
        return self.asr if self.whisper_model is None else f"{self.asr} {Path(self.whisper_model).name}"

    def load(self) -> Recognizer:
        """The recogniser itself, loaded once per process; UserError if it cannot be had."""
        from ..recognition import load_recognizer

        return load_recognizer(self.asr, self.whisper_model, self.language, self.device, self.download)


@dataclass(frozen=True)
class Processing:
    """What decides how a recording becomes clips."""

    normalize: bool = True
    split: bool = True  # recordings longer than a clip may be; else each recording is one clip
    limits: Limits = field(default_factory=Limits)
    detector: SileroVad | SilenceThreshold = field(default_factory=SileroVad)  # finds the pauses
    max_duration_s: float | None = None  # of each recording, from its start
    transcribe: bool = False  # recognise what has no text, and check the texts that there are
    recognition: Recognition | None = None  # None: nothing needs it
    dnsmos: bool = False

    def as_dict(self) -> dict[str, Any]:
        """What is stored in the summary."""
        values = asdict(self)
        return {
            "normalize": self.normalize,
            "target_lufs": TARGET_LUFS if self.normalize else None,
            "true_peak_dbtp": TRUE_PEAK_DBTP if self.normalize else None,
            "sample_rate": SAMPLE_RATE,
            "split": self.split,
            "segment_duration_s": self.limits.target_s if self.split else None,
            "min_segment_s": self.limits.min_s if self.split else None,
            "max_segment_s": self.limits.max_s if self.split else None,
            "pauses": {"by": type(self.detector).__name__, **values["detector"]} if self.split else None,
            "max_duration_s": self.max_duration_s,
            "transcribe": self.transcribe,
            "recognition": values["recognition"],
            "dnsmos": self.dnsmos,
        }


@dataclass(frozen=True)
class Options:
    """The whole request."""

    inputs: tuple[str, ...]  # folders, files, URLs
    output: Path
    speaker: str | None = None
    processing: Processing = field(default_factory=Processing)
    workers: int | None = (
        1  # None: one per core, or one if a neural recogniser, which takes all cores itself, is needed
    )
    ray: bool = False
    asr: str | None = None  # recogniser asked for; None: the best that is there
    whisper_model: str | None = None
    language: str | None = None
    device: str = "auto"
    check_speaker: bool = False
    report: bool = False

    def as_dict(self) -> dict[str, object]:
        """What is stored in the summary."""
        return {**self.processing.as_dict(), "speaker": None if self.speaker is None else one_line(self.speaker)}
