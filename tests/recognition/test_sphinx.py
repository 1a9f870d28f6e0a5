"""pocketsphinx on real speech: words, the times at which they are said, and how sure it is."""

import numpy as np
import pytest

from fish_speech.errors import UserError
from fish_speech.evaluation import word_errors
from fish_speech.recognition import join_words, load_recognizer

from ..conftest import REPO

pytest.importorskip("pocketsphinx", reason="the eval extra is not installed")


@pytest.fixture(scope="module")
def recognizer():
    return load_recognizer("pocketsphinx")


@pytest.fixture(scope="module")
def words(recognizer, speech):
    """What is heard in the whole clip."""
    return recognizer.words(speech)


def test_words_are_those_of_the_text_without_marks_of_the_decoder(recognizer, speech, words):
    assert join_words(words) == recognizer(speech)
    assert all(word.text.isalpha() for word in words)  # no <sil>, no your(2)
    assert not any(word.ends_sentence for word in words)
    text = (REPO / "samples/allison/agent-alreadyon.txt").read_text(encoding="utf-8")
    assert word_errors(text, join_words(words)).rate < 0.4


def test_words_are_heard_when_they_are_said(speech, words):
    times = [time for word in words for time in (word.start_s, word.end_s)]
    assert times == sorted(times) and times[0] >= 0 and times[-1] <= len(speech) / 16000
    on, please = (next(word for word in words if word.text == text) for text in ("on", "please"))
    level = [np.abs(speech[i : i + 160]).max() for i in range(0, len(speech) - 160, 160)]
    quietest = 0.01 * (190 + int(np.argmin(np.convolve(level[190:270], np.ones(8), "valid"))) + 4)
    assert on.end_s - 0.1 < quietest < please.start_s + 0.1  # the pause between the two sentences


def test_later_speech_gives_later_times(recognizer, speech, words):
    half_a_second = 0.0005 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    later = recognizer.words(np.concatenate([half_a_second, speech]))
    before, after = ({word.text: word.start_s for word in found} for found in (words, later))
    shared = [after[text] - before[text] for text in ("that", "logged", "please", "followed")]
    assert shared == pytest.approx([0.5] * 4, abs=0.06)


def test_confidence_tells_right_words_from_wrong_ones(words):
    assert all(0 <= word.confidence <= 1 for word in words)
    right = {"that", "agent", "is", "already", "logged", "on", "please", "your", "number", "followed", "by", "the"}
    sure = [word.confidence for word in words if word.text in right]
    unsure = [word.confidence for word in words if word.text not in right]
    assert unsure and np.mean(unsure) < 0.5 < np.mean(sure)


def test_what_was_heard_before_changes_nothing(recognizer, speech, words):
    recognizer.words(0.01 * np.random.default_rng(0).standard_normal(16000).astype(np.float32))
    assert recognizer.words(speech) == words


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.zeros(8000, np.float32)])
def test_nothing_is_heard_in_silence(recognizer, samples):
    assert recognizer.words(samples) == [] and recognizer(samples) == ""


@pytest.mark.parametrize("samples", [1, 100, 500, 2000])
def test_clips_shorter_than_a_word_do_not_crash_it(recognizer, speech, samples):
    assert all(word.end_s <= samples / 16000 for word in recognizer.words(speech[8000 : 8000 + samples]))


def test_it_knows_english_only(recognizer, speech):
    assert recognizer.detect_language(speech) == ("en", 1.0)
    with pytest.raises(UserError, match="'de'"):
        recognizer.words(speech, "de")
