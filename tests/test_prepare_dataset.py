"""prepare_dataset.py as a person runs it: exit codes, messages, interruption and full disks."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

SCRIPT = Path(__file__).parents[1] / "prepare_dataset.py"


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(command(*arguments), capture_output=True, text=True, encoding="utf-8", errors="replace")
    assert "Traceback" not in result.stderr
    return result


def record(path: Path, seed: int = 0, seconds: float = 0.3, text: str | None = "some words") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        noise = 0.05 * np.random.default_rng(seed).standard_normal(round(seconds * 16000))
        soundfile.write(file, noise, 16000, format="WAV", subtype="FLOAT")
    if text is not None:
        path.with_suffix(".txt").write_text(text, encoding="utf-8")
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_help_needs_no_heavy_library():
    code = "import runpy, sys; sys.argv = ['prepare_dataset.py', '--help']\n"
    code += "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += "except SystemExit as end: print(end.code, sorted({'torch', 'numpy', 'soundfile'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SCRIPT.parent)
    assert result.stdout.splitlines()[-1] == "0 []" and "--normalize" in result.stdout


def test_a_mixed_folder_keeps_the_good_names_the_bad_and_ends_with_1(tmp_path):
    folder = tmp_path / "in"
    good = ["-rf.wav", "new\nline.wav", "é😀.wav", "CON.wav", "n" * 240 + ".wav", "a.wav"]
    for number, name in enumerate(good):
        record(folder / name, number)
    record(folder / "nan.wav").write_bytes(b"")
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan] * 99), 16000, subtype="FLOAT")
    soundfile.write(record(folder / "none.wav"), np.zeros(0), 16000)
    soundfile.write(record(folder / "silent.wav"), np.zeros(16000), 16000)
    torn = record(folder / "torn.wav")
    torn.write_bytes(torn.read_bytes()[:5000])
    record(folder / "text.wav").write_text("not audio", encoding="utf-8")
    record(folder / "untold.wav", text=None)
    record(folder / "wordless.wav", text=" \n")
    (folder / "loop").symlink_to(folder)
    before = content(folder)
    result = call("--input", folder, "--output", tmp_path / "out", "--workers", 2)
    assert result.returncode == 1
    reasons = ["NaN", "no samples", "silent", "torn or damaged", "not audio", "no transcript", "empty transcript"]
    assert all(reason in result.stderr for reason in reasons) and result.stderr.count("left out: ") == 7
    clips = sorted(path.name for path in (tmp_path / "out" / "in").glob("*.wav"))
    assert clips == ["CON-1.wav", "a.wav", "new_line.wav", "n" * 100 + ".wav", "rf.wav", "é.wav"]
    assert content(folder) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "{tmp}/out"], "--input"),
        (["--input", "{tmp}/empty", "--output", "{tmp}/out"], "no audio file"),
        (["--input", "{tmp}/nowhere", "--output", "{tmp}/out"], "no such file or folder"),
        (["--input", "{tmp}/in", "--output", "{tmp}/in"], "never written to"),
        (["--input", "{tmp}/in", "--output", "{tmp}/in/out"], "never written to"),
        (["--input", "{tmp}/in", "--output", "{tmp}/out", "--speaker", "../.."], "cannot name a folder"),
        (["--input", "{tmp}/in", "--output", "{tmp}/out", "--workers", "0"], "above 0"),
        (["--input", "{tmp}/in", "--output", "{tmp}/out", "--youtube"], "--youtube takes URLs"),
        (["--input", "{tmp}/in", "--output", "{tmp}/out", "--no-split", "--segment-duration=10"], "has no effect"),
        (["--input", "file:///etc/passwd", "--output", "{tmp}/out"], "http"),
    ],
)  # fmt: skip
def test_a_wrong_request_ends_with_2_and_writes_nothing(tmp_path, arguments, said):
    record(tmp_path / "in" / "a.wav")
    (tmp_path / "empty").mkdir()
    result = call(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert result.returncode == 2 and said in result.stderr
    assert not (tmp_path / "out").exists() and len(content(tmp_path / "in")) == 2


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again_equals_an_undisturbed_run(tmp_path):
    for number in range(40):
        record(tmp_path / "in" / f"{number % 20}{'!' * (number // 20)}.wav", number, seconds=1.0)
    assert call("--input", tmp_path / "in", "--output", tmp_path / "whole", "--workers", 2).returncode == 0
    again = ["--input", tmp_path / "in", "--output", tmp_path / "cut", "--workers", 2]
    rng = random.Random(7)
    for few in (0, 1, 10, 25):
        process = subprocess.Popen(command(*again), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(list((tmp_path / "cut").rglob("*.wav"))) < few and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        assert process.wait() != 0, "it was done before it could be killed"
    assert call(*again).returncode == 0
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


@pytest.mark.skipif(sys.platform != "linux", reason="needs a tmpfs")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path, workers):
    for number in range(8):
        record(tmp_path / "in" / f"{number}.wav", number, seconds=1.0)
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        result = call("--input", tmp_path / "in", "--output", disk / "out", "--workers", workers)
        assert result.returncode == 2 and "disk is full" in result.stderr
        for path in (disk / "out").rglob("*.wav"):
            assert not path.name.startswith(".partial-") and soundfile.info(path).frames == 44100
        subprocess.run(["mount", "-o", "remount,size=3m", str(disk)], check=True)
        assert call("--input", tmp_path / "in", "--output", disk / "out", "--workers", workers).returncode == 0
        assert len(list((disk / "out/in").glob("*.wav"))) == 8
    finally:
        subprocess.run(["umount", str(disk)], check=True)
