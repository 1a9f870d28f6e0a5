"""Real recordings of the repository, and synthetic voices where a program for them is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fish_speech.audio import read_audio

from ..conftest import REPO

ALLISON = REPO / "samples" / "allison"


@pytest.fixture(scope="session")
def allison() -> list[Path]:
    """The first recordings of one real speaker."""
    paths = sorted(ALLISON.glob("*.flac"))[:4]
    if len(paths) < 4:
        pytest.skip("samples/allison is not there")
    return paths


@pytest.fixture(scope="session")
def synthetic(tmp_path_factory) -> tuple[np.ndarray, int]:
    """A sentence of a synthetic voice, and its sample rate."""
    path = tmp_path_factory.mktemp("synthetic") / "voice.wav"
    text = "Please enter the number of the agent, and then press the pound key."
    commands = {"flite": ["-voice", "rms", "-t", text, "-o", path], "espeak-ng": ["-w", path, text]}
    for program, arguments in commands.items():
        if shutil.which(program):
            subprocess.run([program, *map(str, arguments)], check=True, timeout=60)
            return read_audio(path)
    pytest.skip("neither flite nor espeak-ng is installed")
