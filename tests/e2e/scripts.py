"""The scripts and stages as a user runs them: in processes of their own, in a folder of the user's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile

REPO = Path(__file__).parents[2]
BASE = Path("checkpoints/fish-speech-1.5")  # where the scripts look for the base if none is named
S1_BASE = Path("checkpoints/openaudio-s1-mini")  # and with --model-version s1-mini
TIMEOUT_S = 900  # far beyond any run here: a hang must not stop the suite


def environment() -> dict[str, str]:
    """One thread a process (small models are fastest so, and equal everywhere), no GPU, no network."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(REPO),
        "PYTHONUTF8": "1",
        "HF_ENDPOINT": "http://127.0.0.1:9",
    }


def command(name: str, *arguments: object) -> list[str]:
    """The command line of a script (a name with .py), of a stage, or of a module of piper_train or piper by its full name."""
    module = name if name.partition(".")[0] in ("piper_train", "piper") else f"fish_speech.{name}"
    start = [str(REPO / name)] if name.endswith(".py") else ["-m", module]
    return [sys.executable, *start, *map(str, arguments)]


def run(name: str, *arguments: object, cwd: Path, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run to the end, without a traceback and with the exit code `code`; return what it said."""
    result = subprocess.run(
        command(name, *arguments),
        cwd=cwd,
        env=environment(),
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_S,
    )
    told = f"{name} {' '.join(map(str, arguments))}\n{result.stdout}\n{result.stderr}"
    assert "Traceback" not in result.stderr, told
    assert result.returncode == code, told
    return result


def refuse(name: str, *arguments: object, cwd: Path) -> str:
    """Run what must be refused: exit code 2 and a message of what, why and how to fix it, which is returned."""
    message = run(name, *arguments, cwd=cwd, code=2).stderr
    assert "error: " in message and "\n  why: " in message and "\n  fix: " in message, message
    return message


def start(name: str, *arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """Start in a session of its own, so that the whole group can be killed; output goes to cwd/name.out."""
    with (cwd / f"{name}.out").open("a", encoding="utf-8") as out:
        return subprocess.Popen(
            command(name, *arguments),
            cwd=cwd,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def record(path: Path, seconds: float, seed: int, text: str | None, rate: int = 22050) -> None:
    """Write a made-up recording, a wandering tone with noise, with its words beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * (150 + 20 * seed) * time + 3 * np.sin(2 * np.pi * 4 * time))
    soundfile.write(path, 0.2 * tone + 0.02 * rng.standard_normal(len(time)), rate)
    if text is not None:
        path.with_suffix(".txt").write_text(text + "\n", encoding="utf-8")


def data_set(folder: Path, clips: int, base: int = 0, frames: int = 12, codebooks: int = 8) -> Path:
    """Write a data set as extraction leaves it, without its sound: SPEAKER/clip.npy with clip.lab beside it."""
    (folder / "anna").mkdir(parents=True)
    for number in range(base, base + clips):
        codes = np.random.default_rng(number).integers(0, 1000, (codebooks, frames + number % 5), dtype=np.int32)
        np.save(folder / "anna" / f"clip{number:03d}.npy", codes)
        (folder / "anna" / f"clip{number:03d}.lab").write_text(f"Words of clip {number}.", encoding="utf-8")
    return folder


def put_base(workspace: Path, base: Path, place: Path = BASE) -> Path:
    """Copy a base model to where the scripts look for it."""
    return Path(shutil.copytree(base, workspace / place))


def put_samples(folder: Path, *names: str) -> Path:
    """Copy recordings of samples/allison with their words, all or those that are named."""
    folder.mkdir(parents=True)
    for path in sorted((REPO / "samples/allison").iterdir()):
        if not names or path.stem in names:
            shutil.copy2(path, folder)
    return folder


def leftovers(folder: Path) -> list[str]:
    """Half-written files: none may be left, wherever a run was stopped."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob(".partial-*"))


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by name."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
