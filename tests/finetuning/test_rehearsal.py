"""`--dry-run`: it says what would run, plans from data as it is, and writes nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import finetune_tts
from fish_speech.arguments import given_flags
from fish_speech.build_dataset import build
from fish_speech.errors import UserError
from fish_speech.finetuning import rehearsal
from fish_speech.pipeline import Step, run_steps


@pytest.fixture()
def workspace(tmp_path, monkeypatch, make_clips):
    (tmp_path / "base").mkdir()
    for name in ("config.json", "codec.pth"):
        (tmp_path / "base" / name).write_text("{}", encoding="utf-8")
    make_clips(tmp_path / "ready", {"anna": 3})
    (tmp_path / "raw").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE = ["--project", "p", "--model-version", "minnow", "--pretrained-ckpt-path", "base", "--dry-run"]


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def rehearsed(*words: str, monkeypatch) -> list[str]:
    """Run with the training child's arguments caught; return them."""
    ran = []
    monkeypatch.setattr(rehearsal, "run_step", lambda step, log_file: ran.append((step, log_file)) or 0)
    assert finetune_tts.main([*BASE, *words]) == 0
    ((step, log_file),) = ran
    assert step.name == "train" and log_file is None
    return list(step.arguments)


def test_the_steps_are_told_and_training_only_plans(workspace, monkeypatch, capsys):
    before = everything(workspace)
    words = rehearsed("--data-dir", "ready", "--full-pipeline", monkeypatch=monkeypatch)
    assert "dry_run=true" in words and "expected_data='ready'" in words
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "dry run: nothing is written" and everything(workspace) == before
    names = [line.split("] ")[1].split(":")[0] for line in lines[1:]]
    assert names == ["extract_vq", "build_dataset", "train", "tournament", "merge_lora"]


def test_data_that_is_packed_as_it_is_needs_no_guess(workspace, monkeypatch):
    build(workspace / "ready", workspace / "results/p/protos")
    words = rehearsed("--data-dir", "ready", "--train", monkeypatch=monkeypatch)
    assert "dry_run=true" in words and not any("expected_data" in word for word in words)
    next((workspace / "ready").rglob("*.lab")).write_text("Other words.", encoding="utf-8")
    assert "expected_data='ready'" in rehearsed("--data-dir", "ready", "--train", monkeypatch=monkeypatch)


def test_recordings_that_are_raw_are_guessed_at_as_they_are(workspace, monkeypatch):
    assert "expected_data='raw'" in rehearsed("--data-dir", "raw", "--full-pipeline", monkeypatch=monkeypatch)


def test_a_wrong_request_is_as_wrong_as_without(workspace):
    with pytest.raises(UserError, match="there is no folder nowhere"):
        finetune_tts.main([*BASE, "--data-dir", "nowhere", "--train"])
    with pytest.raises(UserError, match="no checkpoint to merge"):
        finetune_tts.main([*BASE, "--merge-weights"])


def test_a_base_that_is_not_here_is_not_fetched(workspace, capsys):
    before = everything(workspace)
    assert finetune_tts.main(["--project", "p", "--data-dir", "ready", "--full-pipeline", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "would fetch config.json, model.pth" in said and "hf download fishaudio/fish-speech-1.5" in said
    assert everything(workspace) == before
    with pytest.raises(UserError, match=r"files of model version 1\.5 are missing"):
        finetune_tts.main(["--project", "p", "--data-dir", "ready", "--full-pipeline", "--dry-run", "--offline"])


def test_a_steps_late_arguments_are_settled_when_its_turn_has_come(tmp_path):
    note = tmp_path / "note"
    write = ("-c", f"import pathlib; pathlib.Path({str(note)!r}).write_text('7')")
    check = ("-c", "import sys; sys.exit(sys.argv[1:] != ['7'])")
    steps = [Step("write", write), Step("check", check, late=lambda: [note.read_text()])]
    assert run_steps(steps, tmp_path / "logs") == 0
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["check.log", "write.log"]


def test_help_imports_nothing_heavy():
    import subprocess

    code = "import runpy, sys; sys.argv = ['finetune_tts.py', '--help']\n"
    code += "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    code += (
        "except SystemExit as end: print(end.code, sorted({'torch', 'numpy', 'soundfile', 'yaml'} & set(sys.modules)))"
    )
    root = Path(finetune_tts.__file__).parent
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert result.stdout.splitlines()[-1] == "0 []" and "--tournament-texts" in result.stdout


def test_given_flags_are_those_of_the_command_line():
    assert given_flags(["--a", "1", "--b=2", "c", "-o"]) == {"--a", "--b"}


@pytest.mark.parametrize(("dispensable", "code", "made"), [(True, 1, True), (False, 2, False)])
def test_a_step_that_the_others_can_do_without_does_not_stop_them(tmp_path, dispensable, code, made):
    later = tmp_path / "made"
    steps = [
        Step("talk", ["-c", "raise SystemExit(2)"], left_out_is_fine=True, dispensable=dispensable),
        Step("make", ["-c", f"open({str(later)!r}, 'w').close()"]),
    ]
    assert run_steps(steps, tmp_path / "logs") == code and later.exists() is made


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_stage_that_the_system_killed_is_told_of_memory(tmp_path, caplog):
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run_steps([Step("train", ["-c", kill])], tmp_path / "logs") == 1
    assert "out of memory" in caplog.text and "--batch-size" in caplog.text
