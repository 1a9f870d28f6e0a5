"""A base model where the scripts look for it, and a voice made from four recordings, for tests to speak with or go on from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest

from .scripts import put_base, put_samples, record, run

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
S1_FOLDER = Path("models/small one")
S1 = ("--model-version", "s1-mini", "--pretrained-ckpt-path", S1_FOLDER)
S1_RECORDINGS = ("conf-kicked", "priv-recordintro", "transfer", "vm-dialout")  # of samples/allison, 2.2 to 2.4 s


@pytest.fixture()
def workspace(tmp_path, small_base) -> Path:
    """A folder to work in, with a base model where the scripts look for one."""
    put_base(tmp_path, small_base)
    return tmp_path


def made_once(tmp_path_factory, name: str, make: Callable[[Path], str]) -> Path:
    """A folder that `make` fills, once for all processes of the test run; said.txt holds what it returns."""
    shared = tmp_path_factory.getbasetemp()
    folder = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / name
    with filelock.FileLock(f"{folder}.lock"):
        if not (folder / "said.txt").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "said.txt").write_text(make(folder), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory, small_base) -> Path:
    """A folder in which `voice` went the whole way from four recordings in 4 steps; read only.

    Its file said.txt holds what the full pipeline printed. Made once for all processes of the test run.
    """

    def make(folder: Path) -> str:
        put_base(folder, small_base)
        for number, (name, (seconds, words)) in enumerate(RECORDINGS.items()):
            record(folder / "recordings" / name, seconds, number, words, rate=[16000, 22050, 44100, 48000][number])
        return whole_way(folder)

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture(scope="session")
def s1_finished(tmp_path_factory, small_s1_base) -> Path:
    """The same from four real recordings with a small S1-mini folder, which lies where nobody looks by itself."""

    def make(folder: Path) -> str:
        put_base(folder, small_s1_base, S1_FOLDER)
        put_samples(folder / "recordings/allison", *S1_RECORDINGS)
        return whole_way(folder, *S1)

    return made_once(tmp_path_factory, "s1_finished", make)


def whole_way(folder: Path, *model: object) -> str:
    """Prepare folder/recordings and make `voice` of them; return what was said."""
    arguments = ("--input", "recordings", "--output", "training_data/voice", "--workers", 1)
    prepared = run("prepare_dataset.py", *arguments, cwd=folder)
    arguments = ("--project", "voice", "--data-dir", "training_data/voice", *model, *FULL_PIPELINE, "--max-steps", 4)
    full = run("finetune_tts.py", *arguments, *TRAINING, cwd=folder)
    return prepared.stdout + full.stdout + full.stderr


@pytest.fixture()
def again(finished, tmp_path) -> Path:
    """A copy of that folder, with all times kept, for tests that go on from it."""
    return Path(shutil.copytree(finished, tmp_path / "again", copy_function=shutil.copy2))


@pytest.fixture()
def s1_again(s1_finished, tmp_path) -> Path:
    """A copy of S1-mini's, with all times kept, for tests that go on from it."""
    return Path(shutil.copytree(s1_finished, tmp_path / "s1_again", copy_function=shutil.copy2))
