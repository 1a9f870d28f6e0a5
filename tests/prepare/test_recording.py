"""A long recording becomes clips: cut in pauses, every second accounted for, each clip with the words spoken in it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fish_speech.audio import measure_lufs, read_audio, true_peak
from fish_speech.errors import DONE, FAILED, UserError
from fish_speech.prepare.clips import RecordingTask, finish_clip, new_row
from fish_speech.prepare.options import Options, Processing
from fish_speech.prepare.run import prepare
from fish_speech.prepare.segments import Limits
from fish_speech.prepare.transcripts import Transcript

from .long_recordings import LongRecording, long_recording

RATE = 22050


@pytest.fixture(scope="module")
def known() -> LongRecording:
    """22 clips joined with gaps: where each is said is known."""
    return long_recording(limit=22, sample_rate=RATE)


@pytest.fixture()
def session(known, tmp_path) -> Path:
    """The folder of a recording with its subtitles, older than what is made of it."""
    folder = tmp_path / "in" / "allison"
    folder.mkdir(parents=True)
    soundfile.write(folder / "session.wav", known.samples, RATE)
    cues = [f"{clock(clip.start_s)} --> {clock(clip.end_s)}\n{clip.text}\n" for clip in known.clips]
    (folder / "session.vtt").write_text("\n".join(["WEBVTT\n", *cues]), encoding="utf-8")
    old = time.time() - 100
    for path in folder.iterdir():
        os.utime(path, (old, old))
    return tmp_path / "in"


def clock(seconds: float) -> str:
    return f"{int(seconds // 3600):02d}:{int(seconds // 60 % 60):02d}:{seconds % 60:06.3f}"


def run(inputs: Path, output: Path, code: int = DONE, limits: Limits | None = None, **processing) -> list[dict]:
    """Prepare, and return the rows of the manifest."""
    wanted = Processing(limits=limits or Limits(), **processing)
    assert prepare(Options((str(inputs),), output, processing=wanted)) == code
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_cuts_fall_in_the_gaps_and_no_second_of_speech_is_lost(session, known, tmp_path):
    rows = run(session, tmp_path / "out")
    assert len(rows) >= 8 and all(row["clip"] for row in rows)
    edges = [edge for row in rows for edge in (row["start_s"], row["end_s"])]
    assert edges == sorted(edges)
    inside = [edge for edge in edges for clip in known.clips if clip.start_s + 0.01 < edge < clip.end_s - 0.01]
    assert len(inside) <= 0.01 * len(edges)
    for clip in known.clips:
        covered = sum(max(0.0, min(clip.end_s, row["end_s"]) - max(clip.start_s, row["start_s"])) for row in rows)
        assert covered > clip.end_s - clip.start_s - 0.02, clip


def test_each_clip_has_the_words_that_are_spoken_in_it(session, known, tmp_path):
    for row in run(session, tmp_path / "out"):
        said = [c.text for c in known.clips if row["start_s"] <= (c.start_s + c.end_s) / 2 < row["end_s"]]
        assert row["text"] == " ".join(said)
        assert (tmp_path / "out" / row["clip"]).with_suffix(".lab").read_text(encoding="utf-8") == row["text"]


def test_a_clip_is_the_sound_of_its_segment_at_minus_23_lufs(session, tmp_path):
    for row in run(session, tmp_path / "out")[:3]:
        clip, _ = read_audio(tmp_path / "out" / row["clip"])
        source, _ = read_audio(session / "allison/session.wav")
        segment = source[round(row["start_s"] * RATE) : round(row["end_s"] * RATE)]
        assert len(clip) == round(row["duration_s"] * 44100)
        assert row["duration_s"] == pytest.approx(row["end_s"] - row["start_s"], abs=1e-3)
        assert measure_lufs(clip, 44100) == pytest.approx(-23, abs=0.1)
        assert 20 * np.log10(true_peak(clip, 44100)) < -0.95
        louder = segment * 10 ** (row["gain_db"] / 20)
        assert np.sqrt(np.mean(clip**2)) == pytest.approx(np.sqrt(np.mean(louder**2)), rel=0.02)


def test_two_cores_on_one_recording_make_the_same_files(session, tmp_path):
    for workers in (1, 3):
        assert prepare(Options((str(session),), tmp_path / str(workers), workers=workers)) == DONE
    assert content(tmp_path / "1") == content(tmp_path / "3")


def test_every_second_is_kept_left_out_or_a_pause(session, tmp_path):
    rows = run(session, tmp_path / "out", limits=Limits(target_s=4, min_s=3))
    told = json.loads((tmp_path / "out/dataset_summary.json").read_text(encoding="utf-8"))
    spans = told["input"]
    duration = len(read_audio(session / "allison/session.wav")[0]) / RATE
    assert spans["seconds"] == pytest.approx(duration, abs=1e-3)
    assert spans["seconds_kept"] == pytest.approx(sum(r["end_s"] - r["start_s"] for r in rows if r["clip"]), abs=1e-3)
    total = spans["seconds_kept"] + spans["seconds_left_out"] + spans["seconds_of_pauses"]
    assert total == pytest.approx(duration, abs=1e-3)
    assert 0 < spans["seconds_of_pauses"] < 0.3 * duration


def test_hours_are_read_as_blocks_and_only_as_far_as_max_duration(session, tmp_path):
    rows = run(session, tmp_path / "out", max_duration_s=30.0)
    beyond = [row for row in rows if row["clip"] is None]
    assert [row["left_out"] for row in beyond] == ["beyond --max-duration: after 0.5 min"]
    assert 20 < beyond[0]["start_s"] <= 30 and all(row["end_s"] <= beyond[0]["start_s"] + 1e-6 for row in rows[:-1])


@pytest.mark.parametrize("inside", [0, 3, 6])
def test_a_limit_that_falls_into_speech_ends_before_that_speech(session, known, tmp_path, inside):
    clip = known.clips[inside]
    limit = (clip.start_s + clip.end_s) / 2
    code = FAILED if inside == 0 else DONE
    try:
        rows = run(session, tmp_path / "out", code, limits=Limits(min_s=0.5), max_duration_s=limit)
    except UserError:
        assert inside == 0  # nothing is left to use
        return
    kept = [row for row in rows if row["clip"]]
    assert kept[-1]["end_s"] <= clip.start_s
    assert " ".join(row["text"] for row in kept) == " ".join(before.text for before in known.clips[:inside])
    assert rows[-1]["left_out"].startswith("beyond --max-duration") and rows[-1]["start_s"] < clip.start_s + 0.01


def test_without_splitting_a_recording_is_one_clip(session, known, tmp_path):
    (row,) = run(session, tmp_path / "out", split=False)
    assert row["clip"] == "allison/session.wav" and row["text"] == " ".join(clip.text for clip in known.clips)


def test_a_long_recording_whose_text_has_no_times_needs_a_recogniser(session, tmp_path, monkeypatch):
    (session / "allison/session.vtt").unlink()
    (session / "allison/session.txt").write_text("Ein Text, den hier niemand erkennen kann. " * 9, encoding="utf-8")
    soundfile.write(session / "allison/other.wav", 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    (session / "allison/other.txt").write_text("some words", encoding="utf-8")
    rows = run(session, tmp_path / "out", FAILED)
    assert [row["left_out"].split(":")[0] for row in rows if row["clip"] is None] == ["text without times"]


def test_a_recording_without_speech_says_so(session, tmp_path):
    hiss = 0.001 * np.random.default_rng(0).standard_normal(40 * RATE)
    soundfile.write(session / "allison/empty.wav", hiss, RATE)
    (session / "allison/empty.srt").write_text("1\n00:00:01,000 --> 00:00:03,000\nNobody.\n", encoding="utf-8")
    rows = run(session, tmp_path / "out", FAILED)
    assert [(row["left_out"], row["end_s"]) for row in rows if "empty" in row["source"]] == [
        ("no speech: 40.0 s without any", 40.0)
    ]


def test_other_settings_replace_all_clips_and_the_same_settings_none(session, tmp_path):
    out = tmp_path / "out"
    first = run(session, out)
    before = content(out)
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    assert run(session, out) == first
    assert content(out) == before and times == {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    (out / "allison/session__0001.npy").write_bytes(b"codes of a clip that is no more")
    longer = run(session, out, limits=Limits(target_s=20))
    assert len(longer) < len(first)
    assert sorted(path.name for path in out.rglob("*.wav")) == [Path(row["clip"]).name for row in longer]
    assert run(session, out) == first
    assert {name: data for name, data in content(out).items() if name in before} == before


def test_a_text_corrected_by_hand_stays_when_a_lost_clip_is_made_again(session, tmp_path):
    out = tmp_path / "out"
    first = run(session, out)
    (out / "allison/session__0002.lab").write_text("Corrected by hand.", encoding="utf-8")
    lost = (out / "allison/session__0003.wav").read_bytes()
    (out / "allison/session__0003.wav").unlink()
    run(session, out)
    again = run(session, out)
    assert [row["text"] for row in again] == [first[0]["text"], "Corrected by hand.", *(r["text"] for r in first[2:])]
    assert (out / "allison/session__0003.wav").read_bytes() == lost


def test_the_same_recording_in_another_format_is_left_out_as_a_duplicate(session, tmp_path):
    sound, _ = read_audio(session / "allison/session.wav")
    soundfile.write(session / "allison/copy.flac", 0.5 * sound, RATE)
    (session / "allison/copy.vtt").write_bytes((session / "allison/session.vtt").read_bytes())
    rows = run(session, tmp_path / "out")
    kept = [row for row in rows if row["clip"]]
    copies = [row for row in rows if row["clip"] is None]
    assert {Path(row["source"]).name for row in kept} == {"copy.flac"} and len(copies) == len(kept)
    assert all(row["left_out"].startswith("duplicate: ") for row in copies)
    assert [row["duplicate_of"] for row in copies] == [row["clip"] for row in kept]
    assert len(list((tmp_path / "out").rglob("*.wav"))) == len(kept)
    assert run(session, tmp_path / "out") == rows


@pytest.mark.parametrize("recording_lufs", [-30.0, -18.0])
def test_a_clip_too_short_for_the_meter_takes_the_gain_of_its_recording(tmp_path, known, recording_lufs):
    word = 0.1 * known.samples[round((known.clips[0].start_s + 0.3) * RATE) :]  # far from the true-peak limit
    task = RecordingTask(
        tmp_path / "x.wav", "s", tmp_path, "s/x", Transcript("Yes", (), "lab", None, None), Processing(), "settings"
    )
    row = new_row(task, 0.0, 0.3, clip="s/x.wav", text="Yes")
    short = finish_clip(task, row, word[: round(0.3 * RATE)], RATE, None, recording_lufs)
    assert short["gain_db"] == pytest.approx(-23 - recording_lufs, abs=0.01)
    longer = finish_clip(task, row | {"clip": "s/y.wav"}, word[: 2 * RATE], RATE, None, recording_lufs)
    assert longer["lufs"] == pytest.approx(-23, abs=0.01)
