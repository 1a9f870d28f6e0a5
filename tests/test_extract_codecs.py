"""Extraction with the codec of each model family: its own frames, codebooks and records, and no codes of the other's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from fish_speech import extract_vq
from fish_speech.audio import read_audio
from fish_speech.build_dataset import build, codec_of
from fish_speech.datasets.recordings import Clip
from fish_speech.encoding import BatchTask, Settings, encode_batch, save_codes
from fish_speech.errors import UserError
from fish_speech.extract_vq import is_done
from fish_speech.models import codec_config, load_codec, make_codec_config
from fish_speech.round_trip import round_trip

from .conftest import CODEC_FILE, S1_RATE, S1_SAMPLES_PER_FRAME


@pytest.fixture(scope="module")
def weights(small_base, small_s1_base):
    return {"1.5": small_base / CODEC_FILE, "s1-mini": small_s1_base / "codec.pth"}


@pytest.fixture
def extract(capsys):
    """Run the stage in this process; return its exit code and what it said."""

    def run(data: Path, checkpoint: Path, *arguments: str) -> tuple[int, str]:
        given = [str(data), "--checkpoint-path", str(checkpoint), "--device", "cpu", *arguments]
        code = extract_vq.extract(extract_vq.make_parser().parse_args(given))
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def record(path: Path, seconds: float, sample_rate: int = S1_RATE) -> Path:
    """Noise under a melody, with words beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    noise = np.random.default_rng(round(1000 * seconds)).standard_normal(len(time))
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 300 * time * (1 + time % 1)) + 0.01 * noise, sample_rate)
    path.with_suffix(".lab").write_text("A melody in words. "[: 1 + round(12 * seconds)], encoding="utf-8")
    return path


def write_codes(path: Path, rows: int, frames: int, below: int, seed: int = 0) -> None:
    save_codes(path, np.random.default_rng(seed).integers(0, below, (rows, frames)))


RECORDS = {
    "1.5": {"frame_rate": 44100 / 2048, "codebook_size": 1000},
    "s1-mini": {"frame_rate": 25.0, "codebook_size": 1100, "codebook_sizes": [1100, *[1024] * 9]},
}


@pytest.mark.parametrize("version", RECORDS)
def test_codes_are_the_codecs_own_and_a_second_run_does_nothing(tmp_path, weights, extract, version):
    paths = [record(tmp_path / f"anna/{number}.wav", 0.3 + 0.21 * number) for number in range(4)]
    code, said = extract(tmp_path, weights[version])
    assert code == 0 and "4 clips have codes: 4 encoded" in said
    codec = load_codec(weights[version])
    for path in paths:
        sound, _ = read_audio(path, codec.sample_rate)
        codes = np.load(path.with_suffix(".npy"), allow_pickle=False)
        assert codes.dtype == np.int32 and codes.shape == (codec.codebooks, codec.config.frames_of(len(sound)))
        assert np.array_equal(codes, codec.encode_clips([torch.from_numpy(sound)])[0].numpy())
    noted = json.loads((tmp_path / ".codec.json").read_text(encoding="utf-8"))
    assert {key: value for key, value in noted.items() if key != "codec_sha256"} == RECORDS[version]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert "0 encoded" in extract(tmp_path, weights[version])[1]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}


def test_the_last_frame_of_s1_is_filled_up_and_that_of_firefly_left_out(tmp_path, weights, extract):
    for samples in (4 * S1_SAMPLES_PER_FRAME, 4 * S1_SAMPLES_PER_FRAME + 1, 5 * S1_SAMPLES_PER_FRAME - 1):
        path = record(tmp_path / f"{samples}.wav", samples / S1_RATE)
        extract(tmp_path, weights["s1-mini"])
        assert np.load(path.with_suffix(".npy")).shape == (10, 4 if samples == 4 * S1_SAMPLES_PER_FRAME else 5)
    path = record(tmp_path / "firefly/a.wav", (5 * 2048 - 1) / 44100, 44100)
    extract(tmp_path / "firefly", weights["1.5"])
    assert np.load(path.with_suffix(".npy")).shape == (8, 4)


def test_codes_of_the_other_version_are_not_done_whether_noted_or_not(tmp_path, weights, extract):
    record(tmp_path / "anna/a.wav", 0.7)
    for version, rows in (("1.5", 8), ("s1-mini", 10), ("1.5", 8)):
        _, said = extract(tmp_path, weights[version])
        assert "1 encoded" in said and np.load(tmp_path / "anna/a.npy").shape[0] == rows
    (tmp_path / ".codec.json").unlink()
    _, said = extract(tmp_path, weights["s1-mini"])
    assert "1 encoded" in said and np.load(tmp_path / "anna/a.npy").shape[0] == 10


def test_every_codebook_is_held_to_its_own_size(tmp_path):
    path = record(tmp_path / "a.wav", 1.0, 44100)
    config = make_codec_config(codec_config("modded_dac_vq"), "modded_dac_vq")
    codes = np.zeros((10, 22), np.int32)
    codes[0], codes[1:] = 4095, 1023
    for row, too_large in [(None, 0), (0, 4096), (1, 1024), (9, 4000)]:
        changed = codes.copy()
        if row is not None:
            changed[row, 5] = too_large
        save_codes(path.with_suffix(".npy"), changed)
        assert is_done(Clip(1.0, path), config) == (row is None)


def test_the_version_is_that_of_the_folder_that_the_weights_are_from(tmp_path, small_s1_base, extract, monkeypatch):
    """The guide's command, without its --config-name: the small codec's shape is in the yaml beside it."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(small_s1_base, "checkpoints/openaudio-s1-mini")
    record(Path("data/SPK1/21.15-26.44.wav"), 0.5)
    weights = Path("checkpoints/openaudio-s1-mini/codec.pth")
    assert extract(Path("data"), weights, "--num-workers", "1", "--batch-size", "16")[0] == 0
    assert np.load("data/SPK1/21.15-26.44.npy").shape == (10, 13)
    with pytest.raises(UserError, match=r"codec\.pth does not fit the codec config") as caught:
        extract(Path("data"), weights, "--config-name", "firefly_gan_vq", "--force")
    assert "codec.yaml" in caught.value.fix and np.load("data/SPK1/21.15-26.44.npy").shape == (10, 13)


def test_a_version_that_the_weights_are_not_of_is_a_wrong_request(tmp_path, weights, extract):
    record(tmp_path / "a.wav", 0.5)
    with pytest.raises(UserError, match=r"is no model of version 1\.5"):
        extract(tmp_path, weights["s1-mini"], "--model-version", "1.5")
    assert not (tmp_path / "a.npy").exists() and not (tmp_path / ".codec.json").exists()


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize("version", RECORDS)
def test_clips_of_the_other_version_are_left_out_of_the_shards_by_name(tmp_path, weights, extract, version, noted):
    rows, whose, other = {"1.5": (8, "OpenAudio S1-mini", 10), "s1-mini": (10, "Fish Speech 1.5", 8)}[version]
    data = tmp_path / "data"
    for number in range(3):
        record(data / f"anna/{number}.wav", 1.0 + 0.2 * number)
    extract(data, weights[version])
    if not noted:
        (data / ".codec.json").unlink()
    for name in ("other", "large"):
        record(data / f"anna/{name}.wav", 1.0)
    write_codes(data / "anna/other.npy", other, 22, 1000)
    write_codes(data / "anna/large.npy", rows, 22, 1000)
    large = np.load(data / "anna/large.npy")
    large[3, 4] = 1050  # a code of the first codebook of S1's
    save_codes(data / "anna/large.npy", large)
    report = build(data, tmp_path / "out")
    reasons = dict(report.left_out)
    assert report.clips == 3 and report.codebooks == rows and set(reasons) == {"anna/other", "anna/large"}
    assert f"{other} codebooks (as {whose} has), where" in reasons["anna/other"]
    assert "it has the code 1050" in reasons["anna/large"] and "codes of another codec" in reasons["anna/large"]
    assert (version == "s1-mini") == ("in codebook 3" in reasons["anna/large"])


def test_clips_of_the_other_version_do_not_win_by_their_number(tmp_path, weights, extract):
    data = tmp_path / "data"
    record(data / "anna/own.wav", 1.0)
    extract(data, weights["s1-mini"])
    for number in range(3):
        record(data / f"anna/{number}.wav", 1.0)
        write_codes(data / f"anna/{number}.npy", 8, 22, 1000, number)
    report = build(data, tmp_path / "out")
    assert report.clips == 1 and report.codebooks == 10
    assert {reason for _, reason in report.left_out} == {
        "8 codebooks (as Fish Speech 1.5 has), where this codec has 10"
    }


def test_codes_that_other_tools_made_are_packed_without_a_record(tmp_path):
    """Upstream writes int64 and no record; its first codebook has four times as many codes as the others."""
    for number in range(4):
        codes = np.random.default_rng(number).integers(0, 1024, (10, 60))
        codes[0] = np.random.default_rng(number).integers(0, 4096, 60)
        (tmp_path / "data/anna").mkdir(parents=True, exist_ok=True)
        np.save(tmp_path / f"data/anna/{number}.npy", codes)
        (tmp_path / f"data/anna/{number}.lab").write_text("Some words of a clip.", encoding="utf-8")
    report = build(tmp_path / "data", tmp_path / "out")
    assert (report.clips, report.codebooks, report.left_out) == (4, 10, [])


@pytest.mark.parametrize("sizes", ["3", "[]", "[1024, -1]", '["1024"]', "[1e9]", "[true, 3]", str([9] * 65), "[NaN]"])
def test_a_record_of_odd_codebook_sizes_says_nothing_of_them(tmp_path, sizes):
    text = f'{{"frame_rate": 20.0, "codebook_size": 1000, "codebook_sizes": {sizes}}}'
    (tmp_path / ".codec.json").write_text(text, encoding="utf-8")
    assert tuple(codec_of([tmp_path])) == (20.0, 1000, None)


def test_the_check_compares_sounds_of_any_codec(tmp_path, weights, extract):
    for number in range(3):
        record(tmp_path / f"{number}.wav", 0.5 + 0.3 * number)
    code, _ = extract(tmp_path, weights["s1-mini"])
    clips = [(str(n), tmp_path / f"{n}.wav", tmp_path / f"{n}.npy") for n in range(3)]
    found = round_trip(clips, load_codec(weights["s1-mini"]), tmp_path / "kept")
    assert code == 0 and len(found.clips) == 3 and np.isfinite([found.own, found.others]).all()
    assert len(list((tmp_path / "kept").glob("*.wav"))) == 6


@pytest.mark.slow
def test_a_clip_longer_than_the_released_code_can_take_is_encoded_whole(tmp_path, small_s1_base):
    """The released encoder ends with an index error after 190 s of 44.1 kHz."""
    sound = 0.2 * np.sin(np.arange(200 * S1_RATE) / 25).astype(np.float32)
    path = tmp_path / "long.flac"
    soundfile.write(path, sound, S1_RATE)
    clip = Clip(200.0, path)
    weights = small_s1_base / "codec.pth"
    settings = Settings(weights, str(weights.with_suffix(".yaml")), "cpu", None)
    (outcome,) = encode_batch(BatchTask((clip,), frozenset([path]), settings))
    assert outcome.failure is None and np.load(clip.codes).shape == (10, 200 * S1_RATE // S1_SAMPLES_PER_FRAME)
