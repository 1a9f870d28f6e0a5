"""Every command of the quick start for Piper voices, with a small network on the CPU."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from .conftest import made_once
from .piper_material import needs_programs, small_yaml
from .scripts import REPO, environment, leftovers, run

pytest.importorskip("jsonargparse")
pytest.importorskip("onnxruntime")
pytestmark = [pytest.mark.slow, needs_programs]

START = ("--engine", "piper", "--full-pipeline", "--quality", "small.yaml", "--clips", 8, "--device", "cpu")
VOICE = Path("checkpoints/quick-start-piper/quick-start.onnx")
LOGS = Path("results/quick-start/lightning_logs")


@pytest.fixture(scope="session")
def started(tmp_path_factory) -> Path:
    """A folder in which the start command made a test data set, trained an epoch and exported; read only."""

    def make(folder: Path) -> str:
        small_yaml(folder)
        said = run("finetune_tts.py", *START, "--batch-size", 80, "--num-gpus", 1, "--max-epochs", 1, cwd=folder)
        return said.stdout + said.stderr

    return made_once(tmp_path_factory, "piper_started", make)


@pytest.fixture()
def again(started, tmp_path) -> Path:
    """A copy of that folder, with all times kept."""
    return Path(shutil.copytree(started, tmp_path / "again", copy_function=shutil.copy2))


def heard(path: Path, rate: int = 22050) -> np.ndarray:
    """The samples of a 16-bit mono file that is not silent."""
    about = soundfile.info(path)
    assert (about.samplerate, about.channels, about.subtype) == (rate, 1, "PCM_16")
    samples, _ = soundfile.read(path)
    assert len(samples) > 0.1 * rate
    assert np.abs(samples).max() > 0.1
    return samples


def test_the_start_command_makes_a_data_set_a_voice_and_its_logs(started):
    rows = (started / "training_data/quick-start/metadata.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 8
    assert all(row.count("|") == 1 for row in rows)
    assert (started / VOICE).is_file()
    config = json.loads((started / f"{VOICE}.json").read_text(encoding="utf-8"))
    assert config["espeak"]["voice"] == "ru"
    assert config["audio"]["sample_rate"] == 22050
    checkpoints = sorted(path.name for path in (started / LOGS).rglob("*.ckpt"))  # find lightning_logs -name "*.ckpt"
    assert checkpoints[-1] == "last.ckpt"
    assert checkpoints[0].startswith("epoch=0-val_mel=")
    assert leftovers(started) == []


def test_tensorboard_shows_losses_and_spoken_sentences(started):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(started / LOGS / "version_0"))
    events.Reload()
    for name in ("loss_g", "loss_d", "train_mel", "train_kl", "val_mel", "val_loss"):
        assert np.isfinite([event.value for event in events.Scalars(name)]).all(), name
    assert len(events.Tags()["audio"]) == 5


def test_a_ready_model_is_tried_and_spoken_from_a_pipe(again):
    said = run("piper_train.try_voice", cwd=again)
    assert "quick-start" in said.stdout + said.stderr
    run("cli_tts.py", "--model-path", VOICE, "-o", "ours.wav", stdin="Привет, это тест\n", cwd=again)
    heard(again / "ours.wav")
    if importlib.util.find_spec("piper") is None:
        pytest.skip("the rest needs piper-tts, the Piper client")
    model = ("--model", VOICE, "--config", f"{VOICE}.json", "--output-file", "output.wav")
    run("piper", *model, stdin="Привет, это тест\n", cwd=again)
    heard(again / "output.wav")


def test_a_checkpoint_is_continued_by_the_start_command(again):
    last = LOGS / "version_0/checkpoints/last.ckpt"
    said = run("finetune_tts.py", *START, "--checkpoint", last, "--batch-size", 80, "--max-epochs", 2, cwd=again)
    assert (again / LOGS / "version_1/checkpoints/last.ckpt").is_file()
    assert "trained 2 epochs" in said.stdout + said.stderr
    listed = run("finetune_tts.py", "--engine", "piper", "--project", "quick-start", "--list-checkpoints", cwd=again)
    assert "version_1" in listed.stdout
    before = (again / VOICE).stat().st_mtime_ns
    refused = run("finetune_tts.py", *START, "--batch-size", 80, "--max-epochs", 2, cwd=again, code=2)
    assert "2 epochs" in refused.stderr or "max-epochs" in refused.stderr
    assert (again / VOICE).stat().st_mtime_ns == before


def test_the_direct_command_line_trains_on_two_processes_and_its_checkpoint_is_exported(started, tmp_path):
    data = tmp_path / "path to/dataset"
    shutil.copytree(started / "training_data/quick-start", data)
    small = small_yaml(tmp_path)
    run(
        "piper_train", "fit",
        f"--config={small}",
        f"--data.config_path={data / 'config.json'}",
        "--data.voice_name=my_voice",
        f"--data.csv_path={data / 'metadata.csv'}",
        f"--data.audio_dir={data / 'wavs'}",
        "--model.sample_rate=22050",
        "--data.espeak_voice=ru",
        f"--data.cache_dir={data / '.cache'}",
        "--data.batch_size=80",
        "--trainer.devices=2",
        "--trainer.accelerator=cpu",
        "--trainer.strategy=ddp_find_unused_parameters_true",
        "--trainer.max_epochs=1",
        cwd=tmp_path,
    )  # fmt: skip
    assert json.loads((data / "config.json").read_text(encoding="utf-8"))["dataset"] == "my_voice"
    assert any((data / ".cache").iterdir())
    (checkpoint,) = (tmp_path / "lightning_logs").rglob("last.ckpt")
    run("piper_train.export_onnx", "--checkpoint", checkpoint, "--output-file", "model.onnx", cwd=tmp_path)
    assert (tmp_path / "model.onnx.json").is_file()
    run("cli_tts.py", "Привет.", "--model-path", "model.onnx", "-o", "hello.wav", cwd=tmp_path)
    heard(tmp_path / "hello.wav")


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_shell_way_passes_its_variables_on(tmp_path):
    variables = {"BATCH_SIZE": "80", "NUM_GPUS": "2", "MAX_EPOCHS": "1000"}
    told = subprocess.run(
        ["make", "-n", "-C", str(REPO), "train-piper"],
        env={**environment(), **variables},
        capture_output=True,
        encoding="utf-8",
        check=True,
    ).stdout
    assert "finetune_tts.py --engine piper --full-pipeline" in told.replace("\\\n", "")
    for flag in ('--batch-size "80"', '--num-gpus "2"', '--max-epochs "1000"'):
        assert flag in told


def test_a_dry_run_of_the_guide_writes_nothing(tmp_path):
    small_yaml(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    run("finetune_tts.py", *START, "--batch-size", 80, "--max-epochs", 1000, "--dry-run", cwd=tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
