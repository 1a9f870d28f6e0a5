"""config.json: what is required, what is tolerated, and that the real client reads what we write."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from fish_speech.errors import UserError
from piper_train.data.language import language_of
from piper_train.phonemes.ids import default_table
from piper_train.voice_config import VoiceConfig

REQUIRED = {
    "audio": {"sample_rate": 22050},
    "espeak": {"voice": "ru"},
    "num_symbols": 256,
    "num_speakers": 1,
    "phoneme_id_map": {"_": [0], "^": [1], "$": [2], "a": [14]},
}


def full() -> VoiceConfig:
    return VoiceConfig(
        num_symbols=256,
        num_speakers=2,
        sample_rate=16000,
        espeak_voice="en-gb",
        phoneme_id_map=dict(default_table()),
        speaker_id_map={"anna": 0, "Борис": 1},
        default_speaker_id=1,
        noise_scale=0.5,
        hop_length=200,
        vowel_clusters=(("a", "ɪ"), ("a", "ʊ")),
        quality="low",
        dataset="mine",
        language=language_of("en-gb"),
    )


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(full().to_mapping(), ensure_ascii=False, indent=2), encoding="utf-8")
    assert VoiceConfig.from_file(path) == full()


def test_what_is_not_said_has_the_clients_defaults():
    config = VoiceConfig.from_mapping(REQUIRED)
    assert (config.noise_scale, config.length_scale, config.noise_w) == (0.667, 1.0, 0.8)
    assert (config.hop_length, config.default_speaker_id, config.phoneme_type) == (256, 0, "espeak")
    assert config.speaker_id_map == {} and config.phoneme_id_map["a"] == (14,)


def test_keys_of_published_voices_that_nobody_needs_are_ignored():
    published = {
        **REQUIRED,
        "audio": {"sample_rate": 22050, "quality": "medium"},
        "language": {"code": "ru_RU", "family": "ru", "region": "RU", "name_native": "Русский"},
        "phoneme_map": {},
        "dataset": "irina",
        "something_new": [1, {"x": None}],
    }
    config = VoiceConfig.from_mapping(published)
    assert (config.quality, config.dataset, config.language["code"]) == ("medium", "irina", "ru_RU")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_symbols": None}, "it has no num_symbols"),
        ({"audio": {}}, "it has no audio.sample_rate"),
        ({"espeak": "ru"}, "it has no espeak.voice"),
        ({"phoneme_id_map": {}}, "phoneme_id_map"),
        ({"phoneme_id_map": {"a": ["x"]}}, "phoneme_id_map"),
        ({"num_symbols": 10}, "id 14"),
        ({"num_symbols": "256"}, "num_symbols is '256'"),
        ({"num_speakers": 0}, "at least 1"),
        ({"num_speakers": 1, "speaker_id_map": {"x": 3}}, "speaker id 3"),
        ({"inference": {"noise_scale": float("nan")}}, "noise_scale"),
        ({"inference": []}, None),
        ({"inference": [1]}, "inference is not an object"),
        ({"vowel_clusters": [[1]]}, "vowel_clusters"),
        ({"hop_length": -3}, "hop_length"),
        ({"dataset": 3}, "dataset is not text"),
        ({"espeak": {"voice": ["ru"]}}, "espeak_voice is not text"),
        ({"inference": {"length_scale": 10**400}}, "too large"),
        ({"dataset": "\ud800"}, "surrogates"),
    ],
)
def test_what_makes_no_sense_is_one_message_with_its_reason(change, reason):
    if reason is None:
        assert VoiceConfig.from_mapping({**REQUIRED, **change})
        return
    with pytest.raises(UserError, match=r"voice\.json is not the config") as caught:
        VoiceConfig.from_mapping({**REQUIRED, **change}, "voice.json")
    assert reason in caught.value.why


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe\x00", b"[" * 100_000, b" " * (3 << 20)])
def test_a_file_that_is_no_config_is_one_message(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot read"):
        VoiceConfig.from_file(path)


def test_a_file_that_is_not_there_is_one_message(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        VoiceConfig.from_file(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("voice", "code"),
    [
        ("ru", "ru_RU"), ("en-us", "en_US"), ("en-gb", "en_GB"), ("en", "en_US"), ("de", "de_DE"), ("pt-br", "pt_BR"),
        ("es-419", "es_MX"), ("en-gb-x-rp", "en_GB"), ("cmn", "zh_CN"), ("nb", "no_NO"), ("fr-be", "fr_BE"), ("eo", "eo"),
    ],
)  # fmt: skip
def test_the_language_code_is_that_of_published_voices(voice, code):
    assert language_of(voice)["code"] == code


_READ = """
import json, sys
from piper.config import PiperConfig
config = PiperConfig.from_dict(json.load(open(sys.argv[1], encoding="utf-8")))
print(json.dumps([config.num_symbols, config.num_speakers, config.sample_rate, config.espeak_voice, config.noise_scale,
    config.hop_length, config.default_speaker_id, dict(config.speaker_id_map), list(config.phoneme_id_map["ə"]),
    sorted(map(list, config.vowel_clusters))]))
"""


@pytest.mark.skipif(importlib.util.find_spec("piper") is None, reason="piper-tts is not installed")
def test_the_real_client_reads_it(tmp_path):
    path = tmp_path / "voice.onnx.json"
    path.write_text(json.dumps(full().to_mapping(), ensure_ascii=False), encoding="utf-8")
    said = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=True).stdout
    schwa = list(default_table()["ə"])
    assert json.loads(said) == [
        256, 2, 16000, "en-gb", 0.5, 200, 1, {"anna": 0, "Борис": 1}, schwa, [["a", "ɪ"], ["a", "ʊ"]],
    ]  # fmt: skip
