"""What users get wrong: a message that says what, why and how to mend it, a true exit code, and nothing lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ..conftest import CODEC_FILE, write_model_folder
from .conftest import TRAINING
from .scripts import BASE, contents, data_set, leftovers, record, refuse, run

CHECKPOINT = "results/voice/checkpoints/step_000000004.ckpt"
VOICE = ("--project", "voice", "--data-dir", "training_data/voice")
TRAIN = ("--train", "--max-steps", 6, *TRAINING)
MERGE = ("--base-weight", BASE, "--lora-weight", CHECKPOINT, "--output", "out")


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def spoil_recordings(folder: Path) -> dict[str, str]:
    """Write one good recording and five that cannot be used; return what each of those is called in messages."""
    record(folder / "good.wav", 0.8, 1, "Good words.")
    for number, name in enumerate(("empty", "torn", "text", "nan", "zero")):
        record(folder / f"{name}.wav", 0.6, number, "Words.")
    soundfile.write(folder / "empty.wav", np.zeros(0), 22050)
    data = (folder / "torn.wav").read_bytes()
    (folder / "torn.wav").write_bytes(data[: len(data) // 3])
    (folder / "text.wav").write_text("this is no sound at all", encoding="utf-8")
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan] * 9000), 22050, subtype="FLOAT")
    (folder / "zero.wav").write_bytes(b"")
    return {"empty": "no samples", "torn": "torn or damaged", "text": "not audio", "nan": "NaN", "zero": ""}


def spoil_codes(path: Path, kind: str) -> None:
    """Replace codes by something that is none."""
    codes = np.load(path)
    if kind == "objects":
        np.save(path, np.array([[Trap(path.with_name("trapped"))]], dtype=object), allow_pickle=True)
    elif kind == "torn":
        path.write_bytes(path.read_bytes()[:-20])
    else:
        shapes = {
            "flat": codes[0],
            "fractions": codes.astype(np.float32),
            "negative": codes - 2000,
            "solid": codes[None, None],
        }
        np.save(path, shapes[kind])


def edit_weights(path: Path, kind: str) -> str:
    """Spoil a weights file and return the name that a message must give."""
    content = torch.load(path, weights_only=True)
    state = content.get("state_dict", content)
    name = next(name for name in state if "wqkv" in name)
    tensor = state[name]
    if kind == "missing":
        del state[name]
    elif kind == "extra":
        name = "model.surprise.weight" if "state_dict" in content else "surprise.weight"
        state[name] = torch.zeros(3)
    elif kind == "misshapen":
        state[name] = torch.zeros(tensor.shape[0], tensor.shape[1] + 3)
    elif kind == "nan":
        state[name] = torch.full_like(tensor, float("nan"))
    torch.save(content, path)
    return name.removeprefix("model.")


# Recordings and transcripts


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("prepare_dataset.py", ("--input", "empty", "--output", "out")),
        ("extract_vq", ("empty", "--checkpoint-path", BASE / CODEC_FILE)),
        ("build_dataset", ("--input", "empty", "--output", "out")),
    ],
    ids=["prepare", "extract", "build"],
)
def test_an_empty_folder_is_refused(workspace, name, arguments):
    (workspace / "empty").mkdir()
    assert "empty" in refuse(name, *arguments, cwd=workspace)


def test_recordings_that_cannot_be_used_are_counted_and_the_rest_is_prepared(tmp_path):
    reasons = spoil_recordings(tmp_path / "recordings")
    record(tmp_path / "recordings/untold.wav", 0.5, 8, None)
    record(tmp_path / "recordings/wordless.wav", 0.5, 9, " ")
    before = contents(tmp_path)
    result = run(
        "prepare_dataset.py", "--input", "recordings", "--output", "data", "--workers", 1, cwd=tmp_path, code=1
    )
    assert "this run: 1 of 8 recordings, 7 left out" in result.stdout
    for name, reason in {**reasons, "untold": "no transcript", "wordless": "empty transcript"}.items():
        assert any(f"{name}.wav" in line and reason in line for line in result.stderr.splitlines()), name
    assert (tmp_path / "data/recordings/good.wav").is_file()
    assert {name: data for name, data in contents(tmp_path).items() if name in before} == before


def test_clips_that_cannot_be_encoded_are_counted_and_the_rest_is_encoded(workspace):
    reasons = spoil_recordings(workspace / "data")
    before = contents(workspace)
    codec = ("--checkpoint-path", BASE / CODEC_FILE, "--config-name", (BASE / CODEC_FILE).with_suffix(".yaml"))
    result = run("extract_vq", "data", *codec, cwd=workspace, code=1)
    assert "1 clips have codes: 1 encoded" in result.stdout and "5 failed" in result.stdout
    for name, reason in reasons.items():
        assert any(f"{name}.wav" in line and reason in line for line in result.stderr.splitlines()), name
    assert {path.stem for path in (workspace / "data").glob("*.npy")} == {"good"}
    assert {name: data for name, data in contents(workspace).items() if name in before} == before


def test_the_pipeline_stops_where_clips_were_lost_unless_told_to_keep_going(workspace):
    spoil_recordings(workspace / "recordings")
    step = ("--project", "p", "--data-dir", "recordings", "--prepare-data", "--extract-tokens")
    stopped = run("finetune_tts.py", *step, cwd=workspace, code=1)
    assert "prepare_dataset ended with exit code 1" in stopped.stderr
    assert "[2/2] extract_vq" not in stopped.stderr


# Codes and transcripts


def test_clips_that_cannot_be_packed_are_counted_and_the_rest_is_packed(tmp_path):
    folder = data_set(tmp_path / "data", 9) / "anna"
    kinds = ("flat", "fractions", "negative", "solid", "objects", "torn")
    for number, kind in enumerate(kinds):
        spoil_codes(folder / f"clip00{number}.npy", kind)
    (folder / "clip006.lab").unlink()
    (folder / "clip007.lab").write_text(" \n", encoding="utf-8")
    before = contents(tmp_path)
    result = run("build_dataset", "--input", "data", "--output", "protos", cwd=tmp_path, code=1)
    assert "1 clips" in result.stdout and "8 left out" in result.stdout
    reasons = ("1 axes", "axes of float32", "values from -", "4 axes", "plain numbers|axes of object", "torn")
    for number, reason in enumerate((*reasons, "no transcript", "the transcript is empty")):
        line = next(line for line in result.stderr.splitlines() if f"clip00{number}" in line)
        assert any(part in line for part in reason.split("|")), line
    assert not (folder / "trapped").exists()
    assert {name: data for name, data in contents(tmp_path).items() if name in before} == before


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flat", "fractions", "negative", "objects", "torn"])
def test_a_reference_that_holds_no_codes_is_refused(workspace, kind):
    path = data_set(workspace / "data", 1) / "anna/clip000.npy"
    spoil_codes(path, kind)
    message = refuse("cli_tts.py", "Hi.", "--prompt-tokens", path, "--prompt-text", "Words.", cwd=workspace)
    assert "clip000.npy" in message and "codes" in message
    assert not path.with_name("trapped").exists() and not (workspace / "output").exists()


# Packed data


@pytest.mark.slow
@pytest.mark.parametrize("indexed", [True, False], ids=["ours", "of another tool"])
def test_a_torn_shard_is_refused_by_training(again, indexed):
    folder = again / "results/voice/protos"
    shard = folder / "00000000.protos"
    shard.write_bytes(shard.read_bytes()[:-9])
    if not indexed:
        (folder / "index.json").unlink()
    message = refuse("train", "project=new", f"train_dataset.proto_files=[{folder.as_posix()}]", cwd=again)
    assert "protos" in message and "build_dataset" in message


@pytest.mark.slow
def test_a_torn_shard_is_packed_again_by_the_script(again):
    shard = again / "results/voice/protos/00000000.protos"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-9])
    run("finetune_tts.py", *VOICE, *TRAIN, cwd=again)
    assert shard.read_bytes() == whole


# Weights

USERS_OF_THE_BASE = {
    "train": ("finetune_tts.py", ("--project", "new", *VOICE[2:], *TRAIN)),
    "merge": ("merge_lora", MERGE),
    "speak": ("cli_tts.py", ("Hi.", "-o", "out/x.wav")),
}
USERS_OF_A_CHECKPOINT = {
    "warm start": ("finetune_tts.py", ("--project", "new", *VOICE[2:], *TRAIN, "--resume-from-checkpoint", CHECKPOINT)),
    "continue": ("finetune_tts.py", (*VOICE, *TRAIN)),
    "merge": ("merge_lora", MERGE),
    "speak": ("cli_tts.py", ("Hi.", "-o", "out/x.wav", "--checkpoint", CHECKPOINT)),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["missing", "extra", "misshapen"])
@pytest.mark.parametrize("user", USERS_OF_THE_BASE)
def test_a_base_with_other_weights_than_its_config_is_refused_by_name(again, user, kind):
    name = edit_weights(again / BASE / "model.pth", kind)
    script, arguments = USERS_OF_THE_BASE[user]
    message = refuse(script, *arguments, cwd=again)
    assert name in message and "model.pth" in message
    assert not (again / "out").exists() and not (again / "results/new/checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["missing", "extra", "misshapen"])
@pytest.mark.parametrize("user", USERS_OF_A_CHECKPOINT)
def test_a_checkpoint_with_other_weights_than_the_adapter_is_refused_by_name(again, user, kind):
    name = edit_weights(again / CHECKPOINT, kind)
    script, arguments = USERS_OF_A_CHECKPOINT[user]
    message = refuse(script, *arguments, cwd=again)
    assert name in message and Path(CHECKPOINT).name in message
    assert not (again / "out").exists() and not (again / "results/new/checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("torn", [0, 100, -1], ids=["empty", "head only", "all but a byte"])
def test_torn_base_weights_are_refused(again, torn):
    path = again / BASE / "model.pth"
    path.write_bytes(path.read_bytes()[:torn])
    assert "model.pth" in refuse("cli_tts.py", "Hi.", "-o", "out/x.wav", cwd=again)
    assert not (again / "out").exists()


@pytest.mark.parametrize(
    ("file", "script", "arguments"),
    [
        (BASE / "model.pth", "cli_tts.py", ("Hi.",)),
        (CHECKPOINT, "merge_lora", MERGE),
        (BASE / CODEC_FILE, "extract_vq", ("training_data/voice", "--force", "--checkpoint-path", BASE / CODEC_FILE)),
    ],
    ids=["base", "checkpoint", "codec"],
)
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(again, file, script, arguments):
    torch.save({"state_dict": {"weight": Trap(again / "trapped")}}, again / file)
    message = refuse(script, *arguments, cwd=again)
    assert f"{Path(file).name} is refused" in message and "could run code" in message
    assert not (again / "trapped").exists()


@pytest.mark.slow
@pytest.mark.parametrize("user", USERS_OF_A_CHECKPOINT)
@pytest.mark.parametrize(
    "other", [{"dim": 48, "n_head": 4, "n_local_heads": 2}, {"num_codebooks": 4}], ids=["dims", "codebooks"]
)
def test_a_checkpoint_of_another_version_is_refused(again, user, other):
    shutil.rmtree(again / BASE)
    write_model_folder(again / BASE, **other)
    script, arguments = USERS_OF_A_CHECKPOINT[user]
    message = refuse(script, *arguments, cwd=again)
    assert Path(CHECKPOINT).name in message or "base weights" in message or "codebooks" in message
    assert not (again / "out").exists() and not (again / "results/new/checkpoints").exists()


@pytest.mark.slow
def test_merging_onto_another_base_than_trained_on_is_refused(again):
    shutil.rmtree(again / BASE)
    write_model_folder(again / BASE, seed=5)
    message = refuse("merge_lora", *MERGE, cwd=again)
    assert "was not trained on" in message and "--base-weight" in message
    assert not (again / "out").exists()


@pytest.mark.slow
def test_a_codec_that_does_not_fit_its_config_is_refused_before_anything_is_encoded(again):
    shutil.copyfile(again / BASE / "model.pth", again / BASE / CODEC_FILE)
    before = contents(again / "training_data")
    codec = ("--checkpoint-path", BASE / CODEC_FILE, "--config-name", (BASE / CODEC_FILE).with_suffix(".yaml"))
    message = refuse("extract_vq", "training_data/voice", "--force", *codec, cwd=again)
    assert CODEC_FILE in message and "a text-to-semantic model, no codec" in message
    assert contents(again / "training_data") == before


@pytest.mark.slow
@pytest.mark.parametrize(
    "garbage", ["{", "[1, 2]", '{"dim": "wide"}', '{"dim": 1e99, "n_layer": -1}', "huge", "deep", "binary"]
)
def test_a_config_that_is_none_is_refused(workspace, garbage):
    path = workspace / BASE / "config.json"
    if garbage == "huge":
        path.write_text(json.dumps({"dim": 32, "note": "x" * (2 << 20)}), encoding="utf-8")
    elif garbage == "deep":
        path.write_text("[" * 100_000, encoding="utf-8")
    else:
        path.write_bytes(b"\xff\xfe\x00\x9f" if garbage == "binary" else garbage.encode())
    assert "config.json is not a model config" in refuse("cli_tts.py", "Hi.", cwd=workspace)


@pytest.mark.slow
def test_a_config_of_absurd_size_is_refused_before_memory_is_taken(workspace):
    path = workspace / BASE / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "dim": 1 << 20, "intermediate_size": 1 << 22}), encoding="utf-8")
    assert "model.pth" in refuse("cli_tts.py", "Hi.", cwd=workspace)


@pytest.mark.slow
def test_a_base_with_nan_stops_training_with_a_message(again):
    edit_weights(again / BASE / "model.pth", "nan")
    message = refuse("finetune_tts.py", "--project", "new", *VOICE[2:], *TRAIN, cwd=again)
    assert "NaN" in message and "model" in message
    assert not (again / "results/new/checkpoints").exists()


@pytest.mark.slow
def test_a_loss_that_is_nan_stops_training_and_keeps_the_checkpoint(again):
    edit_weights(again / CHECKPOINT, "nan")
    before = (again / CHECKPOINT).read_bytes()
    message = refuse("finetune_tts.py", *VOICE, *TRAIN, cwd=again)
    assert "the loss of step 5 is nan" in message and "checkpoints so far are whole and kept" in message
    assert [path.name for path in (again / CHECKPOINT).parent.iterdir()] == [Path(CHECKPOINT).name]
    assert (again / CHECKPOINT).read_bytes() == before


@pytest.mark.slow
def test_an_adapter_with_nan_is_not_merged(again):
    edit_weights(again / CHECKPOINT, "nan")
    assert "holds NaN" in refuse("merge_lora", *MERGE, cwd=again)
    assert not (again / "out").exists()


@pytest.mark.slow
def test_a_base_with_nan_does_not_speak(workspace):
    edit_weights(workspace / BASE / "model.pth", "nan")
    assert "NaN" in refuse("cli_tts.py", "Hi.", "-o", "out.wav", cwd=workspace)
    assert not (workspace / "out.wav").exists()


# Requests


@pytest.mark.parametrize("project", ["../x", "a/b", "", ".", "..", "a\nb", "x" * 101, "C:\\x"])
def test_a_project_that_is_no_folder_name_is_refused(finished, project):
    message = refuse("finetune_tts.py", "--project", project, "--list-checkpoints", cwd=finished)
    assert "cannot be a folder name" in message


@pytest.mark.parametrize(
    "flag",
    [
        ("--resume-latest",),
        ("--resume-from-checkpoint", CHECKPOINT),
        ("--checkpoint-path", "results"),
        ("--max-steps", 9),
        ("--max-epochs", 2),
        ("--checkpoint-step", 4),
        ("--keep-going",),
        ("--learning-rate", "1e-5"),
        ("--precision", "fp32"),
    ],
    ids=lambda flag: flag[0],
)
def test_a_flag_without_effect_is_refused(finished, flag):
    message = refuse("finetune_tts.py", *VOICE, "--extract-tokens", *flag, cwd=finished)
    assert f"{flag[0]} has no effect here" in message


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (VOICE, "no step is chosen"),
        (("--project", "voice", "--train"), "--data-dir is missing"),
        (("--project", "voice", "--train", "--data-dir", "nowhere"), "there is no folder nowhere"),
        ((*VOICE, "--train", "--lora-config", "r_9_alpha_9"), "unknown LoRA config 'r_9_alpha_9'"),
        ((*VOICE, "--train", "--lora-config", "../base"), "unknown LoRA config"),
        ((*VOICE, "--train", "--resume-from-checkpoint", "gone.ckpt"), "there is no checkpoint gone.ckpt"),
        ((*VOICE, "--train", "--pretrained-ckpt-path", "training_data"), "training_data is not a model folder"),
        (("--project", "voice", "--merge-weights", "--checkpoint-step", 5), "has no step 5 to merge"),
        (("--project", "new", "--merge-weights"), "has no checkpoint to merge"),
        (("--project", "new", "--list-checkpoints"), "project new has no checkpoints"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused(finished, arguments, said):
    assert said in refuse("finetune_tts.py", *arguments, cwd=finished)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "known"),
    [
        ("train", ("+lora@model.model.lora_config=r_9_alpha_9",), "r_8_alpha_16"),
        ("merge_lora", (*MERGE, "--lora-config", "r_9_alpha_9"), "r_8_alpha_16"),
        ("merge_lora", (*MERGE, "--lora-config", "r_4_alpha_8"), "trained with r 8, alpha 16"),
    ],
)
def test_an_unknown_or_wrong_lora_config_is_refused_by_the_stages(finished, name, arguments, known):
    assert known in refuse(name, *arguments, cwd=finished)


def test_nothing_half_written_is_left_of_all_these(finished):
    assert leftovers(finished) == []
