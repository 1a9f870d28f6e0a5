"""Small data sets for tests: sounds of a second that need no phonemizer, and real speech from the samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fish_speech.audio import write_wav
from piper_train.data.request import PrepareRequest

RATE = 22050
SAMPLES = Path(__file__).parents[2] / "samples" / "allison"
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


def tone(seconds: float, number: int = 0, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    """A sine of its own pitch for each number, float32 (samples,)."""
    times = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * (200 + 10 * number) * times)).astype(np.float32)


def text_of(number: int) -> str:
    """A short text of its own for each number."""
    return f"{WORDS[number % len(WORDS)]} {WORDS[number // len(WORDS) % len(WORDS)]}"


def write_data_set(folder: Path, count: int, speakers: int = 1, seconds: float = 0.6) -> Path:
    """Write metadata.csv and wavs/; return the metadata.csv."""
    (folder / "wavs").mkdir(parents=True)
    lines = []
    for number in range(count):
        write_wav(folder / "wavs" / f"{number:03d}.wav", tone(seconds + 0.01 * number, number), RATE)
        speaker = f"speaker{number % speakers}|" if speakers > 1 else ""
        lines.append(f"{number:03d}.wav|{speaker}{text_of(number)}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "metadata.csv"


def request_for(csv_path: Path, **options) -> PrepareRequest:
    """A request that makes phonemes of letters and trims nothing, so that no program and no model is needed."""
    folder = csv_path if csv_path.is_dir() else csv_path.parent
    given = {
        "csv_path": csv_path,
        "cache_dir": folder / ".cache",
        "config_path": folder / "config.json",
        "espeak_voice": "en-us",
        "phoneme_type": "text",
        "trim_silence": False,
        "workers": 1,
    }
    return PrepareRequest(**{**given, **options})
