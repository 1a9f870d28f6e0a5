"""Recordings and speakers: who speaks where, and inputs that are refused before anything is written."""

from __future__ import annotations

import pytest

from fish_speech.errors import UserError
from fish_speech.prepare.sources import find_sources


@pytest.fixture
def recordings(tmp_path):
    for name in ["top.wav", "anna/a.wav", "anna/day 2/b.flac", "Bob!/c.MP3", "anna/notes.txt"]:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "in"


def speakers(inputs, output, speaker=None, known=()):
    return {source.path.name: source.speaker for source in find_sources(list(map(str, inputs)), output, speaker, known)}


def test_first_folder_below_the_input_is_the_speaker(recordings, tmp_path):
    found = speakers([recordings], tmp_path / "out")
    assert found == {"top.wav": "in", "a.wav": "anna", "b.flac": "anna", "c.MP3": "Bob"}


def test_speaker_flag_counts_for_all_and_becomes_a_safe_name(recordings, tmp_path):
    assert set(speakers([recordings], tmp_path / "out", "../x").values()) == {"x"}


def test_a_file_belongs_to_its_folder_and_is_listed_once(recordings, tmp_path):
    inputs = [recordings / "anna" / "a.wav", recordings / "anna"]
    assert speakers(inputs, tmp_path / "out") == {"a.wav": "anna", "b.flac": "day_2"}


def test_speakers_whose_safe_names_are_equal_stay_apart(tmp_path):
    for name in ["a b/1.wav", "a_b/2.wav", "A_B/3.wav"]:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    assert speakers([tmp_path / "in"], tmp_path / "out") == {"3.wav": "A_B", "1.wav": "a_b-2", "2.wav": "a_b-3"}


def test_a_known_speaker_in_another_letter_case_is_the_same(recordings, tmp_path):
    recording = recordings / "anna" / "a.wav"
    assert speakers([recording], tmp_path / "out", known=["Anna"]) == {"a.wav": "Anna"}
    assert speakers([recording], tmp_path / "out", known=["Anna", "anna"]) == {"a.wav": "anna"}


def test_output_and_input_must_lie_apart(recordings, tmp_path):
    for output in [recordings, recordings / "out", tmp_path]:
        with pytest.raises(UserError, match="never written to"):
            find_sources([str(recordings)], output, None)
    (tmp_path / "link").symlink_to(recordings)
    with pytest.raises(UserError, match="never written to"):
        find_sources([str(recordings)], tmp_path / "link", None)
    (tmp_path / "out" / "voice").mkdir(parents=True)
    (tmp_path / "out" / "voice" / "x.wav").touch()
    (recordings / "more").symlink_to(tmp_path / "out" / "voice")
    with pytest.raises(UserError, match="leads into the output"):
        find_sources([str(recordings)], tmp_path / "out", None)


def test_every_wrong_input_is_named_at_once(recordings, tmp_path):
    (tmp_path / "empty").mkdir()
    inputs = [tmp_path / "nowhere", tmp_path / "empty", recordings]
    with pytest.raises(UserError) as caught:
        find_sources(list(map(str, inputs)), tmp_path / "out", None)
    assert all(text in str(caught.value) for text in ["2 of 3", "nowhere", "no audio file"])


@pytest.mark.parametrize("speaker", ["", "..", "///", "\n", "🎤"])
def test_a_speaker_that_names_nothing_is_refused(recordings, tmp_path, speaker):
    with pytest.raises(UserError, match="cannot name a folder"):
        find_sources([str(recordings)], tmp_path / "out", speaker)


def test_a_folder_with_metadata_and_wavs_is_the_speaker(tmp_path):
    for name in ("anna", "bert"):
        (tmp_path / "sets" / name / "wavs").mkdir(parents=True)
        (tmp_path / "sets" / name / "wavs" / "x.wav").touch()
        (tmp_path / "sets" / name / "metadata.csv").write_text("x|Words.", encoding="utf-8")
    found = find_sources([str(tmp_path / "sets" / name) for name in ("anna", "bert")], tmp_path / "out", None)
    assert [source.speaker for source in found] == ["anna", "bert"]
    found = find_sources([str(tmp_path / "sets")], tmp_path / "out", None)
    assert [source.speaker for source in found] == ["anna", "bert"]
