"""The corpus script: edges of a clip, who reads what, copies of held-out recordings, and its messages."""

from __future__ import annotations

import argparse
import shutil

import numpy as np
import pytest

from tools import minnow_corpus as corpus
from tools.minnow_text import Sentences

RATE = corpus.SAMPLE_RATE


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), np.float32)


@pytest.mark.parametrize("before", [0.0, 0.03, 0.5])
def test_trim_leaves_the_same_silence_around_speech(before):
    trimmed = corpus.trim(np.concatenate([silence(before), noise(1.0), silence(0.4)]), RATE, pad=True)
    assert len(trimmed) / RATE == pytest.approx(1.0 + 2 * corpus.EDGE_S, abs=2 * corpus.FRAME_S)
    assert np.abs(trimmed[: round(0.08 * RATE)]).max() == 0
    assert np.abs(trimmed[-round(0.08 * RATE) :]).max() == 0


def test_trim_without_padding_keeps_what_was_recorded():
    speech = noise(1.0)
    assert np.array_equal(corpus.trim(speech, RATE, pad=False), speech)


@pytest.mark.parametrize("waveform", [silence(0.0), silence(0.005), silence(1.0)])
def test_trim_of_silence_is_empty(waveform):
    assert len(corpus.trim(waveform, RATE, pad=True)) == 0


def test_find_copies_finds_a_held_out_recording_within_a_longer_clip():
    held = {"sorry": np.convolve(noise(1.0, seed=1), np.ones(8) / 8, "same").astype(np.float32)}
    other = np.convolve(noise(3.0, seed=2), np.ones(8) / 8, "same").astype(np.float32)
    clips = {"copy": np.concatenate([other[:RATE], 0.5 * held["sorry"], other[RATE:]]), "other": other}
    assert {name: clip for name, (clip, _) in corpus.find_copies(clips, held).items()} == {"copy": "sorry"}


def test_a_larger_corpus_starts_with_the_smaller_one():
    sentences = [str(i) for i in range(10_000)]
    for voice in corpus.VOICE_START:
        small, large = (corpus.sentences_for(voice, count, sentences) for count in (50, 100))
        assert large[:50] == small
    slt, rms = (set(corpus.sentences_for(voice, 100, sentences)) for voice in ("slt", "rms"))
    assert len(slt & rms) == 10


def test_a_start_of_every_voice_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "FIRST_PER_VOICE", 2)
    sentences = Sentences([f"text {i}" for i in range(100)], ["held"], set())
    readings = corpus.plan_readings(tmp_path, {"slt": 40, "rms": 20}, sentences)
    assert [reading.voice for reading in readings[:6]] == ["slt", "rms", "slt", "slt", "rms", "rms"]
    assert len({reading.path for reading in readings}) == len(readings) == 62
    assert not {"held"} & {reading.text for reading in readings[2:]}


def test_the_heldout_list_names_thirty_clips_that_are_not_samples():
    names = corpus.heldout_allison()
    assert len(set(names)) == len(names) == 30
    samples = corpus.REPOSITORY / "samples" / "allison"
    assert not [name for name in names if (samples / f"{name}.txt").exists()]


def test_a_held_out_prompt_that_is_not_there_is_named(tmp_path):
    with pytest.raises(corpus.CorpusError, match="vm-next"):
        corpus._plan_english(tmp_path, {"vm-goodbye": tmp_path / "vm-goodbye.g722"}, {"vm-goodbye": "Goodbye."})


def test_voices_are_read_from_the_command_line():
    assert corpus.parse_voices("slt=10,espeak=2") == {"slt": 10, "espeak": 2}
    for wrong in ("slt", "slt=many", "nobody=3"):
        with pytest.raises(argparse.ArgumentTypeError, match="VOICE=COUNT"):
            corpus.parse_voices(wrong)


def test_a_missing_program_names_its_package(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "flite" else name)
    assert corpus.main(["--output", str(tmp_path / "corpus")]) == 1
    assert "sudo apt-get install flite" in capsys.readouterr().err


def test_a_failing_program_is_named_with_its_last_line():
    with pytest.raises(corpus.CorpusError, match="sh failed: no voice"):
        corpus._run(["sh", "-c", "echo hello; echo no voice >&2; exit 3"])


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_a_reading_is_written_with_its_text_and_then_done(tmp_path):
    reading = corpus.Reading("slt", "Please press five.", tmp_path / "000000.wav")
    assert not corpus._is_done(reading)
    corpus._read_aloud(reading)
    assert corpus._is_done(reading)
    assert reading.path.with_suffix(".lab").read_text("utf-8") == reading.text
    waveform, rate = corpus.soundfile.read(reading.path)
    assert rate == RATE
    assert 0.8 < len(waveform) / RATE < 3
    assert not corpus._is_done(corpus.Reading("slt", "Another text.", reading.path))
