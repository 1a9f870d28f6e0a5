"""The transformer answers as the released system does, on weights filled by the golden rule."""

import json

import pytest
import torch

# The golden README suggests 1e-4 absolute for logits: kernels differ between machines.
TOLERANCE = {"rtol": 0, "atol": 1e-4}


def parameters(model):
    return [[name, list(tensor.shape)] for name, tensor in model.state_dict().items()]


@pytest.mark.parametrize("name", ["base", "alt"])
def test_parameter_names_shapes_and_order_are_the_published_ones(golden, golden_dual_ar, name):
    assert parameters(golden_dual_ar(name)) == golden("manifest.json")["llama"]["configs"][name]["params"]


@pytest.mark.parametrize("name", ["base", "alt"])
def test_config_resolves_to_the_released_values(golden, golden_dual_ar, name):
    written = json.loads(golden_dual_ar(name).config.to_json())
    assert written == golden("manifest.json")["llama"]["configs"][name]["resolved"]


@pytest.mark.parametrize("name", ["base", "alt"])
def test_logits_with_padding_equal_the_golden_ones(golden, golden_dual_ar, name):
    model, answer = golden_dual_ar(name), golden(f"llama_{name}.npz")
    grid = torch.from_numpy(answer["inputs"]).long()
    with torch.no_grad():
        out = model(grid, padding_mask=torch.from_numpy(answer["key_padding_mask"]))
        embedded = model.embed(grid)
    torch.testing.assert_close(embedded, torch.from_numpy(answer["embed"]), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.token_logits, torch.from_numpy(answer["token_logits"]), **TOLERANCE)
    torch.testing.assert_close(out.codebook_logits, torch.from_numpy(answer["codebook_logits"]), **TOLERANCE)


@pytest.mark.parametrize("name", ["base", "alt"])
def test_logits_without_mask_equal_the_golden_ones(golden, golden_dual_ar, name):
    model, answer = golden_dual_ar(name), golden(f"llama_{name}.npz")
    with torch.no_grad():
        out = model(torch.from_numpy(answer["inputs"][:1]).long())
    torch.testing.assert_close(
        out.token_logits[:, -1], torch.from_numpy(answer["nomask_token_logits_last"]), **TOLERANCE
    )
    torch.testing.assert_close(
        out.codebook_logits[:, 2], torch.from_numpy(answer["nomask_codebook_logits_t2"]), **TOLERANCE
    )


@pytest.mark.slow
def test_full_size_model_equals_the_golden_one(golden, fill):
    from fish_speech.models import DualAR, DualARConfig

    info, answer = golden("llama_full.json"), golden("llama_full.npz")
    model = fill(DualAR(DualARConfig.from_mapping(info["config"]), info["semantic_begin_id"])).eval()
    assert parameters(model) == info["params"]
    assert sum(p.numel() for p in model.parameters()) == info["n_parameters"]
    with torch.no_grad():
        out = model(torch.from_numpy(answer["inputs"]).long(), torch.from_numpy(answer["key_padding_mask"]))
    tokens, codebooks = out.token_logits[0], out.codebook_logits[0]
    first = info["semantic_begin_id"]
    for found, name in (
        (tokens[:, :64], "token_logits_first64"),
        (tokens[:, first : first + 64], "token_logits_semantic64"),
        (tokens[:, ::997], "token_logits_every997"),
        (codebooks[..., ::16], "codebook_logits_every16"),
    ):
        torch.testing.assert_close(found, torch.from_numpy(answer[name]), **TOLERANCE)
    assert tokens.argmax(-1).tolist() == answer["token_argmax"].tolist()
    assert codebooks.argmax(-1).tolist() == answer["codebook_argmax"].tolist()
