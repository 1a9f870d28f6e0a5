"""Forty steps: uninterrupted, against stopped by Ctrl+C at step 13 and killed by kill -9 at 27, resumed by the same command.

Not only the weights must be equal to the bit, but all that a checkpoint keeps: optimizer, schedule, data position, what was
measured, and the counts of the callbacks.
"""

from __future__ import annotations

import csv
import math
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import torch

from fish_speech.checkpoint import list_checkpoints, read_file

from .scripts import BASE, TIMEOUT_S, data_set, leftovers, put_base, refuse, run, start
from .test_interruption import assert_equal_states, wait_for

STEPS, STOPPED, KILLED, EVERY = 40, 13, 27, 7
LAST = f"results/p/checkpoints/step_{STEPS:09d}.ckpt"
STAGE = (
    *("project=p", f"pretrained_ckpt_path={BASE.as_posix()}", "device=cpu", "data.batch_size=2", "data.pack_length=64"),
    *(f"trainer.max_steps={STEPS}", f"trainer.val_check_interval={EVERY}", "trainer.log_every_n_steps=1"),
    *("callbacks.model_checkpoint.keep_newest=9", "+lora@model.model.lora_config=r_8_alpha_16"),
)
SILENT = ("callbacks.spoken_samples.every_n_steps=null",)
SCRIPT = (
    *("--project", "p", "--data-dir", "data", "--train", "--max-steps", STEPS, "--batch-size", 2, "--max-length", 64),
    *("--save-every-n-steps", EVERY, "--log-every-n-steps", 1, "--device", "cpu", "--sample-every-n-steps", 0),
)


class Variant(NamedTuple):
    """A training: the script or stage, and what it is given."""

    name: str
    arguments: tuple[object, ...]


VARIANTS = {
    "the stage": Variant("train", (*STAGE, *SILENT)),
    "accumulation and workers": Variant(
        "train", (*STAGE, *SILENT, "trainer.accumulate_grad_batches=2", "data.num_workers=2")
    ),
    "dropout": Variant("train", (*STAGE, *SILENT, "attention_dropout=0.1", "model.model.lora_config.lora_dropout=0.2")),
    # A patience that the run does not exhaust, so that its count is carried over each end.
    "samples and early stopping": Variant(
        "train",
        (
            *(*STAGE, f"callbacks.spoken_samples.every_n_steps={EVERY}", "callbacks.spoken_samples.max_seconds=0.5"),
            "callbacks.early_stopping.patience=30",
        ),
    ),
    "the script": Variant("finetune_tts.py", (*SCRIPT, "--gradient-accumulation-steps", 2)),
}


@pytest.fixture()
def project(tmp_path, small_base) -> Path:
    """A folder with a base model and a packed data set of 23 clips, of which one is held out."""
    folder = tmp_path / "straight"
    folder.mkdir()
    put_base(folder, small_base)
    data_set(folder / "data", 23)
    run("build_dataset", "--input", "data", "--output", "results/p/protos", "--text-extension", ".lab", cwd=folder)
    return folder


def trainer_of(process: subprocess.Popen[str], name: str) -> int:
    """The process that trains: the script starts it as its child."""
    if not name.endswith(".py"):
        return process.pid
    (child,) = [c for c in psutil.Process(process.pid).children() if "fish_speech.train" in c.cmdline()]
    return child.pid


def interrupted_at(step: int, number: signal.Signals, variant: Variant, folder: Path) -> str:
    """Run until the line of `step`, send the signal, wait for the end; return what the run said."""
    said = folder / f"{variant.name}.out"
    said.unlink(missing_ok=True)
    process = start(variant.name, *variant.arguments, cwd=folder)
    try:
        wait_for(said, f"step {step}/{STEPS} ", process)
        if number == signal.SIGINT:
            process.send_signal(number)
            assert process.wait(TIMEOUT_S) == 130
        else:
            trainer = trainer_of(process, variant.name)
            psutil.Process(trainer).kill()
            assert process.wait(TIMEOUT_S) not in (0, 2, 130)
    finally:
        if process.poll() is None:
            process.kill()
    return said.read_text(encoding="utf-8", errors="replace")


def differences(one: object, other: object, where: str = "") -> list[str]:
    """Where two checkpoints' contents differ in any bit."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            return [f"{where}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [told for key in one for told in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [told for i, pair in enumerate(zip(one, other)) for told in differences(*pair, f"{where}/{i}")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [where]
    nan = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return [] if nan or one == other else [f"{where}: {one!r}, {other!r}"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("name", VARIANTS)
def test_forty_steps_are_equal_to_the_bit_however_they_were_interrupted(project, tmp_path, name):
    variant = VARIANTS[name]
    broken = Path(shutil.copytree(project, tmp_path / "broken", copy_function=shutil.copy2))
    run(variant.name, *variant.arguments, cwd=project)

    said = interrupted_at(STOPPED, signal.SIGINT, variant, broken)
    assert "Traceback" not in said and "the same command continues" in said
    stopped = list_checkpoints(broken / "results/p/checkpoints")[-1].step
    assert STOPPED <= stopped < KILLED
    said = interrupted_at(KILLED, signal.SIGKILL, variant, broken)
    assert (
        f"continuing this project exactly from {Path('results/p/checkpoints')}" in said and f"(step {stopped})" in said
    )
    saved = list_checkpoints(broken / "results/p/checkpoints")[-1].step
    assert saved < STEPS and saved % EVERY == 0, "killed, it cannot have saved where it was"
    said = run(variant.name, *variant.arguments, cwd=broken).stderr
    assert f"(step {saved})" in said

    straight, resumed = (read_file(folder / LAST) for folder in (project, broken))
    assert straight["global_step"] == STEPS
    assert_equal_states(straight["state_dict"], resumed["state_dict"])
    assert any(tensor.any() for key, tensor in straight["state_dict"].items() if "lora_B" in key)
    assert {"optimizer_states", "lr_schedulers", "callbacks", "metrics"} <= straight.keys()
    kept = [key for key in straight if key != "loops"]  # Lightning's own counters; what they mean is in global_step
    assert straight.keys() == resumed.keys()
    found = differences({key: straight[key] for key in kept}, {key: resumed[key] for key in kept})
    # A run that is asked to stop does not begin to speak, so a sample may be missing, and what was heard in it.
    unspoken = [row for row, at in enumerate(rows(project)) if int(at["step"]) == stopped]
    assert [told for told in found if not any(f"/History/rows/{row}/wer" in told for row in unspoken)] == []
    spoken = sorted((project / "results/p/samples").glob("*.wav"))
    assert len(spoken) == (2 * (1 + STEPS // EVERY) if name.startswith("samples") else 0)
    for path in spoken:
        if not path.name.startswith(f"step_{stopped:09d}"):
            assert (broken / "results/p/samples" / path.name).read_bytes() == path.read_bytes()
    assert without_sound(rows(broken)) == without_sound(rows(project))
    assert leftovers(broken) == []


def rows(folder: Path) -> list[dict[str, str]]:
    """What was measured at each validation."""
    with (folder / "results/p/history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without_sound(table: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same without what was heard in the samples."""
    return [{name: value for name, value in row.items() if name not in ("wer", "similarity")} for row in table]


@pytest.mark.slow
def test_the_best_by_validation_is_kept_beside_the_newest(project):
    # At this rate the held-out loss of random codes falls to its lowest at once and then rises.
    options = ("trainer.val_check_interval=2", "callbacks.model_checkpoint.keep_newest=3", "model.optimizer.lr=0.05")
    said = run("train", *STAGE, *SILENT, *options, cwd=project).stderr
    losses = {int(row["step"]): float(row["val_loss"]) for row in rows(project) if row["val_loss"]}
    assert len(losses) == STEPS // 2
    best = min(losses, key=lambda step: (losses[step], step))
    newest = [STEPS - 4, STEPS - 2, STEPS]
    assert best < newest[0], losses
    found = list_checkpoints(project / "results/p/checkpoints")
    assert [checkpoint.step for checkpoint in found] == [best, *newest]
    for checkpoint in found:
        assert read_file(checkpoint.path)["metrics"]["val/loss"] == pytest.approx(losses[checkpoint.step], rel=1e-6)
    assert "overfitting" in said, "held-out loss rises while training loss falls"
    listed = run("finetune_tts.py", "--project", "p", "--list-checkpoints", cwd=project).stdout
    assert f"Latest: step_{STEPS:09d}.ckpt" in listed and f"Best by held-out loss: step_{best:09d}.ckpt" in listed


@pytest.mark.slow
def test_another_projects_checkpoint_is_a_warm_start_from_step_0(project):
    script = [4 if word == STEPS else word for word in SCRIPT]
    run("finetune_tts.py", *script, cwd=project)
    path = Path("results/p/checkpoints/step_000000004.ckpt")
    other = [word if word != "p" else "q" for word in script]
    said = run(
        "finetune_tts.py", *other, "--resume-from-checkpoint", path, "--learning-rate", "3e-5", cwd=project
    ).stderr
    assert f"warm start: weights from {path}, step 0, learning rate 3e-05" in said and "step 1/4" in said
    begun = read_file(project / "results/q/checkpoints/step_000000004.ckpt")
    assert begun["global_step"] == 4 and begun["SemanticDataModule"]["batches_done"] == 4
    reached = refuse("finetune_tts.py", *script, cwd=project)
    assert re.search(r"step 4\b", reached) and "--max-steps" in reached
    assert f"(step {4})" in run("finetune_tts.py", *[6 if word == 4 else word for word in script], cwd=project).stderr


@pytest.mark.slow
def test_resume_latest_with_nothing_that_fits_lists_what_there_is(project):
    script = [4 if word == STEPS else word for word in SCRIPT]
    new = [word if word != "p" else "q" for word in script]
    nothing = refuse("finetune_tts.py", *new, "--resume-latest", cwd=project)
    assert "--resume-latest finds no checkpoint that fits project q" in nothing and "none at all" in nothing
    run("finetune_tts.py", *script, cwd=project)
    told = refuse("finetune_tts.py", *new, "--resume-latest", "--lora-config", "r_4_alpha_8", cwd=project)
    assert str(Path("results/p/checkpoints/step_000000004.ckpt")) in told and "LoRA shape (r_4_alpha_8)" in told
    shutil.copytree(project / "data", project / "other")
    elsewhere = ["other" if word == "data" else word for word in new]
    told = refuse("finetune_tts.py", *elsewhere, "--resume-latest", cwd=project)
    assert "data folder (other)" in told and "step_000000004.ckpt" in told
    assert not (project / "results/q/checkpoints").exists()
