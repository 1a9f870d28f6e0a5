"""The golden tokenizer and answers for the tests of fish_speech.text."""

import json
from pathlib import Path

import pytest

from fish_speech.text import Tokenizer

GOLDEN = Path(__file__).parents[1] / "golden" / "fish-1.5"


@pytest.fixture(scope="session")
def golden():
    """Read a golden JSON file by name."""
    return lambda name: json.loads((GOLDEN / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def golden_folder():
    return GOLDEN


@pytest.fixture(scope="session")
def tokenizer():
    return Tokenizer(GOLDEN / "tokenizer" / "tokenizer.tiktoken")
