"""A Fish voice reads a script: which lines, which clips are good, and how it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.errors import UserError
from piper_train import teach
from piper_train.teach_script import read_script

REPO = Path(__file__).parents[2]
MINNOW = REPO / "checkpoints/minnow"


def script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_plain_line_keeps_its_clip_when_lines_are_added_or_moved(tmp_path):
    before = {line.text: line.clip for line in read_script(script(tmp_path / "a", "One.", "Two.")).lines}
    after = {line.text: line.clip for line in read_script(script(tmp_path / "b", "Two.", "Zero.", "", "One.")).lines}
    assert before.items() < after.items() and len(set(after.values())) == 3


def test_names_are_those_of_the_script_where_every_line_has_one(tmp_path):
    named = read_script(script(tmp_path / "a", "a1.wav|One.", "b2| Two. "))
    assert [(line.clip, line.text) for line in named.lines] == [("a1.wav", "One."), ("b2.wav", "Two.")]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("One.", "..."), "nothing to say"),
        (("One.", "One."), "same text as line 1"),
        (("One.", "Two | three."), "separates the columns"),
        (("a|One.", "A|Two."), "same name as line 1"),
        (("a|One.", "../b|Two."), "a name with a folder"),
        (("a|One.", "con|Two."), "device on Windows"),
        (("One.", "x" * 3000), "longer than 2000"),
        (("One.", "a\x07b"), "cannot be printed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_line_that_cannot_be_a_clip_is_left_out_with_the_reason(tmp_path, lines, reason):
    read = read_script(script(tmp_path / "a", *lines))
    assert [line.text for line in read.lines] == ["One."]
    ((where, why),) = read.left_out
    assert where == "line 2" and reason in why


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_script_or_a_clear_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("s") / "script"
    path.write_bytes(data)
    try:
        read = read_script(path)
    except UserError as error:
        assert error.why and error.fix
        return
    assert len({line.clip for line in read.lines}) == len(read.lines)
    assert all("|" not in line.text and "/" not in line.clip for line in read.lines)


def test_clips_that_are_silent_too_long_unverified_or_missing_are_counted_and_left_out(tmp_path):
    read = read_script(script(tmp_path / "s", "good|One.", "quiet|Two.", "long|Three.", "wrong|Four.", "gone|Five."))
    tone = 0.3 * np.sin(np.arange(16000) / 20)
    for name, samples in {"good": tone, "quiet": tone / 1000, "long": np.tile(tone, 3), "wrong": tone}.items():
        soundfile.write(tmp_path / f"{name}.wav", samples, 16000)
    rows = [{"output": "wrong.wav", "complaint": "heard: for"}, {"output": "good.wav", "complaint": "old"}]
    rows += [{"output": "good.wav", "complaint": None}]  # spoken anew: the last one counts
    torn = '{"output": "quiet.wav", "compl'
    (tmp_path / "batch.jsonl").write_text("\n".join([*map(json.dumps, rows), torn]), encoding="utf-8")
    taught = teach.Taught("teacher", "script", 5)
    good = list(teach.judged(read, tmp_path, taught, max_seconds=2.5))
    assert [line.clip for line in good] == ["good.wav"] and (taught.clips, taught.seconds) == (1, 1.0)
    assert taught.counts() == {teach.SILENT: 1, teach.TOO_LONG: 1, teach.UNVERIFIED: 1, teach.NOT_SPOKEN: 1}
    assert ("line 4", teach.UNVERIFIED, "heard: for") in taught.left_out


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "piper_train.teach", *map(str, words)]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPO), "FISH_SPEECH_CACHE": str(cache), "CUDA_VISIBLE_DEVICES": ""}


def run(tmp_path: Path, *words: object, code: int = 0) -> str:
    result = subprocess.run(
        command(*words), cwd=tmp_path, env=environment(tmp_path / "c"), capture_output=True, text=True, timeout=600
    )
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--teacher", "nowhere", "--script", "s.txt"), "nowhere is not a voice"),
        (("--teacher", MINNOW, "--script", "gone.txt"), "cannot read the script gone.txt"),
        (("--teacher", MINNOW), "--script is missing"),
        (("--teacher", MINNOW, "--script", "s.txt", "--attempts", 2), "has no effect without --verify"),
        (("--teacher", MINNOW, "--script", "empty.txt"), "there is nothing to say in empty.txt"),
        (("--teacher", MINNOW, "--script", "s.txt", "--output", "other"), "other holds something else"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_request_is_refused_before_anything_is_spoken(tmp_path, monkeypatch, capsys, words, said):
    script(tmp_path / "s.txt", "One.")
    script(tmp_path / "empty.txt", "", "...")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").touch()
    monkeypatch.chdir(tmp_path)
    output = () if "--output" in words else ("--output", "out")
    with pytest.raises(UserError, match=said):
        teach.main(list(map(str, (*words, *output))))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_voice_reads_a_script_once_and_goes_on_where_it_was_killed(tmp_path):
    texts = [f"You have {number} new messages in the mailbox." for number in ("two", "five", "seven", "nine")]
    script(tmp_path / "s.txt", *texts, "...")
    words = ("--teacher", MINNOW, "--script", "s.txt", "--output", "out", "--device", "cpu")
    wavs = tmp_path / "out/wavs"
    child = subprocess.Popen(
        command(*words),
        cwd=tmp_path,
        env=environment(tmp_path / "c"),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for _ in range(1200):
        if list(wavs.glob("[0-9a-f]*.wav")) or child.poll() is not None:
            break
        time.sleep(0.1)
    child.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
    child.wait(timeout=60)
    made = {path: path.stat().st_mtime_ns for path in wavs.glob("[0-9a-f]*.wav")}
    assert made and not (tmp_path / "out/metadata.csv").exists()
    said = run(tmp_path, *words)
    assert f"{len(texts) - len(made)} to speak, {len(made)} done before" in said
    assert all(path.stat().st_mtime_ns == when for path, when in made.items())
    rows = [row.split("|") for row in (tmp_path / "out/metadata.csv").read_text(encoding="utf-8").splitlines()]
    assert [row[1] for row in rows] == texts and all((wavs / row[0]).is_file() for row in rows)
    record = json.loads((tmp_path / "out/teach.json").read_text(encoding="utf-8"))
    assert (record["lines"], record["clips"]) == (5, 4) and record["left_out_counts"] == {"cannot be spoken": 1}
    assert record["seconds"] == pytest.approx(sum(soundfile.info(str(wavs / row[0])).duration for row in rows))
    assert "0 to speak, 4 done before" in run(tmp_path, *words)


@pytest.mark.slow
def test_what_a_recogniser_does_not_find_right_is_left_out(tmp_path):
    pytest.importorskip("pocketsphinx")
    wrong = "That is not a valid conference number. Please try again."  # minnow without a reference says it unclearly
    unknown = "Qwrt zxcvb mnbvc plkjh grfds."  # words that pocketsphinx does not know it cannot find wrong
    script(tmp_path / "s.txt", wrong, unknown)
    words = ("--teacher", MINNOW, "--script", "s.txt", "--output", "out", "--device", "cpu", "--verify", "--attempts", 1,
             "--asr", "pocketsphinx", "--language", "en")  # fmt: skip
    said = run(tmp_path, *words)
    record = json.loads((tmp_path / "out/teach.json").read_text(encoding="utf-8"))
    rows = (tmp_path / "out/metadata.csv").read_text(encoding="utf-8")
    assert record["left_out_counts"] == {"not verified": 1} and record["left_out"][0][0] == "line 1"
    assert "words are wrong" in record["left_out"][0][2] and "1 left out, not verified: line 1" in said
    assert [row.split("|")[1] for row in rows.splitlines()] == [unknown]
    assert len(list((tmp_path / "out/wavs").glob("*.wav"))) == 2  # what was left out is kept, to be listened to


def test_another_script_or_teacher_makes_the_old_metadata_void(tmp_path):
    from piper_train.teach import BATCH, METADATA, RECORD, _forget_other_reading

    def read_before() -> None:
        (tmp_path / BATCH).write_text("lines", encoding="utf-8")
        (tmp_path / RECORD).write_text('{"teacher": "anna"}', encoding="utf-8")
        (tmp_path / METADATA).write_text("a.wav|Words.", encoding="utf-8")

    for lines, teacher, stays in (("lines", "anna", True), ("others", "anna", False), ("lines", "ben", False)):
        read_before()
        _forget_other_reading(tmp_path, lines, teacher)
        assert (tmp_path / METADATA).is_file() == stays
