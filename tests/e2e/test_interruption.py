"""Stopped at any moment, by kill -9 or politely: the same command again gives what an uninterrupted run gives."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from fish_speech.checkpoint import list_checkpoints, read_file

from ..conftest import CODEC_FILE
from .conftest import FULL_PIPELINE, TRAINING
from .scripts import BASE, TIMEOUT_S, contents, data_set, leftovers, put_base, record, run, start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

CHECKPOINT = "results/voice/checkpoints/step_000000004.ckpt"
STEPS = 60
TRAIN = (
    *("project=p", f"pretrained_ckpt_path={BASE.as_posix()}", "device=cpu", "data.batch_size=2", "data.pack_length=64"),
    *(f"trainer.max_steps={STEPS}", "trainer.val_check_interval=7", "trainer.log_every_n_steps=1"),
    "+lora@model.model.lora_config=r_8_alpha_16",
)


def kill(process: subprocess.Popen[str]) -> None:
    """End a process and its group as a power cut would."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(TIMEOUT_S)


def kill_at_random(name: str, *arguments: object, cwd: Path, seconds: float, rng: random.Random) -> None:
    """Run a stage that takes `seconds` and kill it at a random moment of that, most likely in its second half."""
    process = start(name, *arguments, cwd=cwd)
    time.sleep(rng.triangular(0.1, seconds, 0.8 * seconds))
    kill(process)


def timed(name: str, *arguments: object, cwd: Path) -> float:
    started = time.monotonic()
    run(name, *arguments, cwd=cwd)
    return time.monotonic() - started


def wait_for(path: Path, text: str, process: subprocess.Popen[str]) -> None:
    """Wait until a file holds `text`; fail if the process ends before."""
    while text not in (path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""):
        assert process.poll() is None, path.read_text(encoding="utf-8", errors="replace")
        time.sleep(0.01)


def state_of(path: Path) -> dict:
    return read_file(path)["state_dict"]


def assert_equal_states(one: dict, other: dict) -> None:
    """Equal to the bit."""
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.fixture(scope="module")
def straight(tmp_path_factory, small_base) -> Path:
    """A folder with a data set, packed, and a project `p` trained without a stop."""
    folder = tmp_path_factory.mktemp("straight")
    put_base(folder, small_base)
    data_set(folder / "data", 23)
    run("build_dataset", "--input", "data", "--output", "results/p/protos", cwd=folder)
    (folder / "seconds").write_text(str(timed("train", *TRAIN, cwd=folder)), encoding="utf-8")
    return folder


@pytest.fixture()
def untrained(straight, tmp_path) -> Path:
    """The same folder before training."""
    folder = Path(shutil.copytree(straight, tmp_path / "untrained", copy_function=shutil.copy2))
    shutil.rmtree(folder / "results/p/checkpoints")
    return folder


def assert_trained_like(folder: Path, straight: Path) -> None:
    name = f"results/p/checkpoints/step_{STEPS:09d}.ckpt"
    assert_equal_states(state_of(folder / name), state_of(straight / name))
    assert leftovers(folder) == []


@pytest.mark.slow
def test_preparing_killed_at_random_moments_gives_the_same_data_set(tmp_path):
    rng = random.Random(1)
    for number in range(40):
        record(tmp_path / f"recordings/{number}.wav", 1.5, number, f"Words {number}.")
    arguments = ("--input", "recordings", "--workers", 2, "--output")
    seconds = timed("prepare_dataset.py", *arguments, "straight", cwd=tmp_path)
    expected = contents(tmp_path / "straight")
    for attempt in range(3):
        output = f"data{attempt}"
        for _ in range(2):
            kill_at_random("prepare_dataset.py", *arguments, output, cwd=tmp_path, seconds=seconds, rng=rng)
        run("prepare_dataset.py", *arguments, output, cwd=tmp_path)
        assert contents(tmp_path / output) == expected


@pytest.mark.slow
def test_extracting_killed_at_random_moments_gives_the_same_codes(workspace):
    rng = random.Random(2)
    for number in range(40):
        record(workspace / f"data/{number}.wav", 2 + number % 7 / 5, number, None, rate=44100)
    codec = ("--checkpoint-path", BASE / CODEC_FILE, "--config-name", (BASE / CODEC_FILE).with_suffix(".yaml"))
    arguments = ("data", *codec, "--batch-size", 4)
    seconds = timed("extract_vq", *arguments, cwd=workspace)
    expected = contents(workspace / "data")
    for _ in range(4):
        for path in (workspace / "data").glob("*.npy"):
            path.unlink()
        kill_at_random("extract_vq", *arguments, cwd=workspace, seconds=seconds, rng=rng)
        run("extract_vq", *arguments, cwd=workspace)
        assert contents(workspace / "data") == expected


@pytest.mark.slow
def test_packing_killed_at_random_moments_gives_the_same_shards(tmp_path):
    rng = random.Random(3)
    for speaker in range(40):  # a shard ends between speakers
        data_set(tmp_path / f"data/{speaker}", 40)
    arguments = ("--input", "data", "--shard-size", "0.01", "--num-workers", 2, "--output")
    seconds = timed("build_dataset", *arguments, "straight", cwd=tmp_path)
    expected = contents(tmp_path / "straight")
    assert len(expected) > 5
    for attempt in range(5):
        output = f"protos{attempt % 2}"  # new ones, and old ones that are replaced
        if (tmp_path / output).exists():
            (tmp_path / output / "index.json").write_text("{}", encoding="utf-8")
        kill_at_random("build_dataset", *arguments, output, cwd=tmp_path, seconds=seconds, rng=rng)
        run("build_dataset", *arguments, output, cwd=tmp_path)
        assert contents(tmp_path / output) == expected


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_training_killed_at_random_moments_ends_with_the_same_weights(straight, untrained, seed):
    rng = random.Random(seed)
    seconds = float((straight / "seconds").read_text(encoding="utf-8"))
    kill_at_random("train", *TRAIN, cwd=untrained, seconds=seconds, rng=rng)
    done = [checkpoint.step for checkpoint in list_checkpoints(untrained / "results/p/checkpoints")]
    if STEPS not in done:
        run("train", *TRAIN, cwd=untrained)
    assert_trained_like(untrained, straight)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl+C", "SIGTERM"])
def test_training_stopped_politely_saves_its_step_and_goes_on_exactly(straight, untrained, number):
    process = start("train", *TRAIN, cwd=untrained)
    wait_for(untrained / "train.out", "step 10/60", process)
    process.send_signal(number)
    assert process.wait(TIMEOUT_S) == 130
    said = (untrained / "train.out").read_text(encoding="utf-8")
    assert "Traceback" not in said and "the same command continues" in said
    stopped = list_checkpoints(untrained / "results/p/checkpoints")[-1].step
    assert 10 <= stopped < STEPS and f"stopped at step {stopped}," in said
    assert f"(step {stopped})" in run("train", *TRAIN, cwd=untrained).stderr
    assert_trained_like(untrained, straight)


@pytest.mark.slow
def test_training_stopped_twice_at_once_ends_and_keeps_its_checkpoints(straight, untrained):
    process = start("train", *TRAIN, cwd=untrained)
    wait_for(untrained / "train.out", "step 10/60", process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130
    assert "Traceback" not in (untrained / "train.out").read_text(encoding="utf-8")
    run("train", *TRAIN, cwd=untrained)
    assert_trained_like(untrained, straight)


@pytest.mark.slow
def test_resuming_from_an_earlier_step_gives_the_same_weights(straight, tmp_path):
    folder = Path(shutil.copytree(straight, tmp_path / "again", copy_function=shutil.copy2))
    steps = [checkpoint.step for checkpoint in list_checkpoints(folder / "results/p/checkpoints")]
    (folder / f"results/p/checkpoints/step_{STEPS:09d}.ckpt").unlink()
    run("train", *TRAIN, f"resume_step={steps[1]}", cwd=folder)
    assert_trained_like(folder, straight)


@pytest.mark.slow
def test_merging_killed_at_random_moments_gives_the_same_model(again):
    rng = random.Random(5)
    arguments = ("--base-weight", BASE, "--lora-weight", CHECKPOINT, "--output")
    seconds = timed("merge_lora", *arguments, "straight", cwd=again)
    expected = contents(again / "straight")
    for attempt in range(5):
        output = again / f"merged{attempt % 2}"  # new ones, and old ones that are replaced
        kill_at_random("merge_lora", *arguments, output, cwd=again, seconds=seconds, rng=rng)
        run("merge_lora", *arguments, output, cwd=again)
        merged = contents(output)
        voice, expected_voice = (json.loads(found["voice.json"]) for found in (merged, expected))
        assert {**voice, "date": ""} == {**expected_voice, "date": ""}
        assert {**merged, "voice.json": b""} == {**expected, "voice.json": b""}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_full_pipeline_killed_at_a_random_moment_ends_with_the_same_voice(finished, again, seed):
    rng = random.Random(seed)
    for made in ("results", "checkpoints/voice-merged"):
        shutil.rmtree(again / made)
    for codes in (again / "training_data/voice").rglob("*.npy"):
        codes.unlink()
    arguments = ("--project", "voice", "--data-dir", "training_data/voice", *FULL_PIPELINE, "--max-steps", 4)
    kill_at_random("finetune_tts.py", *arguments, *TRAINING, cwd=again, seconds=9, rng=rng)
    run("finetune_tts.py", *arguments, *TRAINING, cwd=again)
    merged = "checkpoints/voice-merged/model.pth"
    assert_equal_states(*(read_file(folder / merged) for folder in (again, finished)))
    for codes in (finished / "training_data/voice").rglob("*.npy"):
        np.testing.assert_array_equal(np.load(again / codes.relative_to(finished)), np.load(codes))
    assert leftovers(again) == []
