"""openai-whisper's real code on weights of its real format: random ones here, real ones where a user has them."""

import logging

import numpy as np
import pytest

from fish_speech import device
from fish_speech.audio import read_audio
from fish_speech.device import Hardware
from fish_speech.errors import UserError
from fish_speech.evaluation import word_errors
from fish_speech.recognition import join_words, load_recognizer, resample, whisper_weights
from fish_speech.recognition.languages import LANGUAGES
from fish_speech.recognition.openai_whisper import torch_device
from fish_speech.recognition.whisper_weights import WHISPER_NAMES

from ..conftest import REPO

whisper = pytest.importorskip("whisper", reason="openai-whisper is not installed")


@pytest.fixture(scope="session")
def brief(speech) -> np.ndarray:
    """2 s of a real voice: random weights hear it in few steps."""
    return speech[:32000]


def assert_well_formed(pieces, duration_s):
    assert all(piece.text and piece.text == piece.text.strip() for piece in pieces)
    times = [time for piece in pieces for time in (piece.start_s, piece.end_s)]
    assert times == sorted(times) and (not times or (times[0] >= 0 and times[-1] <= duration_s))
    assert all(0 <= piece.confidence <= 1 and type(piece.confidence) is float for piece in pieces)


def test_words_of_random_weights_are_well_formed_and_the_same_each_time(whisper_file, brief):
    import torch

    state = torch.random.get_rng_state()
    recognizer = load_recognizer("whisper", str(whisper_file), "en")
    words = recognizer.words(brief)
    assert words
    assert_well_formed(words, len(brief) / 16000)
    assert recognizer(brief)  # and what was heard in between changes nothing
    assert recognizer.words(brief) == words
    assert torch.equal(torch.random.get_rng_state(), state)  # the random numbers of others are not touched


@pytest.mark.parametrize("samples", [1, 1000])
def test_clips_shorter_than_a_word_do_not_crash_it(whisper_file, speech, samples):
    words = load_recognizer("whisper", str(whisper_file), "en").words(speech[8000 : 8000 + samples])
    assert_well_formed(words, samples / 16000)


@pytest.mark.slow
def test_more_than_a_window_is_heard_to_its_end(whisper_file, speech):
    long = np.tile(speech, 6)
    words = load_recognizer("whisper", str(whisper_file), "en").words(long)
    assert_well_formed(words, len(long) / 16000)
    assert words[-1].end_s > 30


def test_nothing_is_heard_in_digital_silence(whisper_file):
    recognizer = load_recognizer("whisper", str(whisper_file), "en")
    assert recognizer(np.zeros(16000, np.float32)) == ""
    assert recognizer.words(np.zeros(16000, np.float32)) == []


def test_the_language_is_detected_once_and_handed_to_words(whisper_file, brief):
    recognizer = load_recognizer("whisper", str(whisper_file))
    language, probability = recognizer.detect_language(brief)
    assert language in LANGUAGES and 0 < probability <= 1
    syllable = brief[8000:12000]
    assert recognizer.words(syllable, "de") == load_recognizer("whisper", str(whisper_file), "de").words(syllable)


def test_a_model_is_loaded_once_for_all_languages(whisper_file):
    german, french = (load_recognizer("whisper", str(whisper_file), language) for language in ("de", "fr"))
    assert german._model is french._model
    assert german is load_recognizer("whisper", whisper_model=str(whisper_file), language="de")
    assert german.name != french.name


def test_its_name_tells_version_weights_and_language(whisper_file, english_whisper_file):
    names = {load_recognizer("whisper", str(path), "en").name for path in (whisper_file, english_whisper_file)}
    assert len(names) == 2
    assert all(whisper.__version__ in name and name.endswith(" en") for name in names)


def test_an_english_model_refuses_other_languages(english_whisper_file, brief):
    with pytest.raises(UserError, match="'de'"):
        load_recognizer("whisper", str(english_whisper_file), "de")
    recognizer = load_recognizer("whisper", str(english_whisper_file))
    assert recognizer.detect_language(brief) == ("en", 1.0)
    assert_well_formed(recognizer.words(brief[8000:12000]), 0.25)
    with pytest.raises(UserError, match="English only"):
        recognizer.words(brief, "de")


def test_word_times_are_never_computed_on_mps(monkeypatch, caplog):
    monkeypatch.setattr(device, "probe_hardware", lambda: Hardware(mps=True))
    with caplog.at_level(logging.INFO, logger="fish_speech"):
        assert torch_device("auto", "whisper") == "cpu"
        assert torch_device("mps", "whisper") == "cpu"
    assert "float64" in caplog.text
    with pytest.raises(UserError, match="--device cuda"):
        torch_device("cuda", "whisper")


def test_the_models_and_languages_are_those_of_the_package():
    assert set(WHISPER_NAMES) == set(whisper.available_models())
    assert set(whisper.tokenizer.LANGUAGES) == LANGUAGES


@pytest.mark.slow
def test_real_weights_understand_real_speech_and_know_when_it_is_said():
    weights = whisper_weights(language="en")
    if weights is None:
        pytest.skip("no whisper weights in the cache")
    path = REPO / "samples" / "allison" / "agent-alreadyon.flac"
    samples = resample(*read_audio(path))
    words = load_recognizer("whisper", weights.stem, "en").words(samples)
    assert_well_formed(words, len(samples) / 16000)
    text = path.with_suffix(".txt").read_text(encoding="utf-8")
    assert word_errors(text, join_words(words)).rate < 0.2
    please = next(word for word in words if word.text.lower().startswith("please"))
    assert 2.0 < please.start_s < 2.7  # it follows the pause that ends at 2.3 s
    assert sum(word.ends_sentence for word in words) == 2
