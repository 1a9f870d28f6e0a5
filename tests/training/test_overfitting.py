"""The alarm, the early end and the table: told once, counted through any interruption, and never made up."""

from __future__ import annotations

import csv
import logging
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.checkpoint import read_file
from fish_speech.errors import UserError
from fish_speech.training.history import COLUMNS, History, Row
from fish_speech.training.keeping import StepCheckpoint
from fish_speech.training.overfitting import (
    EarlyStopping,
    OverfittingAlarm,
    loss_rise,
    rising_pairs,
    stopped_early,
    wer_rise,
)

from .toy_run import Toy, fit, steps_in

VALUES = st.lists(st.floats(-10, 10), min_size=2, max_size=8)


def rows(held_out: list[float | None], train: list[float] | None = None, wer: list[float] | None = None) -> list[Row]:
    made = []
    for index, loss in enumerate(held_out):
        row: Row = dict.fromkeys(COLUMNS)
        row |= {"step": 100 * (index + 1), "val_loss": loss, "train_loss": train[index] if train else 3 - index / 10}
        row["wer"] = wer[index] if wer else None
        made.append(row)
    return made


@given(VALUES)
def test_pairs_rise_or_fall_or_are_level(values):
    down = rising_pairs(values[::-1])
    assert down == rising_pairs([-value for value in values])
    assert 0 <= rising_pairs(values) + down <= 1 + 1e-9
    assert rising_pairs(sorted(set(values))) == (len(set(values)) > 1)


@given(VALUES, st.floats(1, 1e6))
def test_how_far_the_largest_value_sticks_out_does_not_matter(values, more):
    largest = values.index(max(values))
    further = [value + more if i == largest else value for i, value in enumerate(values)]
    if values.count(max(values)) == 1:
        assert rising_pairs(further) == rising_pairs(values)


def test_held_out_loss_that_rises_while_training_loss_falls_is_overfitting():
    told = loss_rise(rows([2.5, 2.3, 2.35, 2.4]))
    assert told is not None and "2.300 to 2.400" in told and "2.900 to 2.700" in told


@pytest.mark.parametrize(
    ("held_out", "train"),
    [
        ([2.5, 2.4, 2.3, 2.2], None),  # falls
        ([2.3, 2.35, 2.4], [2.0, 2.1, 2.2]),  # both rise: the learning rate, not the data
        ([2.3, 2.4], None),  # too few
        ([2.3, 2.3, 2.9], None),  # one that sticks out
        ([2.3000, 2.3005, 2.3010], None),  # too little
        ([2.9, 2.3, 2.31, 2.305, 2.302], None),  # comes down again
        ([2.3, float("nan"), 2.4], None),
        ([None, None, 2.3, 2.4], None),  # not measured
    ],
)
def test_what_is_no_overfitting(held_out, train):
    assert loss_rise(rows(held_out, train)) is None


def test_noise_around_a_level_is_seldom_taken_for_overfitting():
    rng = random.Random(0)
    found = 0
    for _ in range(2000):
        noise = [2.3 + rng.gauss(0, 0.02) for _ in range(4)], [2.0 + rng.gauss(0, 0.02) for _ in range(4)]
        found += loss_rise(rows(*noise), 4) is not None
    assert found < 0.04 * 2000  # by chance 1/6 of the orders rise and 1/6 fall: 1/36


def test_rising_word_errors_are_overfitting_also_where_validations_lie_between():
    told = wer_rise(rows([2.0] * 6, wer=[0.2, None, 0.3, None, 0.4, None]))
    assert told is not None and "0.20 to 0.40" in told
    assert wer_rise(rows([2.0] * 3, wer=[0.2, 0.23, 0.26])) is None
    assert wer_rise(rows([2.0] * 3, wer=[0.4, 0.3, 0.2])) is None
    assert wer_rise(rows([2.0] * 3, wer=[0.9, 1.0, 1.1])) is None  # it never was understood: noise


def run_alarm(folder: Path, losses: list[float], caplog, **options) -> list[str]:
    """Train with these held-out losses, one a step; return the alarms."""
    callbacks = [History(folder / "history.csv"), OverfittingAlarm(), StepCheckpoint(folder, 1, keep_newest=99)]
    with caplog.at_level(logging.WARNING, "fish_speech"):
        fit(folder, len(losses), lambda step: losses[step - 1], callbacks, validate=1, **options)
    return [record.getMessage() for record in caplog.records if "overfitting" in record.getMessage()]


def test_a_rise_is_told_once_and_a_later_one_again(tmp_path, caplog):
    told = run_alarm(tmp_path, [2.5, 2.0, 2.1, 2.2, 2.3, 2.15, 2.2, 2.3, 1.9, 2.0, 2.1], caplog)
    assert [line.split()[1] for line in told] == ["4", "11"]
    assert "best so far is step 2 " in told[0] and "--max-steps 9," in told[1]


def test_a_rise_that_was_told_before_a_stop_is_not_told_again(tmp_path, caplog):
    losses = [2.0, 2.1, 2.2, 2.3, 2.4, 2.5]
    assert len(run_alarm(tmp_path, losses[:4], caplog)) == 1
    caplog.clear()
    assert run_alarm(tmp_path, losses, caplog, resume=4) == []


def rises_after_4(step: int) -> float:
    return 1.0 + abs(step - 4) / 10


def early(folder: Path, patience: int | None, steps: int = 40, **options) -> tuple[EarlyStopping, int]:
    stopping = EarlyStopping(patience)
    trainer = fit(folder, steps, rises_after_4, [stopping, StepCheckpoint(folder, 2, keep_newest=2)], **options)
    return stopping, trainer.global_step


def content_of(folder: Path, step: int) -> dict:
    return read_file(folder / f"step_{step:09d}.ckpt")


def test_training_ends_after_as_many_validations_without_a_lower_loss(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "fish_speech"):
        _, end = early(tmp_path, 3)
    assert end == 10 and steps_in(tmp_path) == [4, 8, 10]
    assert "step 10 " in caplog.text and "best was 1.000 at step 4" in caplog.text
    assert "(step_000000004.ckpt) is kept" in caplog.text
    assert stopped_early(content_of(tmp_path, 10)) and not stopped_early(content_of(tmp_path, 8))
    assert stopped_early(content_of(tmp_path, 10), 3) and not stopped_early(content_of(tmp_path, 10), 4)


def test_without_patience_training_goes_to_its_end(tmp_path):
    assert early(tmp_path, None, steps=20)[1] == 20
    assert not stopped_early(content_of(tmp_path, 20))


@pytest.mark.parametrize("stop", [2, 6, 8])
def test_the_count_goes_on_exactly_after_a_stop(tmp_path, stop):
    early(tmp_path, 3, steps=stop)
    stopping, end = early(tmp_path, 3, resume=stop)
    assert end == 10 and stopping.best_step == 4 and stopping.wait_count == 3


def test_more_patience_than_then_trains_on(tmp_path):
    early(tmp_path, 3)
    stopping, end = early(tmp_path, 5, resume=10)
    assert end == 14 and stopping.wait_count == 5


def test_patience_without_held_out_clips_is_an_error_that_says_so(tmp_path):
    with pytest.raises(UserError, match="there is no validation"):
        fit(tmp_path, 4, None, [EarlyStopping(3)])
    with pytest.raises(UserError, match="at least 1"):
        EarlyStopping(0)
    fit(tmp_path, 4, None, [EarlyStopping(None)])


@pytest.mark.parametrize("content", [None, {}, {"callbacks": 3}, {"callbacks": {"EarlyStopping{}": None}}])
def test_other_checkpoints_were_not_stopped_early(content):
    assert not stopped_early(content)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fit_with_history(folder: Path, steps: int, **options) -> None:
    callbacks = [History(folder / "history.csv", 2), StepCheckpoint(folder, 2, keep_newest=99)]
    fit(folder, steps, options.pop("held_out", rises_after_4), callbacks, **options)


def test_the_table_has_a_row_for_each_validation(tmp_path):
    fit_with_history(tmp_path, 5)
    found = table(tmp_path)
    assert [row["step"] for row in found] == ["2", "4", "5"]
    assert [float(row["val_loss"]) for row in found] == pytest.approx([1.2, 1.0, 1.1])
    assert [float(row["train_loss"]) for row in found] == pytest.approx([4.85, 4.65, 4.5])  # means of 2, 2 and 1 steps
    assert found[0]["learning_rate"] == "0.1" and found[0]["wer"] == found[0]["similarity"] == ""


def test_the_table_is_the_same_after_a_stop_anywhere(tmp_path):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    fit_with_history(straight, 12)
    fit_with_history(stopped, 8)  # its rows of 6 and 8 come from weights that are lost
    fit_with_history(stopped, 12, resume=4)
    assert (stopped / "history.csv").read_bytes() == (straight / "history.csv").read_bytes()


def test_a_new_run_forgets_the_table_of_one_that_left_no_checkpoint(tmp_path):
    (tmp_path / "history.csv").write_text("step\n99\n", encoding="utf-8")
    fit_with_history(tmp_path, 1, validate=100, held_out=None)
    assert table(tmp_path) == []


def test_without_held_out_clips_the_table_has_the_training_loss(tmp_path):
    fit_with_history(tmp_path, 5, held_out=None)
    assert [(row["step"], row["val_loss"]) for row in table(tmp_path)] == [("2", ""), ("4", "")]


def test_a_table_that_cannot_be_written_ends_no_training(tmp_path, caplog):
    (tmp_path / "history.csv").mkdir()  # as good as a file that a spreadsheet holds open
    with caplog.at_level(logging.WARNING, "fish_speech"):
        fit(tmp_path, 4, rises_after_4, [History(tmp_path / "history.csv")], module=Toy(rises_after_4))
    assert "is not written this time" in caplog.text
