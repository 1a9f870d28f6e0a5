"""The flat engine computes what the model's own modules compute, whatever the model's shape."""

from __future__ import annotations

import pytest
import torch

from fish_speech.models import DualAR, DualARConfig, LoraConfig, install_lora
from fish_speech.models.int8_kernels import best_kernel
from fish_speech.models.quantize import quantize_int8
from fish_speech.synthesis import flat_layers, generation
from fish_speech.synthesis.engine import FlatEngine, PlainEngine, drawn_output, engine_for
from fish_speech.synthesis.flat_layers import normalization
from fish_speech.synthesis.generation import generate_columns
from fish_speech.synthesis.sampling import SamplingConfig

BASE = {
    "dim": 48, "n_layer": 3, "n_head": 4, "n_local_heads": 2, "intermediate_size": 56, "vocab_size": 1412,
    "max_seq_len": 160, "rope_base": 1e4, "norm_eps": 1e-6, "tie_word_embeddings": False, "codebook_size": 40,
    "num_codebooks": 5, "n_fast_layer": 2,
}  # fmt: skip
SHAPES = {
    "grouped heads": {},
    "one key head": {"n_local_heads": 1},
    "as many key heads": {"n_local_heads": 4},
    "tied embeddings": {"tie_word_embeddings": True},
    "narrow fast part": {"fast_dim": 24, "fast_n_head": 2, "fast_n_local_heads": 2, "fast_intermediate_size": 20},
    "biases": {"attention_qkv_bias": True},
    "one layer each": {"n_layer": 1, "n_fast_layer": 1},
    "two codebooks": {"num_codebooks": 2},
    "S1": {
        "attention_qk_norm": True, "scale_codebook_embeddings": True, "head_dim": 20,
        "fast_attention_qk_norm": False, "fast_head_dim": 10,
    },
    "S1, normed fast part": {
        "attention_qk_norm": False, "attention_qkv_bias": True, "attention_o_bias": True, "fast_attention_qk_norm": True,
        "head_dim": None, "n_local_heads": 4, "fast_dim": 24, "fast_n_head": 2, "fast_n_local_heads": 2,
    },
    "S1, more codes than are drawn": {"attention_qk_norm": True, "head_dim": 14, "codebook_size": 1100},
}  # fmt: skip
S1_SHAPES = [name for name in SHAPES if name.startswith("S1")]
SEMANTIC, END = 300, 10


class FewTokens:
    """What generation asks of a tokenizer."""

    def __init__(self, num_semantic: int):
        self.num_semantic = num_semantic

    def id_of(self, token: str) -> int:
        return {"<|im_end|>": END}[token]


def make_model(seed: int = 0, **changes) -> DualAR:
    model = DualAR(DualARConfig.from_mapping({**BASE, **changes}), SEMANTIC)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that tokens depend on the text, norms and biases too
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.3 + (parameter == 1))
    model.tokenizer = FewTokens(model.config.codebook_size)
    return model.eval()


def make_prompt(model: DualAR, text: int, frames: int) -> torch.Tensor:
    rng = torch.Generator().manual_seed(text)
    grid = torch.zeros(1 + model.config.num_codebooks, text + frames, dtype=torch.int64)
    grid[0, :text] = torch.randint(0, SEMANTIC, (text,), generator=rng)
    grid[1:, text:] = torch.randint(0, 40, (model.config.num_codebooks, frames), generator=rng)
    grid[0, text:] = SEMANTIC + grid[1, text:]
    return grid


def outputs_of(engine, prompt: torch.Tensor, columns: torch.Tensor) -> list[torch.Tensor]:
    """Hidden state and logits of every codebook after the prompt and after each of `columns`."""
    found = [engine.prefill(prompt)]
    for column in columns.T:
        hidden = found[-1] if len(found) == 1 else engine.step(column)
        found += [hidden.clone(), engine.first_logits(hidden, column[1])]
        found += [engine.next_logits(code) for code in column[2:-1]]
        found.append(hidden)  # what a frame did must not have changed it
    return found


def assert_close(a: torch.Tensor, b: torch.Tensor, share: float = 1e-5) -> None:
    """Equal but for float32's rounding of sums taken in another order, as a share of the whole vector's length."""
    assert (a - b).norm() <= share * b.norm(), ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("text, frames", [(1, 0), (2, 0), (0, 3), (9, 4)])
def test_flat_decoding_equals_the_models_own_steps(shape, text, frames):
    model = make_model(**SHAPES[shape])
    prompt, columns = make_prompt(model, text, frames), make_prompt(model, 2, 6)  # two columns that are not semantic
    with torch.inference_mode():
        flat = outputs_of(FlatEngine(model, 64), prompt, columns)
        plain = outputs_of(PlainEngine(model, 64), prompt, columns)
    for a, b in zip(flat, plain, strict=True):
        assert_close(a, b)


def greedy(engine_class, model, prompt, monkeypatch, count=24, **more) -> torch.Tensor:
    with monkeypatch.context() as patch:
        patch.setattr("fish_speech.synthesis.generation.engine_for", engine_class)
        return torch.stack(list(generate_columns(model, prompt, count, SamplingConfig(0, 1, 1), **more)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("speech_only", [True, False])
def test_greedy_tokens_are_those_of_the_models_own_steps(shape, speech_only, monkeypatch):
    model = make_model(seed=3, **SHAPES[shape])
    prompt = make_prompt(model, 7, 3)
    more = {"speech_only": speech_only, "min_frames": 24}
    flat = greedy(FlatEngine, model, prompt, monkeypatch, **more)
    torch.testing.assert_close(flat, greedy(PlainEngine, model, prompt, monkeypatch, **more), rtol=0, atol=0)
    assert len({tuple(column) for column in flat.tolist()}) > 3  # not one column over and over


@pytest.mark.parametrize("engine_class", [FlatEngine, PlainEngine])
@pytest.mark.parametrize("shape", SHAPES)
def test_decoding_with_caches_equals_the_full_forward_pass(shape, engine_class):
    model, text = make_model(**SHAPES[shape]), 6
    grid = make_prompt(model, text, 5)
    grid[1:, text:].clamp_(min=1)  # the released 1.5 leaves out frames of zeros
    with torch.inference_mode():
        out, engine = model(grid[None]), engine_class(model, 64)
        hidden, tokens, codes = engine.prefill(grid[:, :text]), [], []
        for column in grid[:, text:].T:
            tokens.append(model.token_logits(hidden)[0])
            codes.append(engine.first_logits(hidden.clone(), column[1]).clone())
            codes += [engine.next_logits(code).clone() for code in column[2:-1]]
            hidden = engine.step(column)
    of_frames = slice(text - 1, -1)
    assert_close(torch.stack(tokens), out.token_logits[0, of_frames])
    dense = out.codebook_logits.dim() == 4
    expected = out.codebook_logits[0, of_frames] if dense else out.codebook_logits
    expected = expected[:, 1:, : model.config.residual_codes].flatten(0, 1)
    for a, b in zip(codes, expected, strict=True):  # 1.9e-5 seen: here the prompt is one sum with what follows it
        assert_close(a, b, 5e-5)


@pytest.mark.parametrize("engine_class", [FlatEngine, PlainEngine])
def test_codes_after_the_first_are_drawn_from_the_first_1024_alone(engine_class, monkeypatch):
    model = make_model(**SHAPES["S1, more codes than are drawn"])
    monkeypatch.setattr("fish_speech.synthesis.generation.engine_for", engine_class)
    evenly = SamplingConfig(temperature=2, top_p=1, repetition_penalty=1)
    with torch.no_grad():  # all codes as likely as any other
        model.fast_output.weight.zero_(), model.output.weight.zero_()
    rng = torch.Generator().manual_seed(0)
    columns = list(generate_columns(model, make_prompt(model, 4, 2), 150, evenly, rng, True, min_frames=150))
    codes = torch.stack(columns)[:, 1:]
    assert 1024 <= codes[:, 0].max() < 1100 and 1000 < codes[:, 1:].max() < 1024
    part = drawn_output(model)
    assert part.weight.shape == (1024, 48) and part.weight.data_ptr() == model.fast_output.weight.data_ptr()
    if best_kernel() is not None:
        quantize_int8(model)
        assert drawn_output(model).out_features == 1024


@pytest.mark.parametrize("shape, speech_only", [("S1", False), ("S1", True), ("two codebooks", False)])
def test_what_is_penalised(shape, speech_only, monkeypatch):
    model, calls = make_model(**SHAPES[shape]), []
    sample = generation.sample_token

    def watched(logits, sampling, rng, previous):
        calls.append(previous)
        return sample(logits, sampling, rng, previous)

    monkeypatch.setattr(generation, "sample_token", watched)
    rng = torch.Generator().manual_seed(0)
    warm, count = SamplingConfig(1, 1, 1.1), 20
    columns = list(generate_columns(model, make_prompt(model, 4, 2), count, warm, rng, speech_only, min_frames=count))
    codebooks = model.config.num_codebooks
    by_column = [calls[index : index + codebooks] for index in range(0, len(calls), codebooks)]
    assert by_column[0] == [None] * codebooks
    for index, (for_token, *for_codes) in enumerate(by_column[1:]):
        window = torch.stack(columns[1 : index + 1][-16:] + [torch.zeros_like(columns[0])] * (index < 16), dim=1)
        for row, seen in enumerate(for_codes, start=2):
            assert seen.tolist() == window[row].tolist()
        tokens = {"S1": window[:, 0], "two codebooks": window[0]}[shape]
        if speech_only:  # as places among the tokens that are drawn from, where 0 is the first semantic token
            tokens = window[0][window[0] >= SEMANTIC] - SEMANTIC
        assert for_token.tolist() == tokens.tolist()


def test_caches_that_grow_on_the_way_change_nothing(monkeypatch):
    model = make_model()
    prompt = make_prompt(model, 5, 2)
    roomy = greedy(FlatEngine, model, prompt, monkeypatch, speech_only=True, min_frames=24)
    monkeypatch.setattr(flat_layers, "FIRST_ROOM", 1)
    cramped = greedy(FlatEngine, model, prompt, monkeypatch, speech_only=True, min_frames=24)
    torch.testing.assert_close(roomy, cramped, rtol=0, atol=0)


def test_a_second_prompt_starts_anew():
    model = make_model()
    engine, columns = FlatEngine(model, 64), make_prompt(model, 0, 4)
    with torch.inference_mode():
        outputs_of(engine, make_prompt(model, 9, 4), columns)
        again = outputs_of(engine, make_prompt(model, 3, 1), columns)
        fresh = outputs_of(FlatEngine(model, 64), make_prompt(model, 3, 1), columns)
    for a, b in zip(again, fresh, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_bfloat16_stays_within_its_rounding():
    model = make_model()
    prompt, columns = make_prompt(model, 6, 2), make_prompt(model, 0, 4)
    with torch.inference_mode():
        exact = outputs_of(PlainEngine(model, 64), prompt, columns)
        model.to(torch.bfloat16)
        plain = outputs_of(PlainEngine(model, 64), prompt, columns)
        flat = outputs_of(FlatEngine(model, 64), prompt, columns)
    for a, b, c in zip(flat, plain, exact, strict=True):
        assert b.dtype == torch.bfloat16
        error = (b.float() - c).norm() / c.norm()  # what bfloat16 does to the model's own steps
        assert (a.float() - c).norm() / c.norm() < 1.5 * error + 0.01


@pytest.mark.parametrize("shape", S1_SHAPES)
def test_bfloat16_of_s1_is_on_the_whole_no_worse_than_in_the_models_own_steps(shape):
    model = make_model(**SHAPES[shape])
    prompt, columns = make_prompt(model, 6, 2), make_prompt(model, 0, 4)
    with torch.inference_mode():
        exact = outputs_of(PlainEngine(model, 64), prompt, columns)
        model.to(torch.bfloat16)
        plain, flat = (outputs_of(kind(model, 64), prompt, columns) for kind in (PlainEngine, FlatEngine))
    errors = [
        sum((a.float() - c).norm() / c.norm() for a, c in zip(found, exact, strict=True)) for found in (plain, flat)
    ]
    assert errors[1] < 1.1 * errors[0]


@pytest.mark.parametrize("shape", ["grouped heads", "tied embeddings", "S1, more codes than are drawn"])
def test_adapters_are_heard_while_they_are_not_merged(shape):
    model = make_model(**SHAPES[shape])
    prompt, columns = make_prompt(model, 6, 2), make_prompt(model, 0, 3)
    with torch.inference_mode():
        before = outputs_of(FlatEngine(model, 64), prompt, columns)
    install_lora(model, LoraConfig(r=4, lora_alpha=8))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    model.eval()
    with torch.inference_mode():
        flat, plain = (outputs_of(kind(model, 64), prompt, columns) for kind in (FlatEngine, PlainEngine))
    for a, b in zip(flat, plain, strict=True):
        assert_close(a, b)
    assert not torch.allclose(flat[0], before[0], atol=1e-2)


def test_training_keeps_its_dropout_and_other_devices_their_modules():
    model = make_model()
    assert isinstance(engine_for(model, 8), FlatEngine)
    assert isinstance(engine_for(model.train(), 8), PlainEngine)
    with torch.device("meta"):
        elsewhere = DualAR(DualARConfig.from_mapping(BASE), SEMANTIC).eval()
    assert isinstance(engine_for(elsewhere, 8), PlainEngine)


def test_one_row_is_normalised_as_many_are():
    norm = make_model().norm
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(2)) * torch.tensor([1e-4, 0.1, 1, 30, 0])[:, None]
    apply = normalization(norm)
    with torch.inference_mode():
        rows = torch.cat([apply(row[None]) for row in x])
        torch.testing.assert_close(rows, norm(x), rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(apply(x), norm(x), rtol=0, atol=0)


@pytest.mark.parametrize("shape", ["grouped heads", "tied embeddings", "narrow fast part", "biases", *S1_SHAPES])
def test_int8_weights_decode_as_in_the_models_own_steps(shape, monkeypatch):
    if best_kernel() is None:
        pytest.skip("torch has no int8 kernel for this CPU")
    model = make_model(**SHAPES[shape])
    prompt, columns = make_prompt(model, 6, 2), make_prompt(model, 0, 5)
    with torch.inference_mode():
        exact = outputs_of(PlainEngine(model, 64), prompt, columns)
        quantize_int8(model)
        flat, plain = (outputs_of(kind(model, 64), prompt, columns) for kind in (FlatEngine, PlainEngine))
    errors = [((b - c).norm() / c.norm()).item() for b, c in zip(plain, exact, strict=True)]
    for a, c in zip(flat, exact, strict=True):  # single values cross rounding steps, so the two differ from each other
        assert (a - c).norm() / c.norm() < 1.5 * max(errors)
    tokens = greedy(FlatEngine, model, prompt, monkeypatch, speech_only=True, min_frames=24)
    assert tokens.shape == (24, 1 + model.config.num_codebooks)
