"""What the evaluation's command line asks for, before anything is loaded, and what it may replace."""

import json

import numpy as np
import pytest

from fish_speech import evaluate as command
from fish_speech.audio import write_wav
from fish_speech.errors import DONE, FAILED, UserError
from fish_speech.evaluation import MEASURES, Listening


def test_the_command_line_names_every_measure():
    assert tuple(MEASURES) == command.MEASURES


@pytest.mark.parametrize("flags", [["--recordings", "old={}"], ["--recordings", "new=.", "--speaker", "{}"]])
def test_sounds_of_the_evaluation_that_is_replaced_cannot_be_its_input(tmp_path, flags):
    sounds = tmp_path / "out" / "audio" / "old"
    sounds.mkdir(parents=True)
    flags = [flag.format(sounds) for flag in flags]
    given = command.make_parser().parse_args([*flags, "--output", str(tmp_path / "out"), "--force"])
    with pytest.raises(UserError, match="written anew"):
        command.check_request(given)
    assert sounds.is_dir()


@pytest.fixture()
def evaluate(tmp_path, monkeypatch):
    """Evaluate tmp_path/wavs, a folder of two recordings, into tmp_path/out, as far as no optional package is needed."""
    monkeypatch.setattr("fish_speech.evaluation.plan_listening", lambda *_: (Listening(frozenset()), []))
    for number in range(2):
        write_wav(tmp_path / f"wavs/{number}.wav", np.sin(np.arange(8000) / (number + 5)), 8000)

    def run(*flags, name="w"):
        fixed = ["--recordings", f"{name}={tmp_path / 'wavs'}", "--output", str(tmp_path / "out"), "--workers", "1"]
        return command.evaluate(command.make_parser().parse_args([*fixed, *flags]))

    return run


def sounds(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.wav"))


def test_a_clip_that_fails_is_not_given_the_sound_of_an_interrupted_evaluation(tmp_path, evaluate, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fish_speech.evaluation.evaluate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        evaluate()
    assert sounds(tmp_path / "out") == ["audio/w/0.wav", "audio/w/1.wav"]
    (tmp_path / "wavs/1.wav").write_bytes(b"no sound at all")
    assert evaluate() == FAILED
    rows = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))["systems"][0]["clips"]
    assert [row["audio"] for row in rows] == ["audio/w/0.wav", None]
    assert sounds(tmp_path / "out") == ["audio/w/0.wav"]


def test_sounds_that_no_evaluation_wrote_stay(tmp_path, evaluate):
    write_wav(tmp_path / "out/audio/w/mine.wav", np.zeros(800), 8000)
    write_wav(tmp_path / "out/audio/other/mine.wav", np.zeros(800), 8000)
    for flags in ((), ("--force",)):
        with pytest.raises(UserError, match="no evaluation wrote"):
            evaluate(*flags)
    assert evaluate(name="v") == DONE
    assert evaluate("--force", name="x") == DONE
    assert sounds(tmp_path / "out/audio") == ["other/mine.wav", "w/mine.wav", "x/0.wav", "x/1.wav"]
    assert not (tmp_path / "out/audio/v").exists()


def test_no_reference_is_for_checkpoints_that_bring_one(tmp_path):
    flags = ["--recordings", f"r={tmp_path}", "--no-reference"]
    with pytest.raises(UserError, match="--no-reference has no effect without --checkpoint"):
        command.check_request(command.make_parser().parse_args(flags))
    flags = ["--checkpoint", f"c={tmp_path}", "--no-reference", "--prompt-tokens", str(tmp_path / "x.npy")]
    with pytest.raises(UserError, match="--no-reference has no effect with --prompt-tokens"):
        command.check_request(command.make_parser().parse_args(flags))
