"""cli_tts.py as a user runs it, with the bundled model: the same speech by every way, and effects that are what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fish_speech.versions import VERSIONS

from ..pitch import median_pitch
from .scripts import REPO, TIMEOUT_S, command, contents, environment, leftovers, refuse, run, start

MINNOW = ("--model-version", "minnow", "--model-path", REPO / VERSIONS["minnow"].folder, "--device", "cpu")
TEXT = "Please leave a message. The weather is cold today."
SHORT = ("--chunk-length", 30, "--seed", 44)  # a sentence per segment, in a voice whose pitch can be measured
RATE = 16000
POSIX = pytest.mark.skipif(
    sys.platform == "win32", reason="pipes with names, scripts as programs and signals are POSIX's"
)
RECORDING = REPO / "samples/allison/auth-incorrect.flac"
LINES: tuple[dict, ...] = (
    {"text": TEXT},
    {"text": TEXT, "output": "fast.flac", "speed": 1.5},
    {"text": TEXT, "id": "high", "pitch": 5},
    {"text": TEXT, "id": "quiet", "volume": -6},
    {"text": TEXT, "id": "loud", "volume": 20},
    {"text": TEXT, "output": "voices/allison.wav", "voice": "allison"},
    {"text": TEXT, "id": "other", "seed": 7},
)


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory) -> Iterator[Path]:
    """A cache of this module's, so that nothing is found that it did not make, nor left in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("FISH_SPEECH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder with what others are compared with: plain.wav, a voice, and a batch that was spoken."""
    folder = tmp_path_factory.mktemp("desk")
    run("cli_tts.py", TEXT, *MINNOW, *SHORT, "--no-cache", "-o", "plain.wav", cwd=folder)
    run("cli_tts.py", "--create-reference", RECORDING, "voices/allison.npy", *MINNOW, cwd=folder)
    write_lines(folder / "lines.jsonl", *LINES)
    done = run("cli_tts.py", "--batch", "lines.jsonl", "-o", "batch", *MINNOW, *SHORT, "--no-cache", cwd=folder)
    (folder / "told.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def write_lines(path: Path, *lines: dict) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def sound_of(path: Path) -> np.ndarray:
    sound, rate = soundfile.read(path, dtype="int16")
    assert rate == RATE and sound.ndim == 1
    return sound


def said_bytes(*arguments: object, cwd: Path) -> bytes:
    """What a run writes to stdout."""
    result = subprocess.run(
        command("cli_tts.py", *arguments),
        cwd=cwd,
        env=environment(),
        capture_output=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    return result.stdout


def level_db(sound: np.ndarray) -> float:
    return 10 * np.log10(np.mean((sound / 32768.0) ** 2))


def longest_at_full_scale(sound: np.ndarray) -> int:
    """Samples in a row: a peak that touches full scale has one or two, one that is cut off has more."""
    edges = np.diff(np.concatenate([[0], np.abs(sound.astype(int)) >= 32767, [0]]).astype(int))
    return int((np.flatnonzero(edges < 0) - np.flatnonzero(edges > 0)).max(initial=0))


# --- the same speech by every way


@pytest.mark.slow()
def test_stdout_carries_the_files_samples_raw_or_with_a_header(desk):
    raw = said_bytes(TEXT, *MINNOW, *SHORT, "-o", "-", "--format", "raw", cwd=desk)
    assert np.array_equal(np.frombuffer(raw, "<i2"), sound_of(desk / "plain.wav"))
    wav = said_bytes(TEXT, *MINNOW, *SHORT, "-o", "-", cwd=desk)
    assert wav[:4] == b"RIFF" and wav[44:] == raw


@pytest.mark.slow()
@POSIX
def test_a_named_pipe_gets_the_same_while_it_is_made(desk, tmp_path):
    os.mkfifo(tmp_path / "pipe.raw")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe.raw").read_bytes()), daemon=True)
    reader.start()
    run("cli_tts.py", TEXT, *MINNOW, *SHORT, "-o", tmp_path / "pipe.raw", cwd=desk)
    reader.join(60)
    assert np.array_equal(np.frombuffer(got[0], "<i2"), sound_of(desk / "plain.wav"))


def install_player(folder: Path, name: str, fails: bool = False) -> None:
    """A program that keeps what it is given: a stream on stdin, or the file it is told to play."""
    folder.mkdir(exist_ok=True)
    lines = [
        f"#!{sys.executable}",
        "import pathlib, sys",
        "path = pathlib.Path(sys.argv[-1])",
        "data = path.read_bytes() if path.is_file() else sys.stdin.buffer.read()",
        f"pathlib.Path({str(folder)!r}, 'heard').write_bytes(data)",
        "print('no device', file=sys.stderr)" if fails else "",
        f"sys.exit({4 if fails else 0})",
    ]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    (folder / name).chmod(0o755)


@pytest.mark.slow()
@POSIX
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the names of players are each system's own")
def test_a_player_gets_the_same_and_the_file_too(desk, tmp_path, monkeypatch):
    install_player(tmp_path / "bin", "pacat")
    install_player(tmp_path / "bin", "pw-play")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    run("cli_tts.py", TEXT, *MINNOW, *SHORT, "--stream", "-o", tmp_path / "a.flac", cwd=desk)
    heard = np.frombuffer((tmp_path / "bin/heard").read_bytes(), "<i2")
    assert np.array_equal(heard, sound_of(desk / "plain.wav"))
    assert np.array_equal(heard, sound_of(tmp_path / "a.flac"))
    run("cli_tts.py", TEXT, *MINNOW, *SHORT, "--play", "-o", tmp_path / "b.wav", cwd=desk)
    assert (tmp_path / "bin/heard").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert (tmp_path / "b.wav").read_bytes() == (desk / "plain.wav").read_bytes()


@pytest.mark.slow()
@POSIX
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the names of players are each system's own")
def test_a_player_that_fails_is_told_of_and_the_file_kept(desk, tmp_path, monkeypatch):
    install_player(tmp_path / "bin", "pacat", fails=True)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    said = run("cli_tts.py", TEXT, *MINNOW, *SHORT, "--stream", "-o", tmp_path / "a.wav", cwd=desk, code=1).stderr
    assert "pacat failed with exit code 4: no device" in said
    assert (tmp_path / "a.wav").read_bytes() == (desk / "plain.wav").read_bytes()


@pytest.mark.slow()
def test_what_was_said_before_comes_from_the_cache_and_is_the_same(desk, tmp_path, monkeypatch):
    monkeypatch.setenv("FISH_SPEECH_CACHE", str(tmp_path / "cache"))
    said = [run("cli_tts.py", TEXT, *MINNOW, *SHORT, "-o", tmp_path / f"{n}.wav", cwd=desk).stderr for n in range(2)]
    assert [text.count("(from the cache)") for text in said] == [0, 2]
    for number in range(2):
        assert (tmp_path / f"{number}.wav").read_bytes() == (desk / "plain.wav").read_bytes()
    assert ": 2 segments, " in run("cli_tts.py", "--cache-info", cwd=tmp_path).stdout
    anew = run("cli_tts.py", TEXT, *MINNOW, *SHORT, "--no-cache", "--speed", 2, "-o", tmp_path / "f.wav", cwd=desk)
    assert "(from the cache)" not in anew.stderr
    fast = run("cli_tts.py", TEXT, *MINNOW, *SHORT, "--speed", 2, "-o", tmp_path / "g.wav", cwd=desk)
    assert fast.stderr.count("(from the cache)") == 2  # effects change the sound, not what is remembered
    assert (tmp_path / "f.wav").read_bytes() == (tmp_path / "g.wav").read_bytes()
    for changed in (("--seed", 7), ("--temperature", 0.5), ("--no-reference", "--chunk-length", 200)):
        options = (*MINNOW, *SHORT, *changed, "-o", tmp_path / "other.wav")
        assert "(from the cache)" not in run("cli_tts.py", TEXT, *options, cwd=desk).stderr
    assert "removed 7 segments" in run("cli_tts.py", "--clear-cache", cwd=tmp_path).stdout
    assert ": 0 segments, " in run("cli_tts.py", "--cache-info", cwd=tmp_path).stdout


# --- a batch


@pytest.mark.slow()
def test_a_batch_says_what_single_runs_say(desk, tmp_path):
    assert (desk / "batch/0001.wav").read_bytes() == (desk / "plain.wav").read_bytes()
    assert (desk / "told.txt").read_text(encoding="utf-8").split() == [
        f"batch/{name}"
        for name in ("0001.wav", "fast.flac", "high.wav", "quiet.wav", "loud.wav", "voices/allison.wav", "other.wav")
    ]
    for name, flags in (
        ("fast.flac", ("--speed", 1.5)),
        ("high.wav", ("--pitch", 5)),
        ("voices/allison.wav", ("--voice", "allison")),
        ("other.wav", ("--seed", 7)),
    ):
        path = tmp_path / Path(name).name
        run("cli_tts.py", TEXT, *MINNOW, *SHORT, *flags, "-o", path, cwd=desk)
        assert path.read_bytes() == (desk / "batch" / name).read_bytes(), name
    assert leftovers(desk) == []


@pytest.mark.slow()
def test_a_batch_that_is_done_loads_nothing_and_changed_lines_alone_are_spoken_again(desk, tmp_path):
    folder = Path(shutil.copytree(desk / "batch", tmp_path / "batch"))
    shutil.copytree(desk / "voices", tmp_path / "voices")
    before = contents(folder)
    write_lines(tmp_path / "lines.jsonl", *LINES)
    options = ("--batch", "lines.jsonl", "-o", "batch", *MINNOW, *SHORT, "--no-cache")
    said = run("cli_tts.py", *options, cwd=tmp_path)
    assert not said.stdout and "device" not in said.stderr and "0 to speak, 7 done before" in said.stderr
    assert contents(folder) == before
    write_lines(tmp_path / "lines.jsonl", *LINES[:-1], {**LINES[-1], "seed": 8})
    assert run("cli_tts.py", *options, cwd=tmp_path).stdout.split() == [str(Path("batch/other.wav"))]
    changed = {name for name, data in contents(folder).items() if before[name] != data}
    assert changed == {"other.wav", "batch.jsonl"}


@pytest.mark.slow()
def test_a_line_that_cannot_be_spoken_fails_alone_and_is_tried_again(desk, tmp_path):
    shutil.copytree(desk / "voices", tmp_path / "voices")
    codes = np.load(desk / "voices/allison.npy")
    np.save(tmp_path / "voices/endless.npy", np.tile(codes, 60))
    (tmp_path / "voices/endless.txt").write_text("More than the model can take in.", encoding="utf-8")
    lines = [{"text": "One."}, {"text": "Two.", "voice": "endless"}, {"text": "Three."}]
    said = run(
        "cli_tts.py", "--batch", "-", "-o", "out", *MINNOW,
        cwd=tmp_path, stdin="".join(json.dumps(line) + "\n" for line in lines), code=1,
    )  # fmt: skip
    assert said.stdout.split() == [str(Path("out/0001.wav")), str(Path("out/0003.wav"))]
    assert "line 2" in said.stderr and "too long" in said.stderr and "2 spoken, 0 done before, 1 failed" in said.stderr
    assert sorted(path.name for path in (tmp_path / "out").glob("*.wav")) == ["0001.wav", "0003.wav"]
    (tmp_path / "voices/endless.npy").unlink()
    np.save(tmp_path / "voices/endless.npy", codes[:, :60])
    write_lines(tmp_path / "lines.jsonl", *lines)
    said = run("cli_tts.py", "--batch", "lines.jsonl", "-o", "out", *MINNOW, cwd=tmp_path)
    assert said.stdout.split() == [str(Path("out/0002.wav"))]


@pytest.mark.slow()
@POSIX
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_batch_that_is_stopped_goes_on_and_ends_the_same(desk, tmp_path, number):
    shutil.copytree(desk / "voices", tmp_path / "voices")
    write_lines(tmp_path / "lines.jsonl", *LINES)
    options = ("--batch", "lines.jsonl", "-o", "batch", *MINNOW, *SHORT, "--no-cache")
    process = start("cli_tts.py", *options, cwd=tmp_path)
    deadline = time.monotonic() + TIMEOUT_S
    while not (tmp_path / "batch/fast.flac").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(TIMEOUT_S) == (130 if number == signal.SIGINT else -number)
    stopped = {name for name in contents(tmp_path / "batch") if name.endswith((".wav", ".flac")) and name[0] != "."}
    assert {"0001.wav", "fast.flac"} <= stopped < set(contents(desk / "batch"))
    said = run("cli_tts.py", *options, cwd=tmp_path)
    assert len(said.stdout.split()) == len(LINES) - len(stopped) and leftovers(tmp_path) == []
    whole = contents(desk / "batch")
    for name, data in contents(tmp_path / "batch").items():
        assert name == "batch.jsonl" or data == whole[name], name


# --- effects, measured


@pytest.mark.slow()
def test_speed_changes_the_length_and_not_the_pitch(desk):
    plain, fast = sound_of(desk / "plain.wav"), sound_of(desk / "batch/fast.flac")
    assert abs(len(fast) - len(plain) / 1.5) <= 1
    assert median_pitch(fast, RATE) == pytest.approx(median_pitch(plain, RATE), rel=0.05)


@pytest.mark.slow()
def test_pitch_changes_the_pitch_and_not_the_length(desk):
    plain, high = sound_of(desk / "plain.wav"), sound_of(desk / "batch/high.wav")
    assert abs(len(high) - len(plain)) <= 1
    assert median_pitch(high, RATE) / median_pitch(plain, RATE) == pytest.approx(2 ** (5 / 12), rel=0.05)


@pytest.mark.slow()
def test_volume_is_in_decibels_and_does_not_clip(desk):
    plain, quiet, loud = (sound_of(desk / name) for name in ("plain.wav", "batch/quiet.wav", "batch/loud.wav"))
    assert len(quiet) == len(plain) == len(loud)
    assert level_db(quiet) - level_db(plain) == pytest.approx(-6, abs=0.05)
    assert level_db(loud) > level_db(plain) + 3
    assert longest_at_full_scale(loud) <= 2 < longest_at_full_scale(np.clip(plain * 10.0, -32768, 32767))


# --- voices


@pytest.mark.slow()
def test_a_reference_is_made_listed_and_imitated(desk, tmp_path):
    words = RECORDING.with_suffix(".txt").read_text(encoding="utf-8").strip()
    assert (desk / "voices/allison.txt").read_text(encoding="utf-8").strip() == words
    listed = run("cli_tts.py", "--list-voices", cwd=desk).stdout
    assert re.fullmatch(rf"allison +\d+ frames +{re.escape(words)}\n", listed)
    by_name = sound_of(desk / "batch/voices/allison.wav")
    assert not np.array_equal(by_name, sound_of(desk / "plain.wav"))
    for number, flags in enumerate(
        (
            ("--prompt-tokens", "voices/allison.npy"),
            ("--reference-audio", RECORDING, "--prompt-text", words),
        )
    ):
        run("cli_tts.py", TEXT, *MINNOW, *SHORT, *flags, "-o", tmp_path / f"{number}.wav", cwd=desk)
        assert np.array_equal(sound_of(tmp_path / f"{number}.wav"), by_name)


# --- quantized, and verified


@pytest.mark.slow()
def test_int8_speaks_and_is_itself_the_same_each_time(desk, tmp_path):
    for name in ("one.wav", "two.wav"):
        run("cli_tts.py", TEXT, *MINNOW, *SHORT, "--quantize", "int8", "--no-cache", "-o", tmp_path / name, cwd=desk)
    assert (tmp_path / "one.wav").read_bytes() == (tmp_path / "two.wav").read_bytes()
    sound = sound_of(tmp_path / "one.wav")
    assert 0.5 < len(sound) / len(sound_of(desk / "plain.wav")) < 2 and np.abs(sound.astype(int)).max() > 1000


@pytest.mark.slow()
def test_int8_does_not_take_full_precisions_tokens_from_the_cache(desk, tmp_path, monkeypatch):
    monkeypatch.setenv("FISH_SPEECH_CACHE", str(tmp_path / "cache"))
    for flags in ((), ("--quantize", "int8"), ("--precision", "bf16")):
        said = run("cli_tts.py", "Thank you.", *MINNOW, *flags, "-o", tmp_path / "a.wav", cwd=desk).stderr
        assert "(from the cache)" not in said


@pytest.mark.slow()
def test_speech_that_ends_too_early_is_kept_and_told_of_by_the_exit_code(desk, tmp_path):
    listening = ("--verify", "--asr", "pocketsphinx", "--language", "en", "--attempts", 2, "--max-new-tokens", 8)
    said = run("cli_tts.py", "Thank you.", *MINNOW, *listening, "-o", tmp_path / "a.wav", cwd=desk, code=1)
    assert "attempt 2/2" in said.stderr and "it did not end" in said.stderr
    assert len(sound_of(tmp_path / "a.wav")) > 1000
    write_lines(tmp_path / "lines.jsonl", {"text": "Thank you."})
    for spoken in (1, 0):
        options = ("--batch", "lines.jsonl", *MINNOW, *listening, "-o", "out")
        said = run("cli_tts.py", *options, cwd=tmp_path, code=1)
        assert len(said.stdout.split()) == spoken and "line 1" in said.stderr and "it did not end" in said.stderr


# --- ends that are no mistake, and requests that are


@pytest.mark.slow()
@POSIX
def test_a_reader_that_has_enough_ends_it_quietly(desk):
    process = subprocess.Popen(
        command("cli_tts.py", TEXT, *MINNOW, *SHORT, "-o", "-"),
        cwd=desk, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(100)[:4] == b"RIFF"
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(TIMEOUT_S) == 1 and "Traceback" not in said and "error" not in said and "Exception" not in said


@pytest.mark.slow()
@POSIX
def test_ctrl_c_leaves_what_was_there_before(desk, tmp_path):
    (tmp_path / "a.wav").write_bytes(b"before")
    text = " ".join([TEXT] * 20)
    process = start("cli_tts.py", text, *MINNOW, *SHORT, "--no-cache", "-o", "a.wav", cwd=tmp_path)
    deadline = time.monotonic() + TIMEOUT_S
    while not leftovers(tmp_path) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130
    assert contents(tmp_path).keys() == {"a.wav", "cli_tts.py.out"} and (tmp_path / "a.wav").read_bytes() == b"before"
    assert "Traceback" not in (tmp_path / "cli_tts.py.out").read_text(encoding="utf-8")


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "no text": ((), "nothing to say"),
    "no words": (("...",), "nothing to say"),
    "two texts": (("Hi.", "--text-file", "text.txt"), "two texts"),
    "no file": (("--text-file", "absent.txt"), "absent.txt"),
    "mp3": (("Hi.", "-o", "a.mp3"), "a.mp3"),
    "raw file": (("Hi.", "-o", "a.wav", "--format", "raw"), "raw"),
    "flac on stdout": (("Hi.", "-o", "-", "--format", "flac"), "FLAC"),
    "play and stdout": (("Hi.", "-o", "-", "--play"), "--play"),
    "samples on stdout": (("Hi.", "-o", "-", "--num-samples", 2), "samples"),
    "speed": (("Hi.", "--speed", 9), "speed"),
    "pitch": (("Hi.", "--pitch", "nan"), "pitch"),
    "volume": (("Hi.", "--volume", 100), "volume"),
    "temperature": (("Hi.", "--temperature", -1), "temperature"),
    "marker": (("Hi.", "--emotion", "angry"), "emotion"),
    "voice": (("Hi.", "--voice", "nobody"), "nobody"),
    "voice path": (("Hi.", "--voice", "../text"), "../text"),
    "reference": (("Hi.", "--prompt-tokens", "absent.npy", "--prompt-text", "Words."), "absent.npy"),
    "reference words": (("Hi.", "--reference-audio", RECORDING, "--prompt-text", ""), "words"),
    "model": (("Hi.", "--model-path", "absent"), "absent"),
    "int8 and bf16": (("Hi.", "--quantize", "int8", "--precision", "bf16"), "--precision"),
    "batch and text": (("Hi.", "--batch", "lines.jsonl"), "no effect"),
    "batch to play": (("--batch", "lines.jsonl", "--play"), "--play"),
    "no batch": (("--batch", "absent.jsonl"), "absent.jsonl"),
    "wrong lines": (("--batch", "wrong.jsonl", "-o", "out"), "line 2: output"),
    "batch voice": (("--batch", "voice.jsonl", "-o", "out"), "line 1: there is no voice"),
    "attempts": (("Hi.", "--attempts", 2), "--verify"),
    "two tasks": (("--list-voices", "--cache-info"), "--list-voices"),
    "cache of text": (("Hi.", "--cache-info"), "no effect"),
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow()) for case in WRONG])
def test_a_wrong_request_is_refused_before_anything_is_written(tmp_path, case):
    arguments, told = WRONG[case]
    (tmp_path / "text.txt").write_text("Hi.", encoding="utf-8")
    write_lines(tmp_path / "lines.jsonl", {"text": "Hi."})
    write_lines(tmp_path / "wrong.jsonl", {"text": "Hi."}, {"text": "Hi.", "output": "../../a.wav"})
    write_lines(tmp_path / "voice.jsonl", {"text": "Hi.", "voice": "nobody"})
    before = contents(tmp_path)
    model = () if case in ("model", "two tasks", "cache of text") else MINNOW
    assert told in refuse("cli_tts.py", *arguments, *model, cwd=tmp_path)
    assert contents(tmp_path) == before and sorted(path.name for path in tmp_path.iterdir()) == sorted(before)
