"""voice.json beside a Piper voice: what it was made of, and the licences that it hands on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from piper_train.finetuning.places import Places
from piper_train.finetuning.voice_record import write, write_teachers

from .exported import write_voice

REPO = Path(__file__).parents[2]


@pytest.fixture()
def project(tmp_path, monkeypatch, exported):
    """Make a project called anna with a voice; `begun` says what it was started from. Returns (places, checkpoint)."""
    monkeypatch.chdir(tmp_path)
    places = Places("anna")
    places.voice.parent.mkdir(parents=True)
    source = exported("single")
    shutil.copyfile(source, places.voice)
    places.results.mkdir(parents=True)

    def begun(**record):
        places.record.write_text(json.dumps(record), encoding="utf-8")
        return places, next(source.parent.glob("*.ckpt"))

    return begun


def told(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def of(record: dict) -> list[str]:
    return [note["of"] for note in record["licences"]]


def test_a_voice_keeps_the_notice_of_its_recordings(project, tmp_path):
    data = tmp_path / "training_data/anna"
    data.mkdir(parents=True)
    (data / "LICENSE").write_text("CC-BY-SA 3.0, recordings of Anna\n", encoding="utf-8")
    places, checkpoint = project(data=str(data), espeak_voice="en-us", warm_start=None)
    path = write(places, checkpoint)
    record = told(path)
    assert of(record) == ["recordings", "speaker"] and record["espeak_voice"] == "en-us"
    assert "recordings of Anna" in (path.parent / "LICENCE-data.txt").read_text(encoding="utf-8")
    (data / "LICENSE").unlink()  # the data set is there, and asks for nothing any more
    assert of(told(write(places, checkpoint))) == ["speaker"]
    assert not (path.parent / "LICENCE-data.txt").exists()


def test_a_taught_voice_hands_on_what_its_teachers_licence_asks(project, tmp_path):
    data = tmp_path / "training_data/anna"
    data.mkdir(parents=True)
    write_teachers(data, REPO / "checkpoints" / "minnow")
    places, checkpoint = project(data=str(data), espeak_voice="en-us")
    path = write(places, checkpoint)
    record = told(path)
    assert record["taught_by"].endswith("minnow")
    assert of(record) == ["the teacher's weights (minnow)", "the teacher's weights", "speaker"]
    assert record["licences"][0]["licence"] == "CC-BY-SA 3.0"
    assert "Allison" in (path.parent / "LICENCE-base.txt").read_text(encoding="utf-8")
    shutil.rmtree(data)  # what was asked for then still holds
    assert told(write(places, checkpoint)) == record
    assert "Allison" in (path.parent / "LICENCE-base.txt").read_text(encoding="utf-8")


def test_a_voice_says_which_weights_it_began_with(project, tmp_path):
    places, checkpoint = project(data=str(tmp_path / "gone"), warm_start="/downloads/epoch=2164.ckpt")
    record = told(write(places, checkpoint))
    assert of(record) == ["checkpoint to start from", "speaker"] and "epoch=2164.ckpt" in record["licences"][0]["note"]


def test_nothing_is_written_twice(project, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "NOTICE").write_text("keep this", encoding="utf-8")
    places, checkpoint = project(data=str(data))
    folder = write(places, checkpoint).parent
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    write(places, checkpoint)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert {path.name for path in before} >= {"voice.json", "LICENCE-data.txt"}


def test_a_voice_without_a_project_still_says_what_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places = Places("bert")
    voice = write_voice(places.voice.parent, "single", "bert")
    record = told(write(places, next(places.voice.parent.glob("*.ckpt"))))
    assert voice == tmp_path / places.voice or voice == places.voice
    assert record["sha256"] and record["data"] is None and record["sample_rate"] == 22050
