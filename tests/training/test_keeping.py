"""Which checkpoints stay: the newest and the best, each with what was measured at its step, whatever ends the run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fish_speech.checkpoint import read_file
from fish_speech.checkpoint_metrics import best_checkpoint, read_metrics
from fish_speech.errors import UserError
from fish_speech.training.callbacks import StopGracefully
from fish_speech.training.keeping import StepCheckpoint

from .toy_run import CountingIO, Toy, fit, steps_in

REPO = Path(__file__).parents[2]


def best_at_4(step: int) -> float:
    return 1.0 + abs(step - 4) / 10


def metrics_at(folder: Path, step: int) -> dict[str, float]:
    return read_metrics(folder / f"step_{step:09d}.ckpt")


class StopAt(StopGracefully):
    """Asked to stop in a given step."""

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step + 1 == self.step:
            self._ask(2, None)


def test_the_newest_and_the_best_are_kept(tmp_path):
    keeping = StepCheckpoint(tmp_path, 2, keep_newest=2)
    fit(tmp_path, 12, best_at_4, [keeping])
    assert steps_in(tmp_path) == [4, 10, 12]
    assert keeping.best.name == best_checkpoint(tmp_path).path.name == "step_000000004.ckpt"


def test_of_equal_losses_the_earliest_is_the_best_and_nan_is_none(tmp_path):
    fit(tmp_path, 10, lambda step: float("nan") if step == 2 else 1.0, [StepCheckpoint(tmp_path, 2, keep_newest=2)])
    assert steps_in(tmp_path) == [4, 8, 10]


def test_a_checkpoint_that_cannot_be_removed_stays_and_does_not_end_the_training(tmp_path, monkeypatch, caplog):
    real, kept = Path.unlink, tmp_path / "step_000000002.ckpt"

    def unlink(path, missing_ok=False):
        if path == kept:
            raise PermissionError(13, "used by another process", str(path))
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    fit(tmp_path, 8, best_at_4, [StepCheckpoint(tmp_path, 2, keep_newest=2, best_by=None)])
    assert steps_in(tmp_path) == [2, 6, 8] and "step_000000002.ckpt is not removed yet" in caplog.text


def test_without_a_metric_only_the_newest_are_kept(tmp_path):
    fit(tmp_path, 12, best_at_4, [StepCheckpoint(tmp_path, 2, keep_newest=2, best_by=None)])
    assert steps_in(tmp_path) == [10, 12]


def test_a_checkpoint_knows_the_validation_of_its_own_step_and_no_other(tmp_path):
    fit(tmp_path, 8, best_at_4, [StepCheckpoint(tmp_path, 2)], validate=4)
    assert "val/loss" not in metrics_at(tmp_path, 2) and "val/loss" not in metrics_at(tmp_path, 6)
    for step in (4, 8):
        metrics = metrics_at(tmp_path, step)
        assert metrics["val/loss"] == pytest.approx(best_at_4(step)) and metrics["val/top_5_accuracy"] == 0.5
    for step in (2, 4, 6, 8):
        assert metrics_at(tmp_path, step)["train/loss"] == pytest.approx(5 - step / 10)
        assert read_file(tmp_path / f"step_{step:09d}.ckpt")["state_dict"]["weight"] == pytest.approx(5 - step / 10)


def test_each_step_is_written_once(tmp_path):
    io = CountingIO()
    fit(tmp_path, 9, best_at_4, [StepCheckpoint(tmp_path, 2)], plugins=[io])
    assert io.written == [f"step_{step:09d}" for step in (2, 4, 6, 8, 9)]


def test_the_last_step_is_validated_whatever_the_interval(tmp_path):
    fit(tmp_path, 7, best_at_4, [StepCheckpoint(tmp_path, 4)], validate=4)
    assert metrics_at(tmp_path, 7)["val/loss"] == pytest.approx(best_at_4(7))


def test_a_run_that_goes_on_knows_the_best_from_the_files_and_ends_with_the_same_weights(tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    fit(straight, 14, best_at_4, [StepCheckpoint(straight, 2, keep_newest=2)])
    fit(stopped, 8, best_at_4, [StepCheckpoint(stopped, 2, keep_newest=2)])
    keeping = StepCheckpoint(stopped, 2, keep_newest=2)
    fit(stopped, 14, best_at_4, [keeping], resume=8)
    assert steps_in(stopped) == steps_in(straight) == [4, 12, 14]
    assert keeping.best.name == "step_000000004.ckpt"
    one, other = (read_file(folder / "step_000000014.ckpt")["state_dict"] for folder in (straight, stopped))
    assert torch.equal(one["weight"], other["weight"])


def test_going_back_leaves_later_steps_alone_until_they_are_reached_again(tmp_path):
    fit(tmp_path, 8, best_at_4, [StepCheckpoint(tmp_path, 2, keep_newest=4)])
    assert steps_in(tmp_path) == [2, 4, 6, 8]
    keeping = StepCheckpoint(tmp_path, 2, keep_newest=1)
    fit(tmp_path, 6, lambda step: 9.0, [keeping], resume=2)
    assert steps_in(tmp_path) == [2, 6, 8]  # 4 was made anew and is neither the newest nor the best; 8 was not reached


def test_old_checkpoints_stay_when_the_new_one_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match="No space"):
        fit(
            tmp_path, 8, best_at_4, [StepCheckpoint(tmp_path, 2, keep_newest=1)],
            plugins=[CountingIO(fail="step_000000008.ckpt")],
        )  # fmt: skip
    assert steps_in(tmp_path) == [4, 6]


def test_a_torn_file_is_not_the_best_and_stops_nothing(tmp_path):
    fit(tmp_path, 4, best_at_4, [StepCheckpoint(tmp_path, 2)])
    whole = (tmp_path / "step_000000004.ckpt").read_bytes()
    (tmp_path / "step_000000001.ckpt").write_bytes(whole[: len(whole) // 2])
    fit(tmp_path, 6, best_at_4, [StepCheckpoint(tmp_path, 2)], resume=4)
    assert best_checkpoint(tmp_path).step == 4


def test_metrics_of_another_tools_file_are_empty_and_of_no_file_an_error(tmp_path):
    torch.save({"state_dict": {}, "metrics": [1.0]}, tmp_path / "other.ckpt")
    assert read_metrics(tmp_path / "other.ckpt") == {}
    with pytest.raises(UserError, match="no weights file"):
        read_metrics(tmp_path / "none.ckpt")


def test_a_stop_saves_its_step_without_waiting_for_a_validation(tmp_path):
    seen = []
    module = Toy(lambda step: seen.append(step) or 1.0)
    fit(tmp_path, 12, best_at_4, [StopAt(5), StepCheckpoint(tmp_path, 4)], validate=4, module=module)
    assert steps_in(tmp_path) == [4, 5] and seen == [4]


def test_a_stop_where_a_validation_is_due_saves_first_and_again_with_its_metrics(tmp_path):
    io = CountingIO()
    fit(tmp_path, 12, best_at_4, [StopAt(4), StepCheckpoint(tmp_path, 4)], validate=4, plugins=[io])
    assert io.written == ["step_000000004"] * 2
    assert metrics_at(tmp_path, 4)["val/loss"] == 1.0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("asked", [0, 1])
def test_two_processes_stop_at_one_step_whichever_is_asked(tmp_path, asked):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "stop"}
    processes = []
    for rank in range(2):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
        command = [sys.executable, "-m", "tests.training.toy_run", str(tmp_path), str(asked), "5", "SIGTERM"]
        environment = {**os.environ, **together, **own, "OMP_NUM_THREADS": "1"}
        processes.append(
            subprocess.Popen(
                command, cwd=REPO, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    try:
        said = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all("stopped True at 5" in text for text in said), said
    assert steps_in(tmp_path) == [5]


def test_signals_are_given_back_after_training(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    fit(tmp_path, 2, None, [StopGracefully()])
    assert signal.getsignal(signal.SIGTERM) == before
