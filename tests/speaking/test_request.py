"""cli_tts.py does one thing at a time, and refuses a flag that would do nothing."""

import os
import subprocess
import sys

import pytest
import torch

import cli_tts
from fish_speech.arguments import given_flags
from fish_speech.errors import UserError
from fish_speech.speaking import options as flags
from fish_speech.speaking.request import check, task_of

from ..conftest import REPO


def parsed(*argv: str):
    options = cli_tts.make_parser().parse_args(argv)
    task = task_of(options)
    check(task, options, given_flags(argv))
    flags.settle_model(options)
    return task, options


@pytest.mark.parametrize(
    ("argv", "task"),
    [
        (("Hello.",), "speak"),
        ((), "speak"),
        (("Hello.", "--voice", "anna", "--voices-dir", "mine", "--stream", "-o", "a.wav"), "speak"),
        (("--batch", "lines.jsonl", "-o", "out", "--overwrite", "--voices-dir", "mine", "--speed", "1.2"), "batch"),
        (("--list-voices", "--voices-dir", "mine"), "list voices"),
        (("--cache-info",), "cache info"),
        (("--clear-cache",), "clear cache"),
        (("--create-reference", "a.wav", "a.npy", "--asr", "pocketsphinx", "--overwrite"), "create reference"),
        (("Hello.", "--verify", "--attempts", "2", "--asr", "pocketsphinx"), "speak"),
    ],
)
def test_each_task_is_known_by_its_flag(argv, task):
    assert parsed(*argv)[0] == task


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--list-voices", "--cache-info"), "--list-voices and --cache-info"),
        (("--batch", "a.jsonl", "--clear-cache"), "--clear-cache and --batch"),
        (("--list-voices", "--seed", "3"), "--seed has no effect"),
        (("Hello.", "--list-voices"), "the text has no effect"),
        (("--cache-info", "--voices-dir", "mine"), "--voices-dir has no effect"),
        (("--create-reference", "a.wav", "a.npy", "--temperature", "0"), "--temperature has no effect"),
        (("Hello.", "--batch", "a.jsonl"), "the text has no effect"),
        (("--batch", "a.jsonl", "--play"), "--play has no effect"),
        (("--batch", "a.jsonl", "--num-samples=2"), "--num-samples has no effect"),
        (("Hello.", "--attempts", "2"), "--attempts has no effect"),
        (("Hello.", "--whisper-model", "tiny"), "--whisper-model has no effect"),
        (("Hello.", "--voices-dir", "mine"), "--voices-dir has no effect"),
        (("Hello.", "--overwrite"), "--overwrite has no effect"),
        (("Hello.", "--format", "raw"), "--format has no effect"),
        (("Hello.", "--stream", "--play"), "--play has no effect"),
        (("--cache-info", "-o", "a.wav"), "--output has no effect"),
        (("--list-voices", "--output=a.wav"), "--output has no effect"),
        (("Hello.", "--seed", str(2**63)), "is too large"),
        (("Hello.", "--seed", str(2**63 - 1), "--num-samples", "2"), "is too large"),
        (("--batch", "a.jsonl", "-o", "-"), "a batch cannot be written to -"),
        (("--batch", "a.jsonl", "-o", "a.wav"), "a batch cannot be written to a.wav"),
        (("Hello.", "--no-reference", "--voice", "anna"), "--no-reference has no effect"),
        (("Hello.", "--no-reference", "--prompt-tokens", "a.npy"), "--no-reference has no effect"),
    ],
)
def test_a_flag_without_effect_is_refused_by_its_name(argv, named):
    with pytest.raises(UserError, match=named):
        parsed(*argv)


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (("--temperature", "3"), "temperature is 3"),
        (("--top-p", "0"), "top_p is 0"),
        (("--repetition-penalty", "nan"), "repetition_penalty is nan"),
        (("--speed", "3"), "speed"),
        (("--speed", "nan"), "speed"),
        (("--pitch", "40"), "pitch"),
        (("--volume", "inf"), "volume"),
        (("--emotion", "joyful"), "--emotion has no effect with version 1.5"),
        (("--tone", "whispering", "--model-version", "minnow"), "--tone has no effect with version minnow"),
        (("--quantize", "int8", "--precision", "bf16"), "--quantize int8 and --precision bf16"),
    ],
)
def test_settings_that_make_no_sense_are_refused(argv, named):
    _, options = parsed("Hello.", *argv)
    with pytest.raises(UserError, match=named):
        flags.effects(options.speed, options.pitch, options.volume)
        flags.sampling_config(options.temperature, options.top_p, options.repetition_penalty)
        flags.marker_of(options)
        flags.voice_settings(options)


def test_words_that_the_terminal_cannot_show_do_not_end_a_run(tmp_path):
    (tmp_path / "鈴木.npy").write_bytes(b"no codes")
    result = subprocess.run(
        [sys.executable, REPO / "cli_tts.py", "--list-voices", "--voices-dir", tmp_path],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(REPO)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.startswith("\\u9234\\u6728") and "cannot be used" in result.stdout


def test_looking_at_a_request_loads_no_torch_so_that_mps_can_be_told_how_to_fall_back():
    code = """
import os, sys, cli_tts
from fish_speech.speaking import say
def look(options):
    assert "torch" not in sys.modules and os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"
    return 7
say.say = look
sys.exit(cli_tts.main(["Hello.", "--device", "mps"]))
"""
    environment = {name: value for name, value in os.environ.items() if name != "PYTORCH_ENABLE_MPS_FALLBACK"}
    result = subprocess.run([sys.executable, "-c", code], env={**environment, "PYTHONPATH": str(REPO)}, check=False)
    assert result.returncode == 7


def test_sampling_is_that_of_the_version_where_nobody_says(tmp_path):
    (tmp_path / "config.json").write_text('{"attention_qk_norm": true}', encoding="utf-8")
    _, options = parsed("Hello.", "--model-path", str(tmp_path), "--top-p", "0.5")
    assert options.model_version == "s1-mini"
    assert (options.temperature, options.top_p, options.repetition_penalty) == (0.8, 0.5, 1.1)
    _, options = parsed("Hello.")
    assert options.model_version == "1.5"
    assert (options.temperature, options.top_p, options.repetition_penalty) == (0.7, 0.7, 1.2)


def test_markers_are_listed_in_the_help_and_put_before_the_text_of_a_version_that_obeys_them():
    said = " ".join(cli_tts.make_parser().format_help().split())
    for name in ("joyful", "whispering", "in a hurry tone", "audience laughing"):
        assert name in said
    _, options = parsed("Hello.", "--model-version", "s1-mini", "--emotion", "joyful", "--tone", "whispering")
    assert flags.marker_of(options) == "(joyful) (whispering) "


def test_a_model_folder_that_is_not_there_is_told_before_flags_are_judged_by_a_version_it_is_not(tmp_path):
    with pytest.raises(UserError, match=r"there is no model folder .*gone"):
        parsed("Hello.", "--emotion", "joyful", "--model-path", str(tmp_path / "gone"))


def test_a_checkpoint_says_its_base_where_nobody_does(tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text('{"attention_qk_norm": true}', encoding="utf-8")
    checkpoint = tmp_path / "step_000000010.ckpt"
    torch.save({"fish_speech": {"base": str(base), "family": "s1"}, "state_dict": {}}, checkpoint)
    _, options = parsed("Hello.", "--checkpoint", str(checkpoint))
    assert (options.model_path, options.model_version, options.top_p) == (base, "s1-mini", 0.8)
    _, options = parsed("Hello.", "--checkpoint", str(checkpoint), "--model-version", "1.5")
    assert (options.model_path, options.model_version) == (None, "1.5")  # refused by name when it is loaded
    (base / "config.json").unlink()
    _, options = parsed("Hello.", "--checkpoint", str(checkpoint))
    assert (options.model_path, options.model_version) == (None, "s1-mini")
    torch.save({"state_dict": {}}, checkpoint)  # of another tool
    _, options = parsed("Hello.", "--checkpoint", str(checkpoint))
    assert (options.model_path, options.model_version) == (None, "1.5")
    with pytest.raises(UserError, match="missing"):
        parsed("Hello.", "--checkpoint", str(tmp_path / "missing.ckpt"))
