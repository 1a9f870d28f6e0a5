"""The packing stage as a user runs it, and what a second run, a change and a crash make of its output."""

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

from fish_speech.build_dataset import build, is_current
from fish_speech.datasets.protos import read_records
from fish_speech.datasets.shards import find_shards
from fish_speech.errors import UserError

from .conftest import write_clips

GOLDEN = Path(__file__).parent / "golden" / "fish-1.5" / "protobuf"
ROOT = Path(__file__).parents[1]


def run(*arguments):
    command = [sys.executable, "-m", "fish_speech.build_dataset", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=ROOT)


def shard_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.protos"))}


def test_the_golden_input_gives_the_golden_shard(tmp_path):
    result = run("--input", GOLDEN / "input", "--output", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert shard_bytes(tmp_path / "out") == {"00000000.protos": (GOLDEN / "00000000.protos").read_bytes()}
    assert result.stdout.startswith(f"{tmp_path / 'out'}: 1 shards, 6 clips")


def test_processes_change_no_byte_and_records_stay_small(tmp_path, monkeypatch):
    data = write_clips(tmp_path / "data", {"anna": 90, "bob": 60})
    monkeypatch.setattr("fish_speech.build_dataset.LARGEST_RECORD", 1000)
    one = build(data, tmp_path / "one", shard_size=0.004)
    two = build(data, tmp_path / "two", shard_size=0.004, num_workers=2)
    assert one == two and one.clips == 150 and one.shards > 1
    assert shard_bytes(tmp_path / "one") == shard_bytes(tmp_path / "two")
    records = [record for path in find_shards(tmp_path / "one") for record in read_records(path)]
    assert all(record.ByteSize() < 1200 for record in records)
    texts = [sentence.texts[0] for record in records for sentence in record.sentences]
    assert texts == [f"{name} says {i}. " for name, count in (("anna", 90), ("bob", 60)) for i in range(count)]


def test_a_second_run_does_nothing_until_the_input_changes(tmp_path):
    data = write_clips(tmp_path / "data", {"anna": 3})
    out = tmp_path / "out"
    assert not is_current(data, out)
    build(data, out)
    assert is_current(data, out) and is_current([data], out, [".lab"], 10.0)
    assert not is_current(data, out, [".txt"]) and not is_current(data, out, None, 5.0)
    again = run("--input", data, "--output", out)
    assert again.returncode == 0 and "--force" in again.stderr
    (data / "anna" / "0001.lab").write_text("other words", encoding="utf-8")
    assert not is_current(data, out)
    assert not build(data, out).was_current
    (data / "anna" / "0002.npy").unlink()
    assert not is_current(data, out)


@pytest.mark.parametrize("harm", ["tear", "alter", "remove", "add", "no index", "bad index", "odd index"])
def test_a_harmed_output_is_not_current_and_is_made_again(tmp_path, harm):
    data, out = write_clips(tmp_path / "data", {"anna": 3}), tmp_path / "out"
    build(data, out)
    whole = shard_bytes(out)
    shard, index = out / "00000000.protos", out / "index.json"
    content = whole[shard.name]
    if harm == "tear":
        shard.write_bytes(content[:-1])
    elif harm == "alter":
        shard.write_bytes(content[:-1] + b"\x01")
    elif harm == "remove":
        shard.unlink()
    elif harm == "add":
        (out / "00000007.protos").write_bytes(b"old")
    elif harm == "no index":
        index.unlink()
    elif harm == "bad index":
        index.write_text("{", encoding="utf-8")
    else:
        index.write_text(json.dumps({"state": "whole", "format": 1, "shards": ["x"]}), encoding="utf-8")
    assert not is_current(data, out)
    build(data, out)
    assert shard_bytes(out) == whole and is_current(data, out)


def test_training_refuses_a_set_whose_replacement_was_cut_short(tmp_path):
    data, out = write_clips(tmp_path / "data", {"anna": 3}), tmp_path / "out"
    build(data, out)
    (out / "index.json").write_text('{"state": "changing"}', encoding="utf-8")
    with pytest.raises(UserError, match="stopped while the shards were being replaced"):
        find_shards(out)


def test_shards_of_a_larger_old_set_go_away(tmp_path):
    data, out = write_clips(tmp_path / "data", {"anna": 2, "bob": 2}), tmp_path / "out"
    assert build(data, out, shard_size=0.00001).shards == 2
    assert build(data, out).shards == 1
    assert [path.name for path in sorted(out.iterdir())] == ["00000000.protos", "index.json"]


def test_bad_clips_are_counted_and_named_and_the_rest_is_packed(tmp_path):
    data = write_clips(tmp_path / "data", {"anna": 9})
    folder = data / "anna"
    (folder / "0000.lab").unlink()
    (folder / "0001.lab").write_text(" \n", encoding="utf-8")
    (folder / "0002.npy").unlink()
    (folder / "0002.wav").touch()
    (folder / "0003.npy").write_bytes((folder / "0003.npy").read_bytes()[:-1])
    np.save(folder / "0004.npy", np.zeros((2, 5), np.int32))
    for _ in range(2):  # a second run, with nothing to do, must not hide what is left out
        result = run("--input", data, "--output", tmp_path / "out")
        assert result.returncode == 1 and "Traceback" not in result.stderr
        for name, reason in {
            "0000": "no transcript",
            "0001": "transcript is empty",
            "0002": "no codes",
            "0003": "torn",
            "0004": "2 codebooks",
        }.items():
            assert any(f"anna/{name}: " in line and reason in line for line in result.stderr.splitlines())
        assert "4 clips" in result.stdout and "5 left out" in result.stdout


@pytest.mark.parametrize(
    "prepare, message",
    [
        (lambda data: None, "there is no data at"),
        (lambda data: data.mkdir(), "holds no clips"),
        (lambda data: [(data / "a").mkdir(parents=True), (data / "a" / "1.wav").touch()], "extract_vq"),
        (lambda data: data.write_bytes(b"\xff\xfe\x00"), "not a file list"),
    ],
)
def test_input_without_a_usable_clip_is_a_wrong_request(tmp_path, prepare, message):
    prepare(tmp_path / "data")
    result = run("--input", tmp_path / "data", "--output", tmp_path / "out")
    assert result.returncode == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_wrong_flags_are_a_wrong_request(tmp_path):
    (tmp_path / "file").touch()
    write_clips(tmp_path / "data", {"anna": 1})
    for arguments in (
        ["--output", tmp_path],
        ["--input", tmp_path / "data", "--output", tmp_path / "out", "--shard-size", "0"],
        ["--input", tmp_path / "data", "--output", tmp_path / "out", "--text-extension", "a/b"],
        ["--input", tmp_path / "data", "--output", tmp_path / "file"],
        ["--input", tmp_path / "data", "--output", tmp_path / "file" / "out"],
    ):
        result = run(*arguments)
        assert result.returncode == 2 and "Traceback" not in result.stderr, arguments


def test_nothing_usable_leaves_the_old_set_alone(tmp_path):
    data, out = write_clips(tmp_path / "data", {"anna": 2}), tmp_path / "out"
    build(data, out)
    before = shard_bytes(out)
    shutil.rmtree(data / "anna")
    with pytest.raises(UserError, match="holds no clips"):
        build(data, out)
    assert shard_bytes(out) == before


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_a_killed_run_leaves_the_old_set_and_the_next_run_equals_an_uninterrupted_one(tmp_path):
    data, out = write_clips(tmp_path / "data", {"anna": 2}), tmp_path / "out"
    build(data, out)
    old = shard_bytes(out)
    write_clips(data, {"bob": 400})
    build(data, tmp_path / "uninterrupted", shard_size=0.002)
    command = [sys.executable, "-m", "fish_speech.build_dataset", "--input", data, "--output", out]
    process = subprocess.Popen([*command, "--shard-size", "0.002"], cwd=ROOT, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 20
    while not list(out.glob(".partial-*.protos")) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert shard_bytes(out) == old or not is_current(data, out) or process.returncode == 0
    build(data, out, shard_size=0.002)
    assert shard_bytes(out) == shard_bytes(tmp_path / "uninterrupted")
    assert not list(out.glob(".partial-*"))


def test_a_crash_at_any_step_of_the_swap_is_seen(tmp_path, monkeypatch):
    data, out = write_clips(tmp_path / "data", {"anna": 2}), tmp_path / "out"
    build(data, out)
    old = shard_bytes(out)
    write_clips(data, {"bob": 2, "carl": 2})
    real_replace = Path.replace
    for survived in range(3):
        steps = iter(range(survived))

        def replace(path, target, steps=steps):
            if next(steps, None) is None:
                raise SystemExit("killed")
            return real_replace(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", replace)
            with pytest.raises(SystemExit):
                build(data, out, shard_size=0.00001)
        if shard_bytes(out) != old:
            with pytest.raises(UserError, match="no whole set"):
                find_shards(out)
        assert not is_current(data, out)
    assert build(data, out, shard_size=0.00001).shards == 3
    assert is_current(data, out)


def test_help_needs_neither_torch_nor_numpy():
    code = "import sys, fish_speech.build_dataset as b\ntry: b.main(['--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(bool({'torch', 'numpy', 'google.protobuf'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
