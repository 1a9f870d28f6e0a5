"""What voice.json says of where a merged model comes from, and how the flags about its reference are taken."""

import os
from pathlib import Path

import pytest

from fish_speech import merge_lora, voice_pack
from fish_speech.merge_lora import portable


@pytest.fixture()
def here(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return Path.cwd()


def test_paths_below_the_current_folder_are_relative_to_it(here):
    assert portable(here / "checkpoints/base", Path("checkpoints/voice-merged")) == "checkpoints/base"
    assert portable(str(here / "results/a.ckpt"), Path("out")) == "results/a.ckpt"
    assert portable([str(here / "a"), "b"], Path("out")) == ["a", "b"]
    assert portable(Path("checkpoints/base"), Path("out")) == str(Path("checkpoints/base"))


def test_paths_beside_the_output_are_relative_and_lead_there(here):
    disk = here.parent / "disk/models"
    said = portable(disk / "base/", disk / "voice-merged")
    assert said == "../disk/models/base" and Path(said).resolve() == disk / "base"


def test_other_paths_are_kept(here):
    elsewhere = here.parent / "elsewhere/base"
    assert portable(elsewhere, here / "checkpoints/voice-merged") == str(elsewhere)
    assert portable(None, here / "out") is None


@pytest.mark.skipif(os.name == "nt", reason="symbolic links need a right on Windows")
def test_a_link_in_the_current_folder_is_named_as_the_user_names_it(here):
    (here.parent / "disk/base").mkdir(parents=True)
    (here / "checkpoints").symlink_to(here.parent / "disk")
    assert portable(here / "checkpoints/base", Path("out")) == "checkpoints/base"


@pytest.mark.parametrize(
    ("flags", "wish"),
    [
        ((), voice_pack.Wish()),
        (("--no-reference",), voice_pack.Wish(wanted=False)),
        (("--data-dir", ".", "--reference-speaker", "anna"), voice_pack.Wish(data=Path(), speaker="anna")),
        (("--reference", "clip.wav", "--force"), voice_pack.Wish(clip=Path("clip.wav"), again=True)),
    ],
)
def test_what_is_wished_of_the_reference_reaches_the_pack(here, monkeypatch, flags, wish):
    (here / "clip.wav").touch()
    (here / "clip.txt").write_text("Words.", encoding="utf-8")
    seen = []
    monkeypatch.setattr(merge_lora, "merge", lambda *given: {"step": 9})
    monkeypatch.setattr(voice_pack, "complete", lambda *given: seen.append(given))
    assert merge_lora.main(["--lora-weight", "a.ckpt", "--output", "out", "--base-weight", "base", *flags]) == 0
    assert seen == [(Path("out"), {"step": 9}, Path("a.ckpt"), Path("base"), "1.5", wish)]


def test_a_copy_that_is_there_already_is_not_written_again(tmp_path):
    source, target = tmp_path / "codec.pth", tmp_path / "out/codec.pth"
    source.write_bytes(b"weights")
    merge_lora.copy_file(source, target)
    os.utime(target, (1, 1))
    merge_lora.copy_file(source, target)
    assert target.stat().st_mtime == 1
    source.write_bytes(b"others!")
    merge_lora.copy_file(source, target)
    assert target.read_bytes() == b"others!"
