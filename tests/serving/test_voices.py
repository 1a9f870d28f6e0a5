"""The voices that a server offers are those that its model can imitate."""

from __future__ import annotations

import numpy as np
import pytest

from fish_speech.evaluation.systems import load_voice
from fish_speech.serving.errors import ApiError
from fish_speech.serving.voices import VoiceShelf
from fish_speech.synthesis.voices import write_reference

ROWS = {"fish": 8, "s1": 10, "minnow": 6}


@pytest.mark.parametrize("own", ["fish", "s1"])
def test_voices_of_another_version_are_not_offered_and_refused_by_name(small_base, small_s1_base, tmp_path, own):
    for name, rows in ROWS.items():
        write_reference(tmp_path / f"{name}.npy", np.zeros((rows, 9), np.int32), "Nine frames.")
    shelf = VoiceShelf(tmp_path)
    assert {row["id"] for row in shelf.rows()} == {"default", *ROWS}, "nothing is known before the model is loaded"
    shelf.speaker = load_voice({"fish": small_base, "s1": small_s1_base}[own], "cpu")
    assert [row["id"] for row in shelf.rows()] == ["default", own]
    assert len(shelf.references(own)) == 1
    for name in ROWS.keys() - {own}:
        with pytest.raises(ApiError, match=f"the voice {name} cannot be used"):
            shelf.references(name)
