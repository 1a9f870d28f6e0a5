"""Extraction: the codes are the codec's own, beside each clip, whole, and the same whatever happened in between."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fish_speech import encoding, extract_vq
from fish_speech.audio import read_audio
from fish_speech.datasets.recordings import MAX_PADDED_S, Clip, plan_batches
from fish_speech.encoding import save_codes
from fish_speech.errors import UserError
from fish_speech.extract_vq import is_done
from fish_speech.models import FireflyCodec, FireflyConfig, load_codec

REPO = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Tiny tensors gain nothing from threads, and on a busy machine threads that wait for each other cost seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def codec_files(tmp_path_factory, golden, fill):
    """The golden tiny codec (16 kHz, 2 codebooks, 256 samples per frame) as a weights file and a yaml."""
    folder = tmp_path_factory.mktemp("codec")
    config = golden("manifest.json")["codec_tiny"]["config"]
    torch.save(fill(FireflyCodec(FireflyConfig.from_mapping(config))).state_dict(), folder / "codec.pth")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "codec.pth", folder / "tiny.yaml"


@pytest.fixture(scope="module")
def codecs(codec_files, golden, fill):
    """Weights of two codecs of that shape."""
    other = fill(FireflyCodec(FireflyConfig.from_mapping(golden("manifest.json")["codec_tiny"]["config"])), seed=1)
    torch.save(other.state_dict(), codec_files[0].with_name("other.pth"))
    return {"first": codec_files[0], "second": codec_files[0].with_name("other.pth")}


@pytest.fixture
def stop_after(monkeypatch):
    """A context in which extraction is interrupted after so many clips were written."""

    @contextlib.contextmanager
    def stop(count: int):
        saved = []

        def save_or_stop(path, codes):
            if len(saved) == count:
                raise KeyboardInterrupt
            saved.append(path)
            save_codes(path, codes)

        with monkeypatch.context() as patch:
            patch.setattr(encoding, "save_codes", save_or_stop)
            yield
        assert len(saved) == count

    return stop


@pytest.fixture
def command(codec_files):
    weights, config = codec_files

    def make(*arguments: object) -> list[str]:
        fixed = ["--checkpoint-path", weights, "--config-name", config, "--device", "cpu"]
        return [sys.executable, "-m", "fish_speech.extract_vq", *map(str, [*arguments, *fixed])]

    return make


@pytest.fixture
def extract(codec_files, capsys):
    """Run the stage in this process; return its exit code and what it said."""
    weights, config = codec_files

    def run(*arguments: object) -> tuple[int, str]:
        fixed = ["--checkpoint-path", weights, "--config-name", config, "--device", "cpu"]
        given = extract_vq.make_parser().parse_args([*map(str, fixed), *map(str, arguments)])
        extract_vq.log.setup()
        code = extract_vq.extract(given)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def record(path: Path, seed: int = 0, seconds: float = 0.5, sample_rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        noise = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * sample_rate))
        soundfile.write(file, noise, sample_rate, format=path.suffix[1:].upper(), subtype="PCM_16")
    return path


def all_codes(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.npy")}


def test_codes_are_those_of_each_clip_alone(tmp_path, codec_files, extract):
    paths = [record(tmp_path / f"{n}.wav", n, seconds=0.1 + 0.17 * n) for n in range(5)]
    paths.append(record(tmp_path / "deep/er/6.FLAC", 6, sample_rate=44100))
    code, said = extract(tmp_path)
    assert code == 0 and "6 clips have codes: 6 encoded" in said
    codec = load_codec(codec_files[0], yaml.safe_load(codec_files[1].read_text(encoding="utf-8")))
    for path in paths:
        waveform, _ = read_audio(path, 16000)
        codes = np.load(path.with_suffix(".npy"), allow_pickle=False)
        assert codes.dtype == np.int32 and codes.shape == (2, len(waveform) // 64 // 4)
        alone, frames = codec.encode(torch.from_numpy(waveform)[None, None], torch.tensor([len(waveform)]))
        assert (codes == alone[0, :, : frames[0]].numpy()).all()


def test_codes_of_other_codec_weights_are_made_anew(tmp_path, extract, codecs):
    data = tmp_path / "data"
    for number in range(3):
        record(data / f"{number}.wav", number)
    extract(data)
    before = all_codes(data)
    assert "0 encoded" in extract(data)[1]
    code, said = extract(data, "--checkpoint-path", codecs["second"])
    assert code == 0 and "3 encoded" in said and "made by other codec weights" in said
    assert all(codes != before[name] for name, codes in all_codes(data).items())


@pytest.mark.parametrize("again", ["first", "second"])
def test_codes_of_two_codecs_are_never_mixed_whatever_was_interrupted(tmp_path, extract, codecs, stop_after, again):
    """The first codec is cut off, then the second, then one of them runs to its end."""
    for number in range(4):
        record(tmp_path / "data" / f"{number}.wav", number)
        record(tmp_path / "whole" / f"{number}.wav", number)
    for name in ("first", "second"):
        with stop_after(2), pytest.raises(KeyboardInterrupt):
            extract(tmp_path / "data", "--checkpoint-path", codecs[name], "--batch-size", 1)
    code, said = extract(tmp_path / "data", "--checkpoint-path", codecs[again])
    assert code == 0 and "4 encoded" in said
    extract(tmp_path / "whole", "--checkpoint-path", codecs[again])
    assert all_codes(tmp_path / "data") == all_codes(tmp_path / "whole")
    assert "0 encoded" in extract(tmp_path / "data", "--checkpoint-path", codecs[again])[1]


def test_codes_that_another_codec_cannot_make_anew_are_removed(tmp_path, extract, codecs):
    for number in range(2):
        record(tmp_path / f"{number}.wav", number)
    extract(tmp_path)
    torn = (tmp_path / "1.wav").read_bytes()[:4000]
    (tmp_path / "1.wav").write_bytes(torn)
    assert extract(tmp_path, "--checkpoint-path", codecs["second"])[0] == 1
    assert set(all_codes(tmp_path)) == {"0.npy"}


def test_a_single_file_is_encoded(tmp_path, extract):
    assert extract(record(tmp_path / "a.wav"))[0] == 0
    assert set(all_codes(tmp_path)) == {"a.npy"}


def test_a_rerun_does_what_is_missing_torn_or_old_and_nothing_else(tmp_path, extract):
    for number in range(6):
        record(tmp_path / f"{number}.wav", number, seconds=0.2 + 0.1 * number)
    extract(tmp_path)
    before = all_codes(tmp_path)
    (tmp_path / "0.npy").unlink()
    (tmp_path / "1.npy").write_bytes(before["1.npy"][:-4])
    np.save(tmp_path / "2.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "3.npy", np.zeros((2, 3), np.int64))
    record(tmp_path / "4.wav", 4, seconds=0.6)
    untouched = (tmp_path / "5.npy").stat().st_mtime_ns
    code, said = extract(tmp_path)
    assert code == 0 and "5 encoded" in said and "1 done before" in said
    assert all_codes(tmp_path) == before and (tmp_path / "5.npy").stat().st_mtime_ns == untouched
    assert "0 encoded" in extract(tmp_path)[1]
    assert "6 encoded" in extract(tmp_path, "--force")[1]
    assert all_codes(tmp_path) == before


def test_bad_files_are_named_with_the_reason_and_the_others_done(tmp_path, extract):
    for number in range(3):
        record(tmp_path / f"good{number}.wav", number)
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan] * 999), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    record(tmp_path / "torn.wav").write_bytes((tmp_path / "torn.wav").read_bytes()[:4000])
    record(tmp_path / "short.wav", seconds=255 / 16000)
    record(tmp_path / "long.wav", seconds=601, sample_rate=1000)
    (tmp_path / "text.mp3").write_text("not audio", encoding="utf-8")
    (tmp_path / "zero.flac").touch()
    record(tmp_path / "good0.flac")
    code, said = extract(tmp_path)
    assert code == 1 and "3 encoded" in said and "8 failed" in said
    reasons = ["nan.wav: NaN", "none.wav: no samples", "torn.wav: torn", "short.wav: too short", "long.wav: too long"]
    reasons += ["text.mp3: not audio", "zero.flac: empty file", "good0.wav: same name as good0.flac"]
    assert all(reason in said for reason in reasons)
    assert set(all_codes(tmp_path)) == {"good0.npy", "good1.npy", "good2.npy"}


def test_a_broken_file_does_not_make_its_batch_be_encoded_at_every_run(tmp_path, extract, monkeypatch):
    record(tmp_path / "a.wav")
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    assert extract(tmp_path)[0] == 1
    monkeypatch.setattr(FireflyCodec, "encode_clips", lambda *_: pytest.fail("encoded again"))
    assert extract(tmp_path)[0] == 1


def test_a_file_list_is_read_up_to_its_first_bar(tmp_path, extract):
    for number in range(3):
        record(tmp_path / f"ü {number}.wav", number)
    lines = [f"{tmp_path}/ü 0.wav|anna|en|Some words.", f"{tmp_path}/ü 2.wav", "", f"{tmp_path}/gone.wav|anna|en|x"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    code, said = extract("--filelist", tmp_path / "list.txt")
    assert code == 1 and "gone.wav: cannot be read" in said
    assert set(all_codes(tmp_path)) == {"ü 0.npy", "ü 2.npy"}


clips_of_any_length = st.lists(st.tuples(st.floats(0.1, 600), st.integers(0, 3)), min_size=1, max_size=300)


@given(clips_of_any_length, st.integers(1, 20))
def test_batches_hold_every_clip_once_within_both_limits(lengths, batch_size):
    clips = [Clip(s, Path(f"{folder}/{n:03}.wav")) for n, (s, folder) in enumerate(sorted(lengths, key=lambda x: x[1]))]
    batches = plan_batches(clips, batch_size)
    assert sorted(clip for batch in batches for clip in batch) == sorted(clips)
    for batch in batches:
        assert len(batch) == 1 or (len(batch) <= batch_size and len(batch) * batch[-1].duration_s <= MAX_PADDED_S)
        assert len({clip.audio.parent for clip in batch}) == 1 and list(batch) == sorted(batch)


def test_adding_a_clip_leaves_most_batches_as_they_were():
    rng = random.Random(0)
    clips = [Clip(rng.uniform(1, 15), Path(f"s/{n:04}.wav")) for n in range(2000)]
    more = sorted([*clips, Clip(5.0, Path("s/0700b.wav"))], key=lambda clip: clip.audio)
    before, after = set(plan_batches(clips, 16)), set(plan_batches(more, 16))
    assert len(after - before) < 0.25 * len(after)
    padded = sum(len(batch) * batch[-1].duration_s for batch in before)
    assert padded < 1.15 * sum(clip.duration_s for clip in clips)  # bucketing by length


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((3, 31), np.int32),  # codebooks
        np.zeros((2, 29), np.int32),  # frames: 0.5 s have 31.25
        np.full((2, 31), 1000, np.int32),  # beyond the last code
        np.full((2, 31), -1, np.int32),
        np.zeros((2, 31), np.float32),
        np.zeros((1, 2, 31), np.int32),
        np.zeros((2, 0), np.int32),
    ],
)
def test_codes_that_cannot_be_the_clips_do_not_count_as_done(tmp_path, golden, codes):
    config = FireflyConfig.from_mapping(golden("manifest.json")["codec_tiny"]["config"])
    clip = Clip(0.5, record(tmp_path / "a.wav"))
    save_codes(clip.codes, np.zeros((2, 31), np.int32))
    assert is_done(clip, config)
    np.save(clip.codes, codes)
    assert not is_done(clip, config)


def test_a_header_that_promises_terabytes_does_not_count_as_done(tmp_path, golden):
    config = FireflyConfig.from_mapping(golden("manifest.json")["codec_tiny"]["config"])
    clip = Clip(0.5, record(tmp_path / "a.wav"))
    np.save(clip.codes, np.zeros((2, 31), np.int32))
    data = clip.codes.read_bytes()
    clip.codes.write_bytes(data.replace(b"(2, 31), }          ", b"(2, 99999999999), } "))
    assert not is_done(clip, config)


def test_wrong_requests_end_with_2_without_traceback(tmp_path, command):
    record(tmp_path / "data" / "a.wav")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.pth").write_bytes(b"not weights")
    requests = [
        ([tmp_path / "empty"], "no audio file"),
        ([tmp_path / "nowhere"], "there is no folder"),
        ([], "give either DATA or --filelist"),
        (
            [tmp_path / "data", "--num-workers", 2, "--checkpoint-path", tmp_path / "bad.pth"],
            "bad.pth",
        ),
    ]
    for arguments, said in requests:  # after the fixture's own: argparse takes the last of two flags
        result = subprocess.run([*command(), *map(str, arguments)], capture_output=True, text=True, cwd=REPO)
        assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr
    result = subprocess.run(
        [*command(), str(tmp_path / "data"), "--checkpoint-path", "gone.pth", "--config-name", "firefly_gan_vq"],
        capture_output=True,
        text=True,
        cwd=REPO,
    )
    assert result.returncode == 2 and "hf download" in result.stderr


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(codes=st.binary(max_size=200) | st.binary(max_size=99).map(b"\x93NUMPY\x01\x00".__add__))
def test_no_bytes_beside_a_clip_count_as_done_or_break_the_look_at_them(tmp_path, golden, codes):
    config = FireflyConfig.from_mapping(golden("manifest.json")["codec_tiny"]["config"])
    clip = Clip(0.5, tmp_path / "a.wav")
    if not clip.audio.exists():
        record(clip.audio)
    clip.codes.write_bytes(codes)
    assert not is_done(clip, config)


def test_the_codec_is_checked_at_the_end_and_a_poor_one_only_warned_of(tmp_path, extract):
    for number in range(5):
        record(tmp_path / "data" / f"{number}.wav", number, seconds=1.5)
    code, said = extract(tmp_path / "data", "--check-dir", tmp_path / "kept")
    assert code == 0 and "5 encoded" in said
    assert re.search(r"codec round trip of 3 clips: mel distance \d\.\d\d \(to other clips \d\.\d\d\)", said), said
    assert all(f"codec round trip: decoded from its codes, {n}.wav is hardly nearer" in said for n in (0, 2, 4))
    assert len(list((tmp_path / "kept").glob("*.wav"))) == 6 and len(list((tmp_path / "data").glob("*.wav"))) == 5
    assert "codec round trip skipped: nothing was encoded in this run" in extract(tmp_path / "data")[1]
    assert "round trip" not in extract(tmp_path / "data", "--force", "--no-check")[1]
    for folder in ("data", "data/kept"):
        with pytest.raises(UserError, match="lies in the data"):
            extract(tmp_path / "data", "--check-dir", tmp_path / folder)


@pytest.mark.slow
def test_the_check_runs_beside_several_workers_too(tmp_path, command):
    for number in range(2):
        record(tmp_path / f"{number}.wav", number, seconds=1.5)
    result = subprocess.run(
        command(tmp_path, "--num-workers", 2, "--batch-size", 1), cwd=REPO, capture_output=True, text=True
    )
    assert result.returncode == 0 and "codec round trip of 2 clips" in result.stderr


def test_long_clips_are_named_and_encoded(tmp_path, extract):
    record(tmp_path / "anna/long.wav", seconds=40, sample_rate=1000)
    record(tmp_path / "anna/short.wav", seconds=1)
    code, said = extract(tmp_path, "--no-check")
    assert code == 0 and "2 encoded" in said
    assert "1 of 2 clips are longer than 30 s, kept but hard to learn from: anna/long.wav (40.0 s)" in said


def test_few_failures_are_named_and_no_failure_where_that_is_asked_for(tmp_path, extract):
    for number in range(3):
        record(tmp_path / f"{number}.wav", number)
    soundfile.write(tmp_path / "nan.wav", np.full(8000, np.nan), 16000, subtype="FLOAT")
    for _ in range(2):
        code, said = extract(tmp_path, "--max-left-out", 5)
        assert code == 0 and "nan.wav: NaN" in said and "1 failed" in said
    assert extract(tmp_path)[0] == 1
    (tmp_path / "torn.wav").write_bytes(b"RIFF")
    assert extract(tmp_path, "--max-left-out", 5)[0] == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [(("--num-workers", 2), "--num-workers has no effect"), (("--device", "mps"), "no MPS on a Ray cluster")],
)
def test_what_a_cluster_decides_is_not_asked_for(tmp_path, extract, flags, said):
    with pytest.raises(UserError, match=said):
        extract(tmp_path, "--runner", "ray", *flags)


@pytest.mark.parametrize("count", [0, 5, 9])
def test_a_run_cut_off_anywhere_ends_the_same_after_a_rerun(tmp_path, extract, stop_after, count):
    for name in ("whole", "cut"):
        for number in range(10):
            record(tmp_path / name / f"{number}.wav", number, seconds=0.2 + 0.05 * number)
    extract(tmp_path / "whole", "--batch-size", 4)
    with stop_after(count), pytest.raises(KeyboardInterrupt):
        extract(tmp_path / "cut", "--batch-size", 4)
    assert len(all_codes(tmp_path / "cut")) == count
    assert f"{10 - count} encoded" in extract(tmp_path / "cut", "--batch-size", 4)[1]
    assert all_codes(tmp_path / "cut") == all_codes(tmp_path / "whole")


@pytest.mark.slow
def test_killed_at_random_moments_and_run_again_equals_an_undisturbed_run(tmp_path, command):
    for name in ("whole", "cut"):
        for number in range(48):
            record(tmp_path / name / f"{number}.wav", number, seconds=1 + number % 7)

    def run(*arguments: object) -> list[str]:
        return command(*arguments, "--batch-size", 4, "--num-workers", 2)

    result = subprocess.run(run(tmp_path / "whole"), cwd=REPO, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    rng = random.Random(1)
    for few in (1, 15, 30):
        process = subprocess.Popen(
            run(tmp_path / "cut"), cwd=REPO, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while len(list((tmp_path / "cut").glob("*.npy"))) < few and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        assert process.wait() != 0, "it was done before it could be killed"
    time.sleep(3)  # until init has waited for the orphans: files.py takes a process nobody waited for as running
    assert subprocess.run(run(tmp_path / "cut"), cwd=REPO, capture_output=True).returncode == 0
    assert all_codes(tmp_path / "cut") == all_codes(tmp_path / "whole")
    assert not list((tmp_path / "cut").glob(".partial-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="needs a tmpfs")
def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path, command):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        for number in range(3):
            record(disk / f"{number}.wav", number, seconds=0.5)
        (disk / "filler").write_bytes(b"x" * 4096)
        filling = (disk / "filler").open("ab")
        with pytest.raises(OSError), filling:
            for _ in range(99):
                filling.write(b"x" * 4096)
                filling.flush()
        result = subprocess.run(command(disk), cwd=REPO, capture_output=True, text=True)
        assert result.returncode == 2 and "disk is full" in result.stderr and "Traceback" not in result.stderr
        assert not list(disk.glob("*.npy")) and not list(disk.glob(".partial-*"))
        (disk / "filler").unlink()
        assert subprocess.run(command(disk), cwd=REPO, capture_output=True).returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
