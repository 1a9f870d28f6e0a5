"""Merging on OpenAudio S1-mini, with the command line of its guide, and what is of another version."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from fish_speech import merge_lora
from fish_speech.errors import UserError
from fish_speech.models import LoraConfig, load_dual_ar
from fish_speech.models.lora import is_lora_name

BASE, CHECKPOINT = "checkpoints/openaudio-s1-mini", "results/anna/checkpoints/step_000000010.ckpt"
OUTPUT = "checkpoints/openaudio-s1-mini-yth-lora/"
GUIDE = ("--lora-config", "r_8_alpha_16", "--base-weight", BASE, "--lora-weight", CHECKPOINT, "--output", OUTPUT)


def write_adapter(path, base, lora: LoraConfig, record: dict | None = None) -> torch.nn.Module:
    """Save random adapters of `base` as upstream's training does, or with our `record`; return the unmerged model."""
    model = load_dual_ar(base, lora=lora)
    rng = torch.Generator().manual_seed(0)
    for parameter in (p for name, p in model.named_parameters() if is_lora_name(name)):
        parameter.data.normal_(0, 0.2, generator=rng)
    state = {f"model.{name}": p.data for name, p in model.named_parameters() if is_lora_name(name)}
    content = {"epoch": 0, "global_step": 10, "pytorch-lightning_version": "2.4.0", "state_dict": state, "loops": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({**content, **({"fish_speech": record} if record else {})}, path)
    return model


@pytest.fixture()
def work(tmp_path, monkeypatch, small_s1_base):
    """A folder with a small S1-mini where the guide has it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_s1_base, tmp_path / BASE)
    return tmp_path


def test_the_guides_command_merges_a_checkpoint_of_the_released_training(work):
    adapted = write_adapter(work / CHECKPOINT, work / BASE, LoraConfig(8, 16, 0.0))
    assert merge_lora.main([*GUIDE]) == 0
    merged = load_dual_ar(work / OUTPUT)
    grid = merge_lora.probe_grid(merged)
    with torch.inference_mode():
        expected, found = adapted(grid), merged(grid)
    for one, other in zip(expected, found, strict=True):  # the base is stored in bfloat16, and so is what is merged
        assert (one - other).std() < 2e-2 * one.std()
    changed = {name for name, weight in load_dual_ar(work / BASE).state_dict().items()
               if not torch.equal(weight, merged.state_dict()[name])}  # fmt: skip
    assert changed == {
        name.rpartition(".")[0] + ".weight" for name in dict(adapted.named_parameters()) if is_lora_name(name)
    }


def test_the_merged_folder_has_all_files_of_its_family_and_works_alone(work, small_s1_base):
    write_adapter(work / CHECKPOINT, work / BASE, LoraConfig(8, 16, 0.0))
    merge_lora.main([*GUIDE, "--no-reference"])
    shutil.rmtree(work / BASE)
    output = work / OUTPUT
    assert {path.name for path in output.iterdir()} >= {
        *(
            "config.json",
            "model.pth",
            "tokenizer.tiktoken",
            "special_tokens.json",
            "codec.pth",
            "codec.yaml",
            "voice.json",
        )
    }
    for name in ("config.json", "special_tokens.json"):
        ours, theirs = (json.loads((folder / name).read_text(encoding="utf-8")) for folder in (output, small_s1_base))
        assert ours == theirs and list(ours) == list(theirs)
    voice = json.loads((output / "voice.json").read_text(encoding="utf-8"))
    assert voice["codec"] == "codec.pth" and voice["step"] == 10 and voice["lora"] == {"r": 8, "lora_alpha": 16}
    assert load_dual_ar(output).tokenizer.family == "s1"
    assert {tensor.dtype for tensor in torch.load(output / "model.pth", weights_only=True).values()} == {torch.bfloat16}


def test_adapters_of_the_fast_part_are_merged_there_alone(work):
    fast = LoraConfig(32, 16, 0.1, ("fast_attention", "fast_mlp", "fast_embeddings", "fast_output"))
    write_adapter(work / CHECKPOINT, work / BASE, fast)
    with pytest.raises(UserError, match="does not fit this model with LoRA r=8"):
        merge_lora.main([*GUIDE, "--no-reference"])
    merge_lora.main([*GUIDE, "--no-reference", "--lora-config", "r_32_alpha_16_fast"])
    base, merged = (load_dual_ar(work / folder).state_dict() for folder in (BASE, OUTPUT))
    changed = {name for name in base if not torch.equal(base[name], merged[name])}
    assert changed and all(name.startswith("fast_") for name in changed)
    voice = json.loads((work / OUTPUT / "voice.json").read_text(encoding="utf-8"))
    assert voice["lora"]["target_modules"] == list(fast.target_modules)


def test_a_lora_config_with_other_places_than_the_checkpoint_records_is_refused(work):
    record = {"lora": {"r": 8, "lora_alpha": 16, "lora_dropout": 0.01, "target_modules": ["fast_mlp"]}, "family": "s1"}
    write_adapter(work / CHECKPOINT, work / BASE, LoraConfig(8, 16, 0.01, ("fast_mlp",)), record)
    with pytest.raises(UserError, match=r"trained with r 8, alpha 16, dropout 0.01 on fast_mlp"):
        merge_lora.main([*GUIDE, "--no-reference"])
    assert merge_lora.main([*GUIDE[2:], "--no-reference"]) == 0


@pytest.mark.parametrize("recorded", [True, False])
def test_an_adapter_of_another_version_is_called_by_its_name(work, small_base, recorded):
    shape = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.01}
    record = {"lora": shape, "family": "fish"} if recorded else None
    write_adapter(work / CHECKPOINT, small_base, LoraConfig(8, 16), record)
    with pytest.raises(UserError, match=r"an adapter of Fish Speech 1.5"):
        merge_lora.main([*GUIDE, "--no-reference"])
    assert not (work / OUTPUT).exists()


def test_a_base_of_another_version_than_asked_for_or_beside_other_weights_is_called_by_its_name(work, small_base):
    write_adapter(work / CHECKPOINT, work / BASE, LoraConfig(8, 16))
    with pytest.raises(UserError, match=r"its config.json is that of s1-mini"):
        merge_lora.main([*GUIDE, "--model-version", "1.5"])
    shutil.copyfile(small_base / "model.pth", work / BASE / "model.pth")
    with pytest.raises(UserError, match=r"those of the model of Fish Speech 1.5"):
        merge_lora.main([*GUIDE, "--no-reference"])
    assert not (work / OUTPUT).exists()
