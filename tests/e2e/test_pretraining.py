"""From sentences and codes to a base model of one's own: new folder, training from nothing, merging to a folder that loads."""

from __future__ import annotations

import json

import pytest
import torch

from fish_speech.checkpoint import read_file, read_state_dict
from fish_speech.device import probe_hardware
from fish_speech.models import load_dual_ar

from .scripts import data_set, run

SMALL = {"dim": 32, "n_head": 2, "n_local_heads": 2, "n_layer": 1, "intermediate_size": 48}
SMALL |= {"n_fast_layer": 1, "fast_dim": 32, "fast_n_head": 2, "fast_n_local_heads": 2, "fast_intermediate_size": 40}


def pretrain(folder, *more, name="own"):
    return run(
        "train",
        *("--config-name", "text2semantic_pretrain", f"project={name}", "pretrained_ckpt_path=base", "device=cpu"),
        *("train_dataset.proto_files=[protos]", "data.val_share=0.1", "data.batch_size=2"),
        *("model.lr_scheduler.lr_lambda.num_warmup_steps=1", *more),
        cwd=folder,
    ).stderr


@pytest.mark.slow
def test_a_base_of_ones_own_is_trained_continued_and_merged_from_a_folder_without_weights(tmp_path):
    data_set(tmp_path / "data", 12)
    run("new_model", "--sentences", "data", "--output", "base", "--merges", 20, "--codebooks", 8, cwd=tmp_path)
    config = tmp_path / "base/config.json"
    config.write_text(json.dumps(json.loads(config.read_text(encoding="utf-8")) | SMALL), encoding="utf-8")
    run("build_dataset", "--input", "data", "--output", "protos", cwd=tmp_path)
    precision = "bf16-mixed" if probe_hardware().cpu_bf16 else "32"

    pretrain(tmp_path, "trainer.max_steps=3", f"trainer.precision={precision}")
    said = pretrain(tmp_path, "trainer.max_steps=5", f"trainer.precision={precision}")
    assert "continuing this project exactly" in said and "ends at step 5 instead of 3" in said
    (tmp_path / "results/own/checkpoints/step_000000005.ckpt").rename(tmp_path / "first.ckpt")
    pretrain(tmp_path, "trainer.max_steps=5", f"trainer.precision={precision}")
    last = tmp_path / "results/own/checkpoints/step_000000005.ckpt"
    first, trained = read_state_dict(tmp_path / "first.ckpt"), read_state_dict(last)
    assert all(tensor.dtype == torch.float32 and torch.equal(tensor, first[name]) for name, tensor in trained.items())
    assert read_file(last)["fish_speech"]["settings"]["base weights"] == "new"
    (tmp_path / "codec.pth").write_bytes(b"weights")
    merge = ("--base-weight", "base", "--lora-weight", last, "--output", "merged", "--codec", "codec.pth")
    run("merge_lora", *merge, "--dtype", "bfloat16", cwd=tmp_path)
    assert "already" in run("merge_lora", *merge, "--dtype", "bfloat16", cwd=tmp_path).stderr
    assert (tmp_path / "merged/codec.yaml").is_file()
    model = load_dual_ar(tmp_path / "merged")
    assert read_state_dict(tmp_path / "merged/model.pth")["embeddings.weight"].dtype == torch.bfloat16
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, trained[name].bfloat16().float(), rtol=0, atol=0)
