"""What a batch checks before anything is downloaded or loaded, and whose voice a line has."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

import cli_tts
from fish_speech.errors import UserError
from fish_speech.speaking import say, say_batch
from fish_speech.speaking.options import settle_model

from ..conftest import REPO

MINNOW = REPO / "checkpoints" / "minnow"


class Touched(Exception):
    """Weights were asked for."""


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """A folder with a voice, where asking for weights is told."""

    def touched(*given):
        raise Touched

    monkeypatch.chdir(tmp_path)
    (tmp_path / "voices").mkdir()
    np.save(tmp_path / "voices" / "anna.npy", np.ones((6, 5), np.int32))
    (tmp_path / "voices" / "anna.txt").write_text("Anna says this.", encoding="utf-8")
    for module in (say, say_batch):
        monkeypatch.setattr(module, "model_folder", touched)
        monkeypatch.setattr(module, "load_voice", touched)
    return tmp_path


def parsed(*argv: object):
    options = cli_tts.make_parser().parse_args([str(word) for word in argv])
    settle_model(options)
    return options


def batch(desk, *lines: dict, flags=()):
    (desk / "lines.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return say_batch.say_batch(parsed("--batch", "lines.jsonl", *flags))


def test_a_voice_that_is_not_there_is_told_before_weights_are_asked_for(desk):
    with pytest.raises(UserError, match="there is no voice 'bert'"):
        say.say(parsed("Hello.", "--voice", "bert"))
    with pytest.raises(UserError, match="line 2: there is no voice 'bert'"):
        batch(desk, {"text": "One.", "voice": "anna"}, {"text": "Two.", "voice": "bert"})
    with pytest.raises(Touched):
        say.say(parsed("Hello.", "--voice", "anna"))


def test_a_wrong_line_is_told_before_weights_are_asked_for(desk):
    with pytest.raises(UserError, match="line 1: text is missing"):
        batch(desk, {"id": "one"})
    assert not (desk / "output").exists()


def test_a_lines_voice_goes_before_the_command_lines_reference(desk):
    np.save(desk / "other.npy", np.ones((6, 5), np.int32))
    flags = ("--prompt-tokens", "other.npy", "--prompt-text", "Other words.")
    with pytest.raises(Touched):
        batch(desk, {"text": "One."}, {"text": "Two.", "voice": "anna"}, flags=flags)


def test_markers_that_will_be_read_aloud_are_warned_of_once(desk, caplog):
    lines = [{"text": "(whispering) One."}, {"text": "(angry) Two."}]
    with caplog.at_level(logging.WARNING), pytest.raises(Touched):
        batch(desk, *lines, flags=("--voice", "anna"))
    assert [record.message for record in caplog.records if "read aloud" in record.message] == [
        "version 1.5 knows no markers: (whispering) will be read aloud"
    ]


def test_a_recogniser_that_is_not_there_is_told_before_weights_are_asked_for(desk):
    flags = ("--voice", "anna", "--verify", "--asr", "pocketsphinx", "--language", "de")
    with pytest.raises(UserError, match="pocketsphinx"):
        batch(desk, {"text": "One."}, flags=flags)


def test_a_closed_stdin_has_no_batch(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(UserError, match="no batch on stdin"):
        say_batch.say_batch(parsed("--batch", "-"))
