"""The demo: commands that the scripts take, texts that nobody trained on, a table of what the files say."""

from __future__ import annotations

import json
import re
import shlex

import pytest

import cli_tts
import finetune_tts
import prepare_dataset
from fish_speech import evaluate
from tools import demo
from tools.minnow_text import words_of

from ..conftest import REPO

SCRIPTS = {
    "prepare_dataset.py": prepare_dataset, "finetune_tts.py": finetune_tts, "cli_tts.py": cli_tts,
    "fish_speech.evaluate": evaluate,
}  # fmt: skip
TEXTS = (REPO / demo.TEXTS).read_text(encoding="utf-8").splitlines()


def parsed():
    """What each script makes of its command, by step; an unknown flag exits."""
    found = {}
    for name, command in demo.commands(7):
        script, *words = command[1:] if command[0] == "-m" else command
        found[name] = SCRIPTS[script].make_parser().parse_args(words)
    return found


def test_every_command_is_one_that_its_script_takes_and_reads_what_the_one_before_wrote():
    steps = parsed()
    prepare, tune, speak, measure = (steps[n] for n in ("prepare", "fine-tune and merge", "speak", "measure"))
    assert tune.max_steps == 7 and tune.model_version == speak.model_version == "minnow"
    assert prepare.output == tune.data_dir == measure.speaker == dict(measure.recordings)["recordings"]
    assert speak.model_path == dict(measure.checkpoint)["after"]
    assert speak.model_path.as_posix() == f"checkpoints/{tune.project}-merged"
    assert measure.limit == len(TEXTS) and measure.force


def test_a_command_as_shown_can_be_typed():
    for _, command in demo.commands(7):
        assert shlex.split(" ".join(map(demo.quoted, command))) == command


def test_the_texts_are_in_no_sample():
    samples = [" ".join(words_of(p.read_text(encoding="utf-8"))) for p in (REPO / demo.SAMPLES).rglob("*.txt")]
    assert samples and len(set(TEXTS)) == len(TEXTS) > 0
    for text in TEXTS:
        words = " ".join(words_of(text))
        assert not any(f" {words} " in f" {sample} " for sample in samples), text


def leave(root, after, curves):
    """Write what the commands of a demo leave behind; `curves`: one event file each, {name: {step: value}}."""
    from torch.utils.tensorboard import SummaryWriter

    systems = {"before": {"wer": 0.9}, "after": after, "recordings": {"wer": 0.28, "similarity": 0.93}}
    results = {"systems": [{"name": name, "summary": summary} for name, summary in systems.items()]}
    contents = {
        demo.DATA / "dataset_summary.json": {"total_files": 45, "total_duration_minutes": 3.4},
        demo.EVALUATION / "results.json": results,
        demo.MERGED / "voice.json": {"step": 25},
    }
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(json.dumps(content), encoding="utf-8")
    for number, curve in enumerate(curves):  # a run that was continued has several
        writer = SummaryWriter(root / demo.RUN / "logs" / f"version_{number}")
        for name, points in curve.items():
            for step, value in points.items():
                writer.add_scalar(name, value, step)
        writer.close()


def rows(table: str) -> dict[str, str]:
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in table.splitlines())


def test_the_table_says_what_the_files_say(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    curves = [{"train/loss": {9: 5.0}, "val/loss": {9: 6.0}}, {"train/loss": {19: 3.25}, "val/loss": {19: 4.5}}]
    leave(tmp_path, {"wer": 0.4, "similarity": 0.81}, curves)
    found = rows(demo.table({"prepare": 2.4, "speak": 3.0}))
    assert (found["clips"], found["seconds of speech"], found["fine-tuning steps"]) == ("45", "204", "25")
    assert found["training loss, first and last"] == "5.00 -> 3.25"
    assert found["held-out loss, first and last"] == "6.00 -> 4.50"
    assert found["speaker similarity, before -> after (recordings)"] == "none -> 0.81 (0.93)"
    assert found["word error rate, before -> after (recordings)"] == "0.90 -> 0.40 (0.28)"
    assert found["time to prepare"] == "2 s"


def test_a_run_too_short_to_log_has_a_table_too(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    leave(tmp_path, {"wer": 0.4}, [])
    assert rows(demo.table({}))["training loss, first and last"] == "none"


@pytest.mark.parametrize("code", [1, 2, 130])
def test_the_demo_ends_with_the_code_of_the_command_that_failed(monkeypatch, code):
    monkeypatch.chdir(REPO)  # main goes to the repository; this goes back afterwards
    ran = []
    monkeypatch.setattr(demo, "run_step", lambda step, log_file: ran.append(step.name) or code)
    assert demo.main([]) == code and ran == ["prepare"]
