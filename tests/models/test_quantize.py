"""int8 layers and models against the float ones they are made of."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn

from fish_speech.errors import UserError
from fish_speech.models import LoraConfig, install_lora, load_dual_ar
from fish_speech.models import quantize as quantize_module
from fish_speech.models.int8_kernels import KERNELS, best_kernel, works
from fish_speech.models.quantize import CompactEmbedding, CompactLinear, Int8Linear, SplitInt8Linear, quantize_int8
from fish_speech.synthesis.generation import generate

from ..conftest import REPO, write_model_folder, write_s1_model

pytestmark = pytest.mark.skipif(best_kernel() is None, reason="torch has no int8 kernel for this CPU")


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def seeded(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def each_kernel(request, monkeypatch):
    if not works(request.param):
        pytest.skip(f"{request.param.name} is not on this machine")
    monkeypatch.setattr(quantize_module, "best_kernel", lambda: request.param)


all_kernels = pytest.mark.parametrize("each_kernel", KERNELS, indirect=True, ids=lambda kernel: kernel.name)


@all_kernels
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(24,), (1, 24), (5, 24), (2, 3, 24), (2, 1, 24), (0, 24), (2, 0, 24)])
def test_an_int8_layer_answers_as_the_float_layer_for_every_shape(each_kernel, shape, bias):
    torch.manual_seed(0)
    linear = nn.Linear(24, 37, bias=bias).requires_grad_(False)
    x = seeded(shape)
    for fine in (False, True):
        found = Int8Linear(linear.weight, linear.bias, fine)(x)
        assert found.shape == (*shape[:-1], 37) and found.dtype == torch.float32
        assert not x.numel() or error(found, linear(x)) < 0.03


@all_kernels
def test_an_int8_layer_takes_parts_of_tensors_and_bfloat16(each_kernel):
    linear = nn.Linear(24, 16).requires_grad_(False)
    layer, x = Int8Linear(linear.weight, linear.bias), seeded((2, 6, 48))[:, ::2, ::2].transpose(0, 1)
    assert error(layer(x), linear(x)) < 0.03
    found = layer(x.bfloat16())
    assert found.dtype == torch.bfloat16 and error(found, linear(x)) < 0.04


@all_kernels
@pytest.mark.parametrize("fine", [False, True])
def test_the_bare_product_of_one_row_is_the_layers_answer(each_kernel, fine):
    linear, x = nn.Linear(24, 16).requires_grad_(False), seeded((1, 24))
    layer = Int8Linear(linear.weight, fine=fine)
    before = x.clone()
    assert torch.equal(layer.row_product(x), layer(x)) and torch.equal(x, before)
    assert Int8Linear(linear.weight, linear.bias).row_product is None


def test_an_int8_layer_keeps_neither_the_weight_nor_the_bias_it_was_made_of():
    linear = nn.Linear(24, 16).requires_grad_(False)
    layer, x = Int8Linear(linear.weight, linear.bias), seeded((2, 24))
    before = layer(x)
    linear.weight.zero_(), linear.bias.zero_()
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)


def test_training_saving_and_copying_int8_weights_say_why_not(tmp_path):
    layer = Int8Linear(torch.ones(4, 4))
    model = nn.Sequential(layer).eval()
    with pytest.raises(RuntimeError, match="cannot be trained"):
        model.train()
    for action in (model.state_dict, lambda: pickle.dumps(model), lambda: copy.deepcopy(model)):
        with pytest.raises(RuntimeError, match=r"before quantize_int8|load the model again"):
            action()


def test_compact_tables_are_exact_and_small_where_the_weights_are_bfloat16():
    wide, ids = seeded((50, 12)), torch.tensor([[3, 0], [49, 3]])
    rounded = wide.bfloat16()
    for weight, dtype in ((rounded, torch.bfloat16), (rounded.float(), torch.bfloat16), (wide, torch.float32)):
        table, output = CompactEmbedding(weight), CompactLinear(weight)
        assert table.weight.dtype == output.weight.dtype == dtype
        assert table(ids).dtype == output.rows(ids[0]).dtype == torch.float32
        assert torch.equal(table(ids), weight.float()[ids]) and torch.equal(output.rows(ids[0]), weight.float()[ids[0]])
        x = seeded((2, 3, 12), 1)
        torch.testing.assert_close(output(x), x @ weight.float().T)  # rounding of float32 sums


@all_kernels
def test_the_first_outputs_of_a_split_layer_are_those_of_the_whole(each_kernel):
    weight, x = seeded((40, 24)), seeded((3, 24), 1)
    split = SplitInt8Linear(weight, 16)
    assert torch.equal(split.first(x), split(x)[:, :16]) and split(x[:1]).shape == (1, 40)
    assert error(split(x), x @ weight.T) < 0.03


MODELS = {
    "1.5's kind": (write_model_folder, {}),
    "tied, biases": (write_model_folder, {"tie_word_embeddings": True, "attention_qkv_bias": True}),
    "another width": (
        write_model_folder,
        {"fast_dim": 48, "fast_n_head": 2, "fast_n_local_heads": 1, "fast_intermediate_size": 40},
    ),
    "S1-mini's kind": (write_s1_model, {}),
    "S1, biases": (write_s1_model, {"attention_qkv_bias": True, "attention_o_bias": True}),
}


@pytest.mark.parametrize("write, changes", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("speech_only", [False, True])
def test_a_small_model_with_shared_kv_heads_speaks_almost_as_in_float32(tmp_path, write, changes, speech_only):
    folder = write(tmp_path / "model", torch.bfloat16, initializer_range=0.2, **changes)
    model, quantized = load_dual_ar(folder), load_dual_ar(folder, quantize=True)
    ids = torch.randint(0, 1000, (12, 1, 9), generator=torch.Generator().manual_seed(0))
    codes = torch.randint(1, 1000, (12, model.config.num_codebooks, 9), generator=torch.Generator().manual_seed(1))
    ids[:, :, 5:] = codes[:, :1, 5:] + model.semantic_begin_id  # text, then frames
    grid = torch.cat([ids, codes * (ids >= model.semantic_begin_id)], dim=1)
    with torch.no_grad():
        for found, expected in zip(quantized(grid), model(grid), strict=True):
            assert error(found, expected) < 0.08
            assert float((found.argmax(dim=-1) == expected.argmax(dim=-1)).float().mean()) > 0.85
    options = {"max_new_tokens": 3, "temperature": 0, "repetition_penalty": 1, "speech_only": speech_only}
    first = [[generate(m, prompt, **options)[:1, :1].tolist() for m in (model, quantized)] for prompt in grid]
    assert sum(a == b for a, b in first) >= 9  # of 12; after a place where they differ they go their own ways


@pytest.mark.parametrize("base", ["small_base", "small_s1_base"])
def test_all_layers_are_int8_and_the_float_weights_are_gone(base, request):
    model = load_dual_ar(request.getfixturevalue(base))
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    freed = [weakref.ref(linear.weight) for linear in linears]
    del linears
    quantize_int8(model)
    gc.collect()
    assert [ref for ref in freed if ref() is not None] == []
    left = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    assert left == []
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False}])
def test_tables_of_codes_stay_small_and_frames_are_embedded_exactly(tmp_path, changes):
    model = load_dual_ar(write_model_folder(tmp_path / "model", torch.bfloat16, **changes))
    codes = torch.arange(24).view(1, 8, 3) % model.config.codebook_size
    grid = torch.cat([codes[:, :1] + model.semantic_begin_id, codes], dim=1)
    with torch.no_grad():
        before = model.embed(grid), model.fast_embeddings(codes)
        quantize_int8(model)
        assert torch.equal(model.embed(grid), before[0]) and torch.equal(model.fast_embeddings(codes), before[1])
    assert model.codebook_embeddings.weight.dtype == model.fast_embeddings.weight.dtype == torch.bfloat16


def test_loading_as_int8_equals_quantizing_the_loaded_model_and_keeps_no_hold_on_the_file(tmp_path):
    folder = write_model_folder(tmp_path / "model", torch.bfloat16)
    direct, later = load_dual_ar(folder, quantize=True), load_dual_ar(folder)
    quantize_int8(later)
    grid = torch.cat([torch.arange(5, 17)[None], torch.zeros(8, 12, dtype=torch.int64)])[None]
    with torch.no_grad():
        before = direct(grid)
        for found, expected in zip(before, later(grid), strict=True):
            assert torch.equal(found, expected)
    weights = folder / "model.pth"
    weights.write_bytes(bytes(weights.stat().st_size))  # in place: what is mapped would become zeros
    with torch.no_grad():
        assert torch.equal(direct(grid).token_logits, before.token_logits)


def test_int8_is_refused_for_unmerged_adapters_other_precisions_and_fresh_weights(small_base):
    model = load_dual_ar(small_base)
    install_lora(model, LoraConfig(r=2))
    with pytest.raises(ValueError, match="merge them before"):
        quantize_int8(model)
    with pytest.raises(UserError, match="contradicts --precision bf"):
        load_dual_ar(small_base, dtype=torch.bfloat16, quantize=True)
    with pytest.raises(UserError, match="does not work on cuda"):
        load_dual_ar(small_base, device="cuda", quantize=True)
    for options in ({"lora": LoraConfig()}, {"load_weights": False}):
        with pytest.raises(ValueError, match="when it is whole"):
            load_dual_ar(small_base, quantize=True, **options)


def test_minnow_speaks_with_int8_weights():
    from fish_speech.models import load_codec
    from fish_speech.synthesis.speak import Speaker, SpeechRequest

    folder = REPO / "checkpoints" / "minnow"
    if not (folder / "model.pth").is_file():
        pytest.skip("checkpoints/minnow is not here")
    codec = load_codec(folder / "codec.pth")
    text = "Please try again."
    sounds = {}
    for name, quantize in (("fp32", False), ("int8", True)):
        speaker = Speaker(load_dual_ar(folder, quantize=quantize), codec)
        sounds[name] = torch.cat([torch.as_tensor(part) for part in speaker.stream(SpeechRequest(text))])
    seconds = {name: len(sound) / codec.sample_rate for name, sound in sounds.items()}
    assert 0.5 < seconds["int8"] < 6 and 0.4 < seconds["int8"] / seconds["fp32"] < 2.5
    loudness = {name: float(sound.square().mean().sqrt()) for name, sound in sounds.items()}
    assert 0.3 < loudness["int8"] / loudness["fp32"] < 3
