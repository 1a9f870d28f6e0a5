"""The decoder has the published parameters in every quality, and makes a hop of samples for each frame."""

from __future__ import annotations

import copy

import pytest
import torch

from piper_train.models.config import VitsConfig
from piper_train.models.decoder import Decoder
from piper_train.models.stochastic_durations import StochasticDurationPredictor
from piper_train.quality import QUALITIES


@pytest.mark.parametrize(
    ("golden", "quality", "speakers"),
    [
        ("x_low", "x-low", 1),
        ("low_or_medium", "medium", 1),
        ("high", "high", 1),
        ("medium_multi_speaker_10", "medium", 10),
    ],
)
def test_parameters_of_every_quality_have_the_published_names_and_shapes(piper_golden, golden, quality, speakers):
    said = piper_golden(f"params_{golden}.json")
    said = said.get("params", said)
    config = VitsConfig.from_mapping({**QUALITIES[quality], "num_speakers": speakers})
    with torch.device("meta"):
        parts = {"model_g.dec.": Decoder(config), "model_g.dp.": StochasticDurationPredictor(config)}
    for prefix, part in parts.items():
        shapes = {prefix + name: list(value.shape) for name, value in part.state_dict().items()}
        assert shapes == {name: shape for name, shape in said.items() if name.startswith(prefix)}


@pytest.mark.parametrize("changes", [{}, {"resblock": "1", "resblock_dilation_sizes": ((1, 3, 5),)}])
@torch.no_grad()
def test_folding_changes_no_sample_and_frames_become_hops(small_piper_config, changes):
    decoder = Decoder(VitsConfig.from_mapping({**small_piper_config, **changes, "num_speakers": 3})).eval()
    z, g = torch.randn(2, 32, 7), torch.randn(2, 512, 1)
    wave = decoder(z, g)
    assert wave.shape == (2, 1, 7 * 256) and wave.abs().max() <= 1
    folded = copy.deepcopy(decoder)
    folded.remove_weight_norm()
    torch.testing.assert_close(folded(z, g), wave, rtol=0, atol=1e-6)
    assert (decoder(z, g.roll(1, 0)) - wave).abs().max() > 1e-4  # the speaker is heard
    torch.testing.assert_close(decoder(z, g), wave, rtol=0, atol=0)  # folding a copy leaves the original
