"""Two processes that train one voice do what one does with the same clips."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .sung import command, write_sung

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]


def run(csv, root, *more):
    """Train by the command line, without dropout."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests/piper/undropped.py"), *command(csv, root, "--trainer.max_epochs=1", *more)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}, cwd=csv.parent,
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def scalars(root):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(root / "lightning_logs" / "version_0"))
    events.Reload()
    return {name: [event.value for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def weights(root):
    path = root / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True, mmap=True)["state_dict"]


def test_two_processes_train_as_one_with_the_same_clips(tmp_path):
    """Seven clips in two batches of three and four, so that one process has fewer clips than the other."""
    csv = write_sung(tmp_path / "set", 8)
    try:
        run(csv, tmp_path / "one", "--data.batch_size=4", "--trainer.log_every_n_steps=1")
        said = run(
            csv, tmp_path / "two", "--data.batch_size=2", "--trainer.log_every_n_steps=1", "--trainer.devices=2",
            "--trainer.strategy=ddp_find_unused_parameters_true",
        )  # fmt: skip
        assert said.count("clips are trained on") == 1  # the second process is silent
        one, two = scalars(tmp_path / "one"), scalars(tmp_path / "two")
        assert one.keys() == two.keys() and len(one["loss_g"]) == 2
        for name, values in one.items():
            # Sums in another order: measured 1e-7; what is held out is heard after AdamW made steps of such differences.
            tolerance = 1e-3 if name.startswith("val") else 1e-5
            assert two[name] == pytest.approx(values, rel=tolerance), name
        left, right = weights(tmp_path / "one"), weights(tmp_path / "two")
        moved = {name: 2e-4 if name.startswith("model_g") else 1e-4 for name in left}
        apart = sum(float((left[name] - right[name]).abs().sum()) / moved[name] for name in left)
        assert apart / sum(tensor.numel() for tensor in left.values()) < 0.005  # of a step; measured 6e-5
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
