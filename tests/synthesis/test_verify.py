"""Attempts judged: signs in the sound, and real recordings, whole and edited, heard by pocketsphinx."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.audio import read_audio
from fish_speech.errors import UserError
from fish_speech.synthesis.attempts import best_attempt
from fish_speech.synthesis.verify import Attempt, Tolerance, Verifier, longest_pause_s, make_verifier

from ..conftest import REPO
from ..recognition.conftest import whisper_file  # noqa: F401  a fixture

RATE = 16000
TEXT = "Please enter your conference number followed by the pound key."
TEN_WORDS = "lighthouse banana quickly seven orange umbrella kitchen mountain river silver"


def attempt_of(waveform, ended: bool = True, rate: int = RATE, number: int = 0) -> Attempt:
    return Attempt(np.full((3, 4), number), np.asarray(waveform, np.float32), rate, ended)


def hum(seconds: float, amplitude: float = 0.3) -> np.ndarray:
    """A tone that fades out at its end."""
    sound = amplitude * np.sin(440 * np.arange(int(seconds * RATE)) / RATE)
    sound[-RATE // 20 :] *= np.linspace(1, 0, RATE // 20) ** 3
    return sound.astype(np.float32)


def recording(name: str) -> tuple[np.ndarray, int, str]:
    path = REPO / "samples" / "allison" / f"{name}.flac"
    return *read_audio(path), path.with_suffix(".txt").read_text(encoding="utf-8").strip()


@pytest.mark.parametrize(
    ("waveform", "reason"),
    [
        (np.zeros(0), "there is no sound"),
        (np.zeros(4 * RATE), "it is silent: -120 dBFS at most"),
        (hum(4, 0.001), "it is silent: -62 dBFS at most"),
        (np.full(4 * RATE, np.nan), "samples that are no numbers"),
        (hum(0.5), "0.5 s of sound are too short for the text, which takes 1.0 s"),
        (hum(30), "30.0 s of sound are too long"),
        (np.concatenate([hum(1), np.zeros(3 * RATE), hum(1)]), "a pause of 3"),
        (hum(6)[: 3 * RATE], "it breaks off in the middle of a sound"),
    ],
)
def test_bad_sounds_are_told_without_a_recogniser(waveform, reason):
    verdict = Verifier(None).judge(attempt_of(waveform), TEXT)
    assert not verdict.passed and reason in str(verdict) and verdict.errors == 10 and verdict.comparison is None


def test_an_attempt_that_was_cut_does_not_pass():
    assert Verifier(None).judge(attempt_of(hum(4)), TEXT).passed
    verdict = Verifier(None).judge(attempt_of(hum(4), ended=False), TEXT)
    assert verdict.reasons == ("it did not end",)
    heard = Verifier(lambda samples, text: text).judge(attempt_of(hum(4), ended=False), TEXT)
    assert heard.reasons == ("it did not end",) and heard.errors == 0


def test_pauses_at_the_ends_are_no_pauses():
    assert longest_pause_s(np.concatenate([np.zeros(RATE * 3), hum(1), np.zeros(RATE * 3)]), RATE) == 0


def test_nothing_is_listened_for_where_nothing_is_said():
    def fail(samples, text):
        raise AssertionError("it was heard")

    assert Verifier(fail).judge(attempt_of(hum(1)), "...").passed


def test_the_recogniser_gets_16_khz_and_the_text_without_markers():
    seen = []

    def hear(samples, text):
        seen.append((len(samples), samples.dtype, text))
        return "go away"

    angry = Verifier(hear, markers=True).judge(
        attempt_of(np.append(hum(2), np.zeros(12100)), rate=44100), "(angry) Go away!"
    )
    assert angry.passed and seen == [(16000, np.float32, "Go away!")]
    assert not Verifier(hear).judge(attempt_of(hum(1)), "(angry) Go far away!").passed


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(TEN_WORDS.split()), min_size=1, max_size=30), st.floats(0, 3), st.floats(0, 0.5))
def test_a_perfect_transcript_passes_under_any_tolerance(words, errors, rate):
    text = " ".join(words)
    verifier = Verifier(lambda samples, text: text.upper(), tolerance=Tolerance(errors, rate))
    assert verifier.judge(attempt_of(hum(0.09 * len(text))), text).passed


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10), st.floats(0, 5), st.floats(0, 0.5), st.integers(0, 8))
def test_words_beyond_the_tolerance_fail_and_those_within_it_pass(count, errors, rate, added):
    words, tolerance = TEN_WORDS.split()[:count], Tolerance(errors, rate)
    new = ["xylophone", "pterodactyl", "zygote", "jukebox", "haiku", "sphinx", "gnome", "lymph"][:added]
    heard = [word for pair in zip_longest(words, new) for word in pair if word]  # in a row they are no slips of hearing
    verifier = Verifier(lambda samples, text: " ".join(heard), tolerance=tolerance)
    verdict = verifier.judge(attempt_of(hum(0.09 * len(" ".join(words)))), " ".join(words))
    assert verdict.passed == (added <= tolerance.allowed(count) and added <= count + 1)


def test_one_misheard_word_does_not_fail_a_short_text_but_another_text_does():
    def judged(text, heard):
        return Verifier(lambda samples, _: heard).judge(attempt_of(hum(3)), text)

    assert judged("Press two now.", "press too now").passed
    assert judged("Good evening.", "good leaving").passed
    assert not judged("Stop!", "banana").passed
    assert not judged("Good evening.", "banana milk").passed
    assert not judged("Press two now.", "press two").passed  # the end is where speech models fail
    assert not judged("Press two now.", "press two now now").passed
    long = "Please enter your conference number and then press the pound key on your telephone, or hold the line."
    assert judged(long, long.replace("the pound", "pound")).passed
    assert judged(long, f"{long} ha").passed
    assert "2 words in a row are added" in str(judged(long, f"{long} ha let"))
    assert "2 words in a row are missing" in str(judged(long, long.replace("the pound", "")))


def test_a_verifier_makes_at_least_one_attempt():
    with pytest.raises(ValueError, match="attempts is 0"):
        Verifier(None, 0)


def test_a_recogniser_that_is_not_here_is_a_users_error(monkeypatch):
    monkeypatch.setattr("fish_speech.recognition.choose.missing", lambda *names: list(names))
    with pytest.raises(UserError, match="pocketsphinx is missing"):
        make_verifier("pocketsphinx")
    with pytest.raises(UserError, match="no speech recogniser for language 'de'"):
        make_verifier("pocketsphinx", language="de")
    with pytest.raises(UserError, match="faster"):
        make_verifier("faster-whisper")


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    pytest.importorskip("pocketsphinx", reason="the extra eval is not installed")
    return make_verifier("pocketsphinx", attempts=3)


@pytest.mark.parametrize("name", ["vm-dialout", "privacy-prompt", "tt-somethingwrong"])
def test_real_recordings_pass(verifier, name):
    samples, rate, text = recording(name)
    verdict = verifier.judge(attempt_of(samples, rate=rate), text)
    assert verdict.passed, verdict


def test_threads_share_a_verifier(verifier):
    recordings = [recording("vm-dialout"), recording("tt-somethingwrong")]
    with ThreadPoolExecutor(2) as threads:
        verdicts = threads.map(lambda r: verifier.judge(attempt_of(r[0], rate=r[1]), r[2]), recordings)
        assert [verdict.passed for verdict in verdicts] == [True, True]


def test_whisper_listens_too(whisper_file):  # noqa: F811
    samples, rate, text = recording("vm-dialout")
    verdict = make_verifier("whisper", str(whisper_file)).judge(attempt_of(samples, rate=rate), text)
    assert verdict.comparison is not None and not verdict.passed  # its weights are random


def test_an_edited_recording_fails_and_the_log_says_why(verifier):
    samples, rate, text = recording("vm-dialout")  # 2.2 s: please wait while i | connect your call
    edits = {
        "the end is missing": samples[: int(0.6 * len(samples))],
        "words are repeated": np.concatenate([samples, samples[len(samples) // 2 :]]),
        "added:": np.concatenate([samples, samples[: len(samples) // 2 : -1]]),  # babble
        "missing:": np.concatenate([samples[: len(samples) // 3], samples[2 * len(samples) // 3 :]]),
        "words are wrong": recording("tt-somethingwrong")[0],
    }
    for reason, edited in edits.items():
        verdict = verifier.judge(attempt_of(edited, rate=rate), text)
        assert not verdict.passed and reason in str(verdict), (reason, str(verdict))


def test_a_bad_sound_first_and_a_good_one_second(verifier, caplog):
    samples, rate, text = recording("vm-dialout")
    sounds = [samples[: len(samples) // 2], samples, samples]
    asked = []

    def speak(number: int) -> Attempt:
        asked.append(number)
        return attempt_of(sounds[number], rate=rate, number=number)

    with caplog.at_level("INFO"):
        chosen = best_attempt(speak, verifier, text)
    assert asked == [0, 1] and (chosen.tried, chosen.number) == (2, 1) and chosen.passed
    assert chosen.attempt.waveform is samples
    assert "attempt 1/3: it breaks off" in caplog.text and "missing: connect your call" in caplog.text
