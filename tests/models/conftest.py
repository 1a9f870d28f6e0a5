"""Codecs that more than one test file of this folder needs."""

from __future__ import annotations

import pytest
import torch

SMALL_WINDOWED = {"n_layer": 2, "n_head": 2, "dim": 64, "intermediate_size": 96, "head_dim": 32, "window": 8}
SMALL_DAC = {  # of the golden answers
    "encoder_dim": 8,
    "encoder_rates": [2, 2, 4],
    "decoder_dim": 48,
    "decoder_rates": [4, 2, 2],
    "encoder_transformer_layers": [0, 0, 2],
    "quantizer": {
        "input_dim": 64,
        "n_codebooks": 3,
        "codebook_size": 32,
        "semantic_codebook_size": 48,
        "pre_module": SMALL_WINDOWED,
        "post_module": SMALL_WINDOWED,
    },
}


@pytest.fixture()
def filled_dac(fill):
    """Build a modded DAC codec filled by the golden rule, some of its weights multiplied afterwards, in eval mode."""
    from fish_speech.models.dac import DacCodec, DacConfig

    def build(config: DacConfig, seed: int, override: dict[str, float]) -> DacCodec:
        codec = fill(DacCodec(config), seed).eval()
        with torch.no_grad():
            for name, factor in override.items():
                codec.get_parameter(name).mul_(factor)
        return codec

    return build


@pytest.fixture()
def small_dac(filled_dac, s1_golden):
    """The small codec of the golden answers of S1-mini."""
    from fish_speech.models.dac import DacConfig

    manifest = s1_golden("manifest.json")
    return filled_dac(DacConfig.from_mapping(SMALL_DAC), manifest["seed"], manifest["models"]["codec_override"])
