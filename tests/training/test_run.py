"""Around a training: who holds the project's lock, where a run goes on, and which process says so."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from fish_speech.build_dataset import build
from fish_speech.checkpoint import list_checkpoints
from fish_speech.errors import INTERRUPTED, UserError
from fish_speech.models import load_dual_ar
from fish_speech.models.lora import is_lora_name
from fish_speech.only_run import only_run
from fish_speech.ranks import RANKS
from fish_speech.train import compose_config
from fish_speech.training import run
from fish_speech.training.callbacks import StopGracefully
from fish_speech.training.run import finish
from fish_speech.training.starting import (
    find_resume,
    lora_of,
    refuse_changed,
    set_aside_later,
    settings_of,
    start_weights,
)


@pytest.fixture()
def config(tmp_path):
    """The keys that resuming reads, of a project with a checkpoint at step 4 that another tool made."""
    (tmp_path / "checkpoints").mkdir()
    torch.save({"global_step": 4, "state_dict": {}}, tmp_path / "checkpoints" / "step_000000004.ckpt")
    values = {"project": "p", "resume_step": None, "reached_is_done": False, "trainer": {"max_steps": 6}}
    values["data"] = {"batch_size": 4}
    config = OmegaConf.create({**values, "paths": {"ckpt_dir": str(tmp_path / "checkpoints")}})
    OmegaConf.set_struct(config, True)
    return config


@pytest.mark.parametrize("name", RANKS)
def test_every_further_process_of_a_run_leaves_the_lock_to_the_first(tmp_path, monkeypatch, name):
    for other in RANKS:
        monkeypatch.setenv(other, "0")
    with only_run(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").exists()
        monkeypatch.setenv(name, "1")
        started = time.monotonic()
        with only_run(tmp_path / "run"), only_run(tmp_path / "second"):
            assert not (tmp_path / "second").exists()
        assert time.monotonic() - started < 10  # the lock is waited for 30 s


def test_a_config_without_a_warm_start_continues_its_own_checkpoint(config):
    assert find_resume(config).name == "step_000000004.ckpt"


def test_a_run_that_is_done_says_how_to_go_on_with_the_script_and_with_the_stage(config):
    config.trainer.max_steps = 4
    with pytest.raises(UserError, match=r"--max-steps 104 .*trainer\.max_steps=104"):
        find_resume(config)


@pytest.mark.parametrize(
    ("override", "name"),
    [
        ("trainer.gradient_clip_val=0.5", "gradient norm"),
        ("attention_dropout=0.1", "attention dropout"),
        ("model.optimizer.weight_decay=0.1", "weight decay"),
        ("model.optimizer.lr=3e-4", "learning rate"),
        ("trainer.accumulate_grad_batches=2", "samples a step"),
        ("data.example_format=released", "example format"),
    ],
)
def test_a_run_is_not_continued_with_a_setting_that_changes_its_steps(make_clips, small_base, tmp_path, override, name):
    build(make_clips(tmp_path / "data", {"anna": 2}), tmp_path / "protos")

    def settings(*overrides):
        given = (
            "project=p",
            f"pretrained_ckpt_path={small_base}",
            f"train_dataset.proto_files=[{tmp_path / 'protos'}]",
        )
        config = compose_config("text2semantic_finetune", [*given, *overrides])
        samples = config.data.batch_size * config.trainer.accumulate_grad_batches
        return settings_of(config, SimpleNamespace(batch_size=samples, processes=1))

    before = settings()
    refuse_changed(tmp_path, before, settings(), "")
    with pytest.raises(UserError, match=f"why: {name}: "):
        refuse_changed(tmp_path, before, settings(override), "")


def test_a_run_is_not_continued_with_another_config_of_the_base(make_clips, small_s1_base, tmp_path):
    build(make_clips(tmp_path / "data", {"anna": 2}), tmp_path / "protos")
    base = tmp_path / "base"
    shutil.copytree(small_s1_base, base)
    given = ("project=p", f"pretrained_ckpt_path={base}", f"train_dataset.proto_files=[{tmp_path / 'protos'}]")

    def settings():
        config = compose_config("text2semantic_finetune", given)
        return settings_of(config, SimpleNamespace(batch_size=4, processes=1))

    before = settings()
    values = json.loads((base / "config.json").read_text(encoding="utf-8"))
    values["scale_codebook_embeddings"] = not values["scale_codebook_embeddings"]  # the weights are the same
    (base / "config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(UserError, match="why: base config: "):
        refuse_changed(tmp_path, before, settings(), "")


LORA = "+lora@model.model.lora_config="


def test_a_run_is_not_continued_with_other_target_modules_and_older_checkpoints_had_all(
    make_clips, small_base, tmp_path
):
    build(make_clips(tmp_path / "data", {"anna": 2}), tmp_path / "protos")
    given = (f"pretrained_ckpt_path={small_base}", f"train_dataset.proto_files=[{tmp_path / 'protos'}]")

    def settings(*overrides):
        config = compose_config("text2semantic_finetune", ["project=p", *given, f"{LORA}r_8_alpha_16", *overrides])
        return settings_of(config, SimpleNamespace(batch_size=4, processes=1))

    older = {**settings(), "LoRA": "r 8, alpha 16, dropout 0.01"}  # as checkpoints without target_modules say it
    refuse_changed(tmp_path, older, settings(), "")
    with pytest.raises(UserError, match=r"LoRA: .* now") as caught:
        refuse_changed(tmp_path, older, settings("+model.model.lora_config.target_modules=[fast_mlp,mlp,output]"), "")
    assert "r 8, alpha 16, dropout 0.01 on mlp, output now" in str(caught.value)


@pytest.fixture()
def lora_run(small_s1_base):
    """Config and module of a new run with adapters on a small S1."""

    def make(*overrides):
        given = ("project=p", f"pretrained_ckpt_path={small_s1_base}", f"{LORA}r_4_alpha_8")
        config = compose_config("text2semantic_finetune", [*given, *overrides])
        model = load_dual_ar(small_s1_base, lora=lora_of(config))
        return config, SimpleNamespace(model=model, has_lora=True)

    return make


def test_a_new_run_proves_that_its_adapters_left_the_base_as_it_is_in_its_file(lora_run):
    config, module = lora_run()
    assert start_weights(config, module, None, {}) == 0
    module.model.fast_layers[0].attention.wo.weight.data[3, 2] += 1e-6
    with pytest.raises(
        RuntimeError, match=r"1 weights of the base are not those of .*fast_layers.0.attention.wo.weight"
    ):
        start_weights(config, module, None, {})


def test_a_warm_start_takes_adapters_of_the_same_shape_alone(lora_run, tmp_path):
    config, module = lora_run(f"ckpt_path={tmp_path / 'a.ckpt'}")
    state = {f"model.{n}": p.data + 1 for n, p in module.model.named_parameters() if is_lora_name(n)}
    record = {"lora": {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1}, "family": "s1"}
    torch.save({"state_dict": state, "fish_speech": record}, tmp_path / "a.ckpt")
    start_weights(config, module, None, {})
    assert torch.equal(module.model.output.lora_B, state["model.output.lora_B"])
    record["lora"]["lora_alpha"] = 4  # the tensors fit, the sum would be half as large
    torch.save({"state_dict": state, "fish_speech": record}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match=r"r 4, alpha 4, dropout 0.1 there, r 4, alpha 8, dropout 0.01 here"):
        start_weights(*lora_run(f"ckpt_path={tmp_path / 'a.ckpt'}"), None, {})


def test_later_checkpoints_are_kept_aside_when_a_run_goes_on_from_an_earlier_one(tmp_path):
    for step in (2, 4, 6):
        (tmp_path / f"step_{step:09d}.ckpt").write_text(str(step), encoding="utf-8")
    set_aside_later(tmp_path, 6)
    assert len(list_checkpoints(tmp_path)) == 3
    for number, left in ((1, [2, 4]), (2, [2, 4])):
        set_aside_later(tmp_path, 4)
        assert [checkpoint.step for checkpoint in list_checkpoints(tmp_path)] == left
        kept = tmp_path / f"before_step_000000004_{number}" / "step_000000006.ckpt"
        assert kept.read_text(encoding="utf-8") == "6"
        (tmp_path / "step_000000006.ckpt").write_text("6", encoding="utf-8")


def test_a_checkpoint_without_our_record_is_continued(config):
    assert start_weights(config, None, find_resume(config), {"seed": 1}) == 4


def test_the_end_of_a_run_that_went_on_from_an_earlier_step_is_told_with_its_own_file(config, capsys):
    torch.save({}, Path(config.paths.ckpt_dir) / "step_000000009.ckpt")
    assert finish(SimpleNamespace(callbacks=[], global_step=4, is_global_zero=True), config) == 0
    assert "trained to step 4: " in (said := capsys.readouterr().out) and "step_000000004.ckpt" in said


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_process_says_where_the_run_ended(config, capsys, monkeypatch, first):
    told = []
    monkeypatch.setattr(run.log, "info", lambda *facts: told.append(facts[0]))
    trainer = SimpleNamespace(callbacks=[], global_step=6, is_global_zero=first)
    assert finish(trainer, config) == 0
    assert capsys.readouterr().out.startswith("trained to step 6: nowhere") is first
    stopped = StopGracefully()
    stopped.stopped = True
    trainer.callbacks, trainer.global_step = [stopped], 5
    assert finish(trainer, config) == INTERRUPTED
    assert bool(told) is first
