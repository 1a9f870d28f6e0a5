"""Where training starts and what is merged, by the checkpoints that are there."""

from __future__ import annotations

import os
import re
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from fish_speech import tournament_record
from fish_speech.checkpoint_metrics import read_metrics
from fish_speech.errors import UserError
from fish_speech.finetuning import starts
from fish_speech.finetuning.starts import (
    checkpoint_to_merge,
    existing,
    listing,
    newest_fitting,
    recorded_path,
    refuse_other_family,
    start_values,
)

LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.01}


@pytest.fixture()
def save(tmp_path, monkeypatch):
    """Save a checkpoint of a project with what it says of its run."""
    monkeypatch.chdir(tmp_path)

    def write(project: str, step: int, age: float = 0, loss: float | None = None, **record) -> Path:
        path = Path(f"results/{project}/checkpoints/step_{step:09d}.ckpt")
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {"lora": LORA, "data": "data", "base": "base", **record}
        torch.save({"fish_speech": told, "metrics": {} if loss is None else {"val/loss": loss}}, path)
        os.utime(path, (1e9 - age, 1e9 - age))
        return path

    return write


@pytest.fixture()
def recommend(monkeypatch):
    """Let the tournament recommend a step."""

    def settle(step: int | None) -> None:
        monkeypatch.setattr(tournament_record, "recommended_step", lambda project: step)

    return settle


def ask(project="new", **said) -> Namespace:
    values = {"resume_from_checkpoint": None, "checkpoint_path": None, "resume_latest": False}
    return Namespace(project=project, lora_config="r_8_alpha_16", **{**values, **said})


def start(options: Namespace) -> dict[str, object]:
    return start_values(options, Path("data"), Path("base"))


def test_a_project_goes_on_by_itself_and_another_starts_with_weights(save):
    path = save("old", 100)
    save("old", 200)
    assert start(ask("old")) == {}
    assert start(ask("old", checkpoint_path=path.parent)) == {}
    assert start(ask("old", resume_from_checkpoint=path)) == {"resume_step": 100}
    assert start(ask("new", resume_from_checkpoint=path)) == {"ckpt_path": path}
    assert start(ask("new", checkpoint_path=path.parent)) == {"ckpt_path": path.parent}
    assert start(ask("old", resume_latest=True)) == {}


def test_a_path_as_the_guide_writes_it_is_found(save):
    path = save("old", 100)
    assert existing("fish-speech" / path) == path
    with pytest.raises(UserError, match="there is no checkpoint"):
        existing(Path("fish-speech/results/gone"))


def test_the_newest_checkpoint_that_fits_is_taken(save):
    fits = save("fits", 100, age=50)
    save("older", 300, age=60)
    for project, otherwise in (
        ("data", {"data": "elsewhere"}),
        ("shape", {"lora": {**LORA, "r": 4}}),
        ("base", {"base": "another"}),
        ("whole", {"lora": None}),
    ):
        save(project, 10, **otherwise)
    assert newest_fitting(ask(), Path("data"), Path("base")).path == fits
    with pytest.raises(UserError, match="no checkpoint that fits") as error:
        newest_fitting(ask(), Path("nowhere"), Path("base"))
    assert str(fits) in str(error.value)


def test_merging_takes_the_users_word_then_the_tournaments_then_the_newest(save, recommend, monkeypatch):
    told = []
    monkeypatch.setattr(starts.log, "info", lambda text, *facts: told.append(text % facts))
    paths = {step: save("p", step) for step in (100, 200, 300)}
    recommend(200)
    assert checkpoint_to_merge("p", 100) == paths[100] and not told
    assert checkpoint_to_merge("p", None) == paths[200]
    assert told == ["merging step 200, which the tournament recommends; --checkpoint-step chooses another"]
    recommend(None)
    assert checkpoint_to_merge("p", None) == paths[300]
    assert told[1:] == [
        "merging the newest, step 300: no tournament of just these 3 checkpoints recommends one; --tournament holds it"
    ]
    with pytest.raises(UserError, match="has no step 5 to merge"):
        checkpoint_to_merge("p", 5)


def test_without_a_tournament_nothing_is_recommended(save):
    newest = [save("p", step) for step in (100, 200)][-1]
    assert checkpoint_to_merge("p", None) == newest


def test_the_list_has_the_guides_form_and_names_what_stands_out(save, recommend):
    for step, loss in ((100, 4.5), (200, 4.25), (300, 4.75)):
        path = save("note_lm_step2", step, loss=loss)
    recommend(100)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(1e9))
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    assert listing("note_lm_step2") == [
        "Available checkpoints for project 'note_lm_step2':",
        *(f"step_000000{step}.ckpt ({size}, {when})" for step in (100, 200, 300)),
        "Latest: step_000000300.ckpt",
        "Best by held-out loss: step_000000200.ckpt (4.250)",
        "Recommended by the tournament: step_000000100.ckpt",
    ]
    with pytest.raises(UserError, match="project none has no checkpoints"):
        listing("none")


def test_a_torn_checkpoint_is_listed_and_is_never_the_best(save, recommend):
    recommend(None)
    save("p", 100, loss=float("nan"))
    save("p", 200).write_bytes(b"PK torn")
    save("p", 300, loss=5.0)
    lines = listing("p")
    assert len(lines) == 6 and lines[-1] == "Best by held-out loss: step_000000300.ckpt (5.000)"


def test_a_torn_checkpoint_of_whatever_project_does_not_stand_in_the_way(save):
    fits = save("fits", 100, age=50)
    save("forgotten", 900).write_bytes(b"PK torn")
    save("fits", 200).write_bytes(b"torn")
    Path("base").mkdir()
    assert newest_fitting(ask(), Path("data"), Path("base")).path == fits
    assert recorded_path("fits", "base") == Path("base")
    assert recorded_path("forgotten", "base") is None


def test_a_loss_that_is_no_number_is_none(save):
    assert read_metrics(save("p", 100, loss=True)).get("val/loss") is None


@pytest.mark.parametrize(("recorded", "own", "other"), [("s1", "s1-mini", "1.5"), (None, "1.5", "s1-mini")])
def test_a_project_of_another_family_is_refused_by_name_before_anything_is_made_anew(save, recorded, own, other):
    save("p", 100, **({} if recorded is None else {"family": recorded}))  # checkpoints from before S1-mini name none
    save("p", 200).write_bytes(b"PK torn")
    refuse_other_family("p", own)
    refuse_other_family("new", other)
    with pytest.raises(UserError, match=f"cannot go on with version {re.escape(other)}") as error:
        refuse_other_family("p", other)
    assert f"use --model-version {own} " in error.value.fix and "step_000000100.ckpt" in error.value.why


@pytest.mark.parametrize("record", [None, {}, {"family": ["s1"]}, {"family": "s9"}])
def test_a_checkpoint_that_does_not_say_its_family_is_left_to_training(tmp_path, monkeypatch, record):
    monkeypatch.chdir(tmp_path)
    path = Path("results/p/checkpoints/step_000000100.ckpt")
    path.parent.mkdir(parents=True)
    torch.save({} if record is None else {"fish_speech": record}, path)
    refuse_other_family("p", "s1-mini")
    refuse_other_family("p", "1.5")
