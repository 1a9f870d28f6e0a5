"""faster-whisper's real code on a model of random weights, converted to its format."""

import numpy as np
import pytest

from fish_speech.errors import UserError
from fish_speech.recognition import choose_asr, load_recognizer
from fish_speech.recognition.faster import faster_weights, repository
from fish_speech.recognition.languages import LANGUAGES
from fish_speech.recognition.whisper_weights import WHISPER_NAMES

from .test_whisper import assert_well_formed

faster_whisper = pytest.importorskip("faster_whisper", reason="the extra faster-whisper is not installed")


def test_words_of_random_weights_are_well_formed_and_the_same_each_time(faster_folder, speech):
    recognizer = load_recognizer("faster-whisper", str(faster_folder), "en")
    two_windows = np.concatenate([np.tile(speech, 5), np.zeros(16000, np.float32), speech])
    words = recognizer.words(two_windows)
    assert_well_formed(words, len(two_windows) / 16000)
    assert words[-1].end_s > 30
    assert recognizer(speech)
    assert recognizer.words(two_windows) == words


def test_the_model_computes_what_openai_whispers_does(faster_folder, speech):
    """The conversion of the fixture is right: the encoder gives the same states, within int8's rounding."""
    import torch
    import whisper

    from .conftest import DIMS, random_whisper

    content = random_whisper({**DIMS, "n_text_ctx": 448})
    reference = whisper.model.Whisper(whisper.model.ModelDimensions(**content["dims"]))
    reference.load_state_dict(content["model_state_dict"])
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(speech))  # (mels, frames)
    with torch.no_grad():
        expected = reference.encoder(mel[None])[0].numpy()  # (frames, dim)
    model = load_recognizer("faster-whisper", str(faster_folder), "en")._pipeline.model
    found = np.array(model.encode(mel.numpy()))[0]
    assert np.corrcoef(expected.ravel(), found.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("samples", [0, 1, 400, 1700])
def test_clips_shorter_than_a_word_do_not_crash_it(faster_folder, speech, samples):
    recognizer = load_recognizer("faster-whisper", str(faster_folder))
    assert_well_formed(recognizer.words(speech[8000 : 8000 + samples]), samples / 16000)


def test_nothing_is_heard_in_noise_and_silence(faster_folder):
    recognizer = load_recognizer("faster-whisper", str(faster_folder))
    noise = 0.001 * np.random.default_rng(0).standard_normal(32000).astype(np.float32)
    assert recognizer.words(noise) == [] and recognizer(np.zeros(16000, np.float32)) == ""


def test_the_language_is_detected(faster_folder, speech):
    language, probability = load_recognizer("faster-whisper", str(faster_folder)).detect_language(speech)
    assert language in LANGUAGES and 0 < probability <= 1


def test_a_folder_that_would_need_the_network_is_refused(faster_folder, tmp_path):
    for name in ("model.bin", "config.json"):
        (tmp_path / name).write_bytes((faster_folder / name).read_bytes())
    with pytest.raises(UserError, match=r"it needs tokenizer\.json"):
        choose_asr("faster-whisper", str(tmp_path), "en")


@pytest.mark.parametrize("broken", ["model.bin", "tokenizer.json"])
def test_a_broken_model_is_refused(faster_folder, tmp_path, broken):
    for path in faster_folder.iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2] if path.name == broken else content)
    with pytest.raises(UserError, match="cannot load"):
        load_recognizer("faster-whisper", str(tmp_path), "en")


def test_models_that_are_nowhere_are_refused_before_anything_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    assert faster_weights("small") is None
    with pytest.raises(UserError, match="nothing is downloaded unasked"):
        choose_asr("faster-whisper", "small", "en")
    assert choose_asr("faster-whisper", "small", "en", download=True) == "faster-whisper"
    with pytest.raises(UserError, match="no such folder"):
        choose_asr("faster-whisper", str(tmp_path / "gone"), "en")


def test_a_download_that_fails_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="cannot download the faster-whisper model tiny") as failed:
        load_recognizer("faster-whisper", "tiny", "en", download=True)
    assert "Systran/faster-whisper-tiny" in failed.value.why


def test_the_repositories_are_those_of_the_package():
    table = faster_whisper.utils._MODELS
    assert {name: repository(name) for name in WHISPER_NAMES} == {name: table[name] for name in WHISPER_NAMES}
