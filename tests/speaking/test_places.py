"""Where one text's sound goes: what is asked for, a free name where nothing is, and never over another's file."""

from __future__ import annotations

import numpy as np
import pytest

import cli_tts
from fish_speech.errors import UserError
from fish_speech.speaking.places import Places

RATE = 16000
SOUND = np.linspace(-0.5, 0.5, 500, dtype=np.float32)


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    return tmp_path


def places(*argv: str) -> Places:
    return Places(cli_tts.make_parser().parse_args(["Hello.", *argv]))


def write(chosen: Places, number: int = 0) -> None:
    with chosen.open(number, RATE) as sink:
        sink.write(SOUND)
    chosen.finish(number)


def test_without_a_name_the_next_free_one_is_taken_and_said(desk, capsys):
    for _ in range(2):
        write(places())
    assert capsys.readouterr().out.replace("\\", "/").split() == ["output/speech_001.wav", "output/speech_002.wav"]


def test_two_runs_at_once_take_two_names(desk):
    first, second = places(), places()
    with first.open(0, RATE) as one, second.open(0, RATE) as two:
        one.write(SOUND)
        two.write(SOUND)
    assert sorted(path.name for path in (desk / "output").iterdir()) == ["speech_001.wav", "speech_002.wav"]


def test_several_samples_are_numbered_in_the_form_asked_for(desk, capsys):
    chosen = places("--num-samples", "3", "-o", "a.flac")
    for number in range(3):
        write(chosen, number)
    assert capsys.readouterr().out.split() == ["a_1.flac", "a_2.flac", "a_3.flac"]
    assert sorted(path.name for path in desk.iterdir()) == ["a_1.flac", "a_2.flac", "a_3.flac"]
    assert (desk / "a_3.flac").read_bytes()[:4] == b"fLaC"


def test_a_file_is_said_once_even_if_a_player_fails_after_it(desk, capsys):
    chosen = places("-o", "a.wav")
    write(chosen)
    chosen.tell(0)
    assert capsys.readouterr().out.split() == ["a.wav"]


@pytest.mark.parametrize("flags", [("--play",), ("--stream",), ("--stream", "-o", "a.wav"), ("--play", "-o", "a.wav")])
def test_without_a_player_there_is_an_error_before_anything_is_made(desk, flags):
    with pytest.raises(UserError, match="no player"):
        places(*flags)
    assert list(desk.iterdir()) == []


@pytest.mark.parametrize("flags", [("-o", "folder"), ("-o", "file/a.wav"), ("-o", "file/deeper/a.wav")])
def test_a_place_that_cannot_be_is_refused_before_anything_is_made(desk, flags):
    (desk / "folder").mkdir()
    (desk / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot write"):
        places(*flags)
    with pytest.raises(UserError, match="cannot write"):
        places(*flags, "--num-samples", "2")
