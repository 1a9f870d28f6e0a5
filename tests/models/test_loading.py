"""A model folder is read strictly, whatever names its weights have, and what is another model's is refused."""

import json
import shutil

import pytest
import torch

from fish_speech.errors import UserError
from fish_speech.models import DualARConfig, load_dual_ar, read_config


@pytest.fixture()
def s1_folder(tmp_path, s1_golden, s1_golden_folder, s1_golden_dual_ar):
    """Write golden model A (or another) as a published folder; `rename` makes the stored weights of the model's."""

    def write(name="A", dtype=torch.bfloat16, rename=lambda tensors: tensors, **config):
        folder = tmp_path / "s1"
        shutil.copytree(s1_golden_folder / "tokenizer", folder, dirs_exist_ok=True)
        given = s1_golden("manifest.json")["models"][f"llama_{name}"]["config"]
        (folder / "config.json").write_text(json.dumps({**given, **config}), encoding="utf-8")
        tensors = {key: tensor.to(dtype) for key, tensor in s1_golden_dual_ar(name).state_dict().items()}
        torch.save(rename(dict(tensors)), folder / "model.pth")
        return folder, tensors

    return write


def same(model, tensors, dtype):
    found = model.state_dict()
    assert list(found) == list(tensors)
    assert all(value.dtype == dtype for value in found.values())
    return all(torch.equal(found[name], tensor.to(dtype)) for name, tensor in tensors.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_are_those_of_the_file_however_often_it_is_read(s1_folder, dtype):
    folder, tensors = s1_folder()
    before = (folder / "model.pth").read_bytes()
    first = load_dual_ar(folder, dtype=dtype)
    assert same(first, tensors, dtype)
    with torch.no_grad():
        first.norm.weight.zero_()
    assert same(load_dual_ar(folder, dtype=dtype), tensors, dtype)
    assert (folder / "model.pth").read_bytes() == before


def test_the_model_knows_the_ids_of_its_tokenizer_and_answers_as_the_one_that_was_stored(s1_folder, s1_golden_dual_ar):
    folder, _ = s1_folder(dtype=torch.float32)
    model = load_dual_ar(folder)
    assert (model.semantic_begin_id, model.semantic_end_id) == (335, 1434)
    assert model.tokenizer.family == model.config.family == "s1"
    grid = torch.randint(0, 300, (1, 5, 7), generator=torch.Generator().manual_seed(0))
    grid[:, 0, 3:] += 335
    with torch.no_grad():
        for one, other in zip(model(grid), s1_golden_dual_ar()(grid), strict=True):
            assert torch.equal(one, other)


def separate(tensors):
    """Store queries, keys and values by themselves, as older files do."""
    found = {}
    for name, tensor in tensors.items():
        if not name.endswith("wqkv.weight"):
            found[name] = tensor
            continue
        kv = 16 * 2 if name.startswith("layers") else 24 * 1  # head size by KV heads
        for part, values in zip("qkv", tensor.split([len(tensor) - 2 * kv, kv, kv]), strict=True):
            found[name.replace("wqkv", f"w{part}")] = values.clone()
    return found


@pytest.mark.parametrize(
    "rename",
    [
        lambda tensors: {f"model.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {f"model.model.{name}": tensor for name, tensor in tensors.items()},
        lambda tensors: {"state_dict": tensors},
        lambda tensors: {**tensors, "audio_projector.weight": torch.zeros(3), "layers.0.audio_gate": torch.zeros(1)},
        separate,
    ],
)
def test_names_of_other_tools_are_understood(s1_folder, rename):
    folder, tensors = s1_folder(rename=rename)
    assert same(load_dual_ar(folder, dtype=torch.bfloat16), tensors, torch.bfloat16)


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (lambda tensors: {**tensors, "something.weight": torch.zeros(3)}, "something.weight"),
        (lambda tensors: {k: v for k, v in tensors.items() if "q_norm" not in k}, "missing"),
        (lambda tensors: {**tensors, "norm.weight": torch.ones(7)}, "norm.weight"),
        (lambda tensors: {**tensors, "norm.weight": torch.full((48,), float("nan"))}, "NaN"),
        (lambda tensors: {"model.norm.weight": torch.ones(48), "model.model.norm.weight": torch.ones(48)}, "two"),
    ],
)
def test_weights_that_do_not_fit_are_refused(s1_folder, rename, said):
    folder, _ = s1_folder(rename=rename)
    with pytest.raises(UserError, match=said):
        load_dual_ar(folder)


def test_weights_of_the_other_family_are_refused_by_name(s1_folder, small_base):
    folder, _ = s1_folder()
    for own, other, name in ((folder, small_base, "Fish Speech 1.5"), (small_base, folder, "OpenAudio S1-mini")):
        with pytest.raises(UserError, match=f"weights are those of the model of {name}"):
            load_dual_ar(own, weights=other / "model.pth")


def test_a_tokenizer_with_fewer_semantic_tokens_than_codes_is_refused(s1_folder):
    folder, _ = s1_folder(codebook_size=1101)
    with pytest.raises(UserError, match="1100 semantic tokens"):
        load_dual_ar(folder)


def test_a_tokenizer_of_another_family_is_refused(s1_folder, small_base):
    folder, _ = s1_folder()
    for name in ("tokenizer.tiktoken", "special_tokens.json"):
        shutil.copy(small_base / name, folder / name)
    with pytest.raises(UserError, match=r"tokenizer\.tiktoken|special_tokens\.json"):
        load_dual_ar(folder)


def test_unknown_keys_of_a_config_are_left_out_with_a_warning(s1_folder, caplog):
    plain = read_config(s1_folder()[0])
    assert not caplog.messages
    folder, _ = s1_folder(norm_fastlayer_input=False, audio_embed_dim=7)
    assert read_config(folder) == plain
    (line,) = caplog.messages
    assert "'audio_embed_dim', 'norm_fastlayer_input'" in line


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norm_fastlayer_input": True}, "Fish Audio S2"),
        ({"model_type": "fish_qwen3_omni"}, "fish_qwen3_omni"),
        ({"head_dim": 15}, "pairs"),
        ({"fast_head_dim": -2}, "fast_head_dim"),
        ({"n_local_heads": 3}, "KV heads"),
        ({"is_reward_model": True}, "reward"),
        ({"n_layer": 1 << 20}, "n_layer"),
        ({"n_fast_layer": True}, "n_fast_layer"),
        ({"norm_eps": "1e-6"}, "norm_eps"),
        ({"rope_base": None}, "rope_base"),
        ({"dropout": float("nan")}, "dropout"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings"),
    ],
)
def test_configs_that_cannot_be_computed_are_refused(s1_folder, changes, said):
    folder, _ = s1_folder(**changes)
    with pytest.raises(UserError, match=said):
        read_config(folder)


def test_a_family_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="there is no model family 's9'; known: fish, s1"):
        DualARConfig(family="s9")


def test_a_config_that_is_written_is_read_as_the_same(s1_folder, small_base):
    for folder in (s1_folder()[0], small_base):
        config = read_config(folder)
        written = json.loads(config.to_json())
        assert DualARConfig.from_mapping(written) == config
        assert not DualARConfig.unknown_keys(written)
