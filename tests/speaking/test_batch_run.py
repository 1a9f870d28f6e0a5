"""Running a batch: each line into its file, from where it stopped, whatever stopped it."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fish_speech.errors import UserError
from fish_speech.speaking.batch import Batch, read_batch
from fish_speech.speaking.batch_line import BatchLine, LineSettings
from fish_speech.speaking.batch_record import BatchRecord, inputs_digest
from fish_speech.speaking.batch_run import BatchResult, run_batch
from fish_speech.speaking.sinks import to_pcm16

RATE = 16000
REPO = Path(__file__).parents[2]


def batch_of(*lines: dict | str, **settings) -> Batch:
    entries = [{"text": line} if isinstance(line, str) else line for line in lines]
    return read_batch(io.BytesIO("\n".join(map(json.dumps, entries)).encode()), LineSettings(**settings))


def sound_of(line: BatchLine) -> np.ndarray:
    """A sound that depends on the text and the seed."""
    seed = [line.settings.seed, *line.text.encode()]
    return np.random.default_rng(seed).uniform(-0.5, 0.5, 3000).astype(np.float32)


class Voice:
    """Speaks made-up sounds, and remembers which lines it was asked for."""

    def __init__(self, name: str = "anna"):
        self.name, self.asked = name, list[int]()
        self.fails: dict[str, Exception] = {}
        self.complaints: dict[str, str] = {}

    def __call__(self, line: BatchLine) -> Iterator[np.ndarray]:
        self.asked.append(line.number)
        yield sound_of(line)[:1000]
        if line.text in self.fails:
            raise self.fails[line.text]
        yield sound_of(line)[1000:]


def run(folder: Path, batch: Batch, voice: Voice, overwrite: bool = False, tell=lambda path: None) -> BatchResult:
    with batch, BatchRecord(folder, overwrite) as record:
        plan = record.plan(batch, lambda line: voice.name)
        return run_batch(
            batch,
            voice,
            record,
            plan,
            lambda line: voice.name,
            RATE,
            lambda line: voice.complaints.get(line.text),
            tell,
        )


def sounds(folder: Path) -> dict[str, np.ndarray]:
    """Every sound in the folder; there is nothing else but the record and its lock."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in found if path.suffix not in (".wav", ".flac")} <= {"batch.jsonl", ".batch.lock"}
    return {
        path.relative_to(folder).as_posix(): soundfile.read(path, dtype="int16")[0]
        for path in found
        if path.suffix in (".wav", ".flac")
    }


LINES = ("One.", {"text": "Two.", "output": "sub/two.flac"}, {"text": "Three.", "id": "three", "seed": 5})


def test_every_line_becomes_its_file_and_the_second_run_has_nothing_to_do(tmp_path):
    told: list[Path] = []
    first, second = Voice(), Voice()
    result = run(tmp_path, batch_of(*LINES), first, tell=told.append)
    assert (result.spoken, result.done, result.exit_code, str(result)) == (3, 0, 0, "3 spoken, 0 done before")
    expected = {line.output: to_pcm16(sound_of(line)) for line in batch_of(*LINES)}
    found = sounds(tmp_path)
    assert found.keys() == expected.keys() == {"0001.wav", "sub/two.flac", "three.wav"}
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert [path.relative_to(tmp_path).as_posix() for path in told] == ["0001.wav", "sub/two.flac", "three.wav"]
    result = run(tmp_path, batch_of(*LINES), second)
    assert (result.spoken, result.done, second.asked) == (0, 3, [])


@pytest.mark.parametrize(
    ("lines", "settings", "voice", "again"),
    [
        (("One.", {"text": "Two!", "output": "sub/two.flac"}, LINES[2]), {}, "anna", [2]),
        (("One.", LINES[1], {"text": "Three.", "id": "three", "seed": 6}), {}, "anna", [3]),
        (LINES, {"seed": 43}, "anna", [1, 2]),  # the third has a seed of its own
        (LINES, {"speed": 1.5}, "anna", [1, 2, 3]),
        (LINES, {}, "ben", [1, 2, 3]),
        ((LINES[2], LINES[1], {"text": "One.", "output": "0001.wav"}), {}, "anna", []),  # only the order is another
        ((*LINES, "Four."), {}, "anna", [4]),
    ],
)
def test_what_would_sound_otherwise_is_spoken_again_and_nothing_else(tmp_path, lines, settings, voice, again):
    run(tmp_path, batch_of(*LINES), Voice())
    changed = Voice(voice)
    result = run(tmp_path, batch_of(*lines, **settings), changed)
    assert changed.asked == again and result.exit_code == 0
    for line in batch_of(*lines, **settings):
        assert np.array_equal(sounds(tmp_path)[line.output], to_pcm16(sound_of(line)))


def test_every_setting_is_in_the_digest():
    line = BatchLine(1, "One.", "a.wav")
    other = {"seed": 1, "voice": "x", "speed": 2.0, "pitch": 1.0, "volume": 1.0, "temperature": 0.1}
    other |= {"top_p": 0.1, "repetition_penalty": 1.0}
    assert other.keys() == {field.name for field in dataclasses.fields(LineSettings)}
    changed = [
        dataclasses.replace(line, settings=dataclasses.replace(line.settings, **{k: v})) for k, v in other.items()
    ]
    changed += [dataclasses.replace(line, text="One!"), dataclasses.replace(line, output="a.flac")]
    digests = {inputs_digest(entry, "anna") for entry in [line, *changed]} | {inputs_digest(line, "ben")}
    assert len(digests) == len(changed) + 2
    assert inputs_digest(dataclasses.replace(line, number=2, output="b.WAV"), "anna") == inputs_digest(line, "anna")


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "empty"])
def test_a_file_that_is_not_whole_is_asked_about_and_one_that_is_gone_is_spoken_again(tmp_path, damage):
    run(tmp_path, batch_of(*LINES), Voice())
    path, data = tmp_path / "0001.wav", (tmp_path / "0001.wav").read_bytes()
    voice = Voice()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": data[:-100], "changed": data[:-1] + b"\x7f", "empty": b""}[damage])
        before = path.read_bytes()
        with pytest.raises(UserError, match="1 outputs are in the way") as error:
            run(tmp_path, batch_of(*LINES), voice)
        assert str(path) in error.value.why and "--overwrite" in error.value.fix
        assert path.read_bytes() == before and not voice.asked
    run(tmp_path, batch_of(*LINES), voice, overwrite=True)
    assert voice.asked == [1] and path.read_bytes() == data


def test_files_that_the_batch_did_not_make_are_not_replaced_unasked(tmp_path):
    for number in range(1, 13):
        (tmp_path / f"{number:04d}.wav").write_bytes(b"mine")
    (tmp_path / "0013.wav").mkdir()
    texts = [f"Line {number}." for number in range(13)]
    with pytest.raises(UserError, match="13 outputs") as error:
        run(tmp_path, batch_of(*texts), Voice())
    assert error.value.why.endswith("and 3 more")
    assert not (tmp_path / "batch.jsonl").exists() and (tmp_path / "0001.wav").read_bytes() == b"mine"
    with pytest.raises(UserError, match="1 outputs"):  # a folder is not overwritten in any case
        run(tmp_path, batch_of(*texts), Voice(), overwrite=True)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/sub").symlink_to(tmp_path / "elsewhere")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="in the way") as error:
            run(tmp_path / "out", batch_of({"text": "One.", "output": "sub/a.wav"}), Voice(), overwrite)
        assert "leads out of the folder" in error.value.why
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_line_that_fails_is_told_of_and_the_others_are_spoken(tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="fish_speech")
    logging.getLogger("fish_speech").propagate = True
    voice = Voice()
    voice.fails = {
        "Two.": UserError("the prompt is too long", "2000 tokens\x1b", "x"),
        "Four.": RuntimeError("no memory"),
    }
    result = run(tmp_path, batch_of("One.", "Two.", "Three.", "Four."), voice)
    assert (result.spoken, result.failed, result.exit_code) == (2, 2, 1)
    assert result.first == [r"line 2: the prompt is too long: 2000 tokens\x1b", "line 4: RuntimeError('no memory')"]
    assert sounds(tmp_path).keys() == {"0001.wav", "0003.wav"}
    assert "2/4" not in caplog.text and "3/4  0003.wav" in caplog.text and " left" in caplog.text
    voice.fails, voice.asked = {}, []
    result = run(tmp_path, batch_of("One.", "Two.", "Three.", "Four."), voice)
    assert voice.asked == [2, 4] and (result.done, result.exit_code) == (2, 0)


def test_a_line_without_sound_fails_and_writes_nothing(tmp_path):
    with batch_of("One.") as batch, BatchRecord(tmp_path) as record:
        plan = record.plan(batch, lambda line: 0)
        result = run_batch(batch, lambda line: iter([np.zeros(0, np.float32)]), record, plan, lambda line: 0, RATE)
    assert result.failed == 1 and result.first == ["line 1: the model said nothing: it ended at once"]
    assert not sounds(tmp_path)


def test_sound_that_is_not_good_is_kept_told_of_and_counts_until_it_is_spoken_again(tmp_path):
    voice = Voice()
    voice.complaints = {"Two.": "the word two is missing"}
    for asked in ([1, 2], []):
        voice.asked = []
        result = run(tmp_path, batch_of("One.", "Two."), voice)
        assert voice.asked == asked and (result.poor, result.failed, result.exit_code) == (1, 0, 1)
        assert result.first == ["line 2: not good: the word two is missing"]
    assert sounds(tmp_path).keys() == {"0001.wav", "0002.wav"}
    voice.complaints = {}
    assert run(tmp_path, batch_of("One.", {"text": "Two.", "seed": 3}), voice).exit_code == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_is_no_lines_own_fault_ends_the_batch_and_keeps_what_was_made(tmp_path, error):
    voice = Voice()
    voice.fails = {"Two.": error}
    with pytest.raises(type(error)):
        run(tmp_path, batch_of("One.", "Two.", "Three."), voice)
    assert voice.asked == [1, 2] and sounds(tmp_path).keys() == {"0001.wav"}
    voice.fails, voice.asked = {}, []
    assert run(tmp_path, batch_of("One.", "Two.", "Three."), voice).spoken == 2 and voice.asked == [2, 3]


def test_a_second_batch_in_the_same_folder_waits_for_nobody_and_is_refused(tmp_path):
    with BatchRecord(tmp_path), pytest.raises(UserError, match="another batch is writing"), BatchRecord(tmp_path):
        pass
    with BatchRecord(tmp_path):
        pass
    assert not (tmp_path / "batch.jsonl").exists()


def test_a_folder_made_for_nothing_is_taken_away_again(tmp_path):
    with pytest.raises(UserError, match="no model"), BatchRecord(tmp_path / "new/out"):
        raise UserError("no model", "none", "none")
    assert [path.name for path in tmp_path.rglob("*")] == ["new"]
    run(tmp_path / "new/out", batch_of("One."), Voice())
    with BatchRecord(tmp_path / "new/out"):
        pass
    assert {path.name for path in (tmp_path / "new/out").iterdir()} == {"0001.wav", "batch.jsonl", ".batch.lock"}


@pytest.mark.parametrize("garbage", [b'{"output": "0002.wav", "inp', b"\xff\xfe\n[1]\nnull\n{}\n" + b"[" * 5000])
def test_a_record_that_is_torn_or_spoilt_is_used_as_far_as_it_goes(tmp_path, garbage):
    run(tmp_path, batch_of("One."), Voice())
    with (tmp_path / "batch.jsonl").open("ab") as file:
        file.write(garbage)
    for asked in ([2], []):
        voice = Voice()
        assert run(tmp_path, batch_of("One.", "Two."), voice).exit_code == 0 and voice.asked == asked


PROGRAM = """if True:
    import sys, time
    from pathlib import Path
    import numpy as np
    from fish_speech.errors import run
    from fish_speech.speaking.batch import read_batch
    from fish_speech.speaking.batch_record import BatchRecord
    from fish_speech.speaking.batch_run import run_batch

    def speak(line):
        for part in range(5):
            time.sleep(float(sys.argv[3]))
            yield np.random.default_rng([line.number, part]).uniform(-1, 1, 20000).astype(np.float32)

    def main():
        with read_batch(Path(sys.argv[1])) as batch, BatchRecord(Path(sys.argv[2])) as record:
            plan = record.plan(batch, lambda line: "anna")
            tell = lambda path: print(path, flush=True)
            return run_batch(batch, speak, record, plan, lambda line: "anna", 16000, tell=tell).exit_code
    run(main)
"""


def process(lines: Path, folder: Path, delay: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(lines), str(folder), str(delay)],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.slow()
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_batch_goes_on_and_ends_as_one_that_was_not(tmp_path, number):
    lines, whole, killed = tmp_path / "lines.jsonl", tmp_path / "whole", tmp_path / "killed"
    lines.write_text("".join(f'{{"text": "Line {n}."}}\n' for n in range(6)), encoding="utf-8")
    assert process(lines, whole, 0).communicate() and len(sounds(whole)) == 6
    for stop_after in (1, 3):  # lines of each run
        running = process(lines, killed, 0.02)
        assert running.stdout is not None
        for _ in range(stop_after):
            assert running.stdout.readline()
        time.sleep(0.03)  # somewhere in the next line
        running.send_signal(number)
        assert running.wait(60) in (-signal.SIGKILL, 130)
        running.stdout.close()
        for path in killed.glob("[0-9]*.wav"):
            assert path.read_bytes() == (whole / path.name).read_bytes()
        if number == signal.SIGINT:
            assert not list(killed.glob(".partial-*"))
    before = {path: path.stat().st_mtime_ns for path in killed.glob("[0-9]*.wav")}
    assert 4 <= len(before) <= 5
    out, _ = process(lines, killed, 0).communicate()
    assert len(out.splitlines()) == 6 - len(before)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {name: sound.tobytes() for name, sound in sounds(killed).items()} == {
        name: sound.tobytes() for name, sound in sounds(whole).items()
    }


def test_a_batch_killed_between_record_and_file_knows_the_old_file_and_the_new(tmp_path):
    """The record is written before the file gets its name; a run can end between the two, or right after."""
    run(tmp_path, batch_of("One."), Voice())
    old = (tmp_path / "0001.wav").read_bytes()
    run(tmp_path, batch_of("One.", seed=7), Voice())
    new = (tmp_path / "0001.wav").read_bytes()
    for content, seed, asked in ((old, 7, [1]), (new, 7, []), (old, 42, [])):
        (tmp_path / "0001.wav").write_bytes(content)
        voice = Voice()
        run(tmp_path, batch_of("One.", seed=seed), voice)
        assert voice.asked == asked
