"""The test data set of synthetic voices: its sentences, and what the programs make of them."""

from __future__ import annotations

import shutil
import wave

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.errors import UserError
from piper_train import quick_start
from piper_train.quick_start_texts import sentences

espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng")
flite = pytest.mark.skipif(shutil.which("flite") is None, reason="needs the program flite")


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["en-us", "ru", "de", "ru+f2"]), st.integers(1, 300), st.integers(0, 2**31))
def test_sentences_are_all_different_and_begin_those_of_a_longer_set(voice, count, seed):
    made = sentences(voice, count, seed)
    assert len(set(made)) == len(made) == count
    assert sentences(voice, count + 7, seed)[:count] == made
    assert not any("|" in text or "\n" in text for text in made)


def test_sentences_are_in_the_language_of_the_voice():
    assert all(text[:-1].replace(" ", "").isascii() for text in sentences("en-gb", 50, 1))
    russian = "".join(sentences("ru", 50, 1))
    assert all("а" <= letter <= "я" or letter == "ё" for letter in russian.lower() if letter.isalpha())
    assert not any(letter.isalpha() for text in sentences("sw", 20, 1) for letter in text)


@espeak
def test_the_same_request_makes_the_same_files_and_keeps_them(tmp_path):
    request = quick_start.settle(4, "ru")
    seconds = quick_start.make(request, tmp_path / "a")
    quick_start.make(request, tmp_path / "b")
    files = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*.*")}
    assert len(files) == 4 + 2 and quick_start.is_whole(request, tmp_path / "a")
    assert files == {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*.*")}
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "a/wavs").iterdir()}
    (tmp_path / "a/wavs/0002.wav").unlink()
    assert quick_start.make(request, tmp_path / "a") == seconds
    changed = [path.name for path, when in kept.items() if path.stat().st_mtime_ns != when]
    again = (tmp_path / "a/wavs/0002.wav").read_bytes()
    assert changed == ["0002.wav"] and again == (tmp_path / "b/wavs/0002.wav").read_bytes()


@espeak
def test_clips_are_16_bit_speech_of_the_programs_own_rate(tmp_path):
    seconds = quick_start.make(quick_start.settle(3, "en-us"), tmp_path / "set")
    lengths = []
    for path in sorted((tmp_path / "set/wavs").iterdir()):
        with wave.open(str(path)) as sound:
            assert (sound.getsampwidth(), sound.getnchannels(), sound.getframerate()) == (2, 1, 22050)
            lengths.append(sound.getnframes() / 22050)
    assert sum(lengths) == pytest.approx(seconds) and all(2 < length < 10 for length in lengths)


@espeak
def test_several_speakers_take_turns_and_sound_different(tmp_path):
    quick_start.make(quick_start.settle(4, "ru", speakers=2), tmp_path / "set")
    rows = [row.split("|") for row in (tmp_path / "set/metadata.csv").read_text(encoding="utf-8").splitlines()]
    assert [row[1] for row in rows] == ["plain", "f2", "plain", "f2"] and all(len(row) == 3 for row in rows)
    one = quick_start.settle(4, "ru")
    quick_start.make(one, tmp_path / "one")
    sounds = [[(tmp_path / name / "wavs" / row[0]).read_bytes() for row in rows] for name in ("set", "one")]
    assert [a == b for a, b in zip(*sounds)] == [True, False, True, False]


@flite
def test_flite_reads_english_where_it_is_asked_for(tmp_path):
    quick_start.make(quick_start.settle(2, "en-us", program="flite"), tmp_path / "set")
    with wave.open(str(tmp_path / "set/wavs/0001.wav")) as sound:
        assert sound.getframerate() == 16000 and sound.getnframes() > 16000
    with pytest.raises(UserError, match="flite cannot read"):
        quick_start.settle(2, "ru", program="flite")


@espeak
def test_a_voice_that_espeak_lacks_is_refused_with_those_like_it():
    with pytest.raises(UserError, match=r"near to it are.*ru") as error:
        quick_start.settle(2, "ruu")
    assert "no voice 'ruu'" in str(error.value)
    with pytest.raises(UserError, match="no voice"):
        quick_start.settle(2, "--path=/etc")


@espeak
def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UserError, match="holds something else"):
        quick_start.make(quick_start.settle(2, "ru"), tmp_path / "other")
    quick_start.make(quick_start.settle(2, "ru"), tmp_path / "set")
    with pytest.raises(UserError, match="clips 2, not 3"):
        quick_start.make(quick_start.settle(3, "ru"), tmp_path / "set")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine.txt"]


def test_without_a_program_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError) as error:
        quick_start.settle(2, "ru")
    assert "espeak-ng" in error.value.fix and "--data-dir" in error.value.fix
