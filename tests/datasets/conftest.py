"""Golden inputs, and small folders of clips made on the spot."""

from pathlib import Path

import numpy as np
import pytest

from fish_speech.text import Tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "fish-1.5"


@pytest.fixture(scope="session")
def golden_folder():
    return GOLDEN


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer(GOLDEN / "tokenizer" / "tokenizer.tiktoken")


@pytest.fixture
def make_clips():
    """Write clips of `codebooks` x (3 + number % 7) codes with transcripts into folder/speaker."""

    def make(folder, speakers, codebooks=3):
        for speaker, count in speakers.items():
            (folder / speaker).mkdir(parents=True)
            for number in range(count):
                codes = (np.arange(codebooks * (3 + number % 7)) * 31 + number).reshape(codebooks, -1) % 1000
                np.save(folder / speaker / f"{number:04d}.npy", codes.astype(np.int32))
                (folder / speaker / f"{number:04d}.lab").write_text(f"{speaker} says {number}.\n", encoding="utf-8")
        return folder

    return make
