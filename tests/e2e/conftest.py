"""A base model where the scripts look for it, and a voice made from four recordings, for tests to speak with or go on from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import filelock
import pytest

from .scripts import put_base, record, run

RECORDINGS = {  # file: seconds, words
    "anna/one.wav": (0.9, "One is the first."),
    "anna/two.flac": (1.3, "Two comes after one."),
    "ben/Three.WAV": (1.1, "Three follows two."),
    "ben/four.wav": (0.7, "Four ends it."),
}
# A rate so high that four steps change what the voice says. Spoken samples and tournaments take most of a short run's
# time and have tests of their own.
TRAINING = ("--batch-size", 2, "--max-length", 128, "--learning-rate", 0.01, "--warmup-steps", 0,
            "--sample-every-n-steps", 0, "--device", "cpu")  # fmt: skip
FULL_PIPELINE = ("--full-pipeline", "--tournament-texts", 0)


@pytest.fixture()
def workspace(tmp_path, small_base) -> Path:
    """A folder to work in, with a base model where the scripts look for one."""
    put_base(tmp_path, small_base)
    return tmp_path


@pytest.fixture(scope="session")
def finished(tmp_path_factory, small_base) -> Path:
    """A folder in which `voice` went the whole way from four recordings in 4 steps; read only.

    Its file said.txt holds what the full pipeline printed. Made once for all processes of the test run.
    """
    shared = tmp_path_factory.getbasetemp()
    folder = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "finished"
    with filelock.FileLock(f"{folder}.lock"):
        if not (folder / "said.txt").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            put_base(folder, small_base)
            for number, (name, (seconds, words)) in enumerate(RECORDINGS.items()):
                record(folder / "recordings" / name, seconds, number, words, rate=[16000, 22050, 44100, 48000][number])
            prepared = run(
                "prepare_dataset.py",
                *("--input", "recordings", "--output", "training_data/voice", "--workers", 1),
                cwd=folder,
            )
            full = run(
                "finetune_tts.py",
                *("--project", "voice", "--data-dir", "training_data/voice", *FULL_PIPELINE, "--max-steps", 4),
                *TRAINING,
                cwd=folder,
            )
            (folder / "said.txt").write_text(prepared.stdout + full.stdout + full.stderr, encoding="utf-8")
    return folder


@pytest.fixture()
def again(finished, tmp_path) -> Path:
    """A copy of that folder, with all times kept, for tests that go on from it."""
    return Path(shutil.copytree(finished, tmp_path / "again", copy_function=shutil.copy2))
