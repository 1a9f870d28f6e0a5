"""The Piper client from PyPI speaks what we export, sample for sample what torch says and what cli_tts.py says.

It is GPL, and runs here as what it is for its users: a program.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from piper_train.models.synthesizer import Synthesizer
from piper_train.phonemes.ids import default_table, ids_of_sentence
from piper_train.phonemes.phonemizer import open_phonemizer
from piper_train.speech.sound import levelled, to_client_pcm16

from .exported import generator_of, write_voice

REPO = Path(__file__).parents[2]
STILL = ("--noise-scale", "0", "--noise-w-scale", "0")
ENGLISH = "Good morning, everybody. It is 7 o'clock! Is that right? [[ hɛlˈoʊ ]]"
RUSSIAN = "Доброе утро, друзья. Сейчас 7 часов! Это правда?"

pytestmark = pytest.mark.skipif(importlib.util.find_spec("piper") is None, reason="the Piper client is not installed")


def run(*arguments: object, cwd: Path, stdin: str) -> None:
    """Run a program with as many threads as the client takes: fewer may round a sample in three hundred otherwise."""
    environment = {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUTF8": "1"}
    environment.pop("OMP_NUM_THREADS", None)
    subprocess.run(
        [sys.executable, *map(str, arguments)], input=stdin, cwd=cwd, env=environment, check=True, encoding="utf-8"
    )


def spoken_by_both(voice: Path, text: str, folder: Path, *more: str, speaker: str | None = None) -> np.ndarray:
    """The client's 16-bit samples, which cli_tts.py's must equal."""
    ours, theirs = folder / "ours.wav", folder / "theirs.wav"
    who = () if speaker is None else (speaker,)
    run("-m", "piper", "-m", voice, *STILL, "-f", theirs, *more, *(("-s", *who) if who else ()), cwd=folder, stdin=text)
    run(REPO / "cli_tts.py", "--model-path", voice, *STILL, "-o", ours, *more, *(("--speaker", *who) if who else ()),
        cwd=folder, stdin=text)  # fmt: skip
    assert ours.read_bytes() == theirs.read_bytes()
    samples, rate = soundfile.read(theirs, dtype="int16")
    assert rate == 22050
    return samples


def said_by_torch(
    generator: Synthesizer, text: str, espeak_voice: str, speaker: int | None = None, **settings: float
) -> list[np.ndarray]:
    """What the client's arithmetic makes of torch's waveforms, sentence by sentence, int16."""
    length_scale = settings.pop("length_scale", 1.0)
    sentences = []
    with open_phonemizer("espeak", espeak_voice, source="piper") as phonemizer:
        for phonemes in phonemizer.sentences(text):
            ids = torch.tensor([ids_of_sentence(phonemes, default_table())])
            sid = None if speaker is None else torch.tensor([speaker])
            with torch.no_grad():
                said = generator.infer(ids, torch.tensor([ids.size(1)]), sid, 0.0, length_scale, 0.0)
            sentences.append(to_client_pcm16(levelled(said.wave.reshape(-1).numpy(), **settings)))
    return sentences


def assert_same(samples: np.ndarray, expected: np.ndarray) -> None:
    """Equal, but for values so close to a whole number that the last bit of a float decides where they are cut off."""
    assert samples.shape == expected.shape
    difference = np.abs(samples.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.02


@pytest.mark.parametrize(("language", "text"), [("en-us", ENGLISH), ("ru", RUSSIAN)])
def test_the_client_says_what_torch_says_and_cli_tts_the_same(tmp_path, language, text):
    voice = write_voice(tmp_path, espeak={"voice": language})
    samples = spoken_by_both(voice, text, tmp_path)
    assert_same(samples, np.concatenate(said_by_torch(generator_of("single"), text, language)))


def test_a_speaker_of_a_voice_is_the_same_in_both(exported, tmp_path):
    samples = spoken_by_both(exported("multi"), ENGLISH, tmp_path, speaker="2")
    assert_same(samples, np.concatenate(said_by_torch(generator_of("multi"), ENGLISH, "en-us", 2)))


@pytest.mark.slow()
def test_settings_mean_the_same_in_both(exported, tmp_path):
    more = ("--length-scale", "1.3", "--sentence-silence", "0.25", "--no-normalize")
    samples = spoken_by_both(exported("high"), ENGLISH, tmp_path, *more)
    expected = said_by_torch(generator_of("high"), ENGLISH, "en-us", length_scale=1.3, normalize=False)
    pause = np.zeros(int(0.25 * 22050), np.int16)
    between = [part for sentence in expected for part in (pause, sentence)][1:]
    assert_same(samples, np.concatenate(between))


@pytest.mark.slow()
def test_the_client_speaks_with_noise_and_several_lines(exported, tmp_path):
    run("-m", "piper", "-m", exported("plain"), "-f", "out.wav", cwd=tmp_path, stdin="Hello there.\nAnd again.\n")
    samples, rate = soundfile.read(tmp_path / "out.wav")
    assert rate == 22050 and len(samples) > 5000 and np.abs(samples).max() > 0.5
    assert importlib.metadata.version("piper-tts")


@pytest.mark.slow()
def test_a_voice_of_full_size_is_the_same_in_both(exported, tmp_path):
    voice = exported("medium")
    assert 60e6 < voice.stat().st_size < 66e6  # published ones have 63.5 MB
    samples = spoken_by_both(voice, ENGLISH, tmp_path)
    assert_same(samples, np.concatenate(said_by_torch(generator_of("medium"), ENGLISH, "en-us")))
