"""A real lack of memory: under a limit on its address space a training ends as one with smaller batches from the start."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fish_speech.checkpoint import list_checkpoints, read_file

from .scripts import BASE, TIMEOUT_S, environment, leftovers, run
from .test_interruption import assert_equal_states

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits and tells a process's address space"),
]

SAMPLES, STEPS, FRAMES = 8, 4, 300  # samples of a step, steps, frames of a sample
# The limit is set before torch is loaded. Large blocks are mapped one by one, so that what is freed is free at once, and
# there is one heap for all threads: else the address space would depend on chance.
LIMITED = """
import atexit, pathlib, resource, runpy, sys
limit, told = int(sys.argv[1]), pathlib.Path(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: told.write_text(status.read_text(encoding="utf-8"), encoding="utf-8"))
sys.argv = ["fish_speech.train", *sys.argv[3:]]
runpy.run_module("fish_speech.train", run_name="__main__", alter_sys=True)
"""


def long_clips(folder: Path, count: int) -> None:
    """Write a data set whose clips all have FRAMES frames, give or take a few, and as much text."""
    folder.mkdir(parents=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        np.save(folder / f"{number:02d}.npy", rng.integers(0, 1000, (8, FRAMES + number % 3), dtype=np.int32))
        (folder / f"{number:02d}.lab").write_text(f"These are words of clip {number}. " * 6, encoding="utf-8")


@pytest.fixture()
def project(workspace) -> Path:
    long_clips(workspace / "data/anna", 2 * SAMPLES + 1)
    run("build_dataset", "--input", "data", "--output", "protos", cwd=workspace)
    return workspace


def train(folder: Path, project: str, at_once: int, limit: int = 0) -> tuple[str, int]:
    """Train SAMPLES samples a step, `at_once` at once, in `limit` bytes; return what it said and its largest use."""
    overrides = (
        *(f"project={project}", f"pretrained_ckpt_path={BASE.as_posix()}", "train_dataset.proto_files=[protos]"),
        *("device=cpu", f"trainer.max_steps={STEPS}", "trainer.log_every_n_steps=1", "data.pack_length=64"),
        *(f"data.batch_size={at_once}", f"trainer.accumulate_grad_batches={SAMPLES // at_once}"),
        *("model.optimizer.lr=1e-3", "callbacks.spoken_samples.every_n_steps=null"),
        "+lora@model.model.lora_config=r_8_alpha_16",
    )
    told = folder / f"{project}.status"
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), str(told), *overrides],
        cwd=folder,
        env={**environment(), "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 20)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
    )
    assert "Traceback" not in result.stderr and result.returncode == 0, result.stderr
    (peak,) = re.findall(r"VmPeak:\s*(\d+) kB", told.read_text(encoding="utf-8"))
    return result.stderr, int(peak) * 1024


def losses(said: str) -> list[str]:
    return re.findall(rf"^step \d+/{STEPS}  loss ([\d.]+)", said, re.MULTILINE)


def test_a_run_short_of_memory_halves_its_batch_once_and_has_the_same_losses_and_weights(project):
    whole, most = train(project, "whole", SAMPLES)
    halves, less = train(project, "halves", SAMPLES // 2)
    assert most - less > 100e6, f"{most / 1e6:.0f} MB and {less / 1e6:.0f} MB: too near to set a limit between"
    limit = (most + less) // 2
    said, used = train(project, "short", SAMPLES, limit)
    assert used <= limit
    told = [line for line in said.splitlines() if "out of memory" in line]
    assert len(told) == 1, told
    assert f"the step is done again with {SAMPLES // 2} samples at once, the same result" in told[0]

    assert len(losses(said)) == STEPS and losses(said) == losses(halves)
    # However a step is split it has the same gradient, but for the order of its sums: see tests/training/test_step.py.
    for one, other in zip(losses(said), losses(whole), strict=True):
        assert float(one) == pytest.approx(float(other), abs=0.0011)
    last = [list_checkpoints(project / f"results/{name}/checkpoints")[-1].path for name in ("short", "halves")]
    short, small = (read_file(path) for path in last)
    assert short["global_step"] == small["global_step"] == STEPS
    assert_equal_states(short["state_dict"], small["state_dict"])
    assert leftovers(project) == []
