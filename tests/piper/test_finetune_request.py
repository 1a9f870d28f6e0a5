"""`finetune_tts.py --engine piper`: what is refused before anything runs, and what each flag comes to in the stages."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

import finetune_tts
from fish_speech import device
from fish_speech.arguments import given_flags
from fish_speech.device import Hardware
from fish_speech.errors import UserError
from fish_speech.pipeline import Step
from piper_train.finetuning import flags, request, steps
from piper_train.finetuning.engines import FISH_ONLY, PIPER_ONLY, engine_of, refuse_other_engine
from piper_train.finetuning.languages import voice_of_texts
from piper_train.finetuning.rehearsal import planned as plan_lines

ENGLISH = ["The old captain bought fresh bread and a map of the harbour.", "It is the end of the story that you told."]


@pytest.fixture()
def workspace(tmp_path, monkeypatch):
    """Where it is called: `ready` is a folder as in the guide, `prepared` one of prepare_dataset.py, `raw` are recordings."""
    tone = 0.2 * np.sin(np.arange(22050) / 30)
    for name in ("ready/wavs/a.wav", "ready/wavs/b.wav", "prepared/anna/a.wav", "prepared/ben/b.wav", "raw/a.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, tone, 22050)
    rows = f"a.wav|{ENGLISH[0]}\nb.wav|{ENGLISH[1]}\ngone.wav|Words.\n"
    (tmp_path / "ready/metadata.csv").write_text(rows, encoding="utf-8")
    (tmp_path / "prepared/anna/a.lab").write_text(ENGLISH[0], encoding="utf-8")
    (tmp_path / "prepared/ben/b.lab").write_text(ENGLISH[1], encoding="utf-8")
    (tmp_path / "voice-merged").mkdir()
    (tmp_path / "voice-merged/config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "texts.txt").write_text("\n".join(ENGLISH), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settled(*words: object) -> tuple[object, request.Work, steps.Plan]:
    argv = ["--engine", "piper", *map(str, words)]
    options = flags.make_parser().parse_args(argv)
    given = given_flags(argv)
    work, source = request.check(options, given)
    return options, work, steps.plan(options, work, source, given)


def planned(*words: object) -> dict[str, Step]:
    """The stages of a command line by name."""
    return {step.name: step for step in settled(*words)[2].steps}


def refused(*words: object) -> str:
    with pytest.raises(UserError) as error:
        planned(*words)
    assert error.value.why and error.value.fix
    return str(error.value)


def value(step: Step, flag: str) -> str:
    return step.arguments[list(step.arguments).index(flag) + 1]


READY = ("--data-dir", "ready", "--full-pipeline", "--device", "cpu")
TAUGHT = ("--teacher", "voice-merged", "--script", "texts.txt", "--device", "cpu")


def known_flags(parser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")}


def test_every_flag_that_only_one_engine_has_is_answered_by_the_other():
    fish, piper = known_flags(finetune_tts.make_parser()), known_flags(flags.make_parser())
    assert set(FISH_ONLY) == fish - piper and set(PIPER_ONLY) == piper - fish


@pytest.mark.parametrize("flag", sorted(FISH_ONLY))
def test_a_flag_of_fish_names_what_to_use_with_piper(flag):
    with pytest.raises(UserError) as error:
        finetune_tts.main(["--engine", "piper", "--full-pipeline", flag, "3"])
    assert f"{flag} is a flag of --engine fish" in error.value.what and error.value.fix == FISH_ONLY[flag]
    for named in re.findall(
        r"--[a-z-]+", error.value.fix.partition("prepare_dataset")[0].partition("piper_train fit")[0]
    ):
        assert named in known_flags(flags.make_parser())


@pytest.mark.parametrize("flag", sorted(PIPER_ONLY))
def test_a_flag_of_piper_names_what_to_use_with_fish(flag):
    with pytest.raises(UserError) as error:
        finetune_tts.main(["--full-pipeline", f"{flag}=3"])
    assert f"{flag} is a flag of --engine piper" in error.value.what and error.value.fix == PIPER_ONLY[flag]
    for named in re.findall(r"--[a-z-]+", error.value.fix):
        assert named in known_flags(finetune_tts.make_parser())


def test_the_engine_is_fish_unless_piper_is_asked_for():
    assert engine_of(["--project", "p"]) == engine_of(["--engine=fish"]) == "fish"
    assert engine_of(["--train", "--engine", "piper"]) == engine_of(["--engine=piper"]) == "piper"
    refuse_other_engine(["--engine", "fish", "--max-steps", "3"], "fish")


def test_the_guides_command_makes_a_test_data_set_first(workspace, monkeypatch):
    monkeypatch.setattr(device, "probe_hardware", lambda: Hardware(cuda=True, cuda_name="L40S", cuda_count=2))
    words = ("--full-pipeline", "--batch-size", 80, "--num-gpus", 2, "--max-epochs", 1000)
    stages = planned(*words)
    assert list(stages) == ["quick_start", "build_dataset", "train", "export"]
    train = stages["train"]
    for key, expected in {
        "--data.batch_size": "80",
        "--data.espeak_voice": "ru",
        "--trainer.devices": "2",
        "--trainer.accelerator": "gpu",
        "--trainer.strategy": "ddp_find_unused_parameters_true",
        "--trainer.max_epochs": "1000",
        "--trainer.precision": "32-true",
        "--model.sample_rate": "22050",
    }.items():
        assert value(train, key) == expected
    assert Path(value(train, "--config")).name == "medium.yaml"
    assert value(train, "--data.csv_path") == str(Path("training_data/quick-start/metadata.csv"))
    assert value(planned(*words, "--precision", "16-mixed")["train"], "--trainer.precision") == "16-mixed"


def test_more_gpus_than_there_are_is_the_same_error_as_fishs(workspace):
    said = refused("--full-pipeline", "--num-gpus", 2)
    assert "--num-gpus 2 asks for more GPUs than can be used here" in said and "--device cpu for 2 processes" in said
    train = planned("--full-pipeline", "--num-gpus", 2, "--device", "cpu")["train"]
    assert (value(train, "--trainer.devices"), value(train, "--trainer.accelerator")) == ("2", "cpu")


def test_on_a_cpu_the_test_data_set_is_a_try_of_minutes_unless_the_user_says_how_long(workspace):
    said = ("--data.batch_size", "--trainer.max_epochs", "--model.sample_rate")
    stages = planned("--full-pipeline", "--device", "cpu")
    assert [value(stages["train"], key) for key in said] == ["8", "3", "16000"]
    assert value(stages["quick_start"], "--clips") == "40"
    stages = planned("--full-pipeline", "--device", "cpu", "--quality", "medium", "--batch-size", 5, "--clips", 9)
    assert [value(stages["train"], key) for key in said] == ["5", "3", "22050"]
    assert value(stages["quick_start"], "--clips") == "9"
    stages = planned("--full-pipeline", "--device", "cpu", "--max-epochs", 7)
    assert [value(stages["train"], key) for key in said] == ["32", "7", "22050"]
    assert value(planned(*READY)["train"], "--trainer.max_epochs") == "1000"


def test_the_newest_checkpoint_can_be_exported_at_any_time(workspace):
    for number in (0, 1):
        path = workspace / f"results/p/lightning_logs/version_{number}/checkpoints/last.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9 + number, 1e9 + number))
    (step,) = planned("--project", "p", "--export").values()
    assert value(step, "--checkpoint") == str(path.relative_to(workspace))
    (step,) = planned("--project", "p", "--export", "--checkpoint", path).values()
    assert value(step, "--checkpoint") == str(path)


def test_a_folder_as_in_the_guide_is_trained_on_as_it_is(workspace):
    stages = planned(*READY)
    assert list(stages) == ["build_dataset", "train", "export"]
    build, train = stages["build_dataset"], stages["train"]
    for flag, key in (
        ("--csv-path", "--data.csv_path"),
        ("--audio-dir", "--data.audio_dir"),
        ("--cache-dir", "--data.cache_dir"),
        ("--config-path", "--data.config_path"),
        ("--espeak-voice", "--data.espeak_voice"),
        ("--voice-name", "--data.voice_name"),
    ):
        assert value(build, flag) == value(train, key)
    assert value(build, "--csv-path") == str(Path("ready/metadata.csv")) and value(build, "--espeak-voice") == "en-us"
    assert value(stages["export"], "--output-file") == str(Path("checkpoints/ready-piper/ready.onnx"))


def test_a_prepared_folder_brings_its_speakers_along(workspace):
    train = planned("--data-dir", "prepared", "--train", "--device", "cpu")["train"]
    assert value(train, "--model.num_speakers") == "2" and value(train, "--data.csv_path") == "prepared"
    assert "--data.audio_dir" not in train.arguments


def test_recordings_are_prepared_as_the_flags_say(workspace):
    words = ("--data-dir", "raw", "--project", "p", "--full-pipeline", "--device", "cpu", "--espeak-voice", "de")
    stages = planned(*words, "--segment-duration", 7, "--auto-transcribe", "--language", "de")
    assert list(stages) == ["prepare_dataset", "build_dataset", "train", "export"]
    prepare = stages["prepare_dataset"].arguments
    assert "--segment-duration=7.0" in prepare and "--auto-transcribe" in prepare and "--language=de" in prepare
    assert value(stages["build_dataset"], "--csv-path") == str(Path("training_data/p"))
    assert value(stages["train"], "--data.espeak_voice") == "de"


def test_a_teacher_alone_means_all_steps_in_a_project_of_its_own(workspace):
    stages = planned(*TAUGHT, "--verify", "--asr", "pocketsphinx", "--attempts", 2)
    assert list(stages) == ["teach", "build_dataset", "train", "export"]
    teach = stages["teach"]
    assert value(teach, "--output") == str(Path("training_data/voice-taught"))
    assert (
        "--verify" in teach.arguments and value(teach, "--asr") == "pocketsphinx" and value(teach, "--attempts") == "2"
    )
    assert value(stages["train"], "--data.espeak_voice") == "en-us"
    assert list(planned(*TAUGHT, "--teach")) == ["teach"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data-dir", "ready"), "no step is chosen"),
        (("--data-dir", "gone", "--train"), "there is no folder gone"),
        (("--data-dir", "raw", "--train"), "is no data set"),
        (("--data-dir", ".", "--prepare-data", "--project", "p"), "lie where the prepared data would go"),
        ((*READY, "--project", "a/b"), "cannot be a folder name"),
        ((*READY, "--speaker", "anna"), "--speaker has no effect here"),
        ((*READY, "--verify"), "--verify has no effect here"),
        ((*READY, "--clips", 3), "--clips has no effect here"),
        ((*READY, "--teacher", "voice-merged"), "--data-dir and --teacher are given"),
        ((*TAUGHT[:2], "--device", "cpu"), "--script is missing"),
        (("--script", "texts.txt", "--full-pipeline"), "--teacher is missing"),
        (("--teach",), "--teacher is missing"),
        (("--teacher", "ready", "--script", "texts.txt"), "--teacher ready is not a voice"),
        (("--teacher", "voice-merged", "--script", "gone"), "there is no script gone"),
        ((*TAUGHT, "--asr", "whisper"), "--asr has no effect here"),
        ((*READY, "--quality", "best"), "there is no quality 'best'"),
        ((*READY, "--precision", "bf16"), "use --precision bf16-mixed"),
        ((*READY, "--precision", "16-mixed"), "--precision 16-mixed is not available on cpu"),
        (("--data-dir", "ready", "--export", "--batch-size", 3), "--batch-size has no effect here"),
        (("--data-dir", "ready", "--build-dataset", "--max-epochs", 3), "--max-epochs has no effect here"),
        (("--project", "p", "--export"), "project p has no checkpoint to export"),
        ((*READY, "--checkpoint", "gone.ckpt"), "there is no checkpoint gone.ckpt"),
        (("--list-checkpoints", "--project", "p", "--train"), "--train has no effect here"),
        (("--prepare-data",), "--data-dir is missing"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused(workspace, words, said):
    assert said in refused(*words)
    assert not (workspace / "results").exists() and not (workspace / "training_data").exists()


def test_a_taught_data_set_does_not_take_the_place_of_another(workspace):
    (workspace / "training_data/anna/anna").mkdir(parents=True)
    (workspace / "training_data/anna/anna/a.lab").write_text("Words.", encoding="utf-8")
    assert "holds something else" in refused(*TAUGHT, "--project", "anna")


def test_the_language_is_told_by_the_letters_or_asked_for():
    assert voice_of_texts(["Старый капитан купил хлеб."]) == "ru"
    assert voice_of_texts(["Її дідусь читає книгу, і це добре."]) == "uk"
    assert voice_of_texts(ENGLISH) == "en-us"
    long = "Der alte Kapitän kaufte im Hafen frisches Brot und eine Karte, die ihm den Weg nach Hause zeigte."
    assert voice_of_texts([long]) is None and voice_of_texts(["123"]) is None


def test_a_language_that_nothing_tells_is_asked_for(workspace):
    rows = "a.wav|Der alte Kapitän kaufte frisches Brot für die lange Reise über das Meer, wie üblich.\n"
    (workspace / "ready/metadata.csv").write_text(rows, encoding="utf-8")
    assert "--espeak-voice is missing" in refused(*READY)
    (workspace / "ready/config.json").write_text(json.dumps({"espeak": {"voice": "de"}}), encoding="utf-8")
    assert value(planned(*READY)["train"], "--data.espeak_voice") == "de"


def test_the_plan_counts_clips_batches_and_epochs_and_nothing_is_written(workspace):
    before = sorted(workspace.rglob("*"))
    words = (*READY, "--batch-size", 1, "--max-epochs", 30, "--dry-run")
    options, work, plan = settled(*words)
    said = "\n".join(plan_lines(options, work, plan))
    assert "2 clips, 2.0 s; left out: 1 no such file: gone.wav (row 3)" in said
    assert "30 to train, up to 30 in all; 2 batches of up to 1 clips an epoch" in said
    assert "medium, 22050 Hz, one speaker" in said and "70.4 million weights" in said and "cpu, fp32: asked for" in said
    options, work, plan = settled(
        "--full-pipeline", "--clips", 40, "--device", "cpu", "--num-gpus", 2, "--batch-size", 8, "--max-epochs", 2
    )
    said = "\n".join(plan_lines(options, work, plan))
    assert (
        "40 clips of a test data set" in said and "3 batches of up to 8 clips an epoch in each of 2 processes" in said
    )
    options, work, plan = settled(*TAUGHT)
    assert "2 lines to read" in "\n".join(plan_lines(options, work, plan))
    assert sorted(workspace.rglob("*")) == before


def test_a_quality_says_rate_and_network(workspace, tmp_path):
    for quality, rate in (("x-low", "16000"), ("high", "22050")):
        stages = planned(*READY, "--quality", quality)
        assert value(stages["build_dataset"], "--sample-rate") == value(stages["train"], "--model.sample_rate") == rate
        assert Path(value(stages["train"], "--config")).is_file()
    (workspace / "own.yaml").write_text("model: {sample_rate: 16000, n_layers: 3}", encoding="utf-8")
    assert value(planned(*READY, "--quality", "own.yaml")["build_dataset"], "--sample-rate") == "16000"
    (workspace / "own.yaml").write_text("model: {upsample_rates: [3, 3]}", encoding="utf-8")
    assert "own.yaml is no network of a voice" in refused(*READY, "--quality", "own.yaml")


def test_help_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys, finetune_tts\ntry: finetune_tts.main(['--engine', 'piper', '--help'])\nexcept SystemExit: pass\n"
    )
    code += "assert not {'torch', 'lightning', 'soundfile', 'librosa', 'onnxruntime'} & set(sys.modules)"
    root = Path(finetune_tts.__file__).parent
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, stdout=subprocess.DEVNULL)


def begin(project: str, *words: object) -> None:
    """Note what a project was begun with, as its first training does."""
    plan = settled("--project", project, *words)[2]
    plan.places.record.parent.mkdir(parents=True)
    plan.places.record.write_text(json.dumps(plan.record()), encoding="utf-8")


def test_a_project_that_goes_on_stays_with_its_data(workspace):
    begin("anna", *READY, "--espeak-voice", "en-us")
    again = planned("--project", "anna", "--train", "--device", "cpu")
    assert "quick_start" not in again and value(again["build_dataset"], "--csv-path") == str(Path("ready/metadata.csv"))
    (workspace / "ready/metadata.csv").unlink()
    assert "is no data set" in refused("--project", "anna", "--train", "--device", "cpu")
    assert not {"quick_start", "build_dataset"} & set(
        planned("--project", "anna", "--export", "--checkpoint", "texts.txt")
    )


def test_a_test_data_set_that_was_deleted_is_made_again(workspace):
    begin("trial", "--full-pipeline", "--device", "cpu")
    assert "quick_start" in planned("--project", "trial", "--full-pipeline", "--device", "cpu")
