"""`finetune_tts.py --engine piper` as a user runs it, with a small voice on the CPU, down to an .onnx that speaks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

REPO = Path(__file__).parents[2]
TIMEOUT_S = 900  # far beyond any run here: a hang must not stop the suite

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng"),
]


def command(*words: object) -> list[str]:
    return [sys.executable, str(REPO / "finetune_tts.py"), "--engine", "piper", *map(str, words)]


def environment(folder: Path) -> dict[str, str]:
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(REPO), "PYTHONUTF8": "1"}
    return {**os.environ, **own, "FISH_SPEECH_CACHE": str(folder / "speech_cache")}


def run_words(words: list[str], folder: Path, code: int = 0) -> str:
    result = subprocess.run(
        words, cwd=folder, env=environment(folder), capture_output=True, encoding="utf-8", timeout=TIMEOUT_S
    )
    told = result.stdout + result.stderr
    assert result.returncode == code, told
    assert "Traceback" not in told, told
    return told


def run(folder: Path, *words: object, code: int = 0) -> str:
    return run_words(command(*words), folder, code)


def speak(folder: Path, voice: Path, text: str) -> np.ndarray:
    """Speak through cli_tts.py; returns the samples."""
    out = folder / "said.wav"
    run_words([sys.executable, str(REPO / "cli_tts.py"), text, "--model-path", str(voice), "-o", str(out)], folder)
    samples, rate = soundfile.read(out)
    assert rate == json.loads(Path(f"{folder / voice}.json").read_text(encoding="utf-8"))["audio"]["sample_rate"]
    return samples


@pytest.fixture()
def workspace(tmp_path, small_piper_config) -> Path:
    """A folder with small.yaml, a quality that is trained in seconds."""
    values = {key: json.loads(json.dumps(value)) for key, value in small_piper_config.items()}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"model": values}), encoding="utf-8")
    return tmp_path


SMALL = ("--quality", "small.yaml", "--batch-size", 3, "--device", "cpu")


def files(folder: Path) -> dict[str, int]:
    """All files but what the steps said, with their times."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".log" and "speech_cache" not in path.parts
    }


def test_the_quick_start_ends_in_a_voice_that_speaks_and_goes_on_where_it_was_stopped(workspace):
    words = ("--full-pipeline", "--clips", 6, "--max-epochs", 3, *SMALL)
    checkpoints = workspace / "results/quick-start/lightning_logs/version_0/checkpoints"
    with (workspace / "out.txt").open("w", encoding="utf-8") as out:
        child = subprocess.Popen(
            command(*words), cwd=workspace, env=environment(workspace), stdout=out, stderr=out, start_new_session=True
        )
        for _ in range(10 * TIMEOUT_S):
            if (checkpoints / "last.ckpt").exists() or child.poll() is not None:
                break
            time.sleep(0.1)
        child.send_signal(signal.SIGINT if os.name != "nt" else signal.SIGTERM)
        code = child.wait(timeout=120)
    before = (workspace / "out.txt").read_text(encoding="utf-8")
    assert code == 130 and "a test data set of synthetic speech" in before, before
    wavs = {path: path.stat().st_mtime_ns for path in (workspace / "training_data/quick-start/wavs").iterdir()}
    assert len(wavs) == 6 and not (workspace / "checkpoints").exists()

    said = run(workspace, *words)
    assert "goes on exactly from results/quick-start" in said.replace(os.sep, "/") and "0 made, 6 kept" in said
    assert all(path.stat().st_mtime_ns == when for path, when in wavs.items())
    voice = Path("checkpoints/quick-start-piper/quick-start.onnx")
    samples = speak(workspace, voice, "Старый капитан купил свежий хлеб.")
    assert len(samples) > 2000 and np.abs(samples).max() > 0.01
    config = json.loads((workspace / f"{voice}.json").read_text(encoding="utf-8"))
    assert config["espeak"]["voice"] == "ru" and config["dataset"] == "quick-start"
    assert list((workspace / "results/quick-start/lightning_logs").glob("version_*/events.out.tfevents.*"))

    finished = files(workspace)
    message = run(workspace, *words, code=2)
    assert "project quick-start has trained 3 epochs already" in message and "--max-epochs 103" in message
    assert files(workspace) == finished
    listed = run(workspace, "--list-checkpoints", "--project", "quick-start")
    assert "Best by val_mel:" in listed and "Voice: " in listed
    (workspace / voice).unlink()
    said = run(workspace, *words)  # stopped between its last epoch and its voice
    assert "[1/1] export" in said and (workspace / voice).is_file()
    assert {name for name, when in files(workspace).items() if finished.get(name) != when} <= {
        voice.as_posix(),
        f"{voice.as_posix()}.json",
    }


def test_a_checkpoint_of_another_project_gives_its_weights_and_counts_no_epochs(workspace):
    run(workspace, "--project", "one", "--train", "--clips", 6, "--max-epochs", 1, *SMALL)
    start = next((workspace / "results/one").rglob("last.ckpt"))
    words = ("--project", "two", "--train", "--clips", 6, "--checkpoint", start, "--device", "cpu", "--batch-size", 3)
    said = run(workspace, *words, "--max-epochs", 1)
    assert "warm start: the weights of" in said and "trained 1 epochs" in said
    said = run(workspace, *words, "--max-epochs", 2)  # the same command again goes on with its own
    assert "goes on exactly from" in said and "1 epochs done" in said and "trained 2 epochs" in said
    message = run(workspace, "--project", "one", "--train", "--checkpoint", *checkpoints_of(workspace, "two"), code=2)
    assert "project one has checkpoints already" in message


def checkpoints_of(folder: Path, project: str) -> list[Path]:
    return sorted((folder / "results" / project).rglob("last.ckpt"))[:1]


def test_a_fish_voice_teaches_a_piper_voice(workspace):
    texts = [
        "Please leave a message.",
        "You have two new messages.",
        "The weather is fine today.",
        "Thank you very much.",
    ]
    (workspace / "texts.txt").write_text("\n".join([*texts, "..."]), encoding="utf-8")
    words = ("--teacher", REPO / "checkpoints/minnow", "--script", "texts.txt", "--max-epochs", 1, *SMALL)
    said = run(workspace, *words)
    assert "4 of 5 lines are clips now" in said and "1 left out, cannot be spoken: line 5" in said
    rows = (workspace / "training_data/minnow-taught/metadata.csv").read_text(encoding="utf-8").splitlines()
    assert [row.split("|")[1] for row in rows] == texts
    voice = Path("checkpoints/minnow-taught-piper/minnow-taught.onnx")
    config = json.loads((workspace / f"{voice}.json").read_text(encoding="utf-8"))
    assert config["espeak"]["voice"] == "en-us"
    assert np.abs(speak(workspace, voice, "Hello there.")).max() > 0.01
    record = json.loads((workspace / voice).with_name("voice.json").read_text(encoding="utf-8"))
    assert record["taught_by"].endswith("minnow") and record["licences"][0]["licence"] == "CC-BY-SA 3.0"


def test_recordings_become_a_piper_voice(workspace):
    (workspace / "recordings/allison").mkdir(parents=True)
    for name in ("conf-kicked", "priv-recordintro", "transfer", "vm-dialout", "conf-invalid"):
        for suffix in (".flac", ".txt"):
            shutil.copy2(REPO / "samples/allison" / f"{name}{suffix}", workspace / "recordings/allison")
    words = ("--project", "allison", "--data-dir", "recordings", "--espeak-voice", "en-us", "--full-pipeline")
    said = run(workspace, *words, "--max-epochs", 1, *SMALL)
    assert "[1/4] prepare_dataset" in said and "5 of 5 rows can be trained on" in said
    assert (workspace / "checkpoints/allison-piper/allison.onnx").is_file()
