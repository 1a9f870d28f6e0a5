"""A generator has the names and shapes of published checkpoints, and its config is read back from them."""

from __future__ import annotations

import pytest
import torch

from piper_train.models.config import VitsConfig
from piper_train.models.shapes import config_from_state_dict, expected_shapes, generator_weights
from piper_train.models.synthesizer import Synthesizer
from piper_train.quality import QUALITIES

FILES = {
    "x-low": ("params_x_low.json", {}),
    "low": ("params_low_or_medium.json", {}),
    "medium": ("params_low_or_medium.json", {}),
    "high": ("params_high.json", {}),
    "medium, 10 speakers": ("params_medium_multi_speaker_10.json", {"num_speakers": 10}),
}


def config_of(name: str) -> VitsConfig:
    return VitsConfig.from_mapping({**QUALITIES[name.split(",")[0]], **FILES[name][1]})


def claimed(shapes: dict) -> dict[str, torch.Tensor]:
    """Weights that have only shapes."""
    return {name: torch.empty(tuple(shape), device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", FILES)
def test_names_and_shapes_are_those_of_published_voices(name, piper_golden):
    golden = piper_golden(FILES[name][0])
    expected = {f"model_g.{key}": list(shape) for key, shape in expected_shapes(config_of(name)).items()}
    assert expected == golden["params"]
    assert sum(torch.Size(shape).numel() for shape in expected.values()) == golden["n_params"]


@pytest.mark.parametrize("name", ["tiny_single", "tiny_multi_high", "tiny_dp", "medium"])
def test_every_golden_generator_has_the_golden_names(name, piper_golden):
    facts = piper_golden(f"{name}.json")
    config = VitsConfig.from_mapping(facts["hparams"])
    golden = facts["params_g"] if "params_g" in facts else facts["params"]
    golden = {key: shape for key, shape in golden.items() if key.startswith("model_g.")}
    assert {f"model_g.{key}": list(shape) for key, shape in expected_shapes(config).items()} == golden


@pytest.mark.parametrize("prefix", ["model_g.", ""])
@pytest.mark.parametrize("name", FILES)
def test_a_quality_is_read_from_shapes_alone_but_for_its_sample_rate(name, prefix, piper_golden):
    shapes = piper_golden(FILES[name][0])["params"]
    weights = claimed({prefix + key.removeprefix("model_g."): shape for key, shape in shapes.items()})
    if prefix:
        weights["model_d.discriminators.0.conv_post.bias"] = torch.zeros(1)
    config = config_of(name)
    assert config_from_state_dict(weights, sample_rate=config.sample_rate) == config


@pytest.mark.parametrize("name", ["tiny_single", "tiny_multi_high", "tiny_dp"])
def test_a_golden_generator_is_read_from_its_shapes(name, piper_golden):
    facts = piper_golden(f"{name}.json")
    assert config_from_state_dict(claimed(facts["params_g"])) == VitsConfig.from_mapping(facts["hparams"])


def test_what_is_known_counts_where_shapes_say_nothing_and_only_there(piper_golden):
    weights = claimed(piper_golden("params_low_or_medium.json")["params"])
    known = {
        "resblock": 1,  # as upstream writes what it then does not build
        "hidden_channels": 7,
        "p_dropout": 0.25,
        "mel_fmax": 8000.0,
        "resblock_dilation_sizes": [[1, 2], [3, 4], [5, 6]],
        "upsample_rates": "nonsense",
        "sample_bytes": 2,
    }
    config = config_from_state_dict(weights, **known)
    assert (config.resblock, config.hidden_channels, config.upsample_rates) == ("2", 192, (8, 8, 4))
    assert (config.p_dropout, config.mel_fmax) == (0.25, 8000.0)
    assert config.resblock_dilation_sizes == ((1, 2), (3, 4), (5, 6))


def test_known_dilations_of_another_network_do_not_count(piper_golden):
    weights = claimed(piper_golden("params_high.json")["params"])
    config = config_from_state_dict(weights, resblock_dilation_sizes=[[1, 2], [2, 6], [3, 12]])
    assert config.resblock_dilation_sizes == ((1, 3, 5),) * 3


@pytest.mark.parametrize("without", ["enc_p.emb.weight", "dec.conv_pre.weight", "enc_q.pre.weight"])
def test_other_weights_are_refused_by_what_is_missing(without, piper_golden):
    weights = generator_weights(claimed(piper_golden("params_x_low.json")["params"]))
    del weights[without]
    with pytest.raises(ValueError, match=f"not the weights of a Piper voice: {without} is missing"):
        config_from_state_dict(weights)


def test_weights_of_the_wrong_dimension_or_kind_are_refused(piper_golden):
    weights = generator_weights(claimed(piper_golden("params_x_low.json")["params"]))
    with pytest.raises(ValueError, match=r"enc_p.proj.weight has the shape \[3\]"):
        config_from_state_dict({**weights, "enc_p.proj.weight": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"enc_p.proj.weight is missing"):
        config_from_state_dict({**weights, "enc_p.proj.weight": 5})


def test_a_few_weights_that_tell_of_a_huge_voice_are_refused(small_piper_config):
    weights = Synthesizer(VitsConfig.from_mapping(small_piper_config)).state_dict()
    weights["enc_p.emb.weight"] = torch.zeros(1, 1 << 13)
    weights["enc_p.encoder.ffn_layers.0.conv_1.weight"] = torch.zeros(1 << 13, 1, 3)
    for layer in range(64):
        weights[f"enc_p.encoder.attn_layers.{layer}.emb_rel_k"] = torch.zeros(1, 9, 1 << 12)
    with pytest.raises(ValueError, match="their shapes are those of a voice of 7"):  # 280 GB
        config_from_state_dict(weights)


def test_a_small_file_that_claims_large_weights_is_refused(small_piper_config):
    weights = Synthesizer(VitsConfig.from_mapping(small_piper_config)).state_dict()
    assert config_from_state_dict(weights) == VitsConfig.from_mapping(small_piper_config)
    weights["enc_p.emb.weight"] = torch.zeros(1).expand(1 << 16, 1 << 13)
    with pytest.raises(ValueError, match="share their numbers"):
        config_from_state_dict(weights)
