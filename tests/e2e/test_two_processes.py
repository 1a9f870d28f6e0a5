"""Training in two processes, as a user starts it: the same as in one, and neither is ever left behind."""

from __future__ import annotations

import os
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
from fish_speech.datasets.datamodule import SemanticDataModule

from .scripts import BASE, TIMEOUT_S, command, data_set, environment, leftovers, put_base, run, start

pytestmark = pytest.mark.slow

STEPS = 12
CLIPS = 21  # 17 are trained on: the fifth step of an epoch has one sample, so the second process has none
SHARED = (
    *(
        f"pretrained_ckpt_path={BASE.as_posix()}",
        "train_dataset.proto_files=[protos]",
        "device=cpu",
        "data.val_share=0.2",
    ),
    *("data.pack_length=64", "trainer.val_check_interval=6", "trainer.log_every_n_steps=1", "model.optimizer.lr=1e-3"),
    *("callbacks.spoken_samples.every_n_steps=null", "model.lr_scheduler.lr_lambda.num_warmup_steps=2"),
)
ADAPTERS = ("+lora@model.model.lora_config=r_8_alpha_16", "model.model.lora_config.lora_dropout=0")
ONE = ("data.batch_size=4",)
TWO = ("data.batch_size=2", "trainer.devices=2")
# Between processes sums are taken in another order; rounding of float32 grows with the steps.
LOSS = {"rtol": 1e-5, "atol": 0}
WEIGHTS = {"rtol": 1e-4, "atol": 1e-6}

SAMPLES = "callbacks.spoken_samples.every_n_steps=3"


def train(folder: Path, project: str, *more: object, steps: int = STEPS, code: int = 0) -> str:
    """Train to the end; return what was said on stderr."""
    arguments = (*SHARED, f"project={project}", f"trainer.max_steps={steps}", *more)
    return run("train", *arguments, cwd=folder, code=code).stderr


def ended(command_line: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line that is not a script's or a stage's to its end."""
    return subprocess.run(
        command_line,
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
    )


def logged(folder: Path, project: str) -> dict[tuple[str, int], float]:
    """Every logged loss by name and step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    values = {}
    for events in sorted((folder / "results" / project / "logs").iterdir()):
        accumulator = EventAccumulator(str(events))
        accumulator.Reload()
        for name in ("train/loss", "train/grad_norm", "val/loss", "val/top_5_accuracy"):
            if name in accumulator.Tags()["scalars"]:
                values.update({(name, event.step): event.value for event in accumulator.Scalars(name)})
    return values


def assert_same(folder: Path, project: str, other: str, steps: int = STEPS) -> None:
    """The same losses at every step, validations included, and the same weights at the end."""
    found, expected = logged(folder, project), logged(folder, other)
    assert found.keys() == expected.keys() and sum(name == "train/loss" for name, _ in found) == steps
    names = list(expected)
    np.testing.assert_allclose([found[name] for name in names], [expected[name] for name in names], **LOSS)
    assert_same_weights(folder, project, other, steps)


def assert_same_weights(folder: Path, project: str, other: str, steps: int = STEPS) -> None:
    paths = (folder / f"results/{name}/checkpoints/step_{steps:09d}.ckpt" for name in (project, other))
    own, others = (read_file(path)["state_dict"] for path in paths)
    assert own.keys() == others.keys()
    for name, tensor in own.items():
        torch.testing.assert_close(tensor, others[name], **WEIGHTS, msg=lambda text, name=name: f"{name}: {text}")


def files(folder: Path, project: str) -> list[str]:
    """What a project consists of; events are named by time."""
    paths = (path.relative_to(folder / "results" / project) for path in (folder / "results" / project).rglob("*"))
    return sorted("events" if "events.out" in path.name else path.as_posix() for path in paths)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, small_base) -> Path:
    """A folder with a packed data set and a project `one` of adapters, trained in one process."""
    folder = tmp_path_factory.mktemp("two_processes")
    put_base(folder, small_base)
    data_set(folder / "data", CLIPS)
    run("build_dataset", "--input", "data", "--output", "protos", cwd=folder)
    said = train(folder, "one", *ADAPTERS, *ONE)
    assert "epoch 1 trained on 17 of 17 clips" in said
    assert {name for name, _ in logged(folder, "one")} == {
        "train/loss",
        "train/grad_norm",
        "val/loss",
        "val/top_5_accuracy",
    }
    return folder


def test_two_processes_train_as_one_with_the_same_samples_a_step_and_only_the_first_writes(folder):
    said = train(folder, "two", *ADAPTERS, *TWO)
    assert_same(folder, "two", "one")
    assert files(folder, "two") == files(folder, "one") and leftovers(folder) == []
    lines = said.splitlines()
    assert sum(line.startswith(f"step {STEPS}/{STEPS} ") for line in lines) == 1
    assert sum("held-out loss" in line for line in lines) == 2
    twice = {line for line in lines if lines.count(line) > 1}
    assert not twice, twice
    assert "sync_dist" not in said


def start_training(folder: Path, project: str, *more: object, steps: int = 100_000) -> subprocess.Popen[str]:
    (folder / "train.out").write_text("", encoding="utf-8")
    return start("train", *SHARED, f"project={project}", f"trainer.max_steps={steps}", *more, cwd=folder)


def said_by(folder: Path) -> str:
    return (folder / "train.out").read_text(encoding="utf-8", errors="replace")


def wait_until_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    while f"step {step}/" not in said_by(folder):
        assert process.poll() is None, said_by(folder)
        time.sleep(0.05)


def others_of(process: subprocess.Popen[str]) -> list[int]:
    """The other processes of its group."""
    there = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [pid for pid in there if pid != process.pid and group(pid) == process.pid]


def group(pid: int) -> int | None:
    try:
        return os.getpgid(pid) if "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3] else None
    except OSError:
        return None


def assert_all_gone(process: subprocess.Popen[str], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while others_of(process):
        assert time.monotonic() < deadline, "a process is left behind"
        time.sleep(0.1)


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the processes in /proc")


@linux
@pytest.mark.parametrize(
    ("number", "whom"), [(signal.SIGINT, "all"), (signal.SIGTERM, "second")], ids=["Ctrl+C", "SIGTERM to the second"]
)
def test_two_processes_stop_at_the_same_step_whichever_is_asked_and_one_process_goes_on(folder, number, whom):
    project = f"stopped_{whom}"
    halves = ("data.batch_size=1", "trainer.accumulate_grad_batches=2", "trainer.devices=2")
    process = start_training(folder, project, *ADAPTERS, *halves, steps=STEPS)
    wait_until_step(folder, 3, process)
    for pid in [process.pid, *others_of(process)] if whom == "all" else others_of(process):
        os.kill(pid, number)
    assert process.wait(TIMEOUT_S) == 130, said_by(folder)
    assert_all_gone(process)
    stopped = list_checkpoints(folder / "results" / project / "checkpoints")[-1].step
    said = said_by(folder)
    assert 3 <= stopped < STEPS and f"stopped at step {stopped}, saved" in said and "Traceback" not in said
    if whom == "all":
        assert f"(step {stopped})" in train(folder, project, *ADAPTERS, *ONE)
        assert_same(folder, project, "one")


def test_a_sharded_run_goes_on_from_one_process_and_one_from_it(folder):
    shutil.copytree(folder / "results/one", folder / "results/sharded")
    shutil.rmtree(folder / "results/sharded/logs")
    said = train(folder, "sharded", *ADAPTERS, *TWO, "strategy=fsdp", "resume_step=6", SAMPLES, steps=9)
    assert "continuing this project exactly" in said
    assert "no samples are spoken in this training" in said  # one process cannot run a model that several hold
    assert "before_step_000000006_1" in said  # where the first run's later checkpoints went
    assert "(step 9)" in train(folder, "sharded", *ADAPTERS, *ONE)
    expected, found = logged(folder, "one"), logged(folder, "sharded")
    names = [name for name in expected if name[0].startswith("train/") and name[1] >= 6]
    names += [max(name for name in expected if name[0] == "val/loss")]
    assert len(names) == 2 * 6 + 1
    np.testing.assert_allclose([found[name] for name in names], [expected[name] for name in names], **LOSS)
    assert_same_weights(folder, "sharded", "one")


def test_all_weights_are_trained_alike_in_one_process_in_two_by_torchrun_and_sharded(folder):
    train(folder, "all_one", *ONE, steps=6)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    arguments = command("train", *SHARED, "project=all_ddp", "trainer.max_steps=6", *TWO)
    result = ended([sys.executable, *torchrun, *arguments[1:]], folder)
    assert result.returncode == 0 and result.stderr.count("step 6/6 ") == 1, result.stderr
    assert_same(folder, "all_ddp", "all_one", steps=6)
    train(folder, "all_fsdp", *TWO, "strategy=fsdp", steps=6)
    assert_same(folder, "all_fsdp", "all_one", steps=6)


@linux
@pytest.mark.parametrize("killed", ["first", "second"])
def test_a_killed_process_takes_the_other_with_it(folder, killed):
    process = start_training(folder, f"killed_{killed}", *ADAPTERS, *TWO)
    wait_until_step(folder, 2, process)
    if killed == "first":
        process.kill()
        assert process.wait(TIMEOUT_S) == -signal.SIGKILL
    else:
        os.kill(others_of(process)[0], signal.SIGKILL)
        assert process.wait(TIMEOUT_S) == 1
        assert "error: process 2 of 2 was ended from outside by SIGKILL" in said_by(folder)
        assert "Traceback" not in said_by(folder)
    assert_all_gone(process)


def test_a_loss_that_is_no_number_ends_both_with_one_message_that_names_the_clip(folder, tmp_path):
    # As in test_poisoned.py: weights where only one clip looks, finite, so that they load, but two of them added are not.
    base, data, code = tmp_path / "base", tmp_path / "data", 1001
    shutil.copytree(folder / BASE, base)
    state = torch.load(base / "model.pth", weights_only=True)
    state["codebook_embeddings.weight"][[code, 1024 + code]] = 3e38
    torch.save(state, base / "model.pth")
    packed = SemanticDataModule(
        [folder / "protos"], base / "tokenizer.tiktoken", batch_size=4, pack_length=64, val_share=0
    )
    packed.setup("fit")
    clip = packed.stream().samples_at(1)[1][1][0]  # step 2, second sample: the second process's
    text = packed.dataset.clips.text_of(clip, 0)
    shutil.copytree(folder / "data", data)
    (path,) = (path for path in data.rglob("*.lab") if path.read_text(encoding="utf-8") == text)
    codes = np.load(path.with_suffix(".npy"))
    codes[:2, 6] = code
    np.save(path.with_suffix(".npy"), codes)
    run("build_dataset", "--input", data, "--output", tmp_path / "protos", cwd=folder)
    own = (f"pretrained_ckpt_path={base.as_posix()}", f"train_dataset.proto_files=[{(tmp_path / 'protos').as_posix()}]")
    said = train(folder, "no_number", *ADAPTERS, *TWO, "data.val_share=0", *own, code=2)
    assert said.count("error: ") == 1 and "the loss of step 2 is nan" in said, said
    assert text in said and "1 of the step's 4 clips" in said and "process 2" not in said


TIGHT = """
import os
import fish_speech.training.module as module
import fish_speech.training.sharded as sharded
import torch
from fish_speech.errors import run
from fish_speech.train import main

real = module.dual_ar_sums

def limited(model, inputs, labels, mask):
    if os.environ.get("LOCAL_RANK") == "1" and len(inputs) > 1 and torch.is_grad_enabled():
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 123 bytes.")
    return real(model, inputs, labels, mask)

module.dual_ar_sums = sharded.dual_ar_sums = limited
if __name__ == "__main__":
    run(main)
"""


def tight_training(folder: Path, project: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Training by a script that lets the second process run out of memory with more than one sample at once."""
    (folder / "tight.py").write_text(TIGHT, encoding="utf-8")
    own = (*SHARED, f"project={project}", f"trainer.max_steps={STEPS}", *ADAPTERS, *TWO, *more)
    return ended([sys.executable, "tight.py", *own], folder)


def test_lack_of_memory_in_one_process_leaves_the_result_as_it_is(folder):
    result = tight_training(folder, "tight")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("out of memory (another process ran out of memory): the step is done again") == 1
    assert_same(folder, "tight", "one")


def test_lack_of_memory_in_one_process_of_a_sharded_run_is_an_error_that_is_told_once(folder):
    result = tight_training(folder, "tight_sharded", "strategy=fsdp")
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("error: ") == 1 and "process 2 of 2 failed:" in result.stderr
    assert "memory ran out with 2 samples at once" in result.stderr and "Traceback" not in result.stderr
