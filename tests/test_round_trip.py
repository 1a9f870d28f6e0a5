"""The codec's self-check: a codec that gives back what it was given passes, any other is named, none ends the stage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.audio import read_audio
from fish_speech.encoding import save_codes
from fish_speech.models import FireflyCodec, FireflyConfig, load_codec
from fish_speech.round_trip import RoundTrip, Tripped, round_trip, spread

REPO = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def minnow() -> FireflyCodec:
    """A codec that works: the one that comes with the repository."""
    return load_codec(REPO / "checkpoints/minnow/codec.pth")


@pytest.fixture(scope="module")
def encoded(tmp_path_factory, minnow) -> list[tuple[str, Path, Path]]:
    """Three real clips with their codes; read only."""
    folder = tmp_path_factory.mktemp("clips")
    clips = []
    for audio in sorted((REPO / "samples/allison").glob("*.flac"))[::15][:3]:
        audio = Path(shutil.copy2(audio, folder))
        waveform = torch.from_numpy(read_audio(audio, minnow.sample_rate)[0])
        save_codes(audio.with_suffix(".npy"), minnow.encode_clips([waveform])[0].numpy())
        clips.append((audio.stem, audio, audio.with_suffix(".npy")))
    return clips


def test_real_speech_comes_back_nearest_to_itself(encoded, minnow):
    found = round_trip(encoded, minnow)
    assert found.own < 0.5 * found.others and not found.problems()
    assert (
        str(found) == f"codec round trip of 3 clips: mel distance {found.own:.2f} (to other clips {found.others:.2f})"
    )


def test_codes_of_other_clips_are_named(encoded, minnow):
    (one, sound, _), (two, other_sound, codes), third = encoded
    swapped = [(one, sound, codes), (two, other_sound, encoded[0][2]), third]
    problems = round_trip(swapped, minnow).problems()
    assert len(problems) == 2 and all(name in problem for name, problem in zip((one, two), problems))
    assert "weights and config belong together" in problems[0]


def test_a_codec_of_other_weights_is_named_and_raises_nothing(encoded, minnow):
    torch.manual_seed(0)
    found = round_trip(encoded, FireflyCodec(minnow.config).eval())
    assert len(found.problems()) == 3
    broken = FireflyCodec(minnow.config).eval()
    torch.nn.init.constant_(next(broken.head.parameters()), float("nan"))
    found = round_trip(encoded, broken)
    assert all("to NaN" in problem for problem in found.problems()) and len(found.problems()) == 3
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["own"] is None


def test_a_silent_clip_is_called_silent(encoded, minnow, tmp_path):
    soundfile.write(tmp_path / "still.wav", np.zeros(3 * minnow.sample_rate), minnow.sample_rate)
    codes = minnow.encode_clips([torch.zeros(3 * minnow.sample_rate)])[0].numpy()
    save_codes(tmp_path / "still.npy", codes)
    found = round_trip([*encoded[:2], ("still", tmp_path / "still.wav", tmp_path / "still.npy")], minnow)
    assert [problem.split(":")[0] for problem in found.problems()] == ["still is silent"]


def test_clips_that_cannot_be_read_are_passed_over(encoded, minnow, tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    gone = tmp_path / "gone.wav", tmp_path / "gone.npy"
    bad = [("a", encoded[0][1], tmp_path / "a.npy"), ("b", tmp_path / "a.wav", encoded[0][2]), ("c", *gone)]
    assert len(round_trip([*bad, *encoded[:2]], minnow).clips) == 2
    alone = round_trip([*bad, encoded[0]], minnow)
    assert str(alone) == f"codec round trip of 1 clip: mel distance {alone.own:.2f}" and not alone.problems()
    assert str(round_trip(bad, minnow)) == "codec round trip skipped: no clip is long enough"


def test_what_was_compared_can_be_kept(encoded, minnow, tmp_path):
    found = round_trip(encoded, minnow, tmp_path / "kept")
    names = [f"{number}_{what}.wav" for number in (1, 2, 3) for what in ("decoded", "original")]
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [*names, "round_trip.json"]
    assert json.loads((tmp_path / "kept/round_trip.json").read_text(encoding="utf-8")) == found.as_dict()
    original, decoded = (soundfile.read(tmp_path / "kept" / name)[0] for name in ("1_original.wav", "1_decoded.wav"))
    assert len(original) == len(decoded) <= 5 * minnow.sample_rate
    again = minnow.log_mel.distance(*(torch.from_numpy(sound)[None] for sound in (original, decoded)))
    assert float(again) == pytest.approx(found.clips[0].own, abs=0.05)  # 16 bits lift the floor of silent bands


def test_too_little_memory_skips_the_check(encoded, minnow, monkeypatch):
    def fail(*_: object):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(FireflyCodec, "decode", fail)
    assert "does not fit into memory" in str(round_trip(encoded, minnow))


def test_own_must_be_clearly_lower():
    assert not RoundTrip((Tripped("a", 0.7, 1.0, False), Tripped("b", 0.7, 1.0, False))).problems()
    assert len(RoundTrip((Tripped("a", 0.8, 1.0, False), Tripped("b", 0.7, 1.0, False))).problems()) == 1


@given(st.integers(0, 200), st.integers(1, 9))
def test_clips_are_chosen_evenly_and_the_same_every_time(count, few):
    chosen = spread(range(count), few)
    assert len(chosen) == min(count, few) and sorted(set(chosen)) == chosen
    gaps = [b - a for a, b in zip([-1 - (count - 1 - chosen[-1]), *chosen], chosen)] if chosen else [0]
    assert max(gaps) - min(gaps) <= 2


def test_the_golden_codec_of_random_weights_fails_without_an_error(golden, fill, tmp_path):
    codec = fill(FireflyCodec(FireflyConfig.from_mapping(golden("manifest.json")["codec_tiny"]["config"])))
    clips = []
    for number in range(3):
        noise = 0.1 * np.random.default_rng(number).standard_normal(16000)
        soundfile.write(tmp_path / f"{number}.wav", noise, 16000)
        codes = codec.encode_clips([torch.from_numpy(noise).float()])[0].numpy()
        save_codes(tmp_path / f"{number}.npy", codes)
        clips.append((str(number), tmp_path / f"{number}.wav", tmp_path / f"{number}.npy"))
    assert len(round_trip(clips, codec).problems()) == 3
