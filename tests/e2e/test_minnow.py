"""The bundled model: small enough, whole, and able to do what the demo shows."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fish_speech.audio import read_audio
from fish_speech.models import load_codec
from fish_speech.synthesis.loading import load_speaker
from fish_speech.synthesis.speak import SpeechRequest
from fish_speech.versions import VERSIONS

from ..conftest import REPO
from .conftest import FULL_PIPELINE
from .scripts import run

FOLDER = REPO / VERSIONS["minnow"].folder
CODEC = FOLDER / VERSIONS["minnow"].codec_file


@pytest.fixture(scope="module")
def codec():
    return load_codec(CODEC)


def test_the_bundled_files_are_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 30_000_000


def test_the_codec_gives_real_speech_back(codec):
    """Reconstructions are nearer to their own clip than to another one, in the codec's own log-mel."""
    clips = []
    for path in sorted((REPO / "samples").rglob("*.flac"))[:6]:
        sound, _ = read_audio(path, codec.sample_rate)
        clips.append(
            torch.from_numpy(sound[: 2 * codec.sample_rate // codec.samples_per_frame * codec.samples_per_frame])
        )
    codes = codec.encode_clips(clips)
    assert all(row.size(0) == 6 and row.max() < 1000 for row in codes)
    made = [codec.decode(row[None])[0, 0] for row in codes]

    def distance(one, other):
        size = min(len(one), len(other))
        return (codec.log_mel(one[None, :size]) - codec.log_mel(other[None, :size])).abs().mean().item()

    for number, sound in enumerate(made):
        others = [distance(sound, clip) for index, clip in enumerate(clips) if index != number]
        assert distance(sound, clips[number]) < 0.7 * min(others)


def test_the_base_speaks_and_stops_by_itself():
    speaker = load_speaker(FOLDER, CODEC)
    texts = [
        "Please leave a message.",
        "The weather is cold today.",
        "I found the cup inside the bag and left it there.",
    ]
    lengths = []
    for text in texts:
        (sound,) = speaker.segments(SpeechRequest(text))
        lengths.append(len(sound) / speaker.codec.sample_rate)
        assert np.abs(sound).max() > 0.05
    assert speaker.unfinished == 0
    assert all(0.7 < seconds < 6 for seconds in lengths) and lengths[2] > max(lengths[:2])


@pytest.mark.slow()
def test_the_demos_commands_turn_recordings_into_a_voice(tmp_path):
    """A few steps of what make demo does; make demo itself measures how well it speaks."""
    data = tmp_path / "training_data" / "demo"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "minnow").symlink_to(FOLDER)
    run("prepare_dataset.py", "--input", REPO / "samples", "--output", data, cwd=tmp_path)
    options = [
        "--project",
        "demo",
        "--model-version",
        "minnow",
        "--data-dir",
        data,
        *FULL_PIPELINE,
        "--max-steps",
        "4",
    ]
    run("finetune_tts.py", *options, cwd=tmp_path)
    merged = tmp_path / "checkpoints" / "demo-merged"
    assert json.loads((merged / "voice.json").read_text(encoding="utf-8"))["step"] == 4
    options = ["--model-version", "minnow", "--model-path", merged, "-o", tmp_path / "said.wav"]
    run("cli_tts.py", "Your message has been saved.", *options, cwd=tmp_path)
    sound, rate = read_audio(tmp_path / "said.wav")
    assert rate == 16000 and 0.5 < len(sound) / rate < 8 and np.abs(sound).max() > 0.02
