"""A small Piper voice for tests: its network, and a data set of a few spoken sentences."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

# A generator that takes milliseconds; its discriminators are the real ones, and their time is that of the slices.
SMALL = """\
model:
  hidden_channels: 32
  inter_channels: 32
  filter_channels: 64
  n_layers: 2
  upsample_initial_channel: 32
  resblock_kernel_sizes: [3]
  resblock_dilation_sizes: [[1, 2]]
  segment_size: 2048
"""
QUIET = ("--data.num_workers", 0, "--data.num_test_examples", 1, "--trainer.accelerator", "cpu")

needs_programs = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="needs the program espeak-ng, which reads the sentences"
)


def small_yaml(folder: Path) -> Path:
    """Write the small network as a yaml file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.yaml").write_text(SMALL, encoding="utf-8")
    return folder / "small.yaml"


def fit(data: Path, *arguments: object) -> tuple[object, ...]:
    """The command line of `fit` on a folder as the guide has it, with the small network."""
    return (
        "fit", "--config", small_yaml(data.parent),
        *("--data.config_path", data / "config.json", "--data.voice_name", "my_voice"),
        *("--data.csv_path", data / "metadata.csv", "--data.audio_dir", data / "wavs"),
        *("--data.cache_dir", data / ".cache", "--data.espeak_voice", "ru", "--model.sample_rate", 22050),
        *QUIET, *arguments,
    )  # fmt: skip
