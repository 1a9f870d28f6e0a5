"""cli_tts.py with a Piper voice: the same places and effects as for other voices, and no flag without effect."""

from __future__ import annotations

import io
import json
import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import cli_tts
from fish_speech.errors import UserError
from piper_train.speech.voice import OnnxVoice

TEXT = "hello there\n\nSecond"
STILL = ("--noise-scale", "0", "--noise-w-scale", "0")


@pytest.fixture()
def desk(own_voice, tmp_path, monkeypatch):
    """A folder with voice.onnx, which takes characters for phonemes, so that no espeak is needed."""
    own_voice()
    beside = tmp_path / "voice.onnx.json"
    config = {**json.loads(beside.read_text(encoding="utf-8")), "phoneme_type": "text"}
    beside.write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("fish_speech", "piper_train"):
        logging.getLogger(name).handlers.clear()


def speak(*argv: object) -> int:
    return cli_tts.main(["--model-path", "voice.onnx", *map(str, argv)])


def samples_of(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="int16")
    assert rate == 22050
    return samples


@pytest.fixture()
def plain(desk) -> np.ndarray:
    """What the voice says of TEXT without noise."""
    assert speak(TEXT, *STILL, "-o", "plain.wav") == 0
    return samples_of(desk / "plain.wav")


class Stdin(io.TextIOWrapper):
    """A pipe with text in it."""

    def __init__(self, text: str):
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8")


# --- places and effects


def test_text_comes_from_stdin_or_a_file_and_goes_to_the_next_free_name(desk, plain, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Stdin(TEXT))
    capsys.readouterr()
    assert speak(*STILL) == 0
    (desk / "text.txt").write_text(TEXT, encoding="utf-8")
    assert speak("--text-file", "text.txt", *STILL) == 0
    written = capsys.readouterr().out.replace("\\", "/").split()
    assert written == ["output/speech_001.wav", "output/speech_002.wav"]
    assert all(np.array_equal(samples_of(desk / name), plain) for name in written)


def test_a_folder_with_one_voice_is_enough(desk, plain):
    (desk / "anna-piper").mkdir()
    for name in ("voice.onnx", "voice.onnx.json"):
        (desk / name).rename(desk / "anna-piper" / name)
    assert cli_tts.main(["--model-path", "anna-piper", TEXT, *STILL, "-o", "a.flac"]) == 0
    assert np.array_equal(samples_of(desk / "a.flac"), plain)
    (desk / "anna-piper" / "other.onnx").touch()
    with pytest.raises(UserError, match="holds 2 voices"):
        cli_tts.main(["--model-path", "anna-piper", TEXT])


def test_stdout_gets_the_same_samples(desk, plain, capfdbinary):
    capfdbinary.readouterr()
    assert speak(TEXT, *STILL, "-o", "-", "--format", "raw") == 0
    assert capfdbinary.readouterr().out == plain.tobytes()


def test_speed_and_volume_do_what_they_do_to_other_voices(desk, plain):
    assert speak(TEXT, *STILL, "--speed", 1.25, "-o", "fast.wav") == 0
    assert speak(TEXT, *STILL, "--volume", -6, "-o", "quiet.wav") == 0
    assert speak(TEXT, *STILL, "--pitch", 3, "-o", "high.wav") == 0
    assert len(samples_of(desk / "fast.wav")) == round(len(plain) / 1.25)
    quiet = samples_of(desk / "quiet.wav")
    assert np.abs(quiet.astype(float) - plain * 10 ** (-6 / 20)).max() <= 2
    high = samples_of(desk / "high.wav")
    assert len(high) == len(plain) and not np.array_equal(high, plain)


def test_a_seed_says_the_same_again_and_samples_follow_one_another(desk):
    assert speak(TEXT, "--num-samples", 2, "--seed", 7, "-o", "a.wav") == 0
    assert speak(TEXT, "--seed", 8, "-o", "b.wav") == 0
    first, second, again = (samples_of(desk / name) for name in ("a_1.wav", "a_2.wav", "b.wav"))
    assert np.array_equal(second, again) and not np.array_equal(first[:5000], second[:5000])


def test_unknown_phonemes_are_told_and_the_rest_is_said(desk, capsys):
    assert speak("abЖcЖd", *STILL, "-o", "a.wav") == 0
    assert speak("abcd", *STILL, "-o", "b.wav") == 0
    told = capsys.readouterr().err
    assert "2 phonemes are not in the table of voice.onnx and left out: 'Ж' (U+0416) 2 times" in told
    assert np.array_equal(samples_of(desk / "a.wav"), samples_of(desk / "b.wav"))
    with pytest.raises(UserError, match="the voice said nothing") as raised:
        speak("ЖЩ", "-o", "c.wav")
    assert "'Щ'" in raised.value.why and not (desk / "c.wav").exists() and not list(desk.glob(".partial-*"))


def test_a_long_text_goes_out_sentence_by_sentence(desk, monkeypatch):
    """The second sentence fails, and by then the first was written."""
    written = []
    said = OnnxVoice._say

    def say(self, *arguments):
        if written and len(written) == 1:
            raise RuntimeError("stop here")
        sound = said(self, *arguments)
        written.append(sound)
        return sound

    monkeypatch.setattr(OnnxVoice, "_say", say)
    got = []
    monkeypatch.setattr("fish_speech.speaking.file_sink.FileSink.write", lambda self, chunk: got.append(len(chunk)))
    with pytest.raises(RuntimeError, match="stop here"):
        speak("one\n\n" * 10_000, *STILL, "-o", "a.wav")
    assert got == [len(written[0])]


# --- batches


def lines(path: Path, *entries: dict) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def test_a_batch_says_each_line_as_it_is_said_alone_and_goes_on_where_it_stopped(desk, capsys):
    batch = lines(
        desk / "lines.jsonl",
        {"text": "hello there"},
        {"text": "hello there", "id": "other", "seed": 7},
        {"text": "hello there", "output": "fast.flac", "speed": 1.5},
    )
    assert speak("--batch", batch, "-o", "out") == 0
    assert speak("hello there", "--seed", 7, "-o", "alone.wav") == 0
    assert np.array_equal(samples_of(desk / "alone.wav"), samples_of(desk / "out/other.wav"))
    assert len(samples_of(desk / "out/fast.flac")) == round(len(samples_of(desk / "out/0001.wav")) / 1.5)
    (desk / "out/0001.wav").unlink()
    capsys.readouterr()
    assert speak("--batch", batch, "-o", "out") == 0
    assert "1 to speak, 2 done before" in capsys.readouterr().err
    assert speak("--batch", batch, "-o", "out", "--noise-scale", 0, "--overwrite") == 0
    assert "3 to speak, 0 done before" in capsys.readouterr().err


def test_lines_that_a_piper_voice_cannot_obey_are_refused(desk):
    batch = lines(desk / "lines.jsonl", {"text": "a", "voice": "anna"}, {"text": "a", "temperature": 0.2})
    with pytest.raises(UserError, match="2 lines of") as raised:
        speak("--batch", batch, "-o", "out")
    assert "there is no speaker anna" in raised.value.why and "temperature has no effect" in raised.value.why
    assert not (desk / "out").exists()


# --- refusals


@pytest.mark.parametrize(
    "flags",
    [
        ("--voice", "anna"),
        ("--temperature", "0.5"),
        ("--top-p", "0.5"),
        ("--verify",),
        ("--precision", "bf16"),
        ("--quantize", "int8"),
        ("--checkpoint", "x.ckpt"),
        ("--model-version", "minnow"),
        ("--codec", "c.pth"),
        ("--reference-audio", "a.wav"),
        ("--chunk-length", "100"),
        ("--max-new-tokens", "100"),
        ("--no-cache",),
        ("--emotion", "angry"),
        ("--force-mps",),
        ("--create-reference", "a.wav", "b.npy"),
    ],
)
def test_a_flag_without_effect_on_a_piper_voice_is_refused(desk, flags):
    text = () if "--create-reference" in flags else ("hello",)
    with pytest.raises(UserError, match=f"{flags[0]} has no effect here"):
        speak(*text, *flags)


@pytest.mark.parametrize(
    "flags", [("--speaker", "1"), ("--length-scale", "2"), ("--noise-w-scale=0",), ("--no-normalize",)]
)
def test_a_flag_for_piper_voices_is_refused_for_others(desk, flags):
    with pytest.raises(UserError, match=rf"{flags[0].partition('=')[0]} has no effect here") as raised:
        cli_tts.main(["hello", "--model-version", "minnow", *flags])
    assert "it is for Piper voices" in raised.value.why


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("",), "there is nothing to say"),
        (("...",), "there is nothing to say"),
        (("hello", "--length-scale", "0"), "the voice cannot speak so"),
        (("hello", "--noise-scale", "nan"), "the voice cannot speak so"),
        (("hello", "--speaker", "nobody"), "there is no speaker nobody"),
        (("hello", "-o", "a.mp3"), "cannot write a.mp3"),
        (("hello", "--speed", "9"), "the sound cannot be changed so"),
    ],
)
def test_what_cannot_be_spoken_is_refused(desk, argv, said):
    with pytest.raises(UserError, match=said):
        speak(*argv)
    assert not (desk / "output").exists()


def test_a_voice_that_is_not_there_is_named(desk):
    with pytest.raises(UserError, match=r"cannot read the voice nobody\.onnx"):
        cli_tts.main(["hello", "--model-path", "nobody.onnx"])


def test_a_missing_espeak_is_told_with_what_to_install(desk, monkeypatch):
    beside = desk / "voice.onnx.json"
    config = {**json.loads(beside.read_text(encoding="utf-8")), "phoneme_type": "espeak"}
    beside.write_text(json.dumps(config), encoding="utf-8")
    monkeypatch.setenv("PATH", str(desk))
    monkeypatch.setattr("piper_train.phonemes.phonemizer.PiperSource", _missing_source)
    with pytest.raises(UserError) as raised:
        speak("hello", "-o", "a.wav")
    assert "espeak-ng" in f"{raised.value.what} {raised.value.why} {raised.value.fix}"
    assert "install" in raised.value.fix and not (desk / "a.wav").exists()


def _missing_source(voice: str):
    from piper_train.phonemes.piper_source import SourceMissing

    raise SourceMissing("not installed")
