"""Sampling and generation of S1-mini equal the released system's, token for token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fill import fill_array

from fish_speech.models import DualAR, DualARConfig
from fish_speech.models.int8_kernels import best_kernel
from fish_speech.models.quantize import quantize_int8
from fish_speech.models.shapes import shapes_only
from fish_speech.synthesis.engine import FlatEngine, PlainEngine
from fish_speech.synthesis.generation import generate, generate_columns
from fish_speech.synthesis.sampling import SamplingConfig, token_probabilities

SETTINGS = ("temperature", "top_p", "repetition_penalty")


class Tokens:
    """What generation asks of a tokenizer."""

    def __init__(self, end_id: int, num_semantic: int):
        self.end_id, self.num_semantic = end_id, num_semantic

    def id_of(self, token: str) -> int:
        return {"<|im_end|>": self.end_id}[token]


@pytest.fixture()
def speaker(s1_golden, s1_golden_dual_ar):
    def build(name: str, end_id: int | None = None) -> DualAR:
        ids, model = s1_golden("manifest.json")["tokenizer"], s1_golden_dual_ar(name)
        count = ids["semantic_end_id"] - ids["semantic_begin_id"] + 1
        model.tokenizer = Tokens(end_id or ids["im_end"], count)
        return model

    return build


def prompt_of(s1_golden, settings: dict) -> torch.Tensor:
    index = int(settings["prompt"].removeprefix("sequences.json inference[").removesuffix("]"))
    return torch.tensor(s1_golden("sequences.json")["inference"][index]["values"])


def new_columns(model, prompt, settings) -> np.ndarray:
    sampling = SamplingConfig(*(settings[name] for name in SETTINGS))
    return torch.stack(list(generate_columns(model, prompt, settings["max_new_tokens"], sampling)), dim=1).numpy()


@pytest.mark.parametrize("index", range(6))
def test_sampled_probabilities_equal_the_golden_ones(s1_golden, index):
    answer, settings = s1_golden("sampling.npz"), dict(s1_golden("manifest.json")["sampling"][index])
    previous = settings.pop("previous")
    seen = None if previous is None else torch.tensor(previous)
    found = token_probabilities(torch.from_numpy(answer["logits"]), SamplingConfig(**settings), seen)
    torch.testing.assert_close(found, torch.from_numpy(answer[f"probs_{index}"]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("engine", [FlatEngine, PlainEngine])
@pytest.mark.parametrize("run", [0, 1])
@pytest.mark.parametrize("name", ["A", "B"])
def test_generated_columns_are_equal_token_for_token(s1_golden, speaker, name, run, engine, monkeypatch):
    monkeypatch.setattr("fish_speech.synthesis.generation.engine_for", engine)
    settings = s1_golden("manifest.json")["models"][f"llama_{name}"]["generate"][run]
    answer, prompt = s1_golden(f"llama_{name}.npz")[f"generate_{run}"], prompt_of(s1_golden, settings)
    np.testing.assert_array_equal(new_columns(speaker(name), prompt, settings), answer[:, prompt.size(1) :])


@pytest.mark.parametrize("name", ["A", "B"])
def test_generation_stops_at_the_end_token(s1_golden, speaker, name):
    manifest = s1_golden("manifest.json")["models"][f"llama_{name}"]
    stop = manifest["generate_stop"]
    settings = manifest["generate"][stop["like"]]
    answer, prompt = s1_golden(f"llama_{name}.npz")["generate_stop"], prompt_of(s1_golden, settings)
    model = speaker(name, stop["treat_this_id_as_im_end"])
    found = new_columns(model, prompt, settings)
    np.testing.assert_array_equal(found, answer[:, prompt.size(1) :])
    assert found.shape[1] == stop["columns"] and found[0, -1] == stop["treat_this_id_as_im_end"]
    codes = generate(model, prompt, settings["max_new_tokens"], **{name: settings[name] for name in SETTINGS})
    np.testing.assert_array_equal(codes.numpy(), answer[1:, prompt.size(1) : -1])


@pytest.mark.slow
def test_full_size_generation_is_equal_and_int8_stays_close(s1_golden):
    info, answer = s1_golden("full.json")["llama"], s1_golden("full.npz")
    settings, columns = info["generate"], torch.from_numpy(answer["generate"]).long()
    with shapes_only():
        model = DualAR(DualARConfig.from_mapping(info["config"]), info["semantic_begin_id"]).eval()
    for name, meta in list(model.named_parameters()):  # one at a time: the weights take 3.4 GB
        owner, _, leaf = name.rpartition(".")
        weight = torch.from_numpy(fill_array(name, tuple(meta.shape), info["seed"]))
        setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(weight, requires_grad=False))
    model.tokenizer = Tokens(info["im_end"], 4096)
    count = columns.size(1) - settings["max_new_tokens"]
    assert settings["prompt"] == f"first {count} columns of inputs"
    prompt = torch.from_numpy(answer["inputs"])[0, :, :count]
    np.testing.assert_array_equal(new_columns(model, prompt, settings), columns[:, count:].numpy())
    exact = led(model, prompt, columns[:, count:])
    if best_kernel() is None:
        return
    quantize_int8(model)
    for found, expected in zip(led(model, prompt, columns[:, count:]), exact, strict=True):
        assert (found - expected).norm() < 0.1 * expected.norm()


@torch.inference_mode()
def led(model: DualAR, prompt: torch.Tensor, columns: torch.Tensor) -> list[torch.Tensor]:
    """Hidden states and logits of codes along `columns` (1 + codebooks, frames) after the prompt."""
    engine = FlatEngine(model, prompt.size(1) + columns.size(1))
    found, hidden = [], engine.prefill(prompt)
    for column in columns.T:
        found += [hidden.clone(), engine.first_logits(hidden.clone(), column[1]).clone()]
        found += [engine.next_logits(code).clone() for code in column[2:-1]]
        hidden = engine.step(column)
    return [*found, hidden]
