"""A data set with bad clips among the good ones trains: each bad clip is named with its reason, the rest is trained on.

And where a loss is no number, the run stops with the clip's name, and the checkpoints made before are kept.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fish_speech.checkpoint import list_checkpoints, read_state_dict
from fish_speech.datasets.datamodule import SemanticDataModule
from fish_speech.datasets.shards import read_index

from .scripts import BASE, data_set, leftovers, record, refuse, run

GOOD = 11
FRAME_RATE = 44100 / 2048  # Hz
FAST = (
    *("--project", "p", "--data-dir", "data", "--batch-size", 2, "--max-length", 128, "--warmup-steps", 0),
    *("--device", "cpu", "--sample-every-n-steps", 0),
)
FULL = (*FAST, "--full-pipeline", "--tournament-texts", 0, "--max-steps", 12)
TRAIN = (*FAST, "--train")


@pytest.fixture()
def good(workspace) -> Path:
    """A workspace with a data set of good clips: sound and words."""
    for number in range(GOOD):
        path = workspace / f"data/anna/good_{number:02d}.wav"
        record(path, 1.5 + number % 4 / 10, number, None, rate=44100)
        path.with_suffix(".lab").write_text(f"These are the words of clip {number}.", encoding="utf-8")
    return workspace


def poison(folder: Path, kind: str) -> None:
    """Add a bad clip of a kind; it is called as the kind is."""
    path = folder / f"data/anna/{kind}.wav"
    record(path, 40.0 if kind == "long" else 2.0, 77, None, rate=44100)
    words = "These are the words of a clip. "
    path.with_suffix(".lab").write_text(words * {"long": 13, "wrong": 20}.get(kind, 1), encoding="utf-8")
    if kind == "nan":
        codes = np.full((8, round(2 * FRAME_RATE)), np.nan, dtype=np.float32)
        np.save(path.with_suffix(".npy"), codes)  # written later than the sound, so by its time it is current


def lines_naming(name: str, said: str) -> list[str]:
    return [line for line in said.splitlines() if name in line and not line.startswith("[")]


def trained_on(said: str) -> tuple[int, int]:
    """Clips that the run trained on, of how many, by the coverage meter's last line; seconds must be all or not alike."""
    found = re.findall(r"the run trained on (\d+) of (\d+) clips, ([\d.]+) of ([\d.]+) s", said)
    (clips, of, seconds, all_seconds) = found[-1]
    assert (clips == of) == (seconds == all_seconds)
    return int(clips), int(of)


def index_of(folder: Path) -> dict[str, dict[str, str]]:
    """Clips that packing left out and that it found odd, with the reasons, by the end of the name."""
    index = read_index(folder / "results/p/protos")
    assert index is not None
    return {key: {Path(name).name: why for name, why in index[key]} for key in ("left_out", "suspicious")}


@pytest.mark.slow
def test_a_full_pipeline_over_three_bad_clips_trains_on_all_that_can_be_trained_on(good):
    for kind in ("nan", "wrong", "long"):
        poison(good, kind)
    said = run("finetune_tts.py", *FULL, cwd=good).stderr
    index = index_of(good)
    assert list(index["left_out"]) == ["wrong"] and "text too long" in index["left_out"]["wrong"]
    assert "long" in index["suspicious"] and "40.0 s long" in index["suspicious"]["long"]
    assert any("text too long" in line for line in lines_naming("wrong", said))
    assert any("40.0 s" in line for line in lines_naming("long", said))
    last = said.splitlines()[-6:]  # and once more where a user looks, at the end
    assert any("left out of training: 1: " in line and "wrong" in line for line in last)
    assert any("look odd" in line and "long" in line for line in last)

    mended = np.load(good / "data/anna/nan.npy")  # its sound is there: what was no codes is made anew
    assert mended.dtype == np.int32 and abs(mended.shape[1] - 2 * FRAME_RATE) < 2

    held_out = 1
    assert trained_on(said) == (GOOD + 2 - held_out, GOOD + 2 - held_out)
    longest = int(re.search(r"samples of up to (\d+) tokens", said)[1])  # type: ignore[index]
    assert longest > 40 * FRAME_RATE, "the long clip is trained on, whole"
    state = read_state_dict(list_checkpoints(good / "results/p/checkpoints")[-1].path)
    assert all(tensor.isfinite().all() for tensor in state.values())
    assert (good / "checkpoints/p-merged/model.pth").is_file() and leftovers(good) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["nan", "torn", "empty"])
def test_codes_that_are_none_and_have_no_sound_are_left_out_by_name(workspace, kind):
    folder = data_set(workspace / "data", GOOD + 1) / "anna"
    path = folder / "clip004.npy"
    codes = np.load(path)
    if kind == "nan":
        np.save(path, np.full(codes.shape, np.nan, dtype=np.float32))
    elif kind == "torn":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        np.save(path, codes[:, :0])
    said = run("finetune_tts.py", *TRAIN, "--max-steps", 8, cwd=workspace).stderr
    assert list(index_of(workspace)["left_out"]) == ["clip004"]
    assert any("left out" in line for line in lines_naming("clip004", said))
    assert "clip004" in said.splitlines()[-1], "told again at the end"
    assert trained_on(said) == (GOOD - 1, GOOD - 1)


@pytest.mark.slow
def test_more_bad_clips_than_allowed_stop_the_run_before_training_unless_told_otherwise(workspace):
    folder = data_set(workspace / "data", GOOD + 2) / "anna"
    for name in ("clip003", "clip004"):
        np.save(folder / f"{name}.npy", np.full((8, 12), np.nan, dtype=np.float32))
    stopped = run("finetune_tts.py", *TRAIN, "--max-steps", 8, cwd=workspace, code=1).stderr
    assert lines_naming("clip003", stopped) and lines_naming("clip004", stopped)
    assert "build_dataset ended with exit code 1" in stopped and not (workspace / "results/p/checkpoints").exists()
    said = run("finetune_tts.py", *TRAIN, "--max-steps", 8, "--max-left-out", 20, cwd=workspace).stderr
    assert "left out of training: 2: " in said
    assert trained_on(said) == (GOOD - 1, GOOD - 1)


def clip_of_step(folder: Path, step: int, batch_size: int) -> tuple[str, int]:
    """A clip that is trained on in a step, counted from 1, and not before: its file's name, and the clips of the step."""
    run("build_dataset", "--input", "data", "--output", "results/p/protos", "--text-extension", ".lab", cwd=folder)
    tokenizer = folder / BASE / "tokenizer.tiktoken"
    data = SemanticDataModule([folder / "results/p/protos"], tokenizer, 4096, batch_size=batch_size, pack_length=1)
    data.setup("fit")
    assert data.dataset is not None
    _, samples = data.stream().samples_at(step - 1)
    text = data.dataset.clips.text_of(samples[0][0], 0)
    number = int(re.search(r"\d+", text)[0])  # type: ignore[index]
    return f"clip{number:03d}", sum(map(len, samples))


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [2, 1])
def test_a_clip_that_makes_the_loss_no_number_ends_the_run_with_its_name(workspace, batch_size):
    # Base weights damaged where only one clip looks: finite, so that they load, but two of them added are not.
    path = workspace / BASE / "model.pth"
    weights = torch.load(path, weights_only=True)
    code, size = 1001, 1024
    weights["codebook_embeddings.weight"][[code, size + code]] = 3e38
    torch.save(weights, path)
    folder = data_set(workspace / "data", 20) / "anna"
    name, clips = clip_of_step(workspace, 5, batch_size)
    codes = np.load(folder / f"{name}.npy")
    codes[:2, 6] = code
    np.save(folder / f"{name}.npy", codes)

    arguments = ["--save-every-n-steps", 1, "--max-steps", 9, "--learning-rate", "1e-5"]
    changed = [batch_size if word == 2 else 1 if word == 128 else word for word in TRAIN]
    told = refuse("finetune_tts.py", *changed, *arguments, cwd=workspace)
    assert "the loss of step 5 is nan" in told
    assert f"1 of the step's {clips} clips" in told or clips == 1
    assert f"Words of clip {int(name.removeprefix('clip'))}." in told, "the clip is named"
    assert "weights have left the range" not in told
    kept = list_checkpoints(workspace / "results/p/checkpoints")
    assert [checkpoint.step for checkpoint in kept] == [1, 2, 3, 4]
    for checkpoint in kept:
        assert all(tensor.isfinite().all() for tensor in read_state_dict(checkpoint.path).values())
    assert leftovers(workspace) == []


@pytest.mark.slow
def test_weights_that_leave_the_range_of_numbers_end_the_run_and_leave_the_checkpoints(workspace):
    data_set(workspace / "data", 12)
    arguments = ("--max-steps", 9, "--save-every-n-steps", 1, "--learning-rate", "1e25", "--warmup-steps", 3)
    told = refuse("finetune_tts.py", *TRAIN, *arguments, cwd=workspace)
    assert "out of the range of numbers" in told and "lower --learning-rate" in told
    step = int(re.search(r"after step (\d+) the held-out loss is (nan|inf)", told)[1])  # type: ignore[index]
    kept = list_checkpoints(workspace / "results/p/checkpoints")
    assert [checkpoint.step for checkpoint in kept] == list(range(1, step)) and step > 1
    assert leftovers(workspace) == []


@pytest.mark.slow
def test_a_last_step_that_ruins_the_weights_is_no_success(workspace):
    data_set(workspace / "data", 12)
    told = refuse("finetune_tts.py", *TRAIN, "--max-steps", 1, "--learning-rate", "1e25", cwd=workspace)
    assert "after step 1 the held-out loss is" in told and "lower --learning-rate" in told
    assert list_checkpoints(workspace / "results/p/checkpoints") == []


@pytest.mark.slow
def test_without_held_out_clips_too_ruined_weights_are_told_from_the_data_and_never_saved(workspace):
    data_set(workspace / "data", 5)
    arguments = ("--max-steps", 9, "--save-every-n-steps", 1, "--learning-rate", "1e25")
    told = refuse("finetune_tts.py", *TRAIN, *arguments, cwd=workspace)
    assert "the weights have left the range of numbers, not the data" in told and "lower --learning-rate" in told
    for checkpoint in list_checkpoints(workspace / "results/p/checkpoints"):
        assert all(tensor.isfinite().all() for tensor in read_state_dict(checkpoint.path).values())
