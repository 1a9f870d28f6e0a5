"""The config of a generator takes what users and checkpoints write, and refuses what cannot be; the four qualities."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from piper_train.models.config import VitsConfig
from piper_train.quality import QUALITIES, quality_of

CONFIGS = Path(__file__).parents[2] / "configs" / "piper"


def test_defaults_are_the_quality_medium():
    assert VitsConfig.from_mapping(QUALITIES["medium"]) == VitsConfig()
    assert quality_of(VitsConfig()) == "medium"


@pytest.mark.parametrize("name", QUALITIES)
def test_a_quality_is_known_by_its_values_whatever_its_symbols_and_speakers(name):
    assert quality_of(VitsConfig.from_mapping({**QUALITIES[name], "num_symbols": 99, "num_speakers": 7})) == name


def test_another_sample_rate_or_network_is_no_quality():
    assert quality_of(VitsConfig(sample_rate=44100)) is None
    assert quality_of(VitsConfig(n_layers=5)) is None


@pytest.mark.parametrize("name", QUALITIES)
def test_the_yaml_of_a_quality_says_what_the_quality_is(name):
    written = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert list(written) == ["model"]
    assert VitsConfig.from_mapping(written["model"]) == VitsConfig.from_mapping(QUALITIES[name])
    assert set(written["model"]) == set(QUALITIES[name])


def test_a_config_survives_json():
    config = VitsConfig.from_mapping({**QUALITIES["high"], "num_speakers": 3, "mel_fmax": 8000.0})
    assert VitsConfig.from_mapping(json.loads(json.dumps(config.to_mapping()))) == config


def test_unknown_keys_of_old_checkpoints_are_ignored():
    assert VitsConfig.from_mapping({"sample_bytes": 2, "quality": "medium", "max_phoneme_ids": None}) == VitsConfig()


@pytest.mark.parametrize("one", [1, "1", " 1"])
def test_residual_blocks_compare_as_text_and_sequences_may_be_python_literals(one):
    config = VitsConfig.from_mapping(
        {
            "resblock": one,
            "resblock_kernel_sizes": "3, 7, 11",
            "resblock_dilation_sizes": "((1, 3, 5), [1, 3, 5], (1, 3, 5))",
            "upsample_rates": "(8, 8, 2, 2)",
            "upsample_initial_channel": 512,
            "upsample_kernel_sizes": [16, 16, 4, 4],
        }
    )
    assert quality_of(config) == "high"


def test_several_speakers_get_a_speaker_vector_of_512():
    assert VitsConfig(num_speakers=10).gin_channels == 512
    assert VitsConfig(num_speakers=10, gin_channels=8).gin_channels == 8


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"resblock": 3}, "resblock is '3'"),
        ({"resblock": True}, "resblock is True"),
        ({"resblock": "1"}, "3 numbers in each list"),
        ({"upsample_rates": (8, 8, 2)}, "hop_length is 256"),
        ({"upsample_rates": "__import__('os').system('true')"}, "must be a list such as"),
        ({"upsample_rates": "[" * 400}, "must be a list such as"),
        ({"upsample_rates": [8.0, 8.0, 4.0]}, "whole numbers"),
        ({"upsample_rates": [256] + [1] * 20, "upsample_kernel_sizes": [256] + [1] * 20}, "must pair up"),
        ({"upsample_kernel_sizes": (16, 15, 8)}, "even number"),
        ({"upsample_initial_channel": 100}, "multiple of 8"),
        ({"resblock_kernel_sizes": (3, 4, 7)}, "odd numbers"),
        ({"resblock_dilation_sizes": (1, 2, 3)}, "must be a list"),
        ({"hidden_channels": 191}, "multiple of n_heads"),
        ({"hidden_channels": 10**9}, "from 1 to 8192"),
        ({"inter_channels": 191}, "even"),
        ({"num_symbols": 0}, "num_symbols is 0"),
        ({"num_symbols": "256"}, "num_symbols is '256'"),
        ({"num_speakers": 0}, "num_speakers is 0"),
        ({"gin_channels": 512}, "one speaker"),
        ({"gin_channels": -1}, "gin_channels is -1"),
        ({"sample_rate": 0}, "sample_rate is 0"),
        ({"n_layers": 10**6}, "from 1 to 64"),
        ({"p_dropout": 1.0}, "p_dropout"),
        ({"p_dropout": float("nan")}, "p_dropout"),
        ({"use_sdp": "no"}, "use_sdp"),
        ({"win_length": 2048}, "must not grow"),
        ({"segment_size": 8000}, "multiple of hop_length"),
        ({"mel_fmax": 12000.0}, "half the sample rate"),
        ({"mel_fmin": None}, "mel_fmin"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong, named):
    with pytest.raises(ValueError, match=named):
        VitsConfig.from_mapping(wrong)
