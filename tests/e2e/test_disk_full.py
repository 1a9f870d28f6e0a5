"""A disk that is full: a message that names it, what was there unharmed, and the same command done once there is room."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import CODEC_FILE
from .conftest import TRAINING
from .scripts import BASE, contents, leftovers, record, refuse, run

CHECKPOINT = "results/voice/checkpoints/step_000000004.ckpt"
MERGED = "checkpoints/voice-merged"
VOICE = ("--project", "voice", "--data-dir", "training_data/voice")


class TinyDisk:
    """A file system of a few megabytes, of which a filler leaves little or nothing."""

    def __init__(self, folder: Path):
        self.folder, self.filler = folder, folder / "filler"

    def take(self, place: Path) -> None:
        """Move a folder onto the disk and leave a link to it, or make an empty one."""
        target = self.folder / place.name
        if place.exists():
            shutil.copytree(place, target, copy_function=shutil.copy2)
            shutil.rmtree(place)
        else:
            target.mkdir()
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target, target_is_directory=True)

    def fill(self, leave: int = 0) -> None:
        """Fill the disk but for `leave` bytes."""
        with self.filler.open("wb", buffering=0) as file:
            while True:
                try:
                    file.write(bytes(4096))
                except OSError:
                    break
            file.truncate(file.tell() - leave)

    def free(self) -> None:
        self.filler.unlink()


@pytest.fixture()
def tiny_disk(tmp_path) -> Iterator[TinyDisk]:
    folder = tmp_path / "tiny"
    folder.mkdir()
    if not sys.platform.startswith("linux") or shutil.which("mount") is None:
        pytest.skip("needs Linux's mount to make a tiny disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tiny disk is not permitted here")
    yield TinyDisk(folder)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def refuse_full(name: str, *arguments: object, cwd: Path) -> str:
    message = refuse(name, *arguments, cwd=cwd)
    assert "the disk is full" in message and "free some space" in message, message
    return message


def whole(folder: Path, before: dict[str, bytes]) -> None:
    """Nothing half-written is there, and every file that was is as it was."""
    assert leftovers(folder) == []
    now = contents(folder)
    assert {name: now.get(name) for name in before} == before


def test_preparing_on_a_full_disk(tmp_path, tiny_disk):
    for number in range(3):
        record(tmp_path / f"recordings/{number}.wav", 1.0, number, "Words.")
    tiny_disk.take(tmp_path / "data")
    tiny_disk.fill(leave=150_000)  # a clip and a half
    arguments = ("--input", "recordings", "--output", "data", "--workers", 1)
    refuse_full("prepare_dataset.py", *arguments, cwd=tmp_path)
    sizes = [path.stat().st_size for path in (tmp_path / "data").rglob("*.wav")]
    assert sizes == [44 + 2 * 44100]
    assert leftovers(tiny_disk.folder) == []
    tiny_disk.free()
    assert "3 of 3 recordings, 0 left out" in run("prepare_dataset.py", *arguments, cwd=tmp_path).stdout


@pytest.mark.slow
def test_extracting_on_a_full_disk(again, tiny_disk):
    data = again / "training_data/voice"
    codes = {path.name: path.read_bytes() for path in data.rglob("*.npy")}
    tiny_disk.take(data)
    for path in list((again / "training_data/voice/ben").glob("*.npy")):
        path.unlink()
    before = contents(again / "training_data/voice")
    tiny_disk.fill()
    codec = ("--checkpoint-path", BASE / CODEC_FILE, "--config-name", (BASE / CODEC_FILE).with_suffix(".yaml"))
    refuse_full("extract_vq", "training_data/voice", *codec, cwd=again)
    whole(again / "training_data/voice", before)
    tiny_disk.free()
    run("extract_vq", "training_data/voice", *codec, cwd=again)
    assert {path.name: path.read_bytes() for path in (again / "training_data/voice").rglob("*.npy")} == codes


def test_packing_on_a_full_disk(again, tiny_disk):
    protos = again / "results/voice/protos"
    tiny_disk.take(protos)
    before = contents(protos)
    next((again / "training_data/voice").rglob("*.lab")).write_text("Other words.", encoding="utf-8")
    tiny_disk.fill()
    arguments = ("--input", "training_data/voice", "--output", protos)
    refuse_full("build_dataset", *arguments, cwd=again)
    whole(protos, before)
    tiny_disk.free()
    run("build_dataset", *arguments, cwd=again)
    assert b"Other words." in (protos / "00000000.protos").read_bytes()


@pytest.mark.slow
def test_saving_a_checkpoint_on_a_full_disk(again, tiny_disk):
    folder = (again / CHECKPOINT).parent
    tiny_disk.take(folder)
    before = contents(folder)
    tiny_disk.fill(leave=500_000)  # a third of a checkpoint
    arguments = (*VOICE, "--train", "--max-steps", 6, *TRAINING)
    refuse_full("finetune_tts.py", *arguments, cwd=again)
    whole(folder, before)
    assert contents(folder).keys() == before.keys()
    tiny_disk.free()
    run("finetune_tts.py", *arguments, cwd=again)
    assert (folder / "step_000000006.ckpt").is_file()


def test_a_step_whose_very_log_cannot_be_written(again, tiny_disk):
    tiny_disk.take(again / "results/new")
    (tiny_disk.folder / "new/logs").mkdir()
    tiny_disk.fill()
    arguments = ("--project", "new", *VOICE[2:], "--build-dataset")
    refuse_full("finetune_tts.py", *arguments, cwd=again)
    assert leftovers(tiny_disk.folder) == []
    tiny_disk.free()
    run("finetune_tts.py", *arguments, cwd=again)


@pytest.mark.slow
def test_merging_on_a_full_disk_leaves_the_old_voice_able_to_speak(again, tiny_disk):
    tiny_disk.take(again / MERGED)
    before = contents(again / MERGED)
    tiny_disk.fill(leave=500_000)  # a quarter of a model
    arguments = ("--base-weight", BASE, "--lora-weight", CHECKPOINT, "--output", MERGED, "--force")
    refuse_full("merge_lora", *arguments, cwd=again)
    whole(again / MERGED, before)
    tiny_disk.free()
    run("merge_lora", *arguments, cwd=again)
    assert (again / MERGED / "model.pth").read_bytes() == before["model.pth"]


def test_speaking_onto_a_full_disk(again, tiny_disk):
    tiny_disk.take(again / "output")
    tiny_disk.fill()
    refuse_full("cli_tts.py", "Hi.", "-o", "output/hi.wav", "--max-new-tokens", 8, cwd=again)
    assert [path.name for path in tiny_disk.folder.rglob("*.*")] == []
