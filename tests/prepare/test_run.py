"""Preparing a set: nothing lost, nothing done twice, the same result whatever happened in between."""

from __future__ import annotations

import json
import os
import time

import numpy as np
import pytest
import soundfile

from fish_speech.audio import measure_lufs, read_audio
from fish_speech.errors import DONE, FAILED, UserError
from fish_speech.prepare import run
from fish_speech.prepare.manifest import JOURNAL
from fish_speech.prepare.options import Options, Processing
from fish_speech.prepare.run import prepare


def record(path, seed=0, seconds=0.5, text="some words", sample_rate=16000):
    """Write a recording with its transcript."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.05 * np.random.default_rng(seed).standard_normal(round(seconds * sample_rate))
    soundfile.write(path, noise, sample_rate, format="FLAC" if path.suffix == ".flac" else "WAV")
    if text is not None:
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    old = time.time() - 100  # file systems have coarse clocks; recordings are older than what is made of them
    os.utime(path, (old, old))
    if text is not None:
        os.utime(path.with_suffix(".txt"), (old, old))
    return path


def content(folder):
    """Every file of an output folder with its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(folder):
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return {os.path.basename(row["source"]): row for row in map(json.loads, lines)}  # noqa: PTH119


def summary(folder):
    return json.loads((folder / "dataset_summary.json").read_text(encoding="utf-8"))


@pytest.fixture
def voices(tmp_path):
    for number in range(3):
        record(tmp_path / "in" / "anna" / f"{number}.wav", number, text=f" Take\n{number}. ")
    record(tmp_path / "in" / "ben" / "0.flac", 9, seconds=0.25)
    return tmp_path / "in"


def options(inputs, output, normalize=True, **more):
    return Options((str(inputs),), output, processing=Processing(normalize=normalize), **more)


def test_clips_are_44100_hz_16_bit_mono_at_minus_23_lufs_with_one_line_of_text(voices, tmp_path):
    assert prepare(options(voices, tmp_path / "out")) == DONE
    info = soundfile.info(tmp_path / "out/anna/1.wav")
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (44100, 1, "PCM_16", 22050)
    assert measure_lufs(*read_audio(tmp_path / "out/anna/1.wav")) == pytest.approx(-23, abs=0.05)
    assert (tmp_path / "out/anna/1.lab").read_bytes() == b"Take 1."
    row = rows(tmp_path / "out")["1.wav"]
    expected = {"speaker": "anna", "clip": "anna/1.wav", "text": "Take 1.", "left_out": None, "duration_s": 0.5}
    expected |= {
        "start_s": 0.0,
        "end_s": 0.5,
        "sample_rate": 16000,
        "lufs": -23.0,
        "source": str(voices / "anna/1.wav"),
    }
    assert expected.items() <= row.items()


def test_every_second_of_input_is_accounted_for(voices, tmp_path):
    record(voices / "anna" / "untold.wav", 5, seconds=2.0, text=None)
    soundfile.write(record(voices / "anna" / "silent.wav", seconds=1.0), np.zeros(16000), 16000)
    (record(voices / "anna" / "broken.wav")).write_bytes(b"")
    assert prepare(options(voices, tmp_path / "out")) == FAILED
    told = summary(tmp_path / "out")
    assert told["total_files"] == 4 and told["speakers"] == ["anna", "ben"]
    assert told["total_duration_minutes"] == round(1.75 / 60, 4)
    assert told["left_out"] == {"empty file": 1, "no transcript": 1, "silent": 1}
    assert told["left_out_seconds"] == {"empty file": 0.0, "no transcript": 2.0, "silent": 1.0}
    expected = {"files": 7, "seconds": 4.75, "seconds_kept": 1.75, "seconds_left_out": 3.0, "seconds_of_pauses": 0.0}
    assert told["input"] == expected | {"files_of_unknown_length": 1}


def test_without_normalizing_the_level_stays(voices, tmp_path):
    assert prepare(options(voices, tmp_path / "out", normalize=False)) == DONE
    before, after = read_audio(voices / "anna/0.wav", 44100)[0], read_audio(tmp_path / "out/anna/0.wav")[0]
    np.testing.assert_allclose(after, before, atol=1 / 32768)
    assert summary(tmp_path / "out")["processing_options"]["normalize"] is False


def test_any_number_of_workers_gives_the_same_bytes(voices, tmp_path):
    record(voices / "bad.wav").write_bytes(b"not audio at all")
    for workers in (1, 2):
        assert prepare(options(voices, tmp_path / str(workers), workers=workers)) == FAILED
    assert content(tmp_path / "1") == content(tmp_path / "2")


def test_same_names_never_overwrite_each_other(tmp_path):
    names = ["a.flac", "a.wav", "x/a.wav", "y/A.wav", "y/a!.wav"]  # the first two share a transcript, and may
    for number, name in enumerate(names):
        record(tmp_path / "in" / name, number, seconds=0.1 * (number + 1), text=name)
    assert prepare(options(tmp_path / "in", tmp_path / "out", speaker="s")) == DONE
    lines = (tmp_path / "out/manifest.jsonl").read_text(encoding="utf-8").splitlines()
    clips = {os.path.relpath(row["source"], tmp_path / "in"): row["clip"] for row in map(json.loads, lines)}
    assert clips == dict(zip(names, ["s/a.wav", "s/a-2.wav", "s/a-3.wav", "s/A-4.wav", "s/a-5.wav"]))
    for number, clip in enumerate(clips.values()):
        assert len(read_audio(tmp_path / "out" / clip)[0]) == 4410 * (number + 1)
        text = (tmp_path / "out" / clip).with_suffix(".lab").read_text(encoding="utf-8")
        assert text == ("a.wav" if number < 2 else names[number])


def test_a_file_that_was_there_before_is_not_touched(voices, tmp_path):
    record(tmp_path / "out" / "anna" / "1.wav", 77, text="by hand")
    before = content(tmp_path / "out")
    assert prepare(options(voices, tmp_path / "out")) == DONE
    assert before.items() <= content(tmp_path / "out").items()
    assert rows(tmp_path / "out")["1.wav"]["clip"] == "anna/1-2.wav"


def test_a_second_input_adds_to_the_set_and_a_rerun_changes_nothing(voices, tmp_path):
    record(tmp_path / "more" / "0.wav", 4)
    assert prepare(options(voices, tmp_path / "out")) == DONE
    assert prepare(options(tmp_path / "more", tmp_path / "out", speaker="anna")) == DONE
    assert summary(tmp_path / "out")["speaker_totals"]["anna"]["files"] == 4
    before = content(tmp_path / "out")
    assert prepare(options(tmp_path / "more", tmp_path / "out", speaker="anna")) == DONE
    assert content(tmp_path / "out") == before


def test_a_rerun_makes_only_what_is_missing_changed_or_torn(voices, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(run, "prepare_one", lambda task, make=run.prepare_one: (made.append(task.stem), make(task))[1])
    out = tmp_path / "out"
    prepare(options(voices, out))
    before = content(out)
    made.clear()
    (out / "anna/0.wav").unlink()
    (out / "anna/1.wav").write_bytes((out / "anna/1.wav").read_bytes()[:-1000])
    (out / "ben/0.lab").unlink()
    os.utime(voices / "anna/2.wav")  # newer than its clip
    assert prepare(options(voices, out)) == DONE
    after = content(out)
    assert made == ["anna/0", "anna/1", "anna/2"]
    assert before.pop("manifest.jsonl") != after.pop("manifest.jsonl")  # it notes when 2.wav was changed
    assert after == before
    made.clear()
    prepare(options(voices, out, normalize=False))
    assert len(made) == 4


def test_the_newer_of_transcript_and_lab_counts(voices, tmp_path):
    out = tmp_path / "out"
    prepare(options(voices, out))
    (out / "anna/0.lab").write_text("Corrected by hand.", encoding="utf-8")
    later = time.time() + 50
    (voices / "anna/1.txt").write_text("Corrected at the source.", encoding="utf-8")
    os.utime(voices / "anna/1.txt", (later, later))
    assert prepare(options(voices, out)) == DONE
    assert rows(out)["0.wav"]["text"] == "Corrected by hand." == (out / "anna/0.lab").read_text(encoding="utf-8")
    assert rows(out)["1.wav"]["text"] == "Corrected at the source." == (out / "anna/1.lab").read_text(encoding="utf-8")


def test_a_recording_that_got_spoilt_keeps_its_earlier_clip(voices, tmp_path):
    prepare(options(voices, tmp_path / "out"))
    before = content(tmp_path / "out")
    (voices / "anna/0.wav").write_bytes(b"RIFF")
    assert prepare(options(voices, tmp_path / "out")) == FAILED
    assert content(tmp_path / "out") == before


def test_a_clip_deleted_from_the_set_is_noted_when_others_are_added(voices, tmp_path):
    prepare(options(voices, tmp_path / "out"))
    (tmp_path / "out/anna/0.wav").unlink()
    prepare(options(voices / "ben", tmp_path / "out"))
    row = rows(tmp_path / "out")
    assert summary(tmp_path / "out")["total_files"] == 3 and summary(tmp_path / "out")["left_out"] == {
        "clip deleted": 1
    }
    assert row["1.wav"]["clip"] == "anna/1.wav"


@pytest.mark.parametrize("stop_after", [0, 1, 3, 4])
def test_a_run_cut_off_anywhere_ends_the_same_after_a_rerun(voices, tmp_path, monkeypatch, stop_after):
    record(voices / "anna" / "1.flac", 20)  # collides with 1.wav: its name must not depend on what was done before
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    prepare(options(voices, whole))
    calls = iter(range(9))

    def make_or_stop(task, make=run.prepare_one):
        if next(calls) == stop_after:
            make(task)  # the clip is there, and the journal does not know
            raise KeyboardInterrupt
        return make(task)

    monkeypatch.setattr(run, "prepare_one", make_or_stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(options(voices, cut))
    with (cut / JOURNAL).open("a", encoding="utf-8") as journal:
        journal.write('{"source": "torn')
    monkeypatch.undo()
    assert prepare(options(voices, cut)) == DONE
    assert content(cut) == content(whole)


def test_options_changed_and_changed_back_after_a_cut_leave_no_wrong_clip(voices, tmp_path, monkeypatch):
    out = tmp_path / "out"
    prepare(options(voices, out))
    before = content(out)

    def make_and_stop(task, make=run.prepare_one):
        make(task)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "prepare_one", make_and_stop)
    with pytest.raises(KeyboardInterrupt):
        prepare(options(voices, out, normalize=False))
    monkeypatch.undo()
    assert prepare(options(voices, out)) == DONE
    assert content(out) == before


def test_nothing_usable_is_an_error_with_the_reasons_and_a_manifest(tmp_path):
    record(tmp_path / "in" / "a.wav", text=None)
    with pytest.raises(UserError, match=r"none of 1 recordings.*\n.*no transcript"):
        prepare(options(tmp_path / "in", tmp_path / "out"))
    assert rows(tmp_path / "out")["a.wav"]["end_s"] == 0.5


def test_two_runs_do_not_write_to_one_folder_at_once(voices, tmp_path):
    with run.Journal(tmp_path / "out"), pytest.raises(UserError, match="another run"):
        prepare(options(voices, tmp_path / "out"))


def test_an_output_that_is_a_file_or_holds_a_foreign_manifest_is_refused(voices, tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match="is a file"):
        prepare(options(voices, tmp_path / "file"))
    with pytest.raises(UserError, match="cannot write"):
        prepare(options(voices, tmp_path / "file" / "below"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.jsonl").write_text('{"other": 1}\n', encoding="utf-8")
    with pytest.raises(UserError, match="not a row"):
        prepare(options(voices, tmp_path / "out"))
