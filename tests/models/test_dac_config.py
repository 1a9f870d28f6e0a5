"""The config of a modded DAC codec says what the codec makes, and refuses what fits together in no codec."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.models.dac_config import DacConfig

from .conftest import SMALL_DAC


def changed(path: str, value: Any) -> dict[str, Any]:
    """The small config with another value at a dotted path."""
    values: dict[str, Any] = json.loads(json.dumps(SMALL_DAC))  # its parts shared no more
    *parents, name = path.split(".")
    place = values
    for parent in parents:
        place = place.setdefault(parent, {})
    place[name] = value
    return values


def test_the_released_codec_makes_ten_codes_21_times_a_second():
    config = DacConfig()
    assert (config.sample_rate, config.samples_per_frame, config.codebooks) == (44100, 2048, 10)
    assert config.frame_rate == pytest.approx(21.533, abs=1e-3)
    assert config.codebook_sizes == (4096, *[1024] * 9)
    assert config.latent_dim == 1024
    assert [config.transformer(stage) is None for stage in range(4)] == [True, True, True, False]
    assert config.transformer(3).window == 512 and config.transformer(3).intermediate_size == 3072


@given(samples=st.integers(0, 10**9))
def test_every_sample_lies_in_a_frame_and_no_frame_is_empty(samples):
    config = DacConfig()
    frames = config.frames_of(samples)
    assert (frames - 1) * config.samples_per_frame < samples <= frames * config.samples_per_frame


def test_sounds_as_short_as_promised_can_be_encoded_and_compared(small_dac):
    import torch

    sound = torch.randn(1, small_dac.config.least_samples)
    codes = small_dac.encode_clips([sound[0]])[0]
    made = small_dac.decode(codes[None])[0, :, : sound.size(1)]
    assert small_dac.log_mel.distance(sound, made) > 0
    with pytest.raises(ValueError, match="too short"):
        small_dac.log_mel.distance(sound[:, 1:], made[:, 1:])


@pytest.mark.parametrize("values", [{}, SMALL_DAC, {"sample_rate": 16000}])
def test_a_saved_config_is_read_again(values):
    config = DacConfig.from_mapping(values)
    assert DacConfig.from_mapping(config.to_mapping()) == config
    assert config.to_mapping()["architecture"] == "modded_dac"


def test_keys_that_change_nothing_may_be_there():
    values = changed("transformer_general_config.block_size", 16384)
    values |= {"decoder_transformer_layers": [4, 0, 0], "causal": True, "latent_dim": 64, "_target_": "anything"}
    values["quantizer"] |= {"quantizer_dropout": 0.5, "pre_module": {**SMALL_DAC["quantizer"]["pre_module"]}}
    values["quantizer"]["pre_module"] |= {"n_local_heads": -1, "channels_first": True, "dropout": 0.1}
    assert DacConfig.from_mapping(values) == DacConfig.from_mapping(SMALL_DAC)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("architecture", "firefly", "architecture"),
        ("encoder_dim", 0, "encoder_dim"),
        ("encoder_dim", "64", "encoder_dim"),
        ("encoder_dim", True, "encoder_dim"),
        ("encoder_dim", 16, "quantizer.input_dim"),
        ("encoder_rates", [2, 2], "encoder_transformer_layers"),
        ("encoder_rates", [2, 2, 5], "encoder_rates.*decoder_rates"),
        ("encoder_rates", 8, "encoder_rates"),
        ("encoder_rates", [2, 2, -4], "encoder_rates"),
        ("encoder_rates", "224", "encoder_rates"),
        ("encoder_rates", [1] * 1000, "encoder_rates"),
        ("decoder_dim", 50, "decoder_dim"),
        ("decoder_rates", [], "decoder_rates"),
        ("encoder_transformer_layers", [0, 0, 10**9], "encoder_transformer_layers"),
        ("encoder_transformer_layers", [0, 0, 60_000], "encoder_transformer_layers"),
        ("latent_dim", 128, "latent_dim"),
        ("causal", False, "causal"),
        ("sample_rate", 1e30, "sample_rate"),
        ("surprise", 1, "surprise"),
        ("transformer_general_config.head_dim", 48, "transformer_general_config.head_dim"),
        ("transformer_general_config.n_layer", 3, "transformer_general_config.n_layer"),
        ("quantizer", None, "quantizer"),
        ("quantizer.codebook_size", 0, "quantizer.codebook_size"),
        ("quantizer.n_codebooks", 10**9, "quantizer.n_codebooks"),
        ("quantizer.downsample_factor", [2.0, 2], "quantizer.downsample_factor"),
        ("quantizer.pre_module.dim", 32, "quantizer.pre_module.dim"),
        ("quantizer.pre_module.head_dim", 31, "quantizer.pre_module.head_dim"),
        ("quantizer.pre_module.n_local_heads", 1, "quantizer.pre_module.n_local_heads"),
        ("quantizer.post_module.window", 0, "quantizer.post_module.window"),
        ("quantizer.post_module.n_layer", 10**9, "quantizer.post_module.n_layer"),
        ("quantizer.post_module.norm_eps", "1e-5", "quantizer.post_module.norm_eps"),
        ("quantizer.post_module.rope_base", float("nan"), "quantizer.post_module.rope_base"),
    ],
)
def test_what_fits_in_no_codec_is_refused_by_its_key(path, value, named):
    with pytest.raises(ValueError, match=named.replace(".*", "~").replace(".", r"\.").replace("~", ".*")):
        DacConfig.from_mapping(changed(path, value))
