"""One recording with its transcript becomes one clip: 44.1 kHz mono 16-bit WAV with its .lab, and a row that explains it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import MAX_CLIP_S, AudioError, audio_info, measure_lufs, normalize_loudness, read_audio, write_wav
from ..files import write_text
from .names import text_of

SAMPLE_RATE = 44100  # Hz; the highest that a model version's codec takes, and extraction resamples
TARGET_LUFS = -23.0  # integrated loudness of a normalized clip (EBU R 128)
TRUE_PEAK_DBTP = -1.0  # no normalized clip goes above
_WAV_HEADER = 44  # bytes before the sound in the files that write_wav makes

Row = dict[str, Any]  # a line of manifest.jsonl


@dataclass(frozen=True)
class ClipTask:
    """What a worker needs to make one clip."""

    source: Path  # absolute
    speaker: str
    text: str | None
    left_out: str | None  # why there is no text
    root: Path  # the output folder
    clip: str  # path of the .wav below `root`, with forward slashes
    normalize: bool

    @property
    def wav(self) -> Path:
        """The clip's own file."""
        return self.root / self.clip

    @property
    def lab(self) -> Path:
        """The transcript beside the clip."""
        return self.wav.with_suffix(".lab")


def make_clip(task: ClipTask) -> Row:
    """Write the clip and return its row; what cannot be used gives a row with the reason and writes nothing.

    Raises OSError if the output cannot be written. Memory: 0.8 GB for a recording of ten minutes.
    """
    row = _empty_row(task)
    try:
        info = audio_info(task.source)
        row |= {"end_s": round(info.duration_s, 6), "sample_rate": info.sample_rate}
        if task.left_out is not None:
            return row | {"left_out": task.left_out}
        waveform, _ = read_audio(task.source, SAMPLE_RATE, max_duration_s=MAX_CLIP_S)
    except AudioError as error:
        return row | {"left_out": error.reason}
    row["end_s"] = round(len(waveform) / SAMPLE_RATE, 6)  # a header may be wrong
    if task.normalize:
        waveform, loudness = normalize_loudness(waveform, SAMPLE_RATE, TARGET_LUFS, TRUE_PEAK_DBTP)
        lufs, gain_db = loudness.lufs, loudness.gain_db
    else:
        lufs, gain_db = measure_lufs(waveform, SAMPLE_RATE), 0.0
    if lufs is None:
        return row | {"left_out": "silent: nothing is louder than -70 LUFS"}
    # The .lab first: once the .wav is there the clip is whole.
    assert task.text is not None
    write_text(task.lab, task.text)
    clipped = write_wav(task.wav, waveform, SAMPLE_RATE)
    peak = min(1.0, float(np.abs(waveform).max()))
    return row | {
        "clip": task.clip,
        "text": task.text,
        "duration_s": row["end_s"],
        "lufs": round(lufs, 2),
        "peak_dbfs": round(20 * math.log10(peak), 2),
        "gain_db": round(gain_db, 2),
        "clipped_samples": clipped,
    }


def _empty_row(task: ClipTask) -> Row:
    return {
        "source": text_of(task.source),
        "start_s": 0.0,
        "end_s": None,  # seconds of the source; None: unknown, as it cannot be read
        "speaker": task.speaker,
        "clip": None,
        "text": None,
        "left_out": None,
        "duration_s": None,
        "lufs": None,
        "peak_dbfs": None,
        "gain_db": None,
        "clipped_samples": None,
        "sample_rate": None,
        "source_bytes": task.source.stat().st_size if task.source.is_file() else None,
        "normalized": task.normalize,
    }


def done_row(task: ClipTask, row: Row | None, transcript: Path | None) -> Row | None:
    """Return the row of a clip that needs no work, or None. `row` is what an earlier run noted about it.

    Done means made from the source as it is now with the same options, whole, and newer than the source. The text is
    brought up to date here: of transcript and .lab the newer one counts, so corrections in the .lab stay.
    """
    if row is None or task.text is None or transcript is None or row["clip"] != task.clip:
        return None
    try:
        source, wav = task.source.stat(), task.wav.stat()
        same = row["normalized"] == task.normalize and row["source_bytes"] == source.st_size
        whole = wav.st_size == _WAV_HEADER + 2 * round(row["duration_s"] * SAMPLE_RATE)
        if not (same and whole and wav.st_mtime_ns >= source.st_mtime_ns):
            return None
    except OSError:
        return None
    return row | {"text": _current_text(task, transcript)}


def _current_text(task: ClipTask, transcript: Path) -> str:
    assert task.text is not None
    try:
        text = task.lab.read_text(encoding="utf-8")
        if text == task.text or (text.strip() and task.lab.stat().st_mtime_ns > transcript.stat().st_mtime_ns):
            return text.strip()
    except (OSError, UnicodeDecodeError):
        pass  # missing or spoilt: write it again
    write_text(task.lab, task.text)
    return task.text
