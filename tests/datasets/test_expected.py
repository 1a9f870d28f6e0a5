"""The guess at a data set before it is packed: as many clips, as long, with as long texts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech import audio
from fish_speech.build_dataset import build
from fish_speech.datasets import expected
from fish_speech.datasets.expected import durations, expected_clips, placeholder
from fish_speech.datasets.semantic import hold_out, load_clips
from fish_speech.datasets.shards import find_shards
from fish_speech.errors import UserError

SAMPLES = Path(__file__).parents[2] / "samples/allison"
RATE = 20.0  # frames a second


def record(path: Path, seconds: float, text: str | None = None, suffix: str = ".lab") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(round(seconds * 8000)), 8000)
    if text is not None:
        path.with_suffix(suffix).write_text(text, encoding="utf-8")
    return path


def test_extracted_clips_are_expected_exactly_as_they_will_be_packed(make_clips, tmp_path):
    data = make_clips(tmp_path / "data", {"anna": 5, "ben": 12})
    build(data, tmp_path / "out")
    packed = load_clips(find_shards(tmp_path / "out"))
    clips, how = expected_clips(data, 3, RATE)
    assert how == "from the codes of 17 clips, which are not packed yet"
    assert (clips.speakers, clips.texts, clips.codebooks) == (packed.speakers, packed.texts, 3)
    assert np.array_equal(clips.codes, packed.codes) and np.array_equal(clips.starts, packed.starts)
    assert hold_out(clips, range(17), 0.1, 1) == hold_out(packed, range(17), 0.1, 1)


def test_clips_without_codes_have_zeros_for_as_long_as_their_header_says(tmp_path):
    record(tmp_path / "anna/a.wav", 1.51, "One.")
    record(tmp_path / "ben/b.flac", 2.0, "Two words.")
    np.save(record(tmp_path / "ben/c.wav", 9.0, "Three.").with_suffix(".npy"), np.ones((6, 5), np.int32))
    clips, how = expected_clips(tmp_path, 6, RATE)
    assert how == "from the codes of 1 clip and the lengths of 2 recordings, whose codes are not extracted yet"
    assert clips.speakers == ["anna", "ben", "ben"] and clips.texts == [("One.",), ("Two words.",), ("Three.",)]
    assert [clips.frames_of(clip) for clip in range(3)] == [math.ceil(1.51 * 20), 40, 5]
    assert clips.codes_of(1).shape == (6, 40) and not clips.codes_of(1).any() and clips.codes_of(2).all()
    only, how = expected_clips(tmp_path / "anna", 6, RATE)
    assert how == "from the lengths of 1 recording; codes are not extracted yet" and len(only) == 1


def test_codes_that_extraction_will_make_anew_count_by_the_length_of_their_recording(tmp_path):
    for name, content in (("torn", b"\x93NUMPY\x01\x00"), ("other", None)):
        path = record(tmp_path / f"a/{name}.wav", 2.0, "Words.").with_suffix(".npy")
        path.write_bytes(content) if content else np.save(path, np.ones((9, 5), np.int32))
    clips, how = expected_clips(tmp_path, 6, RATE)
    assert "lengths of 2 recordings" in how and [clips.frames_of(clip) for clip in range(2)] == [40, 40]


def test_what_cannot_be_trained_on_is_named_with_the_reason(tmp_path):
    record(tmp_path / "a/good.wav", 1.0, "Words.")
    record(tmp_path / "a/silent.wav", 1.0)
    record(tmp_path / "a/empty.wav", 1.0, "  ")
    record(tmp_path / "a/torn.wav", 1.0, "Words.").write_bytes(b"RIFF")
    record(tmp_path / "a/short.wav", 0.05, "Words.")
    np.save(tmp_path / "a/wide.npy", np.ones((9, 5), np.int32))
    (tmp_path / "a/wide.lab").write_text("Words.", encoding="utf-8")
    clips, _ = expected_clips(tmp_path, 6, RATE)
    reasons = {name.split("/")[-1]: reason for name, reason in clips.unusable}
    assert len(clips) == 1 and set(reasons) == {"silent", "empty", "torn", "short", "wide"}
    assert "no transcript" in reasons["silent"] and "9 codebooks instead of 6" in reasons["wide"]


def test_long_recordings_count_as_the_pieces_they_are_cut_to(tmp_path):
    record(tmp_path / "anna/long.wav", 95.0, "one two three four five six seven eight nine ten", ".txt")
    record(tmp_path / "ben/short.wav", 30.0)
    record(tmp_path / "top.wav", 2.0)
    clips, how = expected_clips(tmp_path, 2, RATE)
    assert len(clips) == 12 and how == (
        "from the lengths of 3 recordings, not prepared yet, 1 of them cut into pieces of about 10 s, "
        "texts guessed at 14 characters a second for 2"
    )
    assert clips.speakers == ["anna"] * 10 + ["ben", tmp_path.name]  # 95 s / 10 s, rounded to the even number
    assert clips.frames_of(0) == math.ceil(95 / 10 * 20) and clips.frames_of(10) == 600
    assert [clips.text_of(clip).split()[0] for clip in range(3)] == ["one", "two", "three"]
    assert len(clips.text_of(10)) == pytest.approx(30 * 14, abs=2)


def test_real_recordings_are_expected_with_their_own_words():
    clips, how = expected_clips(SAMPLES, 6, RATE)
    recordings = audio.find_audio(SAMPLES)
    assert len(clips) == len(recordings) and how == f"from the lengths of {len(clips)} recordings, not prepared yet"
    seconds = sum(soundfile.info(path).duration for path in recordings)
    assert 0 <= sum(map(clips.frames_of, range(len(clips)))) / RATE - seconds <= len(clips) / RATE
    first = recordings[0].with_suffix(".txt").read_text(encoding="utf-8").split()
    assert clips.text_of(0).split() == first and set(clips.speakers) == {"allison"}


def test_no_sound_is_decoded_and_no_file_written(tmp_path, monkeypatch):
    for number in range(3):
        record(tmp_path / f"{number}.wav", 40.0)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}

    def refuse(*args, **options):
        raise AssertionError("sound is decoded")

    monkeypatch.setattr(soundfile.SoundFile, "read", refuse)
    assert len(expected_clips(tmp_path, 6, RATE)[0]) == 12
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_of_a_slow_format_only_some_are_asked_and_the_rest_follows_from_their_size(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number:03d}.m4a" for number in range(100)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes(1000 * (1 + number % 4)))
    asked = []
    monkeypatch.setattr(expected, "duration_s", lambda path: asked.append(path) or path.stat().st_size / 500)
    assert durations(paths) == pytest.approx([path.stat().st_size / 500 for path in paths])
    assert sorted(asked) == paths[:32]


@pytest.mark.parametrize("make", ["nothing", "no folder"])
def test_a_folder_without_recordings_is_refused(tmp_path, make):
    folder = tmp_path / make
    if make == "nothing":
        folder.mkdir()
    with pytest.raises(UserError):
        expected_clips(folder, 6, RATE)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.1, 600))
def test_placeholders_are_as_long_as_the_speech_and_differ(number, seconds):
    text = placeholder(number, seconds)
    assert text and abs(len(text) - seconds * 14) <= 2
    if seconds > 1:
        assert text != placeholder(number + 1, seconds)
