"""Trying a voice: the newest one, in its language, by the client or without it, and what is told of the sound."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import soundfile

from fish_speech.errors import UserError
from piper_train import try_voice
from piper_train.speech.sentences import sentence_for

needs_client = pytest.mark.skipif(importlib.util.find_spec("piper") is None, reason="the Piper client is not installed")


@pytest.fixture()
def desk(exported, tmp_path, monkeypatch):
    """A folder with an older voice in checkpoints/ and a newer one, and files that are no voices."""
    monkeypatch.chdir(tmp_path)
    for folder, name, time in (("checkpoints/a-piper", "a", 1), ("checkpoints/b-piper", "b", 2), (".", "noconfig", 3)):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(exported("plain"), Path(folder, f"{name}.onnx"))
        os.utime(Path(folder, f"{name}.onnx"), (time, time))
        if name != "noconfig":
            shutil.copyfile(f"{exported('plain')}.json", Path(folder, f"{name}.onnx.json"))
    yield tmp_path
    for name in ("fish_speech", "piper_train"):
        logging.getLogger(name).handlers.clear()


def as_text(path: Path, **changes) -> None:
    config = {**json.loads(path.read_text(encoding="utf-8")), "phoneme_type": "text", **changes}
    path.write_text(json.dumps(config), encoding="utf-8")


def test_the_newest_voice_with_a_config_is_taken(desk):
    assert try_voice.newest_voice() == Path("checkpoints/b-piper/b.onnx")
    os.utime("checkpoints/a-piper/a.onnx", (9, 9))
    assert try_voice.newest_voice() == Path("checkpoints/a-piper/a.onnx")


def test_without_any_voice_it_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no exported voice here") as raised:
        try_voice.main([])
    assert "checkpoints/*-piper/*.onnx" in raised.value.why and "export_onnx" in raised.value.fix


def test_it_speaks_without_the_client_and_tells_file_seconds_and_level(desk, capsys):
    as_text(Path("checkpoints/b-piper/b.onnx.json"))
    assert try_voice.main(["Hello there", "--without-client"]) == 0
    assert try_voice.main(["Hello there", "--without-client", "--model", "checkpoints/b-piper/b.onnx"]) == 0
    told = capsys.readouterr().out.replace("\\", "/").splitlines()
    assert [line.split(":")[0] for line in told] == ["output/b_001.wav", "output/b_002.wav"]
    sound = soundfile.info("output/b_001.wav")
    assert f"{sound.duration:.2f} s at 22050 Hz, level -" in told[0] and "dBFS" in told[0]


def test_a_voice_of_phonemes_needs_a_text(desk):
    as_text(Path("checkpoints/b-piper/b.onnx.json"))
    with pytest.raises(UserError, match="the voice needs a text"):
        try_voice.main(["--without-client"])
    with pytest.raises(UserError, match="there is nothing to say"):
        try_voice.main(["", "--without-client"])


def test_silence_is_a_failure(desk, monkeypatch, capsys):
    as_text(Path("checkpoints/b-piper/b.onnx.json"))
    monkeypatch.setattr("piper_train.speech.voice.levelled", lambda sound, *more: sound * 0)
    assert try_voice.main(["Hello there", "--without-client"]) == 1
    assert "this is silence" in capsys.readouterr().err


@needs_client
def test_the_client_says_a_sentence_in_the_voices_language(desk, capfd):
    as_text(Path("checkpoints/b-piper/b.onnx.json"), phoneme_type="espeak", espeak={"voice": "ru"})
    assert try_voice.main([]) == 0
    captured = capfd.readouterr()
    assert "spoken by piper-tts" in captured.out and "Привет" in captured.err
    assert soundfile.info("output/b_001.wav").duration > 0.5


@needs_client
def test_a_client_that_fails_is_quoted_and_leaves_nothing(desk, capsys):
    Path("checkpoints/b-piper/b.onnx").write_bytes(b"broken")
    assert try_voice.main(["--model", "checkpoints/b-piper/b.onnx"]) == 1
    assert "the Piper client failed with exit code 1" in capsys.readouterr().err
    assert not list(Path("output").glob("*"))


@pytest.mark.parametrize("output", ["a.flac", "folder.wav"])
def test_an_output_that_is_no_wav_is_refused(desk, output):
    Path("folder.wav").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        try_voice.main(["Hello", "-o", output])


def test_there_is_a_sentence_for_every_espeak_voice():
    assert sentence_for("ru") != sentence_for("en-us") == sentence_for("en-gb-x-rp") == sentence_for("en")
    assert sentence_for("pt-br").startswith("Olá") and sentence_for("ru+f2") == sentence_for("ru")
    assert sentence_for("tlh").startswith("1, 2, 3")
