"""The transformer answers as the released OpenAudio S1 does, on weights filled by the golden rule."""

import json

import pytest
import torch

TOLERANCE = {"rtol": 0, "atol": 1e-4}  # of the golden README, for small models' logits
MODELS = ["A", "B"]


@pytest.fixture()
def batch(s1_golden):
    """inputs, labels (2, 5, 60) and the mask of padding (2, 60)."""
    arrays = s1_golden("batch.npz")
    return tuple(torch.from_numpy(arrays[name]) for name in ("inputs", "labels", "attention_masks"))


def facts(s1_golden, name):
    return s1_golden("manifest.json")["models"][f"llama_{name}"]


@pytest.mark.parametrize("name", MODELS)
def test_parameter_names_shapes_and_order_are_the_published_ones(s1_golden, s1_golden_dual_ar, name):
    found = [(key, list(tensor.shape)) for key, tensor in s1_golden_dual_ar(name).state_dict().items()]
    assert found == list(facts(s1_golden, name)["parameters"].items())


@pytest.mark.parametrize("name", MODELS)
def test_config_resolves_to_the_released_values(s1_golden, s1_golden_dual_ar, name):
    assert json.loads(s1_golden_dual_ar(name).config.to_json()) == facts(s1_golden, name)["resolved"]


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_the_unscaled_training_path_equal_the_golden_ones(s1_golden, s1_golden_dual_ar, batch, name):
    model, answer, (inputs, labels, mask) = (
        s1_golden_dual_ar(name, scale_codebook_embeddings=False), s1_golden(f"llama_{name}.npz"), batch
    )  # fmt: skip
    with torch.no_grad():
        out = model(inputs, mask, labels)
    torch.testing.assert_close(out.token_logits, torch.from_numpy(answer["token_logits"]), **TOLERANCE)
    torch.testing.assert_close(out.codebook_logits, torch.from_numpy(answer["codebook_logits"]), **TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_logits_of_the_generation_path_equal_the_golden_ones(s1_golden, s1_golden_dual_ar, batch, name):
    model, answer, (inputs, _, _) = s1_golden_dual_ar(name), s1_golden(f"llama_{name}.npz"), batch
    with torch.no_grad():
        hidden = model.slow(inputs)
    torch.testing.assert_close(
        model.token_logits(hidden), torch.from_numpy(answer["generate_path_token_logits"]), **TOLERANCE
    )
