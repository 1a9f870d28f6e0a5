"""The flags of prepare_dataset.py, each by what it does to a real recording, and requests that are refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from .prepare_material import check_set, prepare, save, state, summary_of, talks
from .scripts import REPO, environment, refuse, run

SCRIPT = "prepare_dataset.py"
TALK = ("--input", "in", "--output", "out")


@pytest.fixture(scope="module")
def talk(tmp_path_factory) -> Path:
    """A folder with a real recording of 100 s and its subtitles; not for writing."""
    folder = tmp_path_factory.mktemp("talk")
    talks(folder / "in", ["vtt"], clips=14)
    return folder


@pytest.fixture()
def own_talk(talk, tmp_path) -> Path:
    shutil.copytree(talk / "in", tmp_path / "in")
    return tmp_path


def durations(rows: list[dict]) -> list[float]:
    return [row["duration_s"] for row in rows if row["clip"] is not None]


@pytest.mark.parametrize("target", [3, pytest.param(15, marks=pytest.mark.slow)])
def test_segment_duration_is_what_clips_come_near_to(own_talk, target):
    prepare(own_talk, *TALK, "--segment-duration", target, "--min-segment-len", 2)
    lengths = durations(check_set(own_talk / "out", [own_talk / "in/talk0.wav"]))
    assert min(lengths) >= 2 and max(lengths) <= 30
    assert 0.6 * target < float(np.median(lengths)) < 1.5 * target
    options = summary_of(own_talk / "out")["processing_options"]
    assert (options["segment_duration_s"], options["min_segment_s"]) == (target, 2)


def test_max_duration_uses_the_first_minutes_and_accounts_for_the_rest(own_talk):
    prepare(own_talk, *TALK, "--max-duration", 0.5)
    rows = check_set(own_talk / "out", [own_talk / "in/talk0.wav"])
    kept = [row for row in rows if row["clip"] is not None]
    assert kept and kept[-1]["end_s"] <= 30.0
    assert rows[-1]["left_out"].startswith("beyond --max-duration")
    assert kept[-1]["end_s"] <= rows[-1]["start_s"] <= 30.0  # in the last pause before
    assert rows[-1]["end_s"] == pytest.approx(soundfile.info(own_talk / "in/talk0.wav").duration, abs=0.01)


def test_pauses_by_level_give_the_same_words(own_talk):
    levels = ("--use-silence-detection", "--min-silence-len", 300, "--silence-thresh", -45)
    prepare(own_talk, *TALK, *levels)
    rows = check_set(own_talk / "out", [own_talk / "in/talk0.wav"])
    assert len(durations(rows)) > 3
    expected = summary_of(own_talk / "out")["processing_options"]["pauses"]
    assert expected == {"by": "SilenceThreshold", "min_silence_ms": 300, "silence_db": -45.0}


def test_no_split_and_no_normalize_leave_a_recording_as_it_is(own_talk):
    prepare(own_talk, *TALK, "--no-split", "--no-normalize")
    rows = check_set(own_talk / "out", [own_talk / "in/talk0.wav"])
    assert [row["clip"] for row in rows] == ["in/talk0.wav"] and rows[0]["gain_db"] == 0
    before, rate = soundfile.read(own_talk / "in/talk0.wav")
    after, _ = soundfile.read(own_talk / "out/in/talk0.wav")
    assert rows[0]["duration_s"] == pytest.approx(len(before) / rate, abs=1e-4)
    assert np.sqrt(np.mean(after**2)) == pytest.approx(np.sqrt(np.mean(before**2)), rel=0.01)


def test_a_recording_without_speech_is_left_out_whole(tmp_path):
    noise = 0.001 * np.random.default_rng(0).standard_normal(40 * 8000)
    save(tmp_path / "in/noise.wav", noise, 8000, None)
    (tmp_path / "in/noise.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:39.000\nNobody says this.\n", encoding="utf-8")
    assert "no speech" in refuse(SCRIPT, "--input", "in", "--output", "out", cwd=tmp_path)
    rows = check_set(tmp_path / "out", [tmp_path / "in/noise.wav"])
    assert [(row["start_s"], row["end_s"], row["left_out"].split(":")[0]) for row in rows] == [(0, 40, "no speech")]


@pytest.mark.parametrize(
    "flags",
    [
        ("--min-silence-len", "300"),
        ("--silence-thresh", "-45"),
        ("--segment-duration", "12", "--no-split"),
        ("--min-segment-len", "2", "--no-split"),
        ("--use-silence-detection", "--no-split"),
        ("--whisper-model", "tiny", "--asr", "pocketsphinx", "--auto-transcribe"),
        ("--workers", "2", "--runner", "ray"),
    ],
    ids=" ".join,
)
def test_a_flag_without_effect_is_refused(talk, flags):
    said = run(SCRIPT, *TALK, *flags, cwd=talk, code=2).stderr
    assert f"{flags[0]} has no effect" in said
    assert not (talk / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--segment-duration", "nan"), "--segment-duration"),
        (("--segment-duration", "0"), "--segment-duration"),
        (("--segment-duration", "31"), "--segment-duration"),
        (("--segment-duration", "5", "--min-segment-len", "6"), "--min-segment-len"),
        (("--max-duration", "-1"), "--max-duration"),
        (("--max-duration", "inf"), "--max-duration"),
        (("--use-silence-detection", "--min-silence-len", "0"), "--min-silence-len"),
        (("--use-silence-detection", "--min-silence-len", "1"), "--min-silence-len"),
        (("--use-silence-detection", "--silence-thresh", "45"), "--silence-thresh"),
        (("--use-silence-detection", "--silence-thresh", "nan"), "--silence-thresh"),
        (("--workers", "0"), "--workers"),
        (("--asr", "siri"), "--asr"),
        (("--split-long", "--no-split"), "not allowed with"),
        (("--youtube",), "--youtube takes URLs"),
        (("--speaker", "../.."), "cannot name a folder"),
        (("--speaker", ""), "cannot name a folder"),
        (("--segment", "12"), "unrecognized"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_a_wrong_value_is_refused(talk, flags, said):
    assert said in run(SCRIPT, *TALK, *flags, cwd=talk, code=2).stderr
    assert not (talk / "out").exists()


@pytest.mark.parametrize(
    ("inputs", "output", "said"),
    [
        ("nowhere", "out", "there is no such file or folder"),
        ("in", "in", "lies in the output folder or around it"),
        ("in", "in/out", "lies in the output folder or around it"),
        ("in/talk0.wav", "in", "lies in the output folder or around it"),
        ("in", "in/talk0.wav", "is a file"),
        ("in/talk0.vtt", "out", "not audio"),
    ],
)
def test_inputs_that_cannot_be_used_are_refused(own_talk, inputs, output, said):
    before = state(own_talk / "in")
    assert said in refuse(SCRIPT, "--input", inputs, "--output", output, cwd=own_talk)
    assert state(own_talk / "in") == before


def test_help_answers_without_torch():
    code = "import runpy, sys; sys.argv = ['prepare_dataset.py', '--help']\n"
    code += "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "except SystemExit as end: print(end.code, sorted({'torch', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", cwd=REPO, env=environment()
    )
    assert result.stdout.splitlines()[-1] == "0 []" and "--segment-duration" in result.stdout
