"""Sampling and generation equal the released system's, token for token."""

import numpy as np
import pytest
import torch

from fish_speech.synthesis.generation import generate, generate_columns
from fish_speech.synthesis.sampling import SamplingConfig, token_probabilities
from fish_speech.text import Tokenizer, reference_block, request_block, split_text, system_block

from ..conftest import GOLDEN


@pytest.fixture()
def speaker(golden_dual_ar):
    model = golden_dual_ar()
    model.tokenizer = Tokenizer(GOLDEN / "tokenizer" / "tokenizer.tiktoken")
    return model


def new_columns(model, prompt, count, temperature, top_p, penalty, rng=None):
    sampling = SamplingConfig(temperature, top_p, penalty)
    return torch.stack(list(generate_columns(model, prompt, count, sampling, rng)), dim=1).numpy()


@pytest.mark.parametrize("index", range(5))
def test_sampled_probabilities_equal_the_golden_ones(golden, index):
    answer = golden("sampling.npz")
    temperature, top_p, penalty, use_previous = answer[f"params{index}"]
    previous = torch.from_numpy(answer["previous"]).long() if use_previous else None
    config = SamplingConfig(float(temperature), float(top_p), float(penalty))
    found = token_probabilities(torch.from_numpy(answer["logits"]), config, previous)
    torch.testing.assert_close(found, torch.from_numpy(answer[f"probs{index}"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("run", ["greedy", "greedy_penalty"])
def test_greedy_generation_is_equal_token_for_token(golden, speaker, run):
    answer, settings = golden("generate.npz"), golden("generate.json")[run]
    prompt = torch.from_numpy(answer["prompt"])
    found = new_columns(speaker, prompt, 40, settings["temperature"], settings["top_p"], settings["repetition_penalty"])
    np.testing.assert_array_equal(found, answer[run][:, prompt.size(1) :])
    codes = generate(speaker, prompt, max_new_tokens=40, **settings)
    np.testing.assert_array_equal(codes.numpy(), answer[run][1:, prompt.size(1) :])


def test_seeded_generation_is_equal_token_for_token(golden, speaker):
    answer, settings = golden("generate.npz"), golden("generate.json")["seeded"]
    prompt, rng = torch.from_numpy(answer["prompt"]), torch.Generator().manual_seed(settings["torch_manual_seed"])
    sampling = (settings["temperature"], settings["top_p"], settings["repetition_penalty"])
    found = new_columns(speaker, prompt, 40, *sampling, rng)
    np.testing.assert_array_equal(found, answer["seeded"][:, prompt.size(1) :])


def test_prefill_equals_the_golden_one(golden, speaker):
    answer = golden("generate.npz")
    with torch.inference_mode():
        hidden = speaker.step(torch.from_numpy(answer["prompt"]).long()[None], speaker.new_caches(100)[0])
        logits = speaker.token_logits(hidden)
    torch.testing.assert_close(hidden[0], torch.from_numpy(answer["prefill_hidden"])[0, 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits[0], torch.from_numpy(answer["prefill_logits"])[0, 0], rtol=0, atol=1e-4)


def swap_end_token(model, golden):
    token = golden("generate.json")["stop"]["S"]
    end = model.tokenizer.id_of("<|im_end|>")
    weight = model.output.weight.data
    old = weight[[end, token]].clone()
    weight[end], weight[token] = old[1] * 1.0001, old[0]
    return model


def test_generation_stops_at_the_end_token(golden, speaker):
    answer = golden("generate.npz")
    stopped, prompt = golden("generate_stop.npz")["stopped"], torch.from_numpy(answer["prompt"])
    model = swap_end_token(speaker, golden)
    greedy = golden("generate.json")["greedy"]
    found = new_columns(model, prompt, 40, greedy["temperature"], greedy["top_p"], greedy["repetition_penalty"])
    np.testing.assert_array_equal(found, stopped[:, prompt.size(1) :])
    codes = generate(model, prompt, max_new_tokens=40, **greedy)
    np.testing.assert_array_equal(codes.numpy(), stopped[1:, prompt.size(1) : -1])


@pytest.mark.parametrize("run", ["with_reference", "without_reference_None"])
def test_long_text_gives_the_golden_segments(golden, speaker, run):
    info = golden("generate.json")
    settings, model = info["generate_long"], swap_end_token(speaker, golden)
    sampling = (settings["temperature"], settings["top_p"], settings["repetition_penalty"])
    history = []  # without references the released function leaves the instruction out too
    if run == "with_reference":
        codes = golden("generate.npz")["ref_codes"]
        history = [system_block(model.tokenizer, 8), reference_block(model.tokenizer, info["reference_text"], codes, 8)]
    samples = [entry for entry in settings[run] if entry["action"] == "sample"]
    texts = split_text(settings["text"], settings["chunk_length"])
    assert texts == [entry["text"] for entry in samples]
    for text, entry in zip(texts, samples, strict=True):
        history.append(request_block(model.tokenizer, text, 8))
        prompt = torch.from_numpy(np.concatenate(history, axis=1))
        columns = new_columns(model, prompt, settings["max_new_tokens"], *sampling)
        # The released tool drops the first column and keeps the one of the end token.
        np.testing.assert_array_equal(columns[1:, 1:], np.array(entry["codes"]))
        history.append(columns)
