"""Where adapters go, that they never change or lose the base, and that those of another run or model are refused."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.checkpoint import check_names
from fish_speech.errors import UserError
from fish_speech.models import DualARConfig, LoraConfig, adapter_shape, install_lora, load_dual_ar, lora, merge_lora
from fish_speech.models.adapters import check_base_is, check_same_shape, load_adapter
from fish_speech.models.lora import FAST_PARTS, PARTS, is_lora_name
from fish_speech.weight_origin import origin_of

EVERY_PART = [*PARTS, *FAST_PARTS]


def adapted_layers(model) -> set[str]:
    return {name.rpartition(".")[0] for name, _ in model.named_parameters() if is_lora_name(name)}


def random_adapters(model, seed=0):
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if is_lora_name(name):
            parameter.data.normal_(0, 0.3, generator=rng)
    return model


def grid_of(model, tokens=9):
    rng = torch.Generator().manual_seed(1)
    codes = torch.randint(0, 900, (2, model.config.num_codebooks, tokens), generator=rng)
    return torch.cat([codes[:, :1] + model.semantic_begin_id, codes], dim=1)


@pytest.mark.parametrize("part", EVERY_PART)
def test_a_target_module_is_its_layers_and_a_fast_one_those_of_the_fast_part(s1_golden_dual_ar, part):
    model = s1_golden_dual_ar(lora={"r": 2, "target_modules": [part]})
    suffixes = {
        "attention": ("attention.wqkv", "attention.wo"),
        "mlp": ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
        "embeddings": ("embeddings",),
        "output": ("output",),
    }[part.removeprefix("fast_")]
    everywhere = {n for n, m in model.named_modules() if n.endswith(suffixes) and hasattr(m, "weight")}
    fast = {name for name in everywhere if name.startswith("fast_")}
    assert fast and fast < everywhere
    assert adapted_layers(model) == (fast if part.startswith("fast_") else everywhere)
    assert all(p.requires_grad == is_lora_name(name) for name, p in model.named_parameters())


@given(st.lists(st.sampled_from(EVERY_PART), min_size=1))
def test_equal_choices_of_target_modules_are_equal_configs(names):
    config = LoraConfig(target_modules=tuple(names))
    assert config == LoraConfig(target_modules=[*reversed(names), *names]) == LoraConfig.of(dataclasses.asdict(config))
    redundant = {f"fast_{name}" for name in PARTS if name in names}
    assert set(config.target_modules) == set(names) - redundant


@pytest.mark.parametrize("names", [["attention", "norm"], [], "fast", [None]])
def test_unknown_target_modules_are_refused_with_the_known_ones(names):
    with pytest.raises(ValueError, match="attention, mlp, embeddings, output, fast_attention"):
        LoraConfig(target_modules=names)


@pytest.mark.parametrize("values", [{"r": 8.5}, {"r": 0}, {"lora_alpha": float("inf")}, {"lora_alpha": float("nan")}])
def test_sizes_that_make_no_adapter_are_refused(values):
    with pytest.raises(ValueError, match="lora"):
        LoraConfig.of(values)


def test_target_modules_that_a_run_mistypes_are_a_message(small_base):
    with pytest.raises(UserError, match="'attn'; known"):
        load_dual_ar(small_base, lora={"r": 8, "target_modules": ["attn"]})
    with pytest.raises(UserError, match="rank"):
        load_dual_ar(small_base, lora={"rank": 8})


def test_the_first_values_of_adapters_are_drawn_as_ever(golden_dual_ar):
    # The order of the draws is part of a seed's meaning: tables, then blocks.
    torch.manual_seed(5)
    model = golden_dual_ar()
    torch.manual_seed(5)
    install_lora(model, LoraConfig(r=2))
    torch.manual_seed(5)
    for name in ("embeddings", "codebook_embeddings"):
        expected = torch.empty(model.config.dim, 2).normal_()
        assert torch.equal(getattr(model, name).lora_B, expected)
    expected = torch.nn.init.kaiming_uniform_(torch.empty(2, model.config.dim), a=5**0.5)
    assert torch.equal(model.output.lora_A, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fresh_adapters_change_nothing_on_s1_bit_for_bit(small_s1_base, dtype):
    plain = load_dual_ar(small_s1_base, dtype=dtype)
    adapted = load_dual_ar(small_s1_base, dtype=dtype, lora=LoraConfig(r=4))
    check_base_is(adapted, small_s1_base / "model.pth")
    with torch.no_grad():
        for one, other in zip(plain(grid_of(plain)), adapted(grid_of(plain)), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("base", ["small_base", "small_s1_base"])
def test_a_base_that_installing_adapters_would_randomise_is_caught(request, monkeypatch, base):
    folder = request.getfixturevalue(base)
    wrap = lora._wrap

    def wrap_anew(layer, config):  # what loralib's layers do by themselves: a new weight
        adapted = wrap(layer, config)
        adapted.weight = torch.nn.Parameter(torch.randn_like(layer.weight))
        return adapted

    monkeypatch.setattr(lora, "_wrap", wrap_anew)
    model = load_dual_ar(folder, lora=LoraConfig(r=4, target_modules=("fast_mlp",)))
    with pytest.raises(RuntimeError, match=r"3 weights of the base are not those of .*fast_layers.0.feed_forward.w1"):
        check_base_is(model, folder / "model.pth")


@pytest.mark.parametrize("family", ["fish", "s1"])
def test_an_adapter_of_tied_embeddings_acts_on_the_output_too_before_and_after_merging(
    golden_dual_ar, s1_golden_dual_ar, family
):
    build = {"fish": golden_dual_ar, "s1": s1_golden_dual_ar}[family]
    model = random_adapters(build(lora={"r": 3, "lora_alpha": 6}, tie_word_embeddings=True))
    assert "embeddings" in adapted_layers(model) and "output" not in adapted_layers(model)
    with torch.no_grad():
        base_alone = build(tie_word_embeddings=True).token_logits(torch.ones(1, model.config.dim))
        assert not torch.allclose(model.token_logits(torch.ones(1, model.config.dim)), base_alone, atol=1e-2)
        before = model(grid_of(model))
        merge_lora(model)
        after = model(grid_of(model))
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * one.std().item() + 1e-5)  # the order of float32 sums


def test_fresh_adapters_of_a_tied_model_change_nothing(s1_golden_dual_ar):
    model = s1_golden_dual_ar(tie_word_embeddings=True)
    with torch.no_grad():
        before = model(grid_of(model))
        install_lora(model, LoraConfig(r=3))
        after = model(grid_of(model))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_biases_stay_the_bases_through_adapting_and_merging(s1_golden_dual_ar):
    biased = {"attention_qkv_bias": True, "attention_o_bias": True, "fast_attention_qkv_bias": True}
    model = s1_golden_dual_ar(**biased)
    biases = {name: p.detach().clone() for name, p in model.named_parameters() if name.endswith(".bias")}
    assert {name.split(".")[-2] for name in biases} == {"wqkv", "wo", "fast_project_in"}
    with torch.no_grad():
        base = model(grid_of(model))
        install_lora(model, LoraConfig(r=3, lora_alpha=6))
        fresh = model(grid_of(model))
        adapted = random_adapters(model)(grid_of(model))
        merge_lora(model)
        merged = model(grid_of(model))
    assert torch.equal(base.token_logits, fresh.token_logits)
    for one, other in zip(adapted, merged, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4 * one.std().item() + 1e-5)
    weights = model.state_dict()
    assert all(torch.equal(weights[name], bias) for name, bias in biases.items())


def write_checkpoint(path, model, **record):
    state = {f"model.{name}": p.data for name, p in model.named_parameters() if is_lora_name(name)}
    torch.save({"state_dict": state, "global_step": 3, "fish_speech": record}, path)
    return path


def test_a_checkpoint_from_before_target_modules_has_adapters_everywhere(golden_dual_ar, tmp_path):
    model = golden_dual_ar(lora={"r": 2})
    old = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0}
    path = write_checkpoint(tmp_path / "old.ckpt", model, lora=old)
    assert adapter_shape(path) == {**old, "target_modules": PARTS}
    check_same_shape(path, LoraConfig(2, 4, 0.1))  # dropout is the training's own affair
    with pytest.raises(UserError, match=r"r 2, alpha 4, dropout 0.0 there, r 2, alpha 8, dropout 0.0 here"):
        check_same_shape(path, LoraConfig(2, 8, 0.0))
    with pytest.raises(UserError, match="here"):
        check_same_shape(path, LoraConfig(2, 4, 0.0, ("mlp",)))


@pytest.mark.parametrize("targets", [["everything"], 7, None, []])
def test_a_record_with_target_modules_that_make_no_sense_is_damaged(golden_dual_ar, tmp_path, targets):
    record = {"r": 2, "lora_alpha": 4, "lora_dropout": 0.0, "target_modules": targets}
    path = write_checkpoint(tmp_path / "odd.ckpt", golden_dual_ar(lora={"r": 2}), lora=record)
    with pytest.raises(UserError, match="damaged LoRA record"):
        adapter_shape(path)


def test_an_adapter_that_says_another_family_is_refused_though_its_tensors_fit(golden_dual_ar, tmp_path):
    model = golden_dual_ar(lora={"r": 2})
    path = write_checkpoint(tmp_path / "s1.ckpt", model, family="s1")
    with pytest.raises(UserError, match=r"an adapter of OpenAudio S1-mini\n  why: the base is Fish Speech 1.5"):
        load_adapter(model, path)
    assert load_adapter(model, write_checkpoint(tmp_path / "own.ckpt", model, family="fish"))["global_step"] == 3
    assert load_adapter(model, write_checkpoint(tmp_path / "odd.ckpt", model, family=["s1"]))["global_step"] == 3


PUBLISHED = {
    "the model of Fish Speech 1.5": {
        "codebook_embeddings.weight": (8192, 1024),
        "layers.0.attention.wo.weight": (9, 9),
    },
    "the model of OpenAudio S1-mini": {"layers.3.attention.q_norm.weight": (128,), "embeddings.weight": (155776, 1024)},
    "an adapter of Fish Speech 1.5": {"fast_embeddings.lora_A": (8, 1024), "fast_embeddings.lora_B": (1024, 8)},
    "an adapter of OpenAudio S1-mini": {"codebook_embeddings.lora_A": (8, 40960), "output.lora_A": (8, 1024)},
    "the codec of Fish Speech 1.5": {"quantizer.residual_fsq.rvqs.0.project_in.weight": (4, 64)},
    "the codec of OpenAudio S1-mini": {"quantizer.semantic_quantizer.quantizers.0.codebook.weight": (4096, 8)},
}


@pytest.mark.parametrize("here", PUBLISHED)
@pytest.mark.parametrize("given", PUBLISHED)
def test_weights_of_another_version_or_kind_are_called_by_their_name(tmp_path, here, given):
    assert str(origin_of(PUBLISHED[given])) == given
    found = {name: torch.empty(shape, device="meta") for name, shape in PUBLISHED[given].items()}
    if here == given:
        check_names(PUBLISHED[here], found, tmp_path / "model.pth", "this model")
        return
    with pytest.raises(UserError) as caught:
        check_names(PUBLISHED[here], found, tmp_path / "model.pth", "this model")
    assert f"those of {given}" in str(caught.value) and f"where {here} is expected" in str(caught.value)


def test_weights_that_tell_nothing_are_described_by_their_names_alone(tmp_path):
    with pytest.raises(UserError, match=r"\n  why: 1 missing: weight; 1 unknown: bias\n"):
        check_names({"weight": (2,)}, {"bias": torch.zeros(2)}, tmp_path, "this model")


def test_every_config_of_the_folder_is_one_and_the_fast_one_is_as_published():
    from fish_speech.configs import names, read_lora

    configs = {name: LoraConfig(**read_lora(name)) for name in names("lora")}
    assert configs["r_32_alpha_16_fast"] == LoraConfig(32, 16, 0.1, FAST_PARTS)
    for name, config in configs.items():
        if not name.endswith("_fast"):
            assert name == f"r_{config.r}_alpha_{config.lora_alpha}"
            assert config.target_modules == PARTS and config.lora_dropout == 0.01
    assert DualARConfig().tie_word_embeddings  # as upstream's default, which LoRA must work with
