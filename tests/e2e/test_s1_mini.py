"""Real recordings go the whole way to a voice of S1-mini, as a user makes one, on a small folder of its format."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import signal
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
import torch

from fish_speech.audio import read_audio
from fish_speech.checkpoint import list_checkpoints, read_file, read_state_dict
from fish_speech.text.markers import MARKERS

from ..conftest import S1_RATE, S1_SAMPLES_PER_FRAME, SMALL_S1_MODEL, write_s1_folder
from ..serving.test_serve import started
from .conftest import S1, S1_FOLDER, S1_RECORDINGS, TRAINING
from .scripts import REPO, S1_BASE, TIMEOUT_S, data_set, leftovers, put_base, put_samples, refuse, run, start
from .test_interruption import assert_equal_states, state_of, wait_for

CHECKPOINT = "results/voice/checkpoints/step_000000004.ckpt"
MERGED = "checkpoints/voice-merged"
DATA = "training_data/voice"
VOICE = ("--project", "voice", "--data-dir", DATA, *S1)
SHORT = ("--max-new-tokens", 12, "--device", "cpu")
TEXT = "Please hold while I try that extension."
CODEBOOKS = SMALL_S1_MODEL["num_codebooks"]
EXAMPLE = REPO / "samples/allison/conf-kicked.flac"


def sound_of(path: Path) -> np.ndarray:
    sound, rate = soundfile.read(path, dtype="int16")
    assert rate == S1_RATE and sound.ndim == 1 and len(sound) % S1_SAMPLES_PER_FRAME == 0
    return sound


def voice_of(folder: Path) -> dict:
    return json.loads((folder / MERGED / "voice.json").read_text(encoding="utf-8"))


def make_louder(folder: Path) -> None:
    """Fresh weights are so small that a prompt hardly matters: scale those that mix positions, in place."""
    weights = read_state_dict(folder / "model.pth")
    torch.save({name: 20 * t if "attention.w" in name else t.clone() for name, t in weights.items()},
               folder / "model.pth")  # fmt: skip


def speak(folder: Path, name: str, *arguments: object, text: str = TEXT) -> bytes:
    """What the file holds that cli_tts.py writes."""
    run("cli_tts.py", text, *arguments, "-o", f"{name}.wav", "--no-cache", *SHORT, cwd=folder)
    sound_of(folder / f"{name}.wav")
    return (folder / f"{name}.wav").read_bytes()


# The full pipeline


def test_every_recording_becomes_ten_rows_of_codes_and_its_last_sound_is_kept(s1_finished):
    clips = sorted((s1_finished / DATA).rglob("*.wav"))
    assert [clip.stem for clip in clips] == list(S1_RECORDINGS)
    for clip in clips:
        codes = np.load(clip.with_suffix(".npy"))
        samples = len(read_audio(clip, S1_RATE)[0])
        assert codes.dtype == np.int32 and codes.shape == (CODEBOOKS, math.ceil(samples / S1_SAMPLES_PER_FRAME))
        assert codes.min() >= 0 and codes[1:].max() < 1024 and codes[0].max() < SMALL_S1_MODEL["codebook_size"]
        assert len(np.unique(codes[0])) > 3, "the small codec does not tell sounds apart"


def test_the_full_pipeline_reports_every_clip_at_every_stage(s1_finished):
    said = (s1_finished / "said.txt").read_text(encoding="utf-8").replace("\\", "/")
    for fact in (
        "4 clips have codes: 4 encoded",
        f"frames, {CODEBOOKS} codebooks)",
        "1 shards, 4 clips",
        "each epoch visits 4 of 4 clips (100 %)",
        "step 4/4  loss ",
        f"trained to step 4: {CHECKPOINT}",
        "merged codebook logits equal base + adapter within ",
        f"merged step 4 into {MERGED}",
    ):
        assert fact in said, fact
    assert leftovers(s1_finished) == []


def test_the_merged_folder_is_a_model_folder_of_the_published_format(s1_finished):
    base, merged = s1_finished / S1_FOLDER, s1_finished / MERGED
    assert (merged / "tokenizer.tiktoken").read_bytes() == (base / "tokenizer.tiktoken").read_bytes()
    tokens, published = (json.loads((folder / "special_tokens.json").read_bytes()) for folder in (merged, base))
    assert [*tokens.items()] == [*published.items()], "the order counts"
    assert json.loads((merged / "config.json").read_text(encoding="utf-8")) == SMALL_S1_MODEL
    assert (merged / "codec.pth").read_bytes() == (base / "codec.pth").read_bytes()
    before, after = read_state_dict(base / "model.pth"), read_state_dict(merged / "model.pth")
    assert {name for name in before if "audio_" not in name} == after.keys()
    assert all(before[name].shape == tensor.shape for name, tensor in after.items())
    kept = [name for name, tensor in after.items() if torch.equal(before[name].float(), tensor.float())]
    assert all("norm" in name or "fast_project_in" in name for name in kept), "each adapter has learned something"
    voice = voice_of(s1_finished)
    assert (voice["model_version"], voice["lora"], voice["step"]) == ("s1-mini", {"r": 8, "lora_alpha": 16}, 4)
    assert voice["base_sha256"] == hashlib.sha256((base / "model.pth").read_bytes()).hexdigest()
    assert any(note.get("licence") == "CC-BY-NC-SA 4.0" for note in voice["licences"])
    assert np.load(merged / "reference.npy").shape[0] == CODEBOOKS


def test_help_lists_every_marker():
    told = " ".join(run("cli_tts.py", "--help", cwd=REPO).stdout.split())
    missing = [name for names in MARKERS.values() for name in names if name not in told]
    assert missing == [] and all(f"--{kind}" in told for kind in MARKERS)


# Speaking


@pytest.mark.slow
def test_a_checkpoint_speaks_as_the_voice_that_it_is_merged_into_and_not_as_the_base(tmp_path):
    """On weights in float32: those of bfloat16, as they are published, round what is merged into them."""
    write_s1_folder(tmp_path / S1_BASE, dtype=torch.float32)
    data_set(tmp_path / "data", 4, codebooks=CODEBOOKS)
    version = ("--model-version", "s1-mini", "--offline")
    arguments = ("--project", "v", "--data-dir", "data", *version, "--train", "--merge-weights", "--max-steps", 4)
    run("finetune_tts.py", *arguments, *TRAINING, cwd=tmp_path)
    speak(tmp_path, "merged", "--model-path", "checkpoints/v-merged", "--no-reference")
    speak(tmp_path, "checkpoint", *version, "--checkpoint", "results/v/checkpoints/step_000000004.ckpt")
    speak(tmp_path, "base", *version)
    merged, checkpoint, base = (sound_of(tmp_path / f"{name}.wav") for name in ("merged", "checkpoint", "base"))
    np.testing.assert_allclose(merged, checkpoint, rtol=0, atol=2)  # steps of 16 bits: fp32 rounding
    assert merged.shape != base.shape or not np.allclose(merged, base, rtol=0, atol=2)


@pytest.mark.slow
def test_a_voice_speaks_with_its_reference_unless_told_otherwise_wherever_it_is_copied(s1_again, tmp_path):
    make_louder(s1_again / MERGED)
    alone = speak(s1_again, "alone", "--model-path", MERGED, "--no-reference")
    voiced = speak(s1_again, "voiced", "--model-path", MERGED)
    assert voiced != alone
    shutil.copyfile(s1_again / DATA / f"{voice_of(s1_again)['reference']['source']}.npy", s1_again / "clip.npy")
    shutil.copyfile(s1_again / MERGED / "reference.txt", s1_again / "clip.txt")
    assert voiced == speak(s1_again, "again", "--model-path", MERGED, "--prompt-tokens", "clip.npy")
    (tmp_path / "elsewhere").mkdir()
    (s1_again / MERGED).rename(tmp_path / "elsewhere" / "my voice")
    (s1_again / S1_FOLDER).rename(tmp_path / "gone")
    assert voiced == speak(tmp_path / "elsewhere", "moved", "--model-path", "my voice")


@pytest.mark.slow
def test_a_recording_becomes_a_voice_of_a_name_that_is_imitated(s1_again):
    make_louder(s1_again / S1_FOLDER)
    model = ("--model-version", "s1-mini", "--model-path", S1_FOLDER)
    run("cli_tts.py", "--create-reference", EXAMPLE, "voices/allison.npy", *model, "--device", "cpu", cwd=s1_again)
    codes = np.load(s1_again / "voices/allison.npy")
    samples = len(read_audio(EXAMPLE, S1_RATE)[0])
    assert codes.shape == (CODEBOOKS, math.ceil(samples / S1_SAMPLES_PER_FRAME))
    words = EXAMPLE.with_suffix(".txt").read_text(encoding="utf-8").strip()
    assert re.fullmatch(rf"allison +\d+ frames +{words}\n", run("cli_tts.py", "--list-voices", cwd=s1_again).stdout)
    by_name = speak(s1_again, "name", *model, "--voice", "allison")
    assert by_name == speak(s1_again, "sound", *model, "--reference-audio", EXAMPLE, "--prompt-text", words)
    assert by_name != speak(s1_again, "alone", *model)


@pytest.mark.slow
def test_a_mood_is_a_marker_before_the_text(s1_again):
    make_louder(s1_again / MERGED)
    voice = ("--model-path", MERGED, "--no-reference")
    joyful = speak(s1_again, "flag", *voice, "--emotion", "joyful")
    assert joyful == speak(s1_again, "typed", *voice, text=f"(joyful) {TEXT}")
    assert joyful != speak(s1_again, "plain", *voice)
    message = refuse("cli_tts.py", TEXT, *voice, "--emotion", "happy", cwd=s1_again)
    assert "'happy'" in message and "joyful" in message


@pytest.mark.slow
def test_a_voice_is_served_as_it_speaks_in_a_file(s1_again):
    run("cli_tts.py", TEXT, "--model-path", MERGED, "-o", "file.wav", "--no-cache", "--device", "cpu", cwd=s1_again)
    with started("--model-path", str(s1_again / MERGED), "--no-cache", "--device", "cpu") as (_, url):
        assert httpx.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"] == "voice-merged"
        body = {"input": TEXT, "response_format": "wav"}
        answer = httpx.post(f"{url}/v1/audio/speech", json=body, timeout=TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    np.testing.assert_array_equal(np.frombuffer(answer.content[44:], "<i2"), sound_of(s1_again / "file.wav"))


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("--quantize", "int8"), ("--precision", "bf16")], ids=["int8", "bf16"])
def test_a_voice_speaks_in_less_precision_too(s1_again, flags):
    one, other = (speak(s1_again, name, "--model-path", MERGED, *flags) for name in ("one", "two"))
    assert one == other


# Training again, and otherwise


@pytest.mark.slow
def test_the_full_pipeline_again_does_no_step_twice(s1_again):
    made = [path for path in s1_again.rglob("*") if path.suffix in (".npy", ".protos", ".ckpt", ".pth")]
    times = {path: path.stat().st_mtime_ns for path in made}
    said = run("finetune_tts.py", *VOICE, "--full-pipeline", "--tournament-texts", 0, "--max-steps", 4, *TRAINING,
               cwd=s1_again)  # fmt: skip
    assert "0 encoded" in said.stdout and "4 done before" in said.stdout
    assert "has reached step 4" in said.stderr and "is this merge already" in said.stderr
    assert {path: path.stat().st_mtime_ns for path in made} == times


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("lora", ["r_8_alpha_16", "r_32_alpha_16_fast", "none"])
def test_training_that_was_stopped_ends_as_one_that_was_not(s1_again, lora):
    def training(project: str) -> tuple[object, ...]:
        steps = ("--train", "--lora-config", lora, "--max-steps", 20, "--save-every-n-steps", 8)
        return ("--project", project, *VOICE[2:], *steps, "--log-every-n-steps", 1, *TRAINING)

    run("finetune_tts.py", *training("straight"), cwd=s1_again)
    process = start("finetune_tts.py", *training("stopped"), cwd=s1_again)
    wait_for(s1_again / "finetune_tts.py.out", "step 10/20", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130
    stopped = list_checkpoints(s1_again / "results/stopped/checkpoints")[-1].step
    assert 10 <= stopped < 20
    assert f"(step {stopped})" in run("finetune_tts.py", *training("stopped"), cwd=s1_again).stderr
    name = "checkpoints/step_000000020.ckpt"
    ends = [state_of(s1_again / "results" / project / name) for project in ("straight", "stopped")]
    assert_equal_states(*ends)
    assert leftovers(s1_again) == []
    run("finetune_tts.py", "--project", "stopped", *S1, "--merge-weights", cwd=s1_again)
    speak(s1_again, "spoken", "--model-path", "checkpoints/stopped-merged")


@pytest.mark.slow
def test_adapters_of_the_fast_transformer_alone_leave_the_slow_one_as_it_was(s1_again):
    arguments = ("--train", "--merge-weights", "--lora-config", "r_32_alpha_16_fast", "--max-steps", 3)
    run("finetune_tts.py", "--project", "fast", *VOICE[2:], *arguments, *TRAINING, cwd=s1_again)
    adapters = read_file(s1_again / "results/fast/checkpoints/step_000000003.ckpt")["state_dict"]
    assert adapters and all(name.removeprefix("model.").startswith("fast_") for name in adapters)
    assert {min(tensor.shape) for tensor in adapters.values()} <= {min(32, n) for n in SMALL_S1_MODEL.values()
                                                                   if isinstance(n, int)} | {32}  # fmt: skip
    before = read_state_dict(s1_again / S1_FOLDER / "model.pth")
    after = read_state_dict(s1_again / "checkpoints/fast-merged/model.pth")
    changed = {name for name in after if not torch.equal(before[name].float(), after[name].float())}
    assert changed and all(name.startswith("fast_") for name in changed)


@pytest.mark.slow
def test_a_voice_is_a_base_to_go_on_from_and_a_checkpoint_a_warm_start(s1_again):
    more = ("--train", "--max-steps", 2, *TRAINING)
    folder = ("--model-version", "s1-mini", "--pretrained-ckpt-path", MERGED, "--data-dir", DATA)
    run("finetune_tts.py", "--project", "next", *folder, *more, "--merge-weights", cwd=s1_again)
    voice = json.loads((s1_again / "checkpoints/next-merged/voice.json").read_text(encoding="utf-8"))
    assert voice["base_sha256"] == hashlib.sha256((s1_again / MERGED / "model.pth").read_bytes()).hexdigest()
    warm = ("--project", "warm", *VOICE[2:], *more, "--resume-from-checkpoint", CHECKPOINT)
    assert f"warm start: weights from {CHECKPOINT}, step 0" in run("finetune_tts.py", *warm, cwd=s1_again).stderr


@pytest.mark.slow
def test_checkpoints_compete_and_the_better_one_becomes_the_voice(tmp_path, small_s1_base):
    """The tournament, spoken samples and the codec's round trip know the family as well."""
    put_base(tmp_path, small_s1_base, S1_BASE)  # where the version is looked for: no path is given
    put_samples(tmp_path / "raw", *S1_RECORDINGS, "conf-invalid", "tt-weasels", "vm-sorry", "demo-echodone")
    arguments = ("--project", "v", "--model-version", "s1-mini", "--data-dir", "raw", "--full-pipeline")
    options = ("--max-steps", 4, "--save-every-n-steps", 4, "--tournament-texts", 1, "--max-length", 256,
               "--batch-size", 2, "--device", "cpu", "--offline")  # fmt: skip
    run("finetune_tts.py", *arguments, *options, cwd=tmp_path)
    assert json.loads((tmp_path / "results/v/tournament/results.json").read_text(encoding="utf-8"))
    samples = sorted((tmp_path / "results/v/samples").glob("*.wav"))
    assert samples and all(soundfile.info(path).samplerate == S1_RATE for path in samples)
    assert (tmp_path / "checkpoints/v-merged/model.pth").is_file()
    assert leftovers(tmp_path) == []
