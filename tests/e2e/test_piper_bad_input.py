"""What users of Piper voices get wrong: a message that says what, why and how to mend it, a true exit code, nothing lost."""

from __future__ import annotations

import importlib.util
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
import torch

from .piper_material import SMALL, fit, small_yaml
from .scripts import command, contents, environment, leftovers, record, refuse, run

pytest.importorskip("jsonargparse")
pytest.importorskip("onnxruntime")
HAS_BRIDGE = importlib.util.find_spec("piper") is not None
needs_phonemes = pytest.mark.skipif(
    not HAS_BRIDGE and shutil.which("espeak-ng") is None, reason="needs piper-tts or the program espeak-ng"
)
TEXTS = ("Первое предложение.", "Второе предложение.", "Третье.", "Четвёртое предложение.", "Пятое предложение.")


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def voice_data(folder: Path, texts: tuple[str, ...] = TEXTS) -> Path:
    """A data set as the guide has it, of made-up sounds of 2 s."""
    for number, _ in enumerate(texts):
        record(folder / f"wavs/{number}.wav", 2.0, number, None)
    write_rows(folder, *(f"{number}.wav|{text}" for number, text in enumerate(texts)))
    return folder


def write_rows(folder: Path, *rows: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.csv").write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def small_checkpoint(path: Path, **changes: object) -> Path:
    """The weights of a small untrained voice as training writes them, with its config."""
    import yaml

    from piper_train.models.config import VitsConfig
    from piper_train.models.synthesizer import Synthesizer
    from piper_train.phonemes.ids import default_table

    torch.manual_seed(0)
    config = VitsConfig.from_mapping({**yaml.safe_load(SMALL)["model"], **changes})
    state = {f"model_g.{name}": tensor for name, tensor in Synthesizer(config).state_dict().items()}
    voice = {
        "audio": {"sample_rate": config.sample_rate},
        "espeak": {"voice": "ru"},
        "num_symbols": config.num_symbols,
        "num_speakers": config.num_speakers,
        "phoneme_id_map": {name: list(ids) for name, ids in default_table().items()},
        "inference": {"noise_scale": 0.667, "length_scale": 4.0, "noise_w": 0.8},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "hyper_parameters": config.to_mapping(), "epoch": 3, "global_step": 6}, path)
    (path.parent / "config.json").write_text(json.dumps(voice), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def voice(tmp_path_factory) -> Path:
    """An exported small voice; read only."""
    folder = tmp_path_factory.mktemp("piper_voice")
    small_checkpoint(folder / "voice.ckpt")
    arguments = ("--checkpoint", "voice.ckpt", "--output-file", "voice.onnx", "--config", "config.json")
    run("piper_train.export_onnx", *arguments, cwd=folder)
    return folder / "voice.onnx"


# Training: what is missing or makes no sense


@pytest.mark.slow
@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda data: (data / "metadata.csv").unlink(), "metadata.csv"),
        (lambda data: shutil.rmtree(data / "wavs"), "audio_dir"),
        (lambda data: write_rows(data), "metadata.csv"),
        (lambda data: (data / "metadata.csv").write_bytes(b"\xff\xfe0.wav|\xd0"), "metadata.csv"),
        (lambda data: write_rows(data, *(f"{number}.wav|" for number in range(5))), "text"),
    ],
    ids=["no csv", "no wavs", "empty csv", "not UTF-8", "empty texts"],
)
@needs_phonemes
def test_a_data_set_of_which_nothing_can_be_used_is_refused(tmp_path, harm, told):
    data = voice_data(tmp_path / "data")
    harm(data)
    before = contents(tmp_path)
    message = refuse("piper_train", *fit(data, "--trainer.max_epochs", 1), cwd=tmp_path)
    assert told in message
    assert {name: content for name, content in contents(tmp_path).items() if name in before} == before
    assert not (data / "config.json").exists()
    assert leftovers(tmp_path) == []
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--data.batch_size", 0), "batch_size"),
        (("--data.batch_size", "many"), "batch_size"),
        (("--data.validation_split", 2), "validation_split"),
        (("--data.espeak_voice", "klingonish"), "klingonish"),
        (("--data.espeak_voice", ""), "espeak_voice"),
        (("--data.surprise", 1), "surprise"),
        (("--model.sample_rate", -1), "sample_rate"),
        (("--model.hidden_channels", 33), "hidden_channels"),
        (("--model.upsample_rates", "[8,8,8]"), "upsample_rates"),
        (("--model.resblock", 3), "resblock"),
        (("--model.learning_rate", "nan"), "learning_rate"),
        (("--trainer.max_epochs", "few"), "max_epochs"),
        (("--trainer.accelerator", "gpu"), ""),
        (("--trainer.gradient_clip_val", 1), "gradient_clip_val"),
        (("--trainer.precision", "17-mixed"), "precision"),
        (("--trainer.devices", 0), "devices"),
        (("--ckpt_path", "nowhere.ckpt"), "nowhere.ckpt"),
        (("--ckpt_path", "last"), "last"),
        (("--model.warmstart_ckpt", "nowhere.ckpt"), "nowhere.ckpt"),
        (("--config", "nowhere.yaml"), "nowhere.yaml"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
@needs_phonemes
def test_wrong_options_of_fit_end_with_code_2_and_a_message_that_names_them(tmp_path, arguments, told):
    data = voice_data(tmp_path / "data")
    message = run("piper_train", *fit(data, "--trainer.max_epochs", 1, *arguments), cwd=tmp_path, code=2).stderr
    assert told in message
    assert "error: " in message
    assert not (tmp_path / "lightning_logs").exists() or not list(tmp_path.rglob("*.ckpt"))
    assert leftovers(tmp_path) == []


def test_a_required_option_that_is_missing_is_named(tmp_path):
    assert "csv_path" in run("piper_train", "fit", "--data.espeak_voice", "ru", cwd=tmp_path, code=2).stderr


def spoil(folder: Path, kind: str) -> None:
    """Make a recording unusable."""
    path = folder / "wavs/2.wav"
    if kind == "text":
        path.write_text("this is no sound at all", encoding="utf-8")
    elif kind == "zero":
        path.write_bytes(b"")
    elif kind == "short":
        record(path, 0.01, 1, None)
    elif kind == "nan":
        soundfile.write(path, np.array([0.1, np.nan] * 22050), 22050, subtype="FLOAT")
    else:
        path.unlink()


@pytest.mark.slow
@needs_phonemes
@pytest.mark.parametrize("kind", ["text", "zero", "short", "nan", "missing"])
def test_a_broken_recording_is_named_and_the_others_are_prepared(tmp_path, kind):
    data = voice_data(tmp_path / "data")
    spoil(data, kind)
    folders = ("--csv-path", data / "metadata.csv", "--audio-dir", data / "wavs", "--cache-dir", data / ".cache")
    others = ("--config-path", data / "config.json", "--espeak-voice", "ru", "--workers", 1)
    said = run("piper_train.prepare", *folders, *others, cwd=tmp_path)
    told = said.stdout + said.stderr
    assert "4 of 5" in told
    assert "2.wav" in told
    prepared = json.loads((data / ".cache/prepared.json").read_text(encoding="utf-8"))
    assert prepared["clips"] == 4
    assert sum(group["count"] for group in prepared["left_out"].values()) == 1


# Checkpoints


def spoiled_checkpoint(path: Path, kind: str) -> Path:
    """Write something in place of a checkpoint."""
    if kind == "torn":
        small_checkpoint(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "text":
        path.write_text("no checkpoint", encoding="utf-8")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "poisoned":
        torch.save({"state_dict": {}, "hyper_parameters": Trap(path.with_name("trapped"))}, path)
    elif kind == "other":
        torch.save({"state_dict": {"encoder.weight": torch.zeros(3)}}, path)
    else:
        small_checkpoint(path)
        content = torch.load(path, weights_only=True)
        content["state_dict"]["model_g.dec.conv_post.weight"].fill_(torch.nan)
        torch.save(content, path)
    return path


@pytest.mark.parametrize("kind", ["torn", "text", "empty", "poisoned", "other", "nan"])
def test_a_broken_checkpoint_is_not_exported(tmp_path, kind):
    small_checkpoint(tmp_path / "good.ckpt")
    spoiled_checkpoint(tmp_path / "bad.ckpt", kind)
    arguments = ("--checkpoint", "bad.ckpt", "--output-file", "out/voice.onnx", "--config", "config.json")
    assert "bad.ckpt" in refuse("piper_train.export_onnx", *arguments, cwd=tmp_path)
    assert not (tmp_path / "trapped").exists()
    assert not list(tmp_path.rglob("*.onnx*"))
    assert leftovers(tmp_path) == []


@pytest.mark.slow
@needs_phonemes
@pytest.mark.parametrize("kind", ["torn", "poisoned", "other", "nan"])
@pytest.mark.parametrize("option", ["--ckpt_path", "--model.warmstart_ckpt"])
def test_training_does_not_start_from_a_broken_checkpoint(tmp_path, kind, option):
    data = voice_data(tmp_path / "data")
    spoiled_checkpoint(tmp_path / "bad.ckpt", kind)
    arguments = fit(data, "--trainer.max_epochs", 1, option, tmp_path / "bad.ckpt")
    assert "bad.ckpt" in refuse("piper_train", *arguments, cwd=tmp_path)
    assert not (tmp_path / "trapped").exists()
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == ["bad.ckpt"]


@pytest.mark.slow
@needs_phonemes
def test_a_checkpoint_of_another_quality_is_named_with_what_would_fit(tmp_path):
    data = voice_data(tmp_path / "data")
    from piper_train.quality import QUALITIES

    small_checkpoint(tmp_path / "xlow.ckpt", **QUALITIES["x-low"], n_layers=6)
    warm = ("--model.warmstart_ckpt", tmp_path / "xlow.ckpt")
    message = refuse("piper_train", *fit(data, "--trainer.max_epochs", 1, *warm), cwd=tmp_path)
    assert "x-low" in message
    command_line = ("--engine", "piper", "--project", "p", "--data-dir", data, "--full-pipeline", "--device", "cpu")
    options = ("--quality", "medium", "--checkpoint", tmp_path / "xlow.ckpt", "--espeak-voice", "ru")
    assert "x-low" in refuse("finetune_tts.py", *command_line, *options, cwd=tmp_path)
    assert not (tmp_path / "results").exists()


# The start command


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--full-pipeline", "--data-dir", "nowhere"), "nowhere"),
        (("--full-pipeline", "--quality", "best"), "best"),
        (("--full-pipeline", "--checkpoint", "nowhere.ckpt"), "nowhere.ckpt"),
        (("--full-pipeline", "--max-epochs", 0), "--max-epochs"),
        (("--full-pipeline", "--batch-size", -1), "--batch-size"),
        (("--full-pipeline", "--num-gpus", 99), "99"),
        (("--full-pipeline", "--espeak-voice", "klingonish", "--device", "cpu"), "klingonish"),
        (("--full-pipeline", "--project", "../outside"), "outside"),
        (("--full-pipeline", "--lora-rank", 8), "lora"),
        (("--export", "--project", "nothing"), "nothing"),
        (("--teacher", "nowhere"), "--script"),
        (("--teacher", "nowhere", "--script", "nowhere.txt"), "nowhere"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_wrong_start_command_ends_with_code_2_and_makes_nothing(tmp_path, arguments, told):
    message = run("finetune_tts.py", "--engine", "piper", *arguments, cwd=tmp_path, code=2).stderr
    assert told in message
    assert "error: " in message
    assert not list(tmp_path.rglob("*.wav")) and not list(tmp_path.rglob("*.ckpt"))
    assert leftovers(tmp_path) == []


def test_flags_of_one_engine_are_errors_with_the_other(tmp_path):
    data = ("--project", "p", "--data-dir", ".", "--full-pipeline")
    assert (
        "--max-steps"
        in run("finetune_tts.py", "--engine", "piper", *data, "--max-steps", 4, cwd=tmp_path, code=2).stderr
    )
    assert "--quality" in run("finetune_tts.py", *data, "--quality", "high", cwd=tmp_path, code=2).stderr


# Speaking


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("Привет.", "--model-path", "nowhere.onnx"), "nowhere.onnx"),
        (("Привет.", "--speaker", 3), "speaker"),
        (("Привет.", "--length-scale", 0), "length_scale"),
        (("Привет.", "--noise-scale", "nan"), "noise_scale"),
        (("Привет.", "--temperature", 0.5), "--temperature"),
        (("Привет.", "-o", "hello.mp3"), "hello.mp3"),
        (("",), "text"),
        ((" \n ",), "text"),
        (("--text-file", "nowhere.txt"), "nowhere.txt"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_spoken_is_refused(voice, tmp_path, arguments, told):
    model = () if "--model-path" in arguments else ("--model-path", voice)
    assert told in refuse("cli_tts.py", *arguments, *model, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["no config", "torn config", "torn model", "text", "another config"])
def test_a_broken_voice_is_refused(voice, tmp_path, kind):
    for path in (voice, voice.with_name("voice.onnx.json")):
        shutil.copy2(path, tmp_path)
    config, model = tmp_path / "voice.onnx.json", tmp_path / "voice.onnx"
    if kind == "no config":
        config.unlink()
    elif kind == "torn config":
        config.write_bytes(config.read_bytes()[:99])
    elif kind == "torn model":
        model.write_bytes(model.read_bytes()[:50_000])
    elif kind == "text":
        model.write_text("no model", encoding="utf-8")
    else:
        values = json.loads(config.read_text(encoding="utf-8"))
        config.write_text(json.dumps({**values, "num_symbols": 100_000}), encoding="utf-8")
    before = contents(tmp_path)
    assert "voice.onnx" in refuse("cli_tts.py", "Привет.", "--model-path", "voice.onnx", "-o", "a.wav", cwd=tmp_path)
    assert contents(tmp_path) == before


@needs_phonemes
def test_phonemes_that_a_voice_lacks_are_counted_and_named(voice, tmp_path):
    for path in (voice, voice.with_name("voice.onnx.json")):
        shutil.copy2(path, tmp_path)
    config = tmp_path / "voice.onnx.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    del values["phoneme_id_map"]["p"]
    config.write_text(json.dumps(values), encoding="utf-8")
    said = run("cli_tts.py", "Попа. Потоп.", "--model-path", "voice.onnx", "-o", "a.wav", cwd=tmp_path)
    assert "4" in said.stderr and "p" in said.stderr
    assert "phoneme" in said.stderr
    assert soundfile.info(tmp_path / "a.wav").frames > 0


@pytest.mark.slow
def test_without_espeak_it_is_said_what_to_install(voice, tmp_path):
    """No program on PATH, and no piper-tts to be imported: a module of its name fails before it."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/piper.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    (tmp_path / "work").mkdir()
    bare = {**environment(), "PATH": str(tmp_path / "hidden")}
    bare["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "hidden"), bare["PYTHONPATH"]])
    data = voice_data(tmp_path / "data")
    before = contents(tmp_path)
    for words in (
        command("cli_tts.py", "Привет.", "--model-path", voice, "-o", "a.wav"),
        command("piper_train", *fit(data, "--trainer.max_epochs", 1)),
    ):
        said = subprocess.run(
            words, cwd=tmp_path / "work", env=bare, capture_output=True, encoding="utf-8", check=False
        )
        assert said.returncode == 2, said.stderr
        assert "Traceback" not in said.stderr
        assert "espeak" in said.stderr
        assert "install" in said.stderr
        assert "piper" in said.stderr
    assert list((tmp_path / "work").iterdir()) == []
    assert {name: content for name, content in contents(tmp_path).items() if name in before} == before


# Files that cannot be written


@pytest.mark.skipif(os.name != "posix" or (os.geteuid() == 0 and not Path("/proc").exists()), reason="needs POSIX")
def test_output_that_cannot_be_written_is_told(voice, tmp_path):
    (tmp_path / "file").write_text("a file where a folder would be", encoding="utf-8")
    said = refuse("cli_tts.py", "Привет.", "--model-path", voice, "-o", "file/a.wav", cwd=tmp_path)
    assert "file" in said
    small_checkpoint(tmp_path / "voice.ckpt")
    arguments = ("--checkpoint", "voice.ckpt", "--config", "config.json", "--output-file", "file/voice.onnx")
    assert "file" in refuse("piper_train.export_onnx", *arguments, cwd=tmp_path)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "a file where a folder would be"


def full_disk(tmp_path: Path, megabytes: int) -> Path:
    """A file system of its own, of that size; skips where none can be mounted."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    if not sys.platform.startswith("linux") or shutil.which("mount") is None:
        pytest.skip("needs Linux's mount to make a tiny disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tiny disk is not permitted here")
    return folder


@needs_phonemes
def test_exporting_and_speaking_onto_a_full_disk(voice, tmp_path):
    disk = full_disk(tmp_path, 1)
    try:
        small_checkpoint(tmp_path / "voice.ckpt")
        arguments = ("--checkpoint", "voice.ckpt", "--config", "config.json", "--output-file", disk / "voice.onnx")
        message = refuse("piper_train.export_onnx", *arguments, cwd=tmp_path)
        assert "the disk is full" in message
        assert list(disk.iterdir()) == []
        (disk / "filler").write_bytes(bytes((1 << 20) - 8192))
        message = refuse("cli_tts.py", "Привет, мир.", "--model-path", voice, "-o", disk / "a.wav", cwd=tmp_path)
        assert "the disk is full" in message
        assert [path.name for path in disk.iterdir()] == ["filler"]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


# Ctrl+C


@pytest.mark.slow
@needs_phonemes
@pytest.mark.skipif(os.name != "posix", reason="sends POSIX's signal")
def test_ctrl_c_ends_training_with_a_checkpoint_that_goes_on(tmp_path):
    data = voice_data(tmp_path / "data")
    small_yaml(tmp_path)
    with (tmp_path / "said").open("w", encoding="utf-8") as out:
        running = subprocess.Popen(
            command("piper_train", *fit(data, "--data.batch_size", 2)),
            cwd=tmp_path, env=environment(), stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 300
        while "epoch 0 " not in (tmp_path / "said").read_text(encoding="utf-8", errors="replace"):
            assert running.poll() is None, (tmp_path / "said").read_text(encoding="utf-8")
            assert time.monotonic() < deadline
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 130
    finally:
        if running.poll() is None:
            running.kill()
            running.wait()
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert "--ckpt_path" in said
    assert leftovers(tmp_path) == []
    (last,) = tmp_path.rglob("last.ckpt")
    assert torch.load(last, weights_only=True, mmap=True)["global_step"] >= 2
