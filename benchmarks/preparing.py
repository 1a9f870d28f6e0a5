"""Material and baseline for measuring prepare_dataset.py: hours of speech with subtitles, and librosa's load-and-split.

`python -m benchmarks.preparing FILE OUTPUT` does with librosa what the toolkit is compared to, and prints a line
of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import soundfile

SAMPLES = Path(__file__).parents[1] / "samples"
SAMPLE_RATE = 44100  # Hz
GAP_S = (0.25, 1.2)
TOP_DB = 40  # librosa's threshold: below the loudest is silence


def write_recording(path: Path, duration_s: float, seed: int = 0) -> Path:
    """Write a recording of about `duration_s` as 16-bit WAV, with a .vtt beside it: samples/, joined by faint noise.

    No two passages are alike: each time a sample comes back it is a little faster or slower. Written block by block.
    """
    from fish_speech.audio import read_audio, resample

    rng = np.random.default_rng(seed)
    clips = [(read_audio(clip)[0], clip.with_suffix(".txt")) for clip in sorted(SAMPLES.rglob("*.flac"))]
    cues, position, number = ["WEBVTT\n"], 0, 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16") as file:
        while position < duration_s * SAMPLE_RATE:
            sound, text = clips[number % len(clips)]
            sound = resample(sound, 16000 + 160 * int(rng.integers(-8, 9)), SAMPLE_RATE)
            gap = 0.0005 * rng.standard_normal(round(rng.uniform(*GAP_S) * SAMPLE_RATE))
            file.write(gap)
            start = position + len(gap)
            position = start + len(sound)
            file.write(sound + 0.0005 * rng.standard_normal(len(sound)))
            cues.append(f"{_clock(start)} --> {_clock(position)}\n{text.read_text(encoding='utf-8').strip()}\n")
            number += 1
    path.with_suffix(".vtt").write_text("\n".join(cues), encoding="utf-8")
    return path


def _clock(samples: int) -> str:
    milliseconds = round(1000 * samples / SAMPLE_RATE)
    seconds, minutes = milliseconds // 1000, milliseconds // 60_000
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds % 60:02d}.{milliseconds % 1000:03d}"


def split_by_librosa(source: Path, output: Path) -> dict[str, float]:
    """Load the whole recording at 44.1 kHz, split it at silences, make each stretch -23 LUFS and write it."""
    import librosa
    import pyloudnorm

    output.mkdir(parents=True)
    waveform, rate = librosa.load(source, sr=SAMPLE_RATE, mono=True)
    meter, seconds = pyloudnorm.Meter(rate), 0.0
    for number, (start, end) in enumerate(librosa.effects.split(waveform, top_db=TOP_DB)):
        clip = waveform[start:end]
        if len(clip) > 0.4 * rate:
            clip = pyloudnorm.normalize.loudness(clip, meter.integrated_loudness(clip), -23.0)
        soundfile.write(output / f"{number:05d}.wav", clip, rate, subtype="PCM_16")
        seconds += len(clip) / rate
    return {"seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(split_by_librosa(Path(sys.argv[1]), Path(sys.argv[2]))))
