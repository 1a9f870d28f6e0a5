"""From recordings to speech with the three scripts, as the user guide says."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fish_speech.checkpoint import read_state_dict

from .conftest import FULL_PIPELINE, RECORDINGS, TRAINING
from .scripts import BASE, contents, data_set, leftovers, record, refuse, run

CHECKPOINT = "results/voice/checkpoints/step_000000004.ckpt"
MERGED = "checkpoints/voice-merged"
REFERENCE = ("reference.npy", "reference.txt")
VOICE = ("--project", "voice", "--data-dir", "training_data/voice")
SHORT = ("--max-new-tokens", 12, "--device", "cpu")


@pytest.fixture(scope="module")
def spoken(finished, tmp_path_factory) -> dict[str, Path]:
    """WAV files of one sentence, each made another way; `merged_1` and `merged_2` have the seeds 7 and 8."""
    folder = tmp_path_factory.mktemp("spoken")
    text = "Hello there, all of you."
    (folder / "text.txt").write_text(text + "\n", encoding="utf-8")
    for name, arguments, stdin in (
        ("merged", (text, "--model-path", MERGED, "--no-reference", "--seed", 7, "--num-samples", 2), ""),
        ("checkpoint", ("--checkpoint", CHECKPOINT, "--text-file", folder / "text.txt", "--seed", 8), ""),
        ("base", ("--seed", 8), text),
    ):
        run("cli_tts.py", *arguments, "-o", folder / f"{name}.wav", *SHORT, cwd=finished, stdin=stdin)
    return {path.stem: path for path in folder.glob("*.wav")}


def sound_of(path: Path) -> np.ndarray:
    sound, rate = soundfile.read(path, always_2d=True)
    assert rate == 44100 and sound.shape[1] == 1
    return sound[:, 0]


def test_every_recording_becomes_a_clip_with_its_words_and_codes(finished):
    data = finished / "training_data/voice"
    rows = [json.loads(line) for line in (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {(row["clip"].lower(), row["text"]) for row in rows} == {
        (str(Path(name).with_suffix(".wav")).lower(), words) for name, (_, words) in RECORDINGS.items()
    }
    for row in rows:
        clip = data / row["clip"]
        seconds = RECORDINGS[Path(row["source"]).relative_to(finished / "recordings").as_posix()][0]
        assert clip.with_suffix(".lab").read_text(encoding="utf-8").strip() == row["text"]
        assert len(sound_of(clip)) == round(seconds * 44100)
        codes = np.load(clip.with_suffix(".npy"))
        assert codes.dtype == np.int32 and codes.shape[0] == 8
        assert abs(codes.shape[1] - seconds * 44100 / 2048) <= 1


def test_the_full_pipeline_reports_every_clip_at_every_stage(finished):
    said = (finished / "said.txt").read_text(encoding="utf-8")
    for fact in (
        "this run: 4 of 4 recordings, 0 left out",
        "4 clips have codes: 4 encoded",
        "1 shards, 4 clips",
        "of 2 speakers",
        "2 x 128 tokens keep about",
        "plan of voice",
        "4 clips of 2 speakers",
        "each epoch visits 4 of 4 clips (100 %)",
        "step 4/4  loss ",
        f"trained to step 4: {CHECKPOINT}",
        "merged codebook logits equal base + adapter within ",
        f"merged step 4 into {MERGED}",
    ):
        assert fact in said.replace(os.sep, "/")


def test_each_stage_of_the_pipeline_leaves_its_log(finished):
    logs = {path.stem for path in (finished / "results/voice/logs").glob("*.log")}
    assert logs == {"extract_vq", "build_dataset", "train", "merge_lora"}
    assert "step 4/4" in (finished / "results/voice/logs/train.log").read_text(encoding="utf-8")


def test_nothing_half_written_is_left(finished):
    assert leftovers(finished) == []


def test_voice_json_says_where_the_merged_model_comes_from(finished):
    voice = json.loads((finished / MERGED / "voice.json").read_text(encoding="utf-8"))
    hashes = {
        name: hashlib.sha256((finished / folder / "model.pth").read_bytes()).hexdigest()
        for name, folder in (("base_sha256", BASE), ("model_sha256", MERGED))
    }
    assert {name: voice[name] for name in hashes} == hashes
    assert Path(voice["base"]) == BASE and Path(voice["checkpoint"]) == Path(CHECKPOINT)
    assert (voice["lora"], voice["step"], voice["project"]) == ({"r": 8, "lora_alpha": 16}, 4, "voice")
    assert Path(voice["data"]) == Path("training_data/voice")
    assert (finished / MERGED / voice["codec"]).is_file()
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", voice["date"])


def test_the_merged_folder_is_a_model_folder_with_its_codec(finished):
    names = {path.name for path in (finished / MERGED).iterdir()}
    assert names == {path.name for path in (finished / BASE).iterdir()} | {"voice.json", *REFERENCE}
    base, merged = (read_state_dict(finished / folder / "model.pth") for folder in (BASE, MERGED))
    assert {n: t.shape for n, t in base.items()} == {n: t.shape for n, t in merged.items()}
    assert any(not torch.equal(base[name], merged[name]) for name in base)


def test_list_checkpoints_needs_only_the_project(finished):
    lines = run("finetune_tts.py", "--project", "voice", "--list-checkpoints", cwd=finished).stdout.splitlines()
    size = (finished / CHECKPOINT).stat().st_size / 1e6
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime((finished / CHECKPOINT).stat().st_mtime))
    assert lines == [
        "Available checkpoints for project 'voice':",
        f"step_000000004.ckpt ({size:.1f} MB, {when})",
        "Latest: step_000000004.ckpt",
    ]


def test_speech_is_a_44100_hz_mono_wav_as_long_as_its_frames(spoken):
    for path in spoken.values():
        frames = len(sound_of(path)) / 2048
        assert frames == round(frames) and 1 <= frames <= 12
        assert soundfile.info(path).subtype == "PCM_16"


def test_speech_is_not_silence(spoken):
    for path in spoken.values():
        assert np.sqrt(np.mean(sound_of(path) ** 2)) > 1e-3


def test_each_of_several_samples_is_another_version(spoken):
    assert not np.array_equal(sound_of(spoken["merged_1"]), sound_of(spoken["merged_2"]))


def test_a_checkpoint_speaks_as_the_merged_model_does(spoken):
    merged, checkpoint = sound_of(spoken["merged_2"]), sound_of(spoken["checkpoint"])
    assert merged.shape == checkpoint.shape
    np.testing.assert_allclose(merged, checkpoint, rtol=0, atol=2 / 32768)  # two steps of 16 bits: fp32 rounding


def test_the_trained_voice_does_not_speak_as_the_base(spoken):
    merged, base = sound_of(spoken["merged_2"]), sound_of(spoken["base"])
    assert merged.shape != base.shape or not np.allclose(merged, base, rtol=0, atol=2 / 32768)


def test_a_seed_gives_the_same_sample_however_the_text_comes_in(finished, spoken, tmp_path):
    arguments = ("--seed", 8, "-o", tmp_path / "once_more.wav", *SHORT)
    run("cli_tts.py", "Hello there, all of you.", *arguments, cwd=finished)
    assert (tmp_path / "once_more.wav").read_bytes() == spoken["base"].read_bytes()


@pytest.mark.slow
def test_a_recording_becomes_a_reference_voice(again):
    words = ("--prompt-text", "Two comes after one.")
    arguments = ("--create-reference", "recordings/anna/two.flac", "two.npy", *words, "--device", "cpu")
    said = run("cli_tts.py", *arguments, cwd=again).stdout
    codes = np.load(again / "two.npy")
    assert said == f"two.npy: {codes.shape[1]} frames, {codes.shape[1] * 2048 / 44100:.1f} s: Two comes after one.\n"
    assert codes.shape[0] == 8 and abs(codes.shape[1] - 1.3 * 44100 / 2048) <= 1
    weights = torch.load(again / BASE / "model.pth", weights_only=True)
    louder = {name: 20 * tensor if name.startswith("layers") else tensor for name, tensor in weights.items()}
    torch.save(louder, again / BASE / "model.pth")  # fresh weights are so small that a prompt hardly matters
    for name, voice in (("alone", ()), ("voiced", ("--prompt-tokens", "two.npy"))):  # the words are in two.txt
        run("cli_tts.py", "Three.", *voice, "--temperature", 0, "-o", f"{name}.wav", *SHORT, cwd=again)
    alone, voiced = ((again / f"{name}.wav").read_bytes() for name in ("alone", "voiced"))
    assert alone != voiced


def test_speech_is_as_long_as_its_text_lets_expect(finished, tmp_path):
    text = "This sentence has some thirty words in it, so that it is neither very short nor too long."
    run("cli_tts.py", text, "-o", tmp_path / "long.wav", "--device", "cpu", cwd=finished)
    seconds = len(sound_of(tmp_path / "long.wav")) / 44100
    assert 0.02 * len(text) <= seconds <= 3 + 0.15 * len(text) + 0.1


def test_merge_weights_needs_only_the_project(again):
    before = read_state_dict(again / MERGED / "model.pth")
    before = {name: tensor.clone() for name, tensor in before.items()}
    shutil.rmtree(again / MERGED)
    run("finetune_tts.py", "--project", "voice", "--merge-weights", cwd=again)
    after = read_state_dict(again / MERGED / "model.pth")
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.slow
def test_the_full_pipeline_again_does_no_step_twice(again):
    kept = {
        name: data
        for name, data in contents(again).items()
        if name.endswith((".npy", ".protos", ".ckpt", ".pth", "voice.json"))
    }
    times = {name: (again / name).stat().st_mtime_ns for name in kept}
    result = run("finetune_tts.py", *VOICE, *FULL_PIPELINE, "--max-steps", 4, *TRAINING, cwd=again)
    assert "0 encoded" in result.stdout and "4 done before" in result.stdout
    assert "nothing has changed since these shards were packed" in result.stderr
    assert "has reached step 4" in result.stderr and "step 1/4" not in result.stderr
    assert "is this merge already" in result.stderr
    assert {name: (again / name).stat().st_mtime_ns for name in kept} == times


@pytest.mark.slow
def test_a_full_pipeline_that_lost_its_merged_model_merges_again(again):
    before = (again / MERGED / "model.pth").read_bytes()
    shutil.rmtree(again / MERGED)
    run("finetune_tts.py", *VOICE, *FULL_PIPELINE, "--max-steps", 4, *TRAINING, cwd=again)
    assert (again / MERGED / "model.pth").read_bytes() == before


@pytest.mark.slow
def test_more_steps_continue_a_full_pipeline(again):
    result = run("finetune_tts.py", *VOICE, *FULL_PIPELINE, "--max-steps", 6, *TRAINING, cwd=again)
    assert "continuing this project exactly from" in result.stderr
    assert json.loads((again / MERGED / "voice.json").read_text(encoding="utf-8"))["step"] == 6


@pytest.mark.slow
def test_the_steps_of_the_guide_one_by_one_make_a_voice(workspace):
    for number, (name, (seconds, words)) in enumerate(RECORDINGS.items()):
        record(workspace / "raw_audio" / Path(name).name, seconds, number, words)
    step = ("--project", "mine", "--data-dir")
    run("finetune_tts.py", *step, "raw_audio", "--prepare-data", cwd=workspace)
    data = "training_data/mine"
    said = run("finetune_tts.py", *step, data, "--extract-tokens", "--batch-size-extract", 3, cwd=workspace).stdout
    assert "4 clips have codes: 4 encoded" in said
    trained = run("finetune_tts.py", *step, data, "--train", "--max-steps", 3, *TRAINING,
                  cwd=workspace)  # fmt: skip
    assert "1 shards, 4 clips" in trained.stdout and "each epoch visits 4 of 4 clips" in trained.stderr
    run("finetune_tts.py", *step, data, "--merge-weights", cwd=workspace)
    arguments = ("--model-path", "checkpoints/mine-merged", "-o", "output/mine.wav", *SHORT)
    run("cli_tts.py", "Testing our trained model", *arguments, cwd=workspace)
    assert len(sound_of(workspace / "output/mine.wav")) > 0


@pytest.mark.slow
def test_train_packs_again_when_the_data_has_changed(again):
    lab = next((again / "training_data/voice").rglob("*.lab"))
    lab.write_text("Other words than before.", encoding="utf-8")
    step = ("--project", "other", *VOICE[2:], *TRAINING, "--train", "--max-steps", 1)
    run("finetune_tts.py", *step, cwd=again)
    packed = (again / "results/other/protos/00000000.protos").read_bytes()
    assert b"Other words than before." in packed
    lab.write_text("Still other words.", encoding="utf-8")
    run("finetune_tts.py", *step[:-1], 2, cwd=again, code=2)  # packed, then refused: the project began with other data
    assert b"Still other words." in (again / "results/other/protos/00000000.protos").read_bytes()


@pytest.mark.slow
def test_training_on_changed_data_in_the_same_project_is_refused_by_name(again):
    next((again / "training_data/voice").rglob("*.lab")).write_text("Other words.", encoding="utf-8")
    message = refuse("finetune_tts.py", *VOICE, "--train", "--max-steps", 6, *TRAINING, cwd=again)
    assert "was made with other settings" in message and "the data set has changed since" in message


@pytest.mark.slow
def test_another_learning_rate_in_the_same_project_is_refused_by_name(again):
    arguments = (*TRAINING, "--train", "--max-steps", 6, "--learning-rate", "0.003")
    message = refuse("finetune_tts.py", *VOICE, *arguments, cwd=again)
    assert "learning rate: 0.01 then, 0.003 now" in message and "new project name" in message


@pytest.mark.slow
def test_training_to_a_step_that_is_reached_is_refused(again):
    message = refuse("finetune_tts.py", *VOICE, "--train", "--max-steps", 4, *TRAINING, cwd=again)
    assert "has reached step 4 already" in message and "--max-steps 104" in message


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [
        ("--resume-from-checkpoint", CHECKPOINT),
        ("--resume-from-checkpoint", "fish-speech/" + CHECKPOINT),  # as the guide writes it
        ("--checkpoint-path", "results/voice/checkpoints/"),
        ("--resume-latest",),
    ],
    ids=["file", "guide", "folder", "latest"],
)
def test_another_projects_checkpoint_is_a_warm_start_at_step_0(again, start):
    arguments = (*TRAINING, "--train", "--max-steps", 1, "--learning-rate", 1e-12, *start)
    said = run("finetune_tts.py", "--project", "next", *VOICE[2:], *arguments, cwd=again).stderr
    assert f"warm start: weights from {CHECKPOINT}, step 0, learning rate 1e-12" in said.replace(os.sep, "/")
    before = read_state_dict(again / CHECKPOINT)
    after = read_state_dict(again / "results/next/checkpoints/step_000000001.ckpt")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-9)  # one step at a rate of 1e-12


@pytest.mark.slow
def test_resume_latest_in_its_own_project_continues_exactly(again):
    arguments = ("--train", "--max-steps", 6, *TRAINING, "--resume-latest")
    said = run("finetune_tts.py", *VOICE, *arguments, cwd=again).stderr
    assert f"continuing this project exactly from {CHECKPOINT} (step 4)" in said.replace(os.sep, "/")


@pytest.mark.slow
def test_resume_latest_takes_the_newest_checkpoint_that_fits(again):
    run("finetune_tts.py", "--project", "newer", *VOICE[2:], "--train", "--max-steps", 1, *TRAINING, cwd=again)
    other = ("--project", "unfit", *VOICE[2:], "--train", "--max-steps", 1, "--lora-config", "r_4_alpha_8")
    run("finetune_tts.py", *other, *TRAINING, cwd=again)
    arguments = ("--train", "--max-steps", 1, *TRAINING, "--resume-latest")
    said = run("finetune_tts.py", "--project", "next", *VOICE[2:], *arguments, cwd=again).stderr
    assert "warm start: weights from results/newer/checkpoints/step_000000001.ckpt" in said.replace(os.sep, "/")


def test_resume_latest_lists_what_there_is_when_nothing_fits(again):
    arguments = ("--train", "--resume-latest", "--lora-config", "r_4_alpha_8", *TRAINING)
    message = refuse("finetune_tts.py", "--project", "next", *VOICE[2:], *arguments, cwd=again)
    assert "finds no checkpoint that fits project next" in message and CHECKPOINT in message.replace(os.sep, "/")
    assert not (again / "results/next/checkpoints").exists()


def test_resume_latest_does_not_take_a_voice_of_other_data(again):
    data_set(again / "training_data/other", 2)
    arguments = ("--project", "next", "--data-dir", "training_data/other", "--train", "--resume-latest", *TRAINING)
    assert CHECKPOINT in refuse("finetune_tts.py", *arguments, cwd=again).replace(os.sep, "/")


@pytest.mark.slow
def test_a_merged_voice_is_a_base_to_go_on_from(again):
    arguments = ("--pretrained-ckpt-path", MERGED, *FULL_PIPELINE, "--max-steps", 2, *TRAINING)
    run("finetune_tts.py", "--project", "voice_v2", *VOICE[2:], *arguments, cwd=again)
    voice = json.loads((again / "checkpoints/voice_v2-merged/voice.json").read_text(encoding="utf-8"))
    assert voice["base_sha256"] == hashlib.sha256((again / MERGED / "model.pth").read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_run_that_trains_all_weights_resumes_exactly_and_becomes_a_voice(again):
    def train(project: str, steps: int) -> dict:
        arguments = ("--train", "--lora-config", "none", "--max-steps", steps, *TRAINING)
        run("finetune_tts.py", "--project", project, *VOICE[2:], *arguments, cwd=again)
        return read_state_dict(again / f"results/{project}/checkpoints/step_{steps:09d}.ckpt")

    whole = train("whole", 4)
    train("halves", 2)
    resumed = train("halves", 4)
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    run("finetune_tts.py", "--project", "whole", "--merge-weights", cwd=again)
    merged = read_state_dict(again / "checkpoints/whole-merged/model.pth")
    assert merged.keys() == whole.keys() and all(torch.equal(merged[name], whole[name]) for name in whole)
    checkpoint = again / "results/whole/checkpoints/step_000000004.ckpt"
    voice = ("--model-path", "checkpoints/whole-merged", "--no-reference")
    run("cli_tts.py", "Hi.", *voice, "-o", "merged.wav", cwd=again)
    run("cli_tts.py", "Hi.", "--checkpoint", checkpoint, "-o", "direct.wav", cwd=again)
    assert (again / "merged.wav").read_bytes() == (again / "direct.wav").read_bytes()


@pytest.mark.slow
def test_a_bf16_run_keeps_its_adapters_in_float32(again):
    from fish_speech.device import probe_hardware

    if not probe_hardware().cpu_bf16:
        pytest.skip("this CPU has no bfloat16 arithmetic")
    arguments = ("--train", "--merge-weights", "--precision", "bf16", "--max-steps", 2, *TRAINING)
    run("finetune_tts.py", "--project", "half", *VOICE[2:], *arguments, cwd=again)
    adapters = read_state_dict(again / "results/half/checkpoints/step_000000002.ckpt")
    assert {tensor.dtype for tensor in adapters.values()} == {torch.float32}
