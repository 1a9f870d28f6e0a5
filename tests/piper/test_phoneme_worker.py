"""The process that asks piper-tts: it may die, hang, be missing or be interrupted, and nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import venv
from pathlib import Path

import psutil
import pytest

from fish_speech.errors import UserError
from piper_train.phonemes import patience, piper_source
from piper_train.phonemes.clauses import Clause
from piper_train.phonemes.phonemizer import open_phonemizer
from piper_train.phonemes.piper_source import PiperSource
from piper_train.phonemes.voices import check_voice_name, close_matches

from .phoneme_sources import needs_piper, needs_program

REPO = Path(__file__).parents[2]
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
FRAIL = """
    import json, sys, time
    print(json.dumps({"release": "9"}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        for text in asked["texts"]:
            if text == "die":
                raise SystemExit("espeak fell over")
            if text == "hang":
                time.sleep(60)
        answer = [[[text, ".", True]] for text in asked["texts"]]
        print(json.dumps({"id": asked["id"], "clauses": answer}), flush=True)
"""
ENDLESS = """
from fish_speech.errors import run
from piper_train.phonemes.phonemizer import open_phonemizer
def main():
    with open_phonemizer("espeak", "ru", source="piper") as phonemizer:
        for number, _ in enumerate(phonemizer.many(iter(lambda: "Привет, мир.", ""))):
            if number == 300:
                print("at work", flush=True)
run(main)
"""


def _children() -> set[int]:
    """Processes of this one; other tests may have left some, as torch's resource tracker."""
    return {child.pid for child in psutil.Process().children()}


@pytest.fixture
def frail(tmp_path, monkeypatch):
    """A worker with the same protocol that dies of the text "die" and hangs at "hang"."""
    script = tmp_path / "frail.py"
    script.write_text(textwrap.dedent(FRAIL), encoding="utf-8")
    monkeypatch.setattr(piper_source, "_WORKER", script)
    before = _children()
    source = PiperSource("ru")
    yield source
    source.close()
    assert _children() == before


@pytest.fixture
def without_piper(tmp_path, monkeypatch):
    """A Python that has no packages at all, for the worker to run in."""
    venv.create(tmp_path / "bare", symlinks=os.name != "nt")
    folder = tmp_path / "bare" / ("Scripts" if os.name == "nt" else "bin")
    monkeypatch.setattr(sys, "executable", str(folder / Path(sys.executable).name))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    if not Path(sys.executable).exists():
        monkeypatch.setattr(sys, "executable", str(folder / "python"))


def test_a_text_that_kills_the_worker_is_named_and_the_others_go_on(frail):
    with pytest.raises(UserError, match="no phonemes of the text 'die'") as raised:
        frail.clauses(["a", "die", "b"])
    assert "ended with code 1: espeak fell over" in raised.value.why
    assert frail.clauses(["c"]) == [[Clause("c", ".", True)]]


def test_a_worker_that_hangs_is_ended_and_said(frail, monkeypatch):
    monkeypatch.setattr(patience, "_ANSWER_S", 0.3)
    with pytest.raises(UserError, match="gave no answer in"):
        frail.clauses(["hang"])


def test_a_worker_that_says_nothing_at_its_start_is_ended_and_gone(tmp_path, monkeypatch):
    script, before = tmp_path / "mute.py", _children()
    script.write_text("import time; time.sleep(60)", encoding="utf-8")
    monkeypatch.setattr(piper_source, "_WORKER", script)
    monkeypatch.setattr(piper_source, "_START_S", 0.3)
    with pytest.raises(piper_source.SourceMissing, match="gave no answer in"):
        PiperSource("ru")
    assert _children() == before


def test_a_worker_that_was_killed_between_texts_is_started_again(frail):
    assert frail.clauses(["a"]) == [[Clause("a", ".", True)]]
    frail._worker._process.kill()
    frail._worker._process.wait(5)
    assert frail.clauses(["b", "c"]) == [[Clause("b", ".", True)], [Clause("c", ".", True)]]


@needs_piper
def test_closing_ends_the_worker_and_may_be_repeated():
    before = _children()
    phonemizer = open_phonemizer("espeak", "ru", source="piper")
    assert len(_children() - before) == 1
    phonemizer.close()
    phonemizer.close()
    assert _children() == before


@needs_piper
@POSIX
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (getattr(signal, "SIGKILL", 9), -9)])
def test_an_interrupted_or_killed_program_leaves_no_worker(number, code):
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS], env=env, stdout=-1, stderr=subprocess.PIPE, start_new_session=True
    ) as program:
        assert program.stdout.readline() == b"at work\n"
        workers = psutil.Process(program.pid).children()
        assert len(workers) == 1
        os.killpg(program.pid, number) if number == signal.SIGINT else program.kill()  # Ctrl+C goes to the worker too
        said = program.stderr.read().decode()
        assert program.wait(20) == code
        assert "Traceback" not in said
    assert psutil.wait_procs(workers, timeout=20)[1] == []


@needs_piper
def test_the_console_changes_nothing():
    command = [sys.executable, "-m", "piper_train.phonemes", "--espeak-voice", "ru", "Ёж — ёлка."]
    outputs = []
    for encoding in ({"PYTHONUTF8": "1"}, {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "PYTHONCOERCECLOCALE": "0"}):
        env = {**os.environ, **encoding, "PYTHONPATH": str(REPO)}
        outputs.append(subprocess.run(command, cwd=REPO, env=env, capture_output=True, check=True, timeout=60).stdout)
    phonemes, ids = outputs[0].decode("utf-8").splitlines()
    assert phonemes == "jˈɵʃ; jˈɵɭka." and ids.startswith("1 0 22 0 120 0 85 0")
    assert outputs[1] == outputs[0]


@needs_piper
def test_a_folder_called_piper_in_the_working_directory_is_not_taken_for_the_package(tmp_path, monkeypatch):
    (tmp_path / "piper").mkdir()
    (tmp_path / "piper" / "__init__.py").write_text("raise SystemExit(3)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with open_phonemizer("espeak", "ru", source="piper") as phonemizer:
        assert "".join(phonemizer.sentences("мир")[0]) == "mʲˈir"


@needs_program
def test_without_piper_tts_the_program_is_taken_and_said_to_differ(without_piper, caplog):
    with open_phonemizer("espeak", "ru") as phonemizer:
        assert phonemizer.source.startswith("espeak-ng") and not phonemizer.exact
    assert "piper-tts is not installed" in caplog.text


def test_without_both_it_is_said_what_to_install_on_each_system(without_piper, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for folder in ("ProgramFiles", "ProgramFiles(x86)"):
        monkeypatch.setenv(folder, str(tmp_path))
    with pytest.raises(UserError) as raised:
        open_phonemizer("espeak", "ru")
    assert "piper-tts is not installed" in raised.value.why and "espeak-ng" in raised.value.why
    for hint in ("[piper-espeak]", "apt install espeak-ng", "brew install espeak-ng", "winget install"):
        assert hint in raised.value.fix


def test_another_package_called_piper_is_told_from_piper_tts(tmp_path, monkeypatch):
    (tmp_path / "piper").mkdir()
    (tmp_path / "piper" / "__init__.py").write_text("", encoding="utf-8")
    record = tmp_path / "piper_tts-0.1.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: piper-tts\nVersion: 0.1\n", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(UserError, match="espeakbridge"):
        open_phonemizer("espeak", "ru", source="piper")


@needs_piper
@pytest.mark.parametrize(("name", "near"), [("english", "en-us"), ("en_US", "en-us"), ("fr-fr", "fr"), ("rus", "ru")])
def test_a_voice_that_piper_lacks_is_answered_with_those_like_it(name, near):
    with pytest.raises(UserError, match=f"no voice '{name}'") as raised:
        open_phonemizer("espeak", name, source="piper")
    assert raised.value.fix == f"use --espeak-voice {near}"


@pytest.mark.parametrize(
    "name",
    ["", "-q", "--path=/", "../ru", "gmw/en-US", "C:ru", "ru ru", "ru\n", "ru\0", "r", "ру", "ru" * 50, "ru+", None],
)
def test_a_name_that_could_be_a_path_or_an_option_is_refused(name):
    with pytest.raises(UserError, match="no name of an espeak voice"):
        open_phonemizer("espeak", name)


@pytest.mark.parametrize(
    "name", ["ru", "en-us", "en-US", "en-gb-x-rp", "cmn-latn-pinyin", "es-419", "en-us+f3", "russian"]
)
def test_names_that_espeak_uses_are_let_through(name):
    assert check_voice_name(name) == name


def test_close_matches_are_voices_that_exist():
    known = ["en-us", "en", "en-gb-x-rp", "ru", "uk", "de"]
    assert close_matches("en-gb", known)[0] == "en"
    assert close_matches("ua", known)[0] == "uk"
    assert close_matches("xx", known) == []
