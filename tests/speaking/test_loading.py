"""What decides the tokens that are said, so that the cache never answers for another voice."""

from __future__ import annotations

import shutil

import pytest

from fish_speech.speaking.loading import VoiceSettings, tokens_identity

from ..conftest import write_s1_model


@pytest.mark.parametrize(
    ("version", "name", "counts"),
    [
        ("s1-mini", "special_tokens.json", True),
        ("s1-mini", "tokenizer.tiktoken", True),
        ("s1-mini", "config.json", True),
        ("s1-mini", "model.pth", True),
        ("s1-mini", "README.md", False),
        ("1.5", "special_tokens.json", False),  # never read
    ],
)
def test_every_file_that_decides_the_tokens_is_part_of_their_identity(small_base, tmp_path, version, name, counts):
    folder = tmp_path / "voice"
    if version == "1.5":
        shutil.copytree(small_base, folder)
    else:
        write_s1_model(folder)
    settings = VoiceSettings(version, folder, device="cpu")
    before = tokens_identity(settings, folder)
    assert tokens_identity(settings, folder) == before
    with (folder / name).open("ab") as file:
        file.write(b" ")
    assert (tokens_identity(settings, folder) != before) == counts
