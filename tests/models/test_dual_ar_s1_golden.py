"""The transformer answers as the released OpenAudio S1 does, on weights filled by the golden rule."""

import json
from dataclasses import replace

import pytest
import torch
from fill import fill_array

from fish_speech.models import DualAR, DualARConfig
from fish_speech.models.shapes import shapes_only
from fish_speech.training.losses import dual_ar_loss

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
def test_hidden_states_and_logits_of_the_generation_path_equal_the_golden_ones(
    s1_golden, s1_golden_dual_ar, batch, name
):
    model, answer = s1_golden_dual_ar(name), s1_golden(f"llama_{name}.npz")
    with torch.no_grad():
        hidden = model.slow(batch[0])
        logits = model.token_logits(hidden)
    torch.testing.assert_close(hidden, torch.from_numpy(answer["generate_path_hidden"]), **TOLERANCE)
    torch.testing.assert_close(logits, torch.from_numpy(answer["generate_path_token_logits"]), **TOLERANCE)


@pytest.mark.parametrize("name", MODELS)
def test_scaling_changes_the_answer_where_the_flag_is_on(s1_golden_dual_ar, batch, name):
    with torch.no_grad():
        model, unscaled = s1_golden_dual_ar(name), s1_golden_dual_ar(name, scale_codebook_embeddings=False)
        difference = (model.embed(batch[0]) - unscaled.embed(batch[0])).abs().amax(dim=2)  # (batch, tokens)
    is_frame = (batch[0][:, 0] >= 335) & (batch[0][:, 0] <= 1434)
    assert model.config.embedding_scale == (5**0.5 if name == "A" else 1)
    assert not difference[~is_frame].any() and bool((difference[is_frame] > 0.1).all()) == (name == "A")


def test_labels_are_the_next_column_where_none_are_given(s1_golden_dual_ar, batch):
    model, (inputs, _, _) = s1_golden_dual_ar(), batch
    following = torch.cat([inputs[..., 1:], torch.full_like(inputs[..., :1], -100)], dim=2)
    with torch.no_grad():
        for one, other in zip(model(inputs), model(inputs, labels=following), strict=True):
            assert torch.equal(one, other)


def test_without_frames_there_are_four_rows_of_codebook_logits_as_released(s1_golden, s1_golden_dual_ar, batch):
    model, (inputs, labels, mask) = s1_golden_dual_ar(), batch
    with torch.no_grad():
        out = model(inputs, mask, torch.full_like(labels, -100))
    assert (
        list(out.codebook_logits.shape)
        == s1_golden("manifest.json")["models"]["llama_A"]["no_audio_codebook_logits_shape"]
    )


def test_residual_codes_are_the_first_1024(s1_golden_dual_ar):
    config = s1_golden_dual_ar().config
    assert config.codebook_sizes == (1100, 1024, 1024, 1024)


@pytest.mark.slow
def test_full_size_model_equals_the_golden_one(s1_golden):
    info, answer = s1_golden("full.json")["llama"], s1_golden("full.npz")
    config = DualARConfig.from_mapping({**info["config"], "scale_codebook_embeddings": False})
    with shapes_only():
        model = DualAR(config, info["semantic_begin_id"]).eval()
    shapes = {name: list(tensor.shape) for name, tensor in model.named_parameters()}
    assert list(shapes.items()) == list(info["parameters"].items())
    assert sum(p.numel() for p in model.parameters()) == 860_169_216
    assert model.semantic_end_id == info["semantic_begin_id"] + 4095
    for name, shape in shapes.items():  # one at a time: the weights take 3.4 GB
        owner, _, leaf = name.rpartition(".")
        weight = torch.from_numpy(fill_array(name, tuple(shape), info["seed"]))
        setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(weight, requires_grad=False))

    inputs, labels = torch.from_numpy(answer["inputs"]), torch.from_numpy(answer["labels"])
    with torch.no_grad():
        tokens, codes = model(inputs, labels=labels)
        parts = dual_ar_loss(model, inputs, labels, torch.zeros_like(inputs[:, 0], dtype=torch.bool))
        model.config = replace(config, scale_codebook_embeddings=True)
        hidden = model.slow(inputs)
        scaled_tokens = model.token_logits(hidden)
    tokens, scaled_tokens, ids = tokens[0], scaled_tokens[0], torch.from_numpy(answer["token_logit_ids"])
    for found, name in (
        (tokens[:, ids], "token_logits"),
        (tokens.logsumexp(-1), "token_logsumexp"),
        (codes[..., ::61], "codebook_logits"),
        (codes.logsumexp(-1), "codebook_logsumexp"),
        (hidden[0, :, ::8], "generate_hidden"),
        (scaled_tokens[:, ids], "generate_token_logits"),
    ):
        torch.testing.assert_close(
            found, torch.from_numpy(answer[name]), rtol=0, atol=2e-3, msg=lambda m, n=name: n + m
        )
    assert tokens.argmax(-1).tolist() == answer["token_argmax"].tolist()
    assert codes.argmax(-1).tolist() == answer["codebook_argmax"].tolist()
    for found, name in ((tokens, "token_logits"), (codes, "codebook_logits")):
        assert found.std().item() == pytest.approx(info[f"{name}_std"], abs=1e-4)
    for name in ("base_loss", "semantic_loss", "loss"):
        assert getattr(parts, name).item() == pytest.approx(info[name], abs=1e-4), name
