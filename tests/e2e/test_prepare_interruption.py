"""Preparing long recordings, stopped at any moment: the same command again gives what an uninterrupted run gives.

Moments are counted in clips that are there already, so that they are the same on a fast machine and on a slow one.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .prepare_material import check_set, rows_of, save, sound, state, talks
from .scripts import TIMEOUT_S, contents, leftovers, run, start
from .test_disk_full import TinyDisk, refuse_full, tiny_disk

__all__ = ["tiny_disk"]  # a fixture

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

SCRIPT = "prepare_dataset.py"
CUT = ("--input", "in", "--segment-duration", 4, "--min-segment-len", 2)
HEARD = ("--input", "in", "--output", "out", "--asr", "pocketsphinx", "--segment-duration", 5)
STOPPED = "interrupted; run the same command again to continue"


def made(folder: Path) -> dict[str, bytes]:
    """What a run is for: every file but the recogniser's notes."""
    return {name: data for name, data in contents(folder).items() if not name.startswith(".heard/")}


def clips(output: Path) -> int:
    """Clips that are there so far."""
    return sum(path.suffix == ".wav" and not path.name.startswith(".") for path in output.rglob("*"))


def reached(output: Path, moment: int | str) -> Callable[[], bool]:
    """A moment of a run that begins now: the file of a name is there, or more clips than before and than a number."""
    if isinstance(moment, str):
        return lambda: (output / moment).exists()
    count = max(moment, clips(output))
    return lambda: clips(output) > count


def start_until(cwd: Path, moment: Callable[[], bool], *arguments: object) -> subprocess.Popen[str]:
    """Start a preparation and return at `moment`, or when it has ended."""
    process = start(SCRIPT, *arguments, cwd=cwd)
    deadline = time.monotonic() + TIMEOUT_S
    while not moment() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return process


def stop(process: subprocess.Popen[str], number: int) -> int:
    """Send a signal to the whole group, as a terminal does, and return the exit code."""
    if process.poll() is None:
        os.killpg(process.pid, number)
    return process.wait(TIMEOUT_S)


def said_by(cwd: Path) -> str:
    return (cwd / f"{SCRIPT}.out").read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A folder with long recordings, short ones and spoilt ones in `in`, prepared without a stop into `out`; read only."""
    folder = tmp_path_factory.mktemp("straight")
    talks(folder / "in/talks", ["vtt", "vtt", "vtt"])
    for seed in range(6):
        save(folder / f"in/short/{seed}.flac", sound(0.5, seed, 16000), 16000)
    (folder / "in/short/5.flac").write_bytes(b"fLaC")
    shutil.copyfile(folder / "in/short/0.flac", folder / "in/short/again.flac")
    shutil.copyfile(folder / "in/short/0.txt", folder / "in/short/again.txt")
    run(SCRIPT, *CUT, "--output", "out", "--workers", 2, cwd=folder, code=1)
    check_set(folder / "out", [path for path in (folder / "in").rglob("*") if path.suffix in (".wav", ".flac")])
    assert clips(folder / "out") > 30
    return folder


@pytest.fixture()
def fresh(straight, tmp_path) -> Iterator[Path]:
    """A folder with the same recordings at the same place, for a run of one's own into `out`."""
    (tmp_path / "in").symlink_to(straight / "in", target_is_directory=True)
    before = state(straight / "in")
    yield tmp_path
    assert state(straight / "in") == before


def as_in(straight: Path, cwd: Path, folder: str = "out") -> dict[str, bytes]:
    """What an uninterrupted run makes, as it would name the recordings below `cwd`."""
    names = (str(straight).encode(), str(cwd).encode())
    return {name: data.replace(*names) for name, data in made(straight / folder).items()}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=["kill -9", "Ctrl+C", "SIGTERM"]
)
def test_stopped_at_any_moment_and_begun_again_the_set_is_the_same(straight, fresh, number, workers):
    rng = random.Random(10 * number + workers)
    arguments, output = (*CUT, "--output", "out", "--workers", workers), fresh / "out"
    total, stopped = clips(straight / "out"), 0
    moments: list[int | str] = [*sorted(rng.sample(range(total), 4)), "manifest.jsonl"]
    if number == signal.SIGKILL:
        moments.insert(0, ".prepare-journal.jsonl")
    for moment in moments:
        process = start_until(fresh, reached(output, moment), *arguments)
        time.sleep(rng.choice([0, 0, 0.003, 0.02]))
        code = stop(process, number)
        assert "Traceback" not in said_by(fresh)
        finished = "this run: " in said_by(fresh)
        if number != signal.SIGKILL:
            # Python itself takes no signals any more while it shuts down.
            assert code in ((1, -number) if finished else (130,)), (code, said_by(fresh))
            assert leftovers(output) == []
        (fresh / f"{SCRIPT}.out").unlink()
        stopped += not finished
        if finished:
            break
    assert stopped >= 2
    run(SCRIPT, *arguments, cwd=fresh, code=1)
    assert made(output) == as_in(straight, fresh)


@pytest.mark.slow
def test_workers_outlive_a_killed_run_by_too_little_to_spoil_the_next(straight, fresh):
    arguments, output = (*CUT, "--output", "out", "--workers", 2), fresh / "out"
    for count in (3, 11):
        process = start_until(fresh, reached(output, count), *arguments)
        os.kill(process.pid, signal.SIGKILL)  # the parent alone
        process.wait(TIMEOUT_S)
    run(SCRIPT, *arguments, cwd=fresh, code=1)
    assert made(output) == as_in(straight, fresh)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 9, 20])
def test_a_killed_run_with_other_lengths_leaves_no_clip_of_them(straight, fresh, count):
    output = fresh / "out"
    others = ("--input", "in", "--segment-duration", 10, "--output", "out", "--workers", 2)
    stop(start_until(fresh, reached(output, count), *others), signal.SIGKILL)
    assert clips(output) > 0 and not (output / "manifest.jsonl").exists()
    run(SCRIPT, *CUT, "--output", "out", "--workers", 2, cwd=fresh, code=1)
    assert made(output) == as_in(straight, fresh)
    stop(start_until(fresh, reached(output, ".prepare-journal.jsonl"), *others), signal.SIGKILL)
    run(SCRIPT, *CUT, "--output", "out", "--workers", 1, cwd=fresh, code=1)  # and changed back at once
    assert made(output) == as_in(straight, fresh)


def test_killed_in_the_middle_of_a_recording_with_other_lengths_and_begun_again(tmp_path):
    talks(tmp_path / "in", ["vtt"], clips=14)
    arguments = ("--input", "in", "--workers", 1, "--output")
    run(SCRIPT, *arguments, "straight", "--segment-duration", 10, cwd=tmp_path)
    output = tmp_path / "out"
    process = start_until(tmp_path, reached(output, 1), *arguments, "out", "--segment-duration", 5)
    assert stop(process, signal.SIGKILL) == -signal.SIGKILL
    assert clips(output) > 1 and not (output / "manifest.jsonl").exists()
    run(SCRIPT, *arguments, "out", "--segment-duration", 10, cwd=tmp_path)
    assert made(output) == made(tmp_path / "straight")
    check_set(output, [tmp_path / "in/talk0.wav"])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_fills_up_leaves_whole_clips_and_the_old_set(tmp_path, tiny_disk: TinyDisk, workers):
    save(tmp_path / "old/first.wav", sound(0.5, 1, 16000), 16000)
    talks(tmp_path / "in", ["vtt"] * workers, clips=10)
    arguments = ("--input", "in", "--segment-duration", 4, "--output", "data", "--workers", workers)
    tiny_disk.take(tmp_path / "data")
    run(SCRIPT, "--input", "old", "--output", "data", "--workers", 1, cwd=tmp_path)
    before = contents(tmp_path / "data")
    tiny_disk.fill(leave=1_200_000)  # three clips or so
    refuse_full(SCRIPT, *arguments, cwd=tmp_path)
    now = contents(tmp_path / "data")
    assert before.items() <= now.items() and leftovers(tiny_disk.folder) == []
    new = {name: data for name, data in now.items() if name.endswith(".wav") and name not in before}
    assert new and all(len(data) == int.from_bytes(data[4:8], "little") + 8 for data in new.values())
    assert all(now[name.replace(".wav", ".lab")] for name in new)
    tiny_disk.free()
    shutil.copytree(tmp_path / "data", tmp_path / "ample")  # the disk itself is too small for all
    (tmp_path / "data").unlink()
    (tmp_path / "ample").rename(tmp_path / "data")
    run(SCRIPT, *arguments, cwd=tmp_path)
    sources = [tmp_path / "old/first.wav", *(tmp_path / "in").glob("*.wav")]
    check_set(tmp_path / "data", sources)
    run(SCRIPT, "--input", "old", "--output", "straight", "--workers", 1, cwd=tmp_path)
    run(SCRIPT, *arguments, "--output", "straight", cwd=tmp_path)
    assert made(tmp_path / "data") == made(tmp_path / "straight")


# Recognition goes on where it stopped


def notes(folder: Path) -> list[str]:
    """The windows noted so far, all recordings' one after the other; what is not a whole line does not count."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((folder / "out/.heard").glob("*.jsonl"))]
    return [line for text in texts for line in text.rpartition("\n")[0].splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl+C"])
def test_what_was_heard_before_a_stop_is_not_heard_again(tmp_path, number, workers):
    pytest.importorskip("pocketsphinx", reason="needs the extra eval")
    talks(tmp_path / "in", ["txt", "txt"], clips=11)
    arguments = (*HEARD, "--workers", workers)
    known: list[str] = []
    for _ in range(2):
        count = len(known)
        process = start_until(tmp_path, lambda count=count: len(notes(tmp_path)) > count, *arguments)
        stop(process, number)
        assert "Traceback" not in said_by(tmp_path)
        noted = notes(tmp_path)
        assert noted and set(known) <= set(noted)
        known = noted
    (torn, *_) = sorted((tmp_path / "out/.heard").glob("*.jsonl"))
    with torn.open("a", encoding="utf-8") as file:
        file.write("[1.5, 2.")  # as if the power had gone while it was written
    rows = prepared(tmp_path, arguments)
    noted = [line for line in notes(tmp_path) if line != "[1.5, 2."]
    assert set(known) <= set(noted)
    assert len(known) < len(noted)
    for path in (tmp_path / "out/.heard").glob("*.jsonl"):
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line != "[1.5, 2."]
        windows = [tuple(json.loads(line)[:2]) for line in lines]
        assert len(set(windows)) == len(windows) > 1  # no window twice
    first = made(tmp_path / "out")
    assert sum(row["clip"] is not None for row in rows) > len(rows) / 2
    shutil.rmtree(tmp_path / "out")
    prepared(tmp_path, arguments)
    assert made(tmp_path / "out") == first


def prepared(cwd: Path, arguments: tuple[object, ...]) -> list[dict]:
    run(SCRIPT, *arguments, cwd=cwd)
    check_set(cwd / "out", (cwd / "in").glob("*.wav"))
    return rows_of(cwd / "out")


@pytest.mark.slow
def test_other_lengths_need_no_second_hearing(tmp_path):
    pytest.importorskip("pocketsphinx", reason="needs the extra eval")
    talks(tmp_path / "in", ["txt"], clips=11)
    prepared(tmp_path, HEARD)
    heard = contents(tmp_path / "out/.heard")
    prepared(tmp_path, (*HEARD[:-1], 9))
    assert contents(tmp_path / "out/.heard") == heard
