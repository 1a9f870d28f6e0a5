"""A person's work is never lost: corrected texts, deleted clips, files of their own, moved recordings, stopped runs."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import soundfile

from fish_speech.errors import DONE
from fish_speech.prepare import run as running
from fish_speech.prepare.options import Options, Processing
from fish_speech.prepare.run import prepare
from fish_speech.prepare.segments import Limits

from ..conftest import REPO
from .long_recordings import long_recording
from .test_recording import clock

RATE = 16000


@pytest.fixture()
def recordings(tmp_path) -> Path:
    """in/anna: three short recordings with texts, and a long one with subtitles."""
    folder = tmp_path / "in" / "anna"
    folder.mkdir(parents=True)
    for clip in sorted((REPO / "samples/allison").glob("*.flac"))[:3]:
        shutil.copy2(clip, folder)
        shutil.copy2(clip.with_suffix(".txt"), folder)
    known = long_recording(limit=12, seed=3)
    soundfile.write(folder / "talk.wav", known.samples, RATE)
    cues = [f"{clock(clip.start_s)} --> {clock(clip.end_s)}\n{clip.text}\n" for clip in known.clips]
    (folder / "talk.vtt").write_text("\n".join(["WEBVTT\n", *cues]), encoding="utf-8")
    return tmp_path / "in"


def make(inputs: Path, output: Path, code: int = DONE, speaker: str | None = None, **processing) -> dict[str, dict]:
    """Prepare, and return the kept rows by clip."""
    options = Options((str(inputs),), output, speaker, Processing(**processing))
    assert prepare(options) == code
    return {row["clip"]: row for row in manifest(output) if row["clip"]}


def manifest(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]


def lab(output: Path, clip: str) -> Path:
    return (output / clip).with_suffix(".lab")


WHOLE, SEGMENT = "anna/agent-alreadyon.wav", "anna/talk__0002.wav"


@pytest.fixture()
def corrected(recordings, tmp_path) -> Path:
    """A set in which a person has corrected the text of a whole clip and of a segment."""
    make(recordings, tmp_path / "out")
    for clip in (WHOLE, SEGMENT):
        lab(tmp_path / "out", clip).write_text(f"Corrected {clip}.\n", encoding="utf-8")
    return tmp_path / "out"


def assert_corrected(output: Path, rows: dict[str, dict]) -> None:
    for clip in (WHOLE, SEGMENT):
        assert rows[clip]["text"] == f"Corrected {clip}." == lab(output, clip).read_text(encoding="utf-8").strip()
        assert rows[clip]["transcript"] == "by hand" and rows[clip]["confidence"] is None


def test_a_correction_stays_and_its_figures_follow(recordings, corrected):
    for _ in range(2):
        rows = make(recordings, corrected)
        assert_corrected(corrected, rows)
    letters = sum(c.isalnum() for c in rows[WHOLE]["text"])
    assert rows[WHOLE]["characters_per_s"] == pytest.approx(letters / rows[WHOLE]["duration_s"], abs=0.01)


def test_a_correction_stays_when_clips_are_made_anew(recordings, corrected):
    (corrected / WHOLE).unlink()
    assert_corrected(corrected, make(recordings, corrected))
    assert_corrected(corrected, make(recordings, corrected, normalize=False))
    for path in recordings.rglob("*"):
        os.utime(path, (path.stat().st_mtime + 1e6,) * 2)  # a clock that is wrong
    assert_corrected(corrected, make(recordings, corrected, normalize=False))


def test_a_correction_undone_by_hand_is_undone(recordings, corrected):
    before = make(recordings, corrected)
    lab(corrected, WHOLE).write_text(before[WHOLE]["written"], encoding="utf-8")
    row = make(recordings, corrected)[WHOLE]
    assert row["text"] == before[WHOLE]["written"] and row["written"] is None and row["transcript"] == "txt"


def test_a_text_corrected_at_its_source_counts_whatever_its_time(recordings, tmp_path):
    make(recordings, tmp_path / "out")
    text = recordings / "anna/agent-alreadyon.txt"
    text.write_text("That agent is logged on already.", encoding="utf-8")
    os.utime(text, (1, 1))
    row = make(recordings, tmp_path / "out")[WHOLE]
    assert row["text"] == "That agent is logged on already." == lab(tmp_path / "out", WHOLE).read_text(encoding="utf-8")


def test_a_replaced_recording_is_made_anew_whatever_its_time(recordings, tmp_path):
    make(recordings, tmp_path / "out")
    before = (tmp_path / "out" / WHOLE).read_bytes()
    sound, rate = soundfile.read(recordings / "anna/agent-alreadyon.flac")
    soundfile.write(recordings / "anna/agent-alreadyon.flac", sound[::-1], rate)
    os.utime(recordings / "anna/agent-alreadyon.flac", (1, 1))
    make(recordings, tmp_path / "out")
    assert (tmp_path / "out" / WHOLE).read_bytes() != before


def test_corrections_of_clips_that_are_cut_otherwise_now_are_kept_in_a_file(recordings, corrected, caplog):
    rows = make(recordings, corrected, limits=Limits(target_s=20.0))
    assert rows[WHOLE]["text"] == f"Corrected {WHOLE}."
    (line,) = (corrected / "lost-corrections.jsonl").read_text(encoding="utf-8").splitlines()
    lost = json.loads(line)
    assert (lost["clip"], lost["text"]) == (SEGMENT, f"Corrected {SEGMENT}.") and lost["end_s"] > lost["start_s"]
    assert not (corrected / ".corrections.jsonl").exists()


def test_a_clip_is_made_again_if_its_sound_is_gone_and_stays_out_if_its_text_is_gone_too(recordings, tmp_path):
    first = make(recordings, tmp_path / "out")
    (tmp_path / "out" / WHOLE).unlink()
    lab(tmp_path / "out", "anna/talk__0003.wav").unlink()
    assert make(recordings, tmp_path / "out") == first
    for clip in (WHOLE, SEGMENT):
        (tmp_path / "out" / clip).unlink()
        lab(tmp_path / "out", clip).unlink()
    code = 1  # nothing of that whole recording is used
    for _ in range(2):
        left = make(recordings, tmp_path / "out", code)
        assert left.keys() == first.keys() - {WHOLE, SEGMENT}
    reasons = {row["left_out"] for row in manifest(tmp_path / "out") if row["clip"] is None}
    assert reasons == {"by hand: its .wav and .lab were deleted"}
    shutil.rmtree(tmp_path / "out/anna")  # all of it gone: made again
    assert make(recordings, tmp_path / "out", code).keys() >= first.keys() - {WHOLE, SEGMENT}


def test_a_persons_own_files_beside_the_clips_are_not_touched(recordings, tmp_path):
    make(recordings, tmp_path / "out")
    own = tmp_path / "out/anna/agent-alreadyon__0001.wav"
    own.write_bytes(b"my own")
    own.with_suffix(".lab").write_bytes(b"my text")
    make(recordings, tmp_path / "out")
    assert own.read_bytes() == b"my own" and own.with_suffix(".lab").read_bytes() == b"my text"


def test_moved_recordings_keep_their_clips_also_with_other_settings(recordings, tmp_path):
    first = make(recordings, tmp_path / "out")
    recordings.rename(tmp_path / "moved")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.wav")}
    assert make(tmp_path / "moved", tmp_path / "out").keys() == first.keys()
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.wav")}
    rows = make(tmp_path / "moved", tmp_path / "out", limits=Limits(target_s=4.0))
    seconds = sum(row["end_s"] - row["start_s"] for row in first.values())
    assert sum(row["end_s"] - row["start_s"] for row in rows.values()) == pytest.approx(seconds, rel=0.1)
    assert len(list((tmp_path / "out").rglob("*.wav"))) == len(rows)


@pytest.fixture()
def other(tmp_path) -> Path:
    """other/ben: a recording of somebody else."""
    folder = tmp_path / "other" / "ben"
    folder.mkdir(parents=True)
    for suffix in (".flac", ".txt"):
        shutil.copy2((REPO / "samples/allison/vm-dialout").with_suffix(suffix), folder)
    return tmp_path / "other"


def stop_after(monkeypatch, count: int) -> None:
    """Let the next run be stopped while it works on its recording number `count`."""
    calls = iter(range(99))

    def work(task, make=running.prepare_one):
        done = make(task)
        if next(calls) == count:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(running, "prepare_one", work)


def test_what_a_stopped_run_did_is_kept_when_the_next_has_another_input(recordings, other, tmp_path, monkeypatch):
    stop_after(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        make(recordings, tmp_path / "out")
    monkeypatch.undo()
    rows = make(other, tmp_path / "out")
    assert len(rows) == 3  # two of anna's that were noted, and ben's; what was not noted is removed
    assert len(list((tmp_path / "out").rglob("*.wav"))) == 3
    assert len(make(recordings, tmp_path / "out")) > 5


def test_clips_of_a_stopped_run_with_other_settings_are_made_anew_even_after_a_run_in_between(
    recordings, other, tmp_path, monkeypatch
):
    make(recordings, tmp_path / "out")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out/anna").glob("*.wav")}
    stop_after(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        make(recordings, tmp_path / "out", normalize=False)
    monkeypatch.undo()
    make(other, tmp_path / "out")
    make(recordings, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out/anna").glob("*.wav")} == whole


def test_a_duplicate_is_taken_back_when_its_original_is_replaced(recordings, tmp_path):
    folder = recordings / "anna"
    for suffix in (".flac", ".txt"):
        shutil.copy2((folder / "agent-alreadyon").with_suffix(suffix), (folder / "b-copy").with_suffix(suffix))
    rows = make(recordings, tmp_path / "out")
    assert WHOLE in rows and "anna/b-copy.wav" not in rows
    for suffix in (".flac", ".txt"):
        shutil.copy2(
            (REPO / "samples/allison/vm-dialout").with_suffix(suffix), (folder / "agent-alreadyon").with_suffix(suffix)
        )
    rows = make(recordings, tmp_path / "out")
    assert {WHOLE, "anna/b-copy.wav"} <= rows.keys()
    assert not any(row["duplicate_of"] for row in manifest(tmp_path / "out"))


def test_a_report_that_is_there_follows_the_set(recordings, tmp_path):
    prepare(replace(Options((str(recordings / "anna"),), tmp_path / "out"), report=True))
    (recordings / "anna/agent-alreadyon.flac").unlink()
    before = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    lab(tmp_path / "out", "anna/auth-incorrect.wav").write_text("Corrected for the page.", encoding="utf-8")
    prepare(Options((str(recordings / "anna"),), tmp_path / "out"))
    assert before != (tmp_path / "out/report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("moment", ["write_manifest", "_remove_stale", "finish"])
def test_stopped_while_duplicates_are_removed_the_next_run_gives_the_same(recordings, tmp_path, monkeypatch, moment):
    folder = recordings / "anna"
    for suffix in (".flac", ".txt"):
        shutil.copy2((folder / "agent-alreadyon").with_suffix(suffix), (folder / "b-copy").with_suffix(suffix))
    make(recordings, tmp_path / "whole")

    work = getattr(running, moment, None)

    def work_and_stop(*arguments):
        if work is not None:
            work(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(running.Journal if moment == "finish" else running, moment, work_and_stop)
    with pytest.raises(KeyboardInterrupt):
        make(recordings, tmp_path / "out")
    monkeypatch.undo()
    make(recordings, tmp_path / "out")
    assert manifest(tmp_path / "out") == manifest(tmp_path / "whole")
    assert sorted(p.name for p in (tmp_path / "out/anna").iterdir()) == sorted(
        p.name for p in (tmp_path / "whole/anna").iterdir()
    )
