"""`finetune_tts.py --dry-run` as a user runs it: the whole plan, and not a byte on the disk."""

from __future__ import annotations

import re

import pytest

from .scripts import contents, data_set, record, refuse, run

pytestmark = pytest.mark.slow

PLAN = (
    "--max-steps",
    4,
    "--batch-size",
    2,
    "--max-length",
    256,
    "--learning-rate",
    0.001,
    "--device",
    "cpu",
    "--dry-run",
)


def everything(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}, contents(folder)


def test_recordings_that_nothing_was_done_with_yet_have_a_plan(workspace):
    for number in range(12):
        record(workspace / f"raw/anna/{number}.wav", 1.5, number, f"These are the words of clip {number}.")
    before = everything(workspace)
    result = run("finetune_tts.py", "--project", "p", "--data-dir", "raw", "--full-pipeline", *PLAN, cwd=workspace)
    assert everything(workspace) == before
    assert re.findall(r"would run \[(\d)/6\] (\w+)", result.stdout) == [
        (str(number), name)
        for number, name in enumerate(
            ("prepare_dataset", "extract_vq", "build_dataset", "train", "tournament", "merge_lora"), 1
        )
    ]
    seconds = 11 * 33 * 2048 / 44100  # 1.5 s are 32.3 frames, so 33; one of the clips is held out
    assert f"11 clips of 1 speaker, {seconds:.1f} s" in result.stdout
    assert "from the lengths of 12 recordings, not prepared yet" in result.stdout
    assert "1 clip (8.3 %)" in result.stdout and "4 of 2 samples" in result.stdout
    for said in ("learning rate 0.001 is above 5e-05", "minutes of speech are less than 10"):
        assert said in result.stderr


def test_clips_that_are_extracted_have_the_plan_that_their_training_has(workspace):
    data_set(workspace / "data", 12)
    before = everything(workspace)
    request = ("--project", "p", "--data-dir", "data", "--train", "--sample-every-n-steps", 0, *PLAN[:-1])
    dry = run("finetune_tts.py", *request, "--dry-run", cwd=workspace)
    assert everything(workspace) == before and "from the codes of 12 clips, which are not packed yet" in dry.stdout
    wet = run("finetune_tts.py", *request, cwd=workspace).stderr

    def figures(text: str) -> list[str]:
        return [line for line in text.splitlines() if re.match(r"  (data|held out|steps|learning rate|trained) ", line)]

    assert figures(dry.stdout) == figures(wet) and len(figures(wet)) == 5


def test_a_wrong_request_is_refused_as_without(workspace):
    data_set(workspace / "data", 3)
    before = everything(workspace)
    request = ("--project", "p", "--data-dir", "data", "--train", *PLAN)
    assert "there is no checkpoint" in refuse(
        "finetune_tts.py", *request, "--checkpoint-path", "gone.ckpt", cwd=workspace
    )
    assert "--num-gpus 2" in refuse("finetune_tts.py", *request[:-3], "--dry-run", "--num-gpus", 2, cwd=workspace)
    assert everything(workspace) == before
