"""A data set of generated sounds and the command line that trains a small voice on it, for tests of training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

SMALL = (
    "--model.hidden_channels=32", "--model.inter_channels=32", "--model.filter_channels=64", "--model.n_layers=2",
    "--model.upsample_initial_channel=32", "--model.resblock_kernel_sizes=[3]",
    "--model.resblock_dilation_sizes=[[1,2]]", "--model.segment_size=2048",
)  # fmt: skip
WORDS = ("do", "re", "mi", "fa", "sol", "la", "ti", "ut")


def write_sung(folder: Path, clips: int = 12, rate: int = 22050, speakers: int = 1) -> Path:
    """Write metadata.csv and wavs/ of `clips` sung syllables, 0.4 to 0.7 s each; return the csv's path."""
    (folder / "wavs").mkdir(parents=True)
    rows = []
    for number in range(clips):
        rng = np.random.default_rng(number)
        count = int(rate * (0.4 + 0.3 * rng.random()))
        t = np.arange(count) / rate
        pitch = 120 * 2 ** (number % 8 / 12)
        tone = sum(np.sin(2 * np.pi * pitch * h * t) / h for h in range(1, 9))
        sound = 0.2 * tone * np.hanning(count) + 0.003 * rng.standard_normal(count)
        soundfile.write(folder / "wavs" / f"{number}.wav", sound.astype(np.float32), rate)
        speaker = f"|s{number % speakers}" if speakers > 1 else ""
        rows.append(f"{number}.wav{speaker}|{WORDS[number % 8]} {WORDS[number * 3 % 8]}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "metadata.csv"


def command(csv: Path, root: Path, *more: str, small: tuple[str, ...] = SMALL) -> list[str]:
    """Words after `python -m piper_train` for a training below `root` on the CPU; no espeak is needed."""
    return [
        "fit", *small, f"--data.csv_path={csv}", f"--data.audio_dir={csv.parent / 'wavs'}",
        f"--data.cache_dir={csv.parent / '.cache'}", f"--data.config_path={csv.parent / 'config.json'}",
        "--data.voice_name=sung", "--data.espeak_voice=en", "--data.phoneme_type=text", "--data.trim_silence=false",
        "--data.batch_size=5", "--data.num_workers=0", "--data.num_test_examples=2", "--data.prepare_workers=1",
        "--trainer.accelerator=cpu", "--trainer.devices=1", f"--trainer.default_root_dir={root}", *more,
    ]  # fmt: skip
