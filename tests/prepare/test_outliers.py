"""A foreign voice among a speaker's clips stands out, and none of the speaker's own clips does."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.prepare.outliers import embed_voice, sound_quality, speaker_outliers, voice_similarity

ALLISON = sorted((Path(__file__).parents[2] / "samples" / "allison").glob("*.flac"))


def around(centre: np.ndarray, count: int, spread: float, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [centre + spread * rng.standard_normal(len(centre)) / np.sqrt(len(centre)) for _ in range(count)]


def axis(number: int) -> np.ndarray:
    return np.eye(64)[number]


def mixed(own: int, foreign: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Own clips at a cosine of 0.94 to each other's centroid, foreign ones at 0.6."""
    voice = 0.6 * axis(0) + 0.8 * axis(1)
    vectors = {f"own{i}": v for i, v in enumerate(around(axis(0), own, 0.35, 1))}
    vectors |= {f"foreign{i}": v for i, v in enumerate(around(voice, foreign, 0.1, 2))}
    return vectors, dict.fromkeys(vectors, 3.0)


def test_similarity_is_to_the_others_and_not_to_itself():
    vectors = {"a": axis(0), "b": axis(1)}
    assert voice_similarity(vectors) == {"a": 0.0, "b": 0.0}
    assert voice_similarity({"a": axis(0), "b": 2 * axis(0) + 2 * axis(1)}) == pytest.approx(
        {"a": 0.5**0.5, "b": 0.5**0.5}
    )
    assert voice_similarity({"a": axis(0)}) == {} == voice_similarity({})


@pytest.mark.parametrize(("own", "foreign"), [(5, 1), (20, 2), (12, 5), (100, 30)])
def test_foreign_clips_are_found_up_to_a_fourth_of_the_set(own, foreign):
    found = speaker_outliers(*mixed(own, foreign))
    assert set(found) == {f"foreign{i}" for i in range(foreign)}
    assert all(0.5 < value < 0.7 for value in found.values())


def test_three_clips_are_too_few_to_judge():
    assert speaker_outliers(*mixed(2, 1)) == {}


def test_a_short_clip_is_judged_more_mildly():
    vectors, durations = mixed(20, 1)
    assert set(speaker_outliers(vectors, durations | {"foreign0": 1.0})) == set()
    assert set(speaker_outliers(vectors, durations)) == {"foreign0"}


@given(st.integers(4, 40), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_clips_of_one_voice_have_no_outliers(count, seed):
    vectors = {str(i): v for i, v in enumerate(around(axis(3), count, 0.45, seed))}
    assert speaker_outliers(vectors, dict.fromkeys(vectors, 2.0)) == {}


@pytest.mark.skipif(shutil.which("flite") is None, reason="speaks the other voice with the flite program")
def test_two_clips_of_another_voice_among_twenty_of_allison_are_found(tmp_path):
    pytest.importorskip("resemblyzer", reason="the eval extra has the voice encoder")
    texts = (
        "Please hold while I try to locate the person you are calling.",
        "The birch canoe slid on the smooth planks.",
    )
    paths = dict.fromkeys(ALLISON[:20])
    for number, text in enumerate(texts):
        path = tmp_path / f"slt{number}.wav"
        subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", path], check=True, stdin=subprocess.DEVNULL)
        paths[path] = None
    vectors, durations = {}, {}
    for path in paths:
        waveform, rate = soundfile.read(path, dtype="float32")
        vectors[path.stem], durations[path.stem] = embed_voice(waveform, rate), len(waveform) / rate
    assert set(speaker_outliers(vectors, durations)) == {"slt0", "slt1"}
    own = {path.stem: vectors[path.stem] for path in ALLISON[:20]}
    assert speaker_outliers(own, durations) == {}


@pytest.mark.slow
def test_dnsmos_marks_clean_speech_above_the_same_in_noise():
    pytest.importorskip("speechmos", reason="the eval extra has DNSMOS")
    waveform, rate = soundfile.read(ALLISON[1], dtype="float32")
    noisy = waveform + 0.05 * np.random.default_rng(0).standard_normal(len(waveform)).astype(np.float32)
    clean, dirty = sound_quality(waveform, rate), sound_quality(noisy, rate)
    assert clean["overall"] > dirty["overall"] + 0.5
    assert sound_quality(waveform[:0], rate) is None
