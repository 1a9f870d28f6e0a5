"""A merged folder as a user hands it on: it speaks alone, with the reference that is in it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from .conftest import RECORDINGS
from .scripts import BASE, contents, refuse, run

MERGED, CHECKPOINT = "checkpoints/voice-merged", "results/voice/checkpoints/step_000000004.ckpt"
MERGE = ("--base-weight", BASE, "--lora-weight", CHECKPOINT, "--output", MERGED)
SHORT = ("--max-new-tokens", 12, "--device", "cpu")


def voice_of(folder):
    return json.loads((folder / "voice.json").read_text(encoding="utf-8"))


def test_the_full_pipeline_packs_a_reference_with_the_voice(finished):
    merged, record = finished / MERGED, voice_of(finished / MERGED)["reference"]
    words = {f"{name.split('.')[0]}": text for name, (_, text) in RECORDINGS.items()}
    assert words[record["source"]] == record["text"] == (merged / "reference.txt").read_text(encoding="utf-8").strip()
    data = finished / "training_data/voice"
    np.testing.assert_array_equal(np.load(merged / "reference.npy"), np.load(data / f"{record['source']}.npy"))
    assert record["speaker"] == record["source"].split("/")[0]
    said = (finished / "said.txt").read_text(encoding="utf-8")
    assert "2 speakers: the reference is of" in said and f"reference: {record['source']}, " in said
    assert any("consent" in note["note"] for note in voice_of(merged)["licences"])


@pytest.mark.slow
def test_a_pack_speaks_alone_wherever_it_is_copied_to(again, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(again / MERGED, elsewhere / "my voice")
    run("cli_tts.py", "Three.", "--model-path", MERGED, "-o", tmp_path / "before.wav", *SHORT, cwd=again)
    shutil.rmtree(again)
    said = run("cli_tts.py", "Three.", "--model-path", "my voice", "-o", "after.wav", *SHORT, cwd=elsewhere).stderr
    assert "reference: my voice" in said and "--no-reference" in said
    assert (elsewhere / "after.wav").read_bytes() == (tmp_path / "before.wav").read_bytes()


@pytest.mark.slow
def test_the_packs_reference_is_used_unless_told_otherwise(again):
    from fish_speech.checkpoint import read_state_dict, save_state_dict

    weights = read_state_dict(again / MERGED / "model.pth")
    louder = {name: 20 * tensor if name.startswith("layers") else tensor.clone() for name, tensor in weights.items()}
    save_state_dict(again / MERGED / "model.pth", louder)  # fresh weights are so small that a prompt hardly matters
    shutil.copyfile(again / "training_data/voice/ben/four.npy", again / "other.npy")
    (again / "other.txt").write_text("Four ends it.", encoding="utf-8")
    ways = {
        "default": (),
        "none": ("--no-reference",),
        "other": ("--prompt-tokens", "other.npy"),
        "recording": ("--reference-audio", "recordings/ben/four.wav", "--prompt-text", "Four ends it."),
    }
    told = {}
    for name, flags in ways.items():
        arguments = ("Three.", "--model-path", MERGED, *flags, "-o", f"{name}.wav", "--max-new-tokens", 24)
        told[name] = "reference: " in run("cli_tts.py", *arguments, cwd=again).stderr
    sounds = {name: (again / f"{name}.wav").read_bytes() for name in ways}
    assert sounds["other"] == sounds["recording"]
    assert (
        len({sounds["default"], sounds["none"], sounds["other"]}) == 3
    )  # with one seed: the prompt makes the difference
    assert [name for name in ways if told[name]] == ["default"]


@pytest.mark.slow
def test_a_voice_that_is_better_without_its_reference_speaks_without(again):
    path = again / MERGED / "voice.json"
    path.write_text(json.dumps({**voice_of(again / MERGED), "use_reference": False}), encoding="utf-8")
    spoken = ("Three.", "--model-path", MERGED, *SHORT)
    said = run("cli_tts.py", *spoken, "-o", "default.wav", cwd=again).stderr
    run("cli_tts.py", *spoken, "--no-reference", "-o", "none.wav", cwd=again)
    assert "speaks without its reference" in said
    assert (again / "default.wav").read_bytes() == (again / "none.wav").read_bytes()


def test_a_damaged_reference_is_said_before_anything_is_loaded(again):
    (again / MERGED / "reference.npy").write_bytes(b"damaged")
    (again / MERGED / "model.pth").write_bytes(b"damaged too")
    message = refuse("cli_tts.py", "Hi.", "--model-path", MERGED, cwd=again)
    assert "reference.npy is damaged" in message and "--no-reference" in message and "model.pth" not in message


@pytest.mark.slow
def test_merging_again_changes_only_what_was_asked_for(again):
    before = contents(again / MERGED)
    modified = (again / MERGED / "model.pth").stat().st_mtime_ns
    assert "already" in run("merge_lora", *MERGE, cwd=again).stderr
    assert contents(again / MERGED) == before
    run("merge_lora", *MERGE, "--no-reference", cwd=again)
    assert set(before) - set(contents(again / MERGED)) == {"reference.npy", "reference.txt"}
    said = run("merge_lora", *MERGE, "--reference-speaker", "ben", cwd=again).stderr
    assert "of ben, as asked" in said and voice_of(again / MERGED)["reference"]["speaker"] == "ben"
    run("merge_lora", *MERGE, "--reference", "recordings/anna/two.flac", cwd=again)
    assert voice_of(again / MERGED)["reference"]["text"] == "Two comes after one."
    expected = np.load(again / "training_data/voice/anna/two.npy")
    assert np.load(again / MERGED / "reference.npy").shape == expected.shape
    (again / "training_data").rename(again / "moved")
    run("merge_lora", *MERGE, "--data-dir", "moved/voice", cwd=again)
    assert voice_of(again / MERGED)["reference"] == json.loads(before["voice.json"])["reference"]
    assert (again / MERGED / "model.pth").stat().st_mtime_ns == modified


def test_a_wrong_wish_about_the_reference_ends_with_code_2_and_changes_nothing(again):
    before = contents(again / MERGED)
    message = refuse("merge_lora", *MERGE, "--reference", "gone.wav", "--no-reference", cwd=again)
    assert "contradict" in message and contents(again / MERGED) == before


@pytest.mark.slow
def test_the_metrics_of_the_checkpoint_and_the_notice_of_the_data_are_in_the_pack(again):
    import torch

    content = torch.load(again / CHECKPOINT, weights_only=True)
    torch.save({**content, "metrics": {"wer": 0.25, "similarity": 0.75}}, again / CHECKPOINT)
    (again / "training_data/voice/LICENSE").write_text("Keep this with every copy.\n", encoding="utf-8")
    run("merge_lora", *MERGE, cwd=again)
    voice = voice_of(again / MERGED)
    assert voice["metrics"] == {"wer": 0.25, "similarity": 0.75}
    assert (again / MERGED / "LICENCE-data.txt").read_text(encoding="utf-8") == "Keep this with every copy.\n"
    assert "LICENCE-data.txt" in [note.get("file") for note in voice["licences"]]
