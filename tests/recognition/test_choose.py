"""Which recogniser is taken, and what a person is told who asks for one that is not there."""

import subprocess
import sys

import numpy as np
import pytest

from fish_speech.errors import UserError
from fish_speech.extras import require
from fish_speech.recognition import ASR_CHOICES, choose_asr, resample


@pytest.fixture()
def cache(tmp_path, monkeypatch):
    """A machine with every package and no weights."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1")
    (tmp_path / "whisper").mkdir()
    return tmp_path / "whisper"


def test_auto_takes_whisper_where_its_weights_are_else_pocketsphinx_for_english(cache):
    assert choose_asr("auto", language="en") == "pocketsphinx"
    assert choose_asr("auto", language="en", download=True) == "whisper"
    (cache / "base.en.pt").touch()
    assert choose_asr("auto", language="en") == "whisper"
    with pytest.raises(UserError, match="language 'de'"):
        choose_asr("auto", language="de")  # base.en does not know it
    (cache / "base.pt").touch()
    assert choose_asr("auto", language="de") == choose_asr("auto") == "whisper"


def test_auto_takes_english_for_granted_only_where_pocketsphinx_is_named(cache):
    assert choose_asr("pocketsphinx") == "pocketsphinx"
    with pytest.raises(UserError, match="--language en"):
        choose_asr("auto")


@pytest.mark.parametrize(
    ("request_", "model", "language", "message"),
    [
        ("sphinx", None, "en", "unknown recogniser"),
        ("pocketsphinx", None, "de", "language 'de'"),
        ("pocketsphinx", "tiny", "en", "--whisper-model has no effect"),
        ("whisper", None, "en", "no whisper weights"),
        ("auto", "tiny", "en", "no whisper weights called tiny"),
        ("whisper", "huge", "en", "no whisper model 'huge'"),
        ("whisper", "tiny", "english", "unknown language 'english'"),
        ("whisper", "tiny.en", "de", "does not know the language 'de'"),
        ("whisper", "gone.pt", "en", "no whisper weights at gone.pt"),
    ],
)
def test_what_cannot_be_is_refused(cache, request_, model, language, message):
    with pytest.raises(UserError, match=message):
        choose_asr(request_, model, language)


def test_a_download_is_allowed_for_known_names_only(cache):
    assert choose_asr("whisper", "tiny", "de", download=True) == "whisper"
    for model in ("huge", "gone.pt"):
        with pytest.raises(UserError, match=model):
            choose_asr("whisper", model, "de", download=True)


def test_a_folder_of_weights_is_for_faster_whisper(cache, tmp_path):
    with pytest.raises(UserError, match="--asr faster-whisper"):
        choose_asr("whisper", str(tmp_path), "en")
    for name in ("model.bin", "config.json", "tokenizer.json"):
        (tmp_path / name).touch()
    assert choose_asr("auto", str(tmp_path), "en") == "faster-whisper"


@pytest.mark.parametrize("asr", ASR_CHOICES[1:])
def test_a_missing_package_is_named_with_the_command_that_brings_it(cache, monkeypatch, asr):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for module in ("whisper", "faster_whisper", "pocketsphinx"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match="pip install") as missing:
        choose_asr(asr, language="en")
    extra = {"whisper": "openai-whisper", "faster-whisper": "[faster-whisper]", "pocketsphinx": "[eval]"}[asr]
    assert extra in missing.value.fix


def test_the_database_called_whisper_is_not_taken_for_the_recogniser(cache, monkeypatch):
    import importlib.metadata

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    (cache / "base.pt").touch()
    with pytest.raises(UserError, match="pip uninstall -y whisper"):
        choose_asr("whisper", "base", "en")


def test_choosing_imports_nothing_heavy(tmp_path):
    heavy = "torch", "whisper", "faster_whisper", "ctranslate2", "pocketsphinx", "soundfile", "soxr"
    code = (
        "import sys; from fish_speech.recognition import choose_asr, suspicious\n"
        "try: choose_asr('whisper', 'tiny', 'en')\nexcept Exception as error: assert 'whisper' in str(error), error\n"
        "choose_asr('whisper', 'tiny', 'en', download=True) if __import__('importlib.util').util.find_spec('whisper')"
        f" else None\nprint([name for name in {heavy} if name in sys.modules])"
    )
    environment = {**__import__("os").environ, "XDG_CACHE_HOME": str(tmp_path)}
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert shown.stdout.strip() == "[]", shown.stderr


def test_an_extra_that_is_missing_is_named():
    with pytest.raises(UserError, match=r"pip install 'fish-speech-voice-toolkit\[speed\]'"):
        require("no_such_module_anywhere", "speed", "speed")


def test_resampling_gives_16_khz():
    assert len(resample(np.zeros(44100), 44100)) == 16000
    assert resample(np.zeros(16000), 16000).dtype == np.float32
