"""Requests of finetune_tts.py: what is refused before anything runs, and what each flag comes to in the stages."""

from __future__ import annotations

import argparse
import json

import pytest
import torch

import finetune_tts
import prepare_dataset
from fish_speech import device
from fish_speech.arguments import given_flags
from fish_speech.device import Hardware
from fish_speech.errors import UserError
from fish_speech.finetuning import request, steps
from fish_speech.pipeline import Step
from fish_speech.prepare import flags as prepare_flags


@pytest.fixture()
def workspace(tmp_path, monkeypatch):
    """Where it is called: `ready` is a data set, `raw` are recordings, `base` a model folder with a codec."""
    for name in ("ready/anna/a.lab", "raw/a.wav", "base/config.json", "base/codec.pth"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(*words: object) -> dict[str, Step]:
    """The stages of a command line by name; raises UserError where it is refused."""
    argv = ["--project", "p", "--model-version", "minnow", "--pretrained-ckpt-path", "base", *map(str, words)]
    options = finetune_tts.make_parser().parse_args(argv)
    given = given_flags(argv)
    request.fill_in(options)
    return {step.name: step for step in steps.plan(options, request.check(options, given), given)}


def refused(*words: object) -> str:
    with pytest.raises(UserError) as error:
        planned(*words)
    return str(error.value)


def overrides(step: Step) -> dict[str, str]:
    return dict(argument.split("=", 1) for argument in step.arguments if "=" in argument)


def value(step: Step, flag: str) -> str:
    return step.arguments[list(step.arguments).index(flag) + 1]


FULL = ("--data-dir", "ready", "--full-pipeline")
RAW = ("--data-dir", "raw", "--full-pipeline")
TRAIN = ("--data-dir", "ready", "--train")


def test_a_full_pipeline_does_all_that_is_needed_in_order(workspace):
    after_preparing = ["extract_vq", "build_dataset", "train", "tournament", "merge_lora"]
    assert list(planned(*FULL)) == after_preparing
    assert list(planned(*RAW)) == ["prepare_dataset", *after_preparing]
    assert list(planned(*FULL, "--tournament-texts", 0)) == [name for name in after_preparing if name != "tournament"]


def test_raw_recordings_are_prepared_as_the_flags_say(workspace):
    said = ("--speaker", "anna b", "--no-normalize", "--segment-duration", 7, "--auto-transcribe", "--language", "de",
            "--use-silence-detection", "--silence-thresh", -35, "--device", "cpu")  # fmt: skip
    steps_of = planned(*RAW, *said)
    words = steps_of["prepare_dataset"].arguments[1:]
    asked = prepare_dataset.make_parser().parse_args(words)
    assert asked.input == ["raw"] and asked.output.as_posix() == "training_data/p"
    assert (asked.speaker, asked.normalize, asked.segment_duration, asked.language) == ("anna b", False, 7.0, "de")
    assert (asked.auto_transcribe, asked.silence_thresh, asked.device) == (True, -35.0, "cpu")
    assert not {"--no-split", "--report", "--whisper-model"} & set(words)
    assert value(steps_of["extract_vq"], "fish_speech.extract_vq") == "training_data/p"
    assert value(steps_of["tournament"], "--language") == "de"


def test_every_flag_of_preparation_can_be_handed_on(workspace):
    parser = argparse.ArgumentParser(add_help=False)
    for add in (
        prepare_flags.add_recordings,
        prepare_flags.add_clips,
        prepare_flags.add_texts,
        prepare_flags.add_checks,
    ):
        add(parser)
    known = {flag for action in parser._actions for flag in action.option_strings}
    assert known == {*prepare_flags.VALUES, *prepare_flags.SWITCHES}


def test_flags_of_preparation_have_no_effect_on_a_data_set_that_is_ready(workspace):
    for flag in (("--speaker", "anna"), ("--no-normalize",), ("--auto-transcribe",), ("--whisper-model", "base")):
        message = refused(*FULL, *flag)
        assert f"{flag[0]} has no effect here" in message and "ready is a data set already" in message
    assert "--min-silence-len has no effect without" in refused(*RAW, "--min-silence-len", 300)
    assert "--language" in planned(*FULL, "--language", "de")["tournament"].arguments


def test_each_flag_of_training_becomes_its_config_key(workspace):
    said = ("--early-stopping-patience", 4, "--sample-every-n-steps", 25, "--save-every-n-steps", 50,
            "--gradient-accumulation-steps", 3, "--num-nodes", 1, "--device", "cpu", "--num-gpus", 2,
            "--strategy", "fsdp")  # fmt: skip
    values = overrides(planned(*TRAIN, *said)["train"])
    for key, expected in {
        "callbacks.early_stopping.patience": "4",
        "callbacks.spoken_samples.every_n_steps": "25",
        "trainer.val_check_interval": "50",
        "callbacks.model_checkpoint.every_n_train_steps": "50",
        "trainer.accumulate_grad_batches": "3",
        "trainer.devices": "2",
        "strategy": "fsdp",
        "model_version": "'minnow'",
        "callbacks.spoken_samples.codec": "'base/codec.pth'",
    }.items():
        assert values[key] == expected, key


def test_what_nobody_said_stays_as_the_yaml_has_it(workspace):
    values = overrides(planned(*TRAIN)["train"])
    assert not {"trainer.devices", "trainer.num_nodes", "strategy", "callbacks.early_stopping.patience"} & set(values)
    assert values["callbacks.spoken_samples.every_n_steps"] == "100"
    assert (
        overrides(planned(*TRAIN, "--sample-every-n-steps", 0)["train"])["callbacks.spoken_samples.every_n_steps"]
        == "null"
    )


def test_the_overrides_are_ones_that_the_config_knows(workspace):
    from fish_speech.train import compose_config

    said = ("--early-stopping-patience", 4, "--sample-every-n-steps", 25, "--device", "cpu", "--num-gpus", 2)
    words = [word for word in planned(*TRAIN, *said)["train"].arguments if "=" in word]
    config = compose_config("text2semantic_finetune", words)
    assert config.trainer.devices == 2 and config.model_version == "minnow" and config.data_dir == "ready"
    assert config.callbacks.early_stopping.patience == 4 and config.callbacks.spoken_samples.every_n_steps == 25


@pytest.mark.parametrize(
    "flags",
    [
        ("--strategy", "ddp"),
        ("--ray-address", "head:6379"),
        ("--num-workers-extract", 2, "--runner", "ray"),
    ],
    ids=lambda flags: flags[0],
)
def test_a_flag_that_needs_another_is_refused_alone(workspace, flags):
    assert f"{flags[0]} has no effect" in refused(*FULL, *flags)


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--list-checkpoints", "--train"), "--train"),
        (("--list-checkpoints", "--dry-run"), "--dry-run"),
        (("--merge-weights", "--tournament-texts", 3), "--tournament-texts"),
        (("--merge-weights", "--runner", "ray"), "--runner"),
        (("--prepare-data", "--data-dir", "raw", "--max-left-out", 3), "--max-left-out"),
        (("--build-dataset", "--data-dir", "ready", "--device", "cpu"), "--device"),
        (("--extract-tokens", "--data-dir", "ready", "--early-stopping-patience", 3), "--early-stopping-patience"),
        ((*FULL, "--keep-going", "--max-left-out", 3), "--max-left-out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_flag_without_effect_is_refused_by_name(workspace, words, flag):
    argv = ["--project", "p", *map(str, words)]
    options = finetune_tts.make_parser().parse_args(argv)
    request.fill_in(options)
    with pytest.raises(UserError, match=f"{flag} has no effect here"):
        request.check(options, given_flags(argv))


def test_the_tournament_cannot_be_asked_for_and_switched_off(workspace):
    assert "contradicts --tournament" in refused("--tournament", "--tournament-texts", 0)


def test_a_step_that_training_never_reaches_is_not_merged(workspace):
    assert "never reached" in refused(*FULL, "--max-steps", 100, "--checkpoint-step", 200)


def test_more_gpus_than_there_are_is_refused_but_not_more_processes_on_the_cpu(workspace, monkeypatch):
    monkeypatch.setattr(device, "probe_hardware", lambda: Hardware(cuda=True, cuda_name="H200", cuda_count=2))
    message = refused(*TRAIN, "--num-gpus", 3)
    assert "--num-gpus 3" in message and "2 CUDA devices" in message and "--device cpu" in message
    assert overrides(planned(*TRAIN, "--num-gpus", 2)["train"])["trainer.devices"] == "2"
    monkeypatch.setattr(device, "probe_hardware", lambda: Hardware(mps=True))
    for flag in ((), ("--device", "mps"), ("--force-mps",)):
        assert "0 CUDA devices" in refused(*TRAIN, "--num-gpus", 2, *flag)
    assert overrides(planned(*TRAIN, "--num-gpus", 5, "--device", "cpu")["train"])["trainer.devices"] == "5"


def test_several_nodes_train_only_and_on_data_that_is_packed(workspace, make_clips):
    from fish_speech.build_dataset import build

    assert "trains only, and --full-pipeline" in refused(*FULL, "--num-nodes", 2)
    data = make_clips(workspace / "set", {"anna": 3})
    assert "--build-dataset, on one node" in refused("--data-dir", data, "--train", "--num-nodes", 2)
    build(data, workspace / "results/p/protos")
    found = planned("--data-dir", data, "--train", "--num-nodes", 2)
    assert list(found) == ["train"] and overrides(found["train"])["trainer.num_nodes"] == "2"


def test_clips_that_may_be_lost_are_told_to_the_stages_that_lose_them(workspace):
    for words, expected in (((), "5"), (("--max-left-out", 12.5), "12.5"), (("--keep-going",), "100")):
        found = planned(*FULL, *words)
        assert {value(found[name], "--max-left-out") for name in ("extract_vq", "build_dataset")} == {expected}


def test_a_cluster_prepares_and_extracts_where_it_is_asked_for(workspace, monkeypatch):
    found = planned(*RAW, "--runner", "ray", "--ray-address", "head:6379")
    assert all(value(found[name], "--runner") == "ray" for name in ("prepare_dataset", "extract_vq"))
    assert "--num-workers" not in found["extract_vq"].arguments


def test_no_project_is_needed_by_the_doctor_alone(workspace, monkeypatch):
    from fish_speech import doctor

    called = []
    monkeypatch.setattr(doctor, "main", lambda *values: called.append(values) or 1)
    assert finetune_tts.main(["--doctor", "--device", "cpu"]) == 1 and called == [("1.5", "cpu", None)]
    with pytest.raises(UserError, match="--project is missing"):
        finetune_tts.main(["--train", "--data-dir", "ready"])
    with pytest.raises(UserError, match="--train has no effect here"):
        finetune_tts.main(["--doctor", "--train"])


def test_what_was_left_out_is_told_again_at_the_end(workspace):
    protos = workspace / "results/p/protos"
    protos.mkdir(parents=True)
    options = argparse.Namespace(project="p")
    assert steps.left_out(options) == []
    left = [[f"anna/{n}", "no codes"] for n in range(5)]
    (protos / "index.json").write_text(
        json.dumps({"left_out": left, "suspicious": [["anna/9", "odd"]]}), encoding="utf-8"
    )
    first, second = steps.left_out(options)
    assert "5: anna/0: no codes; anna/1: no codes; anna/2: no codes; ..." in first and "index.json lists all" in first
    assert second == "clips trained on that look odd: 1: anna/9: odd"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "a/b", "a\\b", "a\nb", " a", "a ", "a.", "-a", "CON", "nul.txt", "字" * 80, "a" * 101],
)
def test_a_project_that_cannot_be_a_folder_everywhere_is_refused(name):
    with pytest.raises(UserError, match="cannot be a folder name"):
        request.check_project(name)


@pytest.mark.parametrize("name", ["anna", "my voice", "ünï_cödé", "v1.2+x-y", "console", "字" * 60])
def test_names_of_people_and_voices_are_projects(name):
    request.check_project(name)


@pytest.mark.parametrize("step", ["--train", "--build-dataset"])
def test_recordings_that_are_not_prepared_are_not_trained_on_nor_packed(workspace, step):
    message = refused("--data-dir", "raw", step)
    assert "no data set to train on" in message and "--full-pipeline" in message
    assert "raw/a.wav is no folder" in refused("--data-dir", "raw/a.wav", step)


def test_without_a_checkpoint_there_is_nothing_to_compare(workspace):
    assert "project p has no checkpoint to compare" in refused("--tournament")
    assert "project p has no checkpoint to merge" in refused("--merge-weights")


def test_merging_alone_looks_for_the_reference_in_data_that_has_moved(workspace):
    path = workspace / "results/p/checkpoints/step_000000002.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"fish_speech": {"data": "gone"}}, path)
    merge = ("--merge-weights", "--data-dir", "ready")
    assert value(planned(*merge)["merge_lora"], "--data-dir") == "ready"
    torch.save({"fish_speech": {"data": "ready"}}, path)
    assert "--data-dir" not in planned(*merge)["merge_lora"].arguments


@pytest.mark.parametrize("place", ["training_data/p", "training_data/p/takes", "training_data", "."])
def test_recordings_cannot_lie_where_the_prepared_data_goes(workspace, place):
    (workspace / "ready/anna/a.lab").unlink()  # so that the folder above all is raw
    (workspace / place).mkdir(parents=True, exist_ok=True)
    assert "lie where the prepared data would go" in refused("--data-dir", place, "--full-pipeline")


def test_a_full_pipeline_ends_with_a_voice_even_if_no_tournament_can_be_held(workspace, monkeypatch):
    assert planned(*FULL)["tournament"].dispensable
    monkeypatch.setattr(steps, "trained", lambda *_: [])
    assert not planned("--tournament")["tournament"].dispensable
