"""What preparing is tried on: recordings of every kind, long ones with their subtitles, and what must hold of every set."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from fish_speech.prepare.names import text_of

from ..prepare.long_recordings import SAMPLES, LongRecording, long_recording
from .scripts import leftovers, run

FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg program")
_INPUT_SECONDS = ("seconds_kept", "seconds_left_out", "seconds_of_pauses")


def sound(seconds: float, seed: int, rate: int) -> np.ndarray:
    """A made-up voice, float64 (samples,): tones that wander their own way for each seed, with noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    voice = np.zeros(len(time))
    for low in (150, 400, 900, 1600, 2500):  # Hz: the bands of speech
        knots = rng.uniform([low, 0], [1.6 * low, 0.12], (max(2, round(8 * seconds) + 2), 2))
        pitch, level = (np.interp(time, np.linspace(0, seconds, len(knots)), column) for column in knots.T)
        voice += level * np.sin(2 * np.pi * np.cumsum(pitch) / rate)
    return voice + 0.002 * rng.standard_normal(len(time))


def save(path: Path, samples: np.ndarray, rate: int, text: str | None = "Some words.", **how: str) -> Path:
    """Write a recording with any name that the file system takes, and its words beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        soundfile.write(file, samples, rate, **({"format": path.suffix[1:].upper()} | how))
    if text is not None:
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def encode(path: Path, samples: np.ndarray, rate: int, *options: str, text: str = "Some words.") -> Path:
    """Write a recording by the ffmpeg program, in the form that the suffix and `options` say."""
    source = save(path.with_suffix(".source"), samples, rate, None, format="WAV")
    command = ["ffmpeg", "-nostdin", "-v", "error", "-i", str(source), *options, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
    source.unlink()
    path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def subtitles(recording: LongRecording, repetitions: Iterable[int] = (0,)) -> str:
    """The recording's words as .vtt, a cue for each clip, for these of its repetitions."""
    length = len(recording.samples) / recording.sample_rate
    lines = ["WEBVTT", ""]
    for number in repetitions:
        for clip in recording.clips:
            start, end = (number * length + at for at in (clip.start_s, clip.end_s))
            lines += [f"{clock(start)} --> {clock(end)}", clip.text, ""]
    return "\n".join(lines)


def clock(seconds: float, comma: str = ".") -> str:
    """Seconds as subtitles write them."""
    whole = round(seconds * 1000)
    return f"{whole // 3600000:02d}:{whole // 60000 % 60:02d}:{whole // 1000 % 60:02d}{comma}{whole % 1000:03d}"


def talks(folder: Path, texts: Iterable[str], clips: int = 15) -> list[LongRecording]:
    """Write real long recordings, talk0.wav and so on, `clips` of samples/allison each, with their texts beside them.

    `texts` are the kinds of text: vtt or txt. No clip is in two talks.
    """
    names = sorted(path.stem for path in SAMPLES.glob("*.txt"))
    made = []
    for number, kind in enumerate(texts):
        part = folder.parent / f"part{number}"
        part.mkdir(parents=True)
        for name in names[number * clips : (number + 1) * clips]:
            for suffix in (".flac", ".txt"):
                shutil.copyfile(SAMPLES / f"{name}{suffix}", part / f"{name}{suffix}")
        recording = long_recording(part, seed=number)
        shutil.rmtree(part)
        assert len(recording.clips) == clips
        path = save(folder / f"talk{number}.wav", recording.samples, recording.sample_rate, None)
        text = subtitles(recording) if kind == "vtt" else recording.text
        path.with_suffix(f".{kind}").write_text(text, encoding="utf-8")
        made.append(recording)
    return made


def state(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below a folder as it is: kind, bytes, time of change; links are not followed."""
    found: dict[bytes, tuple[object, ...]] = {}
    for root, folders, names in os.walk(os.fsencode(folder)):
        for name in (b".", *folders, *names):
            path = Path(os.fsdecode(os.path.join(root, name)))  # noqa: PTH118
            status = path.lstat()
            bits = path.read_bytes() if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK) else b""
            found[os.fsencode(path)] = (status.st_mode, status.st_mtime_ns, status.st_size, bits)
    return found


def prepare(cwd: Path, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run prepare_dataset.py with one worker, and hold the input folder `in` against what it was."""
    before = state(cwd / "in")
    result = run("prepare_dataset.py", *arguments, "--workers", 1, cwd=cwd, code=code)
    assert state(cwd / "in") == before
    return result


def rows_of(output: Path) -> list[dict[str, Any]]:
    """The manifest."""
    lines = (output / "manifest.jsonl").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""  # the last line has its end
    return [json.loads(line) for line in lines]


def summary_of(output: Path) -> dict[str, Any]:
    """The summary."""
    return json.loads((output / "dataset_summary.json").read_text(encoding="utf-8"))


def named(output: Path) -> dict[str, dict[str, Any]]:
    """The manifest by the recordings' file names, for sets of recordings that are one row each."""
    rows = rows_of(output)
    found = {row["source"].replace("\\", "/").rpartition("/")[2]: row for row in rows}
    assert len(found) == len(rows)
    return found


def check_set(output: Path, sources: Iterable[Path]) -> list[dict[str, Any]]:
    """Hold a set against what every ending of a run promises, and return its manifest.

    Every source has a row; every second is kept, left out with the reason or a pause; every clip is whole and explained.
    """
    rows, summary = rows_of(output), summary_of(output)
    assert {row["source"] for row in rows} == {text_of(path) for path in sources}
    assert leftovers(output) == [] and not (output / ".prepare-journal.jsonl").exists()
    seconds = pauses = 0.0
    recordings: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        recordings.setdefault((row["source"], row["speaker"]), []).append(row)
    for own in recordings.values():
        length = own[0]["source_s"] or 0.0
        assert {row["source_s"] for row in own} == {own[0]["source_s"]}
        edges = [0.0, *(edge for row in own if row["end_s"] is not None for edge in (row["start_s"], row["end_s"]))]
        assert edges == sorted(edges) and edges[-1] <= length + 1e-3, own[0]["source"]  # apart, and inside
        seconds += length
        pauses += length - sum(row["end_s"] - row["start_s"] for row in own if row["end_s"] is not None)
    told = summary["input"]
    assert told["files"] == len(recordings)
    assert told["seconds"] == pytest.approx(seconds, abs=1e-3)
    assert told["seconds_of_pauses"] == pytest.approx(pauses, abs=1e-3)
    assert told["seconds"] == pytest.approx(sum(told[name] for name in _INPUT_SECONDS), abs=1e-3)
    assert sum(summary["left_out_seconds"].values()) == pytest.approx(told["seconds_left_out"], abs=1e-3)
    kept = [row for row in rows if row["clip"] is not None]
    assert summary["total_files"] == len(kept) and sum(summary["left_out"].values()) == len(rows) - len(kept)
    assert summary["total_duration_minutes"] == pytest.approx(sum(row["duration_s"] for row in kept) / 60, abs=1e-4)
    for row in rows:
        assert (row["clip"] is None) == bool(row["left_out"]) and "\n" not in (row["left_out"] or "")
    check_clips(output, kept)
    return rows


def check_clips(output: Path, kept: list[dict[str, Any]]) -> None:
    """Every clip is a whole 44.1 kHz 16-bit mono WAV with its words, and nothing else lies there."""
    clips = [row["clip"] for row in kept]
    assert len({clip.casefold() for clip in clips}) == len(clips)
    files = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.suffix in (".wav", ".lab")}
    assert files == {name for clip in clips for name in (clip, clip.removesuffix(".wav") + ".lab")}
    for row in kept:
        path = output / row["clip"]
        assert path.resolve().is_relative_to(output.resolve()) and len(Path(row["clip"]).parts) == 2
        info = soundfile.info(path if os.name == "nt" else os.fsencode(path))
        assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 44100, 1)
        assert info.frames == round(row["duration_s"] * 44100) > 0
        assert path.stat().st_size == 44 + 2 * info.frames
        text = path.with_suffix(".lab").read_text(encoding="utf-8")
        assert text and text == text.strip() == row["text"]
