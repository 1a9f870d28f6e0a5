"""One clip: 44.1 kHz mono 16-bit WAV with its .lab beside it, and a row of the manifest that explains it."""

from __future__ import annotations

import math
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import measure_lufs, normalize_loudness, resample, write_wav
from ..timeline import Span
from .corrections import Correction, settle_text
from .health import measure
from .names import text_of
from .options import SAMPLE_RATE, TARGET_LUFS, TRUE_PEAK_DBTP, Processing
from .outliers import sound_quality
from .rate import characters_per_s, implausible_rate
from .rows import Row, blank_row
from .transcripts import Transcript

METER_BLOCK_S = 0.4  # the loudness meter needs as much; a shorter clip takes the gain of its recording
_WAV_HEADER = 44  # bytes before the sound in the files that write_wav makes


@dataclass(frozen=True)
class RecordingTask:
    """What a worker needs to make the clips of one recording."""

    source: Path  # absolute
    speaker: str
    root: Path  # the output folder
    stem: str  # of its clips below `root`, with forward slashes: anna/take for anna/take.wav or anna/take__0001.wav
    transcript: Transcript
    processing: Processing
    made_with: str  # digest of all that decides what the clips are
    url: str | None = None  # where the recording came from
    present: frozenset[str] = frozenset()  # clips that are whole already and need not be written again
    corrections: Mapping[str, Correction] = field(default_factory=dict)  # texts that a person corrected, by clip
    threads: int = 1  # that may work on this recording's clips side by side


def clip_name(stem: str, number: int | None = None) -> str:
    """The clip of a whole recording, or its `number`th segment. No other recording's stem has two underscores in a row."""
    return f"{stem}.wav" if number is None else f"{stem}__{number:04d}.wav"


def new_row(task: RecordingTask, start_s: float = 0.0, end_s: float | None = None, **known: Any) -> Row:
    """The row of a segment of which is known where it lies, and what `known` says."""
    heard = task.processing.recognition
    size, modified = state_of(task.source) or (None, None)
    place = {"start_s": round(start_s, 6), "end_s": None if end_s is None else round(end_s, 6)}
    about = {
        "source": text_of(task.source),
        "speaker": task.speaker,
        "transcript": task.transcript.kind or (heard.label if heard is not None and known.get("text") else None),
        "source_bytes": size,
        "source_mtime_ns": modified,
        "url": task.url,
    }
    return blank_row() | about | place | known


def state_of(path: Path) -> tuple[int, int] | None:
    """Bytes and time of change of a file; None if it is no file, or lies where nobody may look."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def finish_clip(
    task: RecordingTask,
    row: Row,
    waveform: np.ndarray,
    sample_rate: int,
    speech: Sequence[Span] | None = None,
    recording_lufs: float | None = None,
) -> Row:
    """Measure float32 (samples,), write it as `row["clip"]` with `row["text"]`, and return the row with its figures.

    The sound is as it was recorded, at its own sample rate. `speech` lies in seconds of the clip; None: unknown. A clip
    shorter than the meter's block becomes as much louder as its recording, whose loudness is `recording_lufs`. A clip
    that turns out to be unusable is not written: its row says why.
    Raises OSError if the output cannot be written.
    """
    health = measure(waveform, sample_rate, speech)
    waveform = resample(waveform, sample_rate, SAMPLE_RATE)
    duration = len(waveform) / SAMPLE_RATE
    rate = characters_per_s(row["text"], duration)
    row = row | {"duration_s": round(duration, 6), **health, "characters_per_s": round(rate, 2)}
    spoken = sum(span.duration_s for span in speech) if speech else duration
    implausible = implausible_rate(row["text"], spoken)
    if implausible:
        return row | {"clip": None, "left_out": implausible}
    if task.processing.normalize:
        known = recording_lufs if duration < METER_BLOCK_S else None
        waveform, loudness = normalize_loudness(waveform, SAMPLE_RATE, TARGET_LUFS, TRUE_PEAK_DBTP, known)
        lufs, gain_db = loudness.lufs, loudness.gain_db
    else:
        lufs, gain_db = measure_lufs(waveform, SAMPLE_RATE), 0.0
    if lufs is None:
        return row | {"clip": None, "left_out": "silent: nothing is louder than -70 LUFS"}
    if task.processing.dnsmos:
        scores = sound_quality(waveform, SAMPLE_RATE)
        row["dnsmos"] = scores and {name: round(score, 2) for name, score in scores.items()}
    # The .lab first: once the .wav is there the clip is whole.
    row = settle_text(task.root, row, task.corrections, task.transcript)
    if row["clip"] not in task.present:
        write_wav(task.root / row["clip"], waveform, SAMPLE_RATE)
    peak = min(1.0, float(np.abs(waveform).max()))
    return row | {
        "lufs": round(lufs, 2),
        "peak_dbfs": round(20 * math.log10(peak), 2),
        "gain_db": round(gain_db, 2),
    }


def is_whole(root: Path, row: Row) -> bool:
    """Whether a row's clip is there and complete."""
    try:
        size = (root / row["clip"]).stat().st_size
    except OSError:
        return False
    return size == _WAV_HEADER + 2 * round(row["duration_s"] * SAMPLE_RATE)
