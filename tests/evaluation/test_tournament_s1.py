"""A tournament of S1-mini: its reference, its held-out clips and its losses are those of its own codes."""

from __future__ import annotations

import json
from argparse import Namespace

import numpy as np
import pytest
import torch

from fish_speech import tournament
from fish_speech.build_dataset import build
from fish_speech.checkpoint import list_checkpoints
from fish_speech.evaluation.tournament import Entry, reference_of, speak_all
from fish_speech.evaluation.tournament_material import Material, held_out_data
from fish_speech.evaluation.tournament_run import Run
from fish_speech.models import read_config
from fish_speech.synthesis.sampling import SamplingConfig
from fish_speech.synthesis.voices import Reference
from fish_speech.text import Tokenizer
from fish_speech.training.starting import shards_hash

RATE, SIZES = 25.0, (1100, *[1024] * 9)  # of the small codec


@pytest.fixture()
def trained(tmp_path, small_s1_base) -> Run:
    """What a training left, as far as a tournament reads it; without a checkpoint the base stands for one."""
    folder = tmp_path / "data/anna"
    folder.mkdir(parents=True)
    for number in range(24):
        rng = np.random.default_rng(number)
        codes = np.stack([rng.integers(0, size, 80 + number, dtype=np.int32) for size in SIZES])
        np.save(folder / f"{number}.npy", codes)
        (folder / f"{number}.lab").write_text(f"These are some words of clip number {number}.", encoding="utf-8")
    record = {"frame_rate": RATE, "codebook_size": max(SIZES), "codebook_sizes": SIZES}
    (tmp_path / "data/.codec.json").write_text(json.dumps(record), encoding="utf-8")
    assert build(tmp_path / "data", tmp_path / "protos").clips == 24
    shards = [tmp_path / "protos"]
    settings = {"seed": 1, "held-out share": 0.3, "max_length": 512, "data": shards_hash(shards)}
    return Run(small_s1_base, small_s1_base / "codec.pth", {"settings": settings}, shards, tmp_path / "data")


def test_the_base_speaks_with_a_reference_and_its_losses_are_finite(trained, tmp_path):
    notes: list[str] = []
    config = read_config(trained.base)
    chosen = reference_of(trained, config, notes)
    assert chosen is not None and chosen.codes.shape[0] == 10 and chosen.seconds == chosen.codes.shape[1] / RATE
    data = held_out_data(trained.shards, trained.settings, config, Tokenizer(trained.base), notes)
    assert data is not None and data.has_validation, notes
    material = Material(["Yes."], data=data)
    entry = Entry("step 1", 1, None)  # stands for a checkpoint: the base as it is
    reference = Reference(chosen.text, chosen.codes)
    (system,), losses = speak_all(trained, [entry], material, reference, tmp_path, SamplingConfig(), "cpu", 1, {})
    assert system.clips[0].sound.is_file()
    assert len(losses["step 1"]) == len(data.held_out) > 0 and np.isfinite(losses["step 1"]).all()


def test_a_data_set_of_1_5_gives_no_reference(trained):
    for path in trained.data.rglob("*.npy"):
        np.save(path, np.zeros((8, 90), np.int32))
    notes: list[str] = []
    assert reference_of(trained, read_config(trained.base), notes) is None
    assert notes == ["no reference in the prompt: no clip of the data set fits"]


def test_the_base_and_its_checkpoints_compete_as_their_version_speaks(trained, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def play(run, entries, folder, listening, sampling, **_):
        raise Stop(sampling)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fish_speech.evaluation.tournament.play", play)
    path = tmp_path / "results/p/checkpoints/step_000000001.ckpt"
    path.parent.mkdir(parents=True)
    torch.save({"fish_speech": {"family": "s1"}}, path)
    given = Namespace(project="p", device="cpu", force_mps=False, seed=1, num_texts=1, no_reference=True, workers=1)
    with pytest.raises(Stop) as stopped:
        tournament.hold(given, list_checkpoints(path.parent), trained, {"checkpoints": [{}]}, None, [], [])
    assert stopped.value.args == (SamplingConfig(0.8, 0.8, 1.1),)
    assert not list((tmp_path / "results/p").glob(".partial-*"))
