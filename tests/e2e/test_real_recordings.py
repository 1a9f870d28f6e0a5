"""All real recordings that are here go the whole way, with Ctrl+C in the middle of training; none is lost on it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fish_speech.checkpoint import list_checkpoints, read_file

from .conftest import FULL_PIPELINE
from .families import FAMILIES
from .scripts import REPO, TIMEOUT_S, leftovers, put_base, run, start
from .test_interruption import assert_equal_states, wait_for

ALL = REPO.parent / "shared/data/allison"  # 206 recordings, on the project's own machines
FEW = REPO / "samples/allison"  # three minutes of them, in the repository
STEPS = 20


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_real_recordings_go_the_whole_way_and_every_one_is_accounted_for(tmp_path, request, family):
    recordings = ALL if ALL.is_dir() else FEW
    sources = sorted(recordings.glob("*.flac"))
    assert len(sources) == (206 if recordings == ALL else len(sources)) and len(sources) > 20
    put_base(tmp_path, request.getfixturevalue(family.fixture), family.place)
    data = tmp_path / "training_data/allison"

    prepared = run("prepare_dataset.py", "--input", recordings, "--output", data, "--speaker", "allison", cwd=tmp_path)
    assert f"this run: {len(sources)} of {len(sources)} recordings, 0 left out" in prepared.stdout
    rows = [json.loads(line) for line in (data / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert not any(row["left_out"] for row in rows)
    for source in sources:  # long ones are several clips: in order, apart, and with every word once
        pieces = [row for row in rows if Path(row["source"]) == source]
        ends = [time for row in pieces for time in (row["start_s"], row["end_s"])]
        assert pieces and ends == sorted(ends) and len(pieces) >= soundfile.info(source).duration / 30
        words = source.with_suffix(".txt").read_text(encoding="utf-8").split()
        assert " ".join(row["text"] for row in pieces).split() == words
    count = len(rows)
    for suffix in (".wav", ".lab"):
        assert len(list(data.rglob(f"*{suffix}"))) == count
    summary = json.loads((data / "dataset_summary.json").read_text(encoding="utf-8"))
    assert summary["total_files"] == count
    recorded = sum(soundfile.info(source).duration for source in sources)
    assert 0.99 < summary["total_duration_minutes"] * 60 / recorded <= 1.0001  # less the silence around cut pieces

    project = ("--data-dir", "training_data/allison", "--max-steps", STEPS, "--batch-size", 2, "--log-every-n-steps", 1,
               *family.flags)  # fmt: skip
    process = start("finetune_tts.py", "--project", "stopped", *project, *FULL_PIPELINE, cwd=tmp_path)
    output = tmp_path / "finetune_tts.py.out"
    wait_for(output, f"step {STEPS // 2 - 2}/{STEPS}", process)
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130
    said = output.read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert f"{count} clips have codes: {count} encoded" in said
    assert f" shards, {count} clips (" in said
    trained, offered, held_out = map(
        int,
        re.search(
            r"each epoch visits (\d+) of (\d+) clips \(100 %\), .* \(100 %\); held out (\d+) clips", said
        ).groups(),
    )
    assert trained == offered and trained + held_out == count and held_out > 0
    assert "left out" not in said.split("each epoch visits")[1].splitlines()[0]
    frames = 0
    for path in data.rglob("*.wav"):
        codes = np.load(path.with_suffix(".npy"))
        assert codes.dtype == np.int32
        expected = soundfile.info(path).duration * family.sample_rate / family.samples_per_frame
        assert codes.shape[0] == family.codebooks and abs(codes.shape[1] - expected) < 1
        frames += codes.shape[1]
    assert f"({frames} frames, {family.codebooks} codebooks)" in said
    saved = list_checkpoints(tmp_path / "results/stopped/checkpoints")
    assert 8 <= saved[-1].step < STEPS and f"stopped at step {saved[-1].step}," in said

    again = run("finetune_tts.py", "--project", "stopped", *project, *FULL_PIPELINE, cwd=tmp_path)
    assert f"0 encoded (0.0 s), {count} done before" in again.stdout
    assert f"continuing this project exactly from {saved[-1].path.relative_to(tmp_path)}" in again.stderr
    assert f"merged step {STEPS} into" in again.stdout

    run("finetune_tts.py", "--project", "straight", *project, "--train", cwd=tmp_path)
    name = f"checkpoints/step_{STEPS:09d}.ckpt"
    ends = [read_file(tmp_path / "results" / kind / name)["state_dict"] for kind in ("stopped", "straight")]
    assert_equal_states(*ends)

    text = "Please enter your conference number, followed by the pound key."
    arguments = ("--model-path", "checkpoints/stopped-merged", "-o", "spoken.wav", "--device", "cpu")
    run("cli_tts.py", text, *arguments, cwd=tmp_path)
    info = soundfile.info(tmp_path / "spoken.wav")
    assert (info.samplerate, info.channels) == (family.sample_rate, 1)
    assert 0.02 * len(text) <= info.duration <= 3.1 + 0.15 * len(text)
    assert leftovers(tmp_path) == []
    shutil.rmtree(tmp_path / "training_data")  # 80 MB
