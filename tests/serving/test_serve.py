"""python -m fish_speech.serve as a user starts it: wrong requests, a key, Ctrl+C and SIGTERM."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fish_speech import serve

REPO = Path(__file__).parents[2]
MINNOW = ["--model-version", "minnow", "--model-path", str(REPO / "checkpoints" / "minnow"), "--no-cache"]
KEY = "correct-horse-battery-staple"


def run_main(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and what was said, of a start that fails before anything is loaded."""
    from fish_speech import errors

    monkeypatch.setattr(sys, "argv", ["serve", *arguments])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        errors.run(serve.main)
    return ended.value.code, capsys.readouterr().err


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.delenv("FISH_SPEECH_API_KEY", raising=False)


@pytest.fixture(autouse=True)
def loggers_as_before():
    """main() lets them write to the stderr of its test, which is closed afterwards."""
    names = ("fish_speech", "uvicorn", "fish_speech.synthesis", "fish_speech.speaking.references")
    kept = [(found, found.handlers[:], found.level, found.propagate) for found in map(logging.getLogger, names)]
    yield
    for found, handlers, level, propagate in kept:
        found.handlers[:], found.propagate = handlers, propagate
        found.setLevel(level)


def test_a_seed_that_no_request_could_use_is_refused(monkeypatch, capsys):
    code, said = run_main(monkeypatch, capsys, "--seed", str(1 << 63))
    assert code == 2 and "seeds go up to" in said and "Traceback" not in said


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com"])
def test_elsewhere_than_on_this_machine_a_key_is_demanded(monkeypatch, capsys, host):
    code, said = run_main(monkeypatch, capsys, "--host", host)
    assert code == 2 and "FISH_SPEECH_API_KEY" in said and "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--api-key", "short"], "the API key cannot be used"),
        (["--api-key", ""], "the API key cannot be used"),
        (["--api-key", KEY, "--api-key-file", "x"], "two API keys"),
        (["--api-key-file", "no/such/file"], "cannot read the key file"),
        (["--port", "70000"], "no port"),
        (["--port", "x"], "invalid"),
        (["--queue", "-1"], "below 0"),
        (["--max-characters", "0"], "above 0"),
        (["--host", "no.such.host.invalid", "--api-key", KEY], "no address of this machine"),
        (["--host", "a" * 64, "--api-key", KEY], "no address of this machine"),
        (["--voice", "nobody", "--voices-dir", "no/such/folder"], "nobody"),
        (["--voice", "a", "--no-reference"], "give one of them"),
        (["--quantize", "int8", "--precision", "bf16"], "give one of them"),
    ],
)
def test_a_wrong_flag_is_code_2_and_says_what_to_do(monkeypatch, capsys, arguments, part):
    code, said = run_main(monkeypatch, capsys, *arguments)
    assert code == 2 and part in said and "Traceback" not in said
    assert KEY not in said


def test_a_key_of_the_environment_is_checked_as_well(monkeypatch, capsys):
    monkeypatch.setenv("FISH_SPEECH_API_KEY", "")
    assert run_main(monkeypatch, capsys)[0] == 2


def test_a_port_in_use_is_code_2_and_told_before_anything_is_loaded(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, said = run_main(monkeypatch, capsys, "--port", str(other.getsockname()[1]))
    assert code == 2 and "cannot listen" in said and "--port" in said


def test_without_the_extra_the_command_that_installs_it_is_told(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, said = run_main(monkeypatch, capsys)
    assert code == 2 and "pip install 'fish-speech-voice-toolkit[serve]'" in said


def test_help_needs_neither_torch_nor_the_extra():
    code = (
        "import sys; sys.modules.update(torch=None, fastapi=None, uvicorn=None); import fish_speech.serve as s; "
        "s.make_parser().parse_args(['--help'])"
    )
    told = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, encoding="utf-8")
    assert told.returncode == 0 and "/v1/audio/speech" in told.stdout, told.stderr


@contextlib.contextmanager
def started(*arguments: str, ready: bool = True, **environment: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """The program on a free port, once it is ready; and its address."""
    command = [sys.executable, "-m", "fish_speech.serve", *arguments, "--port", "0"]
    process = subprocess.Popen(
        command, cwd=REPO, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.match(r"(http://\S+)/  ", line)
        assert found, line
        while ready and httpx.get(f"{found[1]}/health", timeout=60).status_code != 200:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        yield process, found[1]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_sentence_and_ends_with_0(number):
    with started(*MINNOW) as (process, url):
        body = {"input": "One two three four five six seven eight nine ten. " * 2, "response_format": "wav"}
        with httpx.stream("POST", f"{url}/v1/audio/speech", json=body, timeout=120) as answer:
            pieces = answer.iter_bytes()
            got = next(pieces)
            process.send_signal(number)
            got += b"".join(pieces)  # raises if the end is missing
        assert answer.status_code == 200 and len(got) > 50_000
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 0 and "stopped" in said and "Traceback" not in said
    assert "One two" not in said


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_while_loading_ends_at_once():
    with started(*MINNOW, ready=False) as (process, _):
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
    assert process.returncode in (0, 130) and "Traceback" not in said, said


@pytest.mark.slow
def test_a_key_of_the_environment_is_demanded_from_clients_and_never_printed():
    with started(*MINNOW, "--model-name", "my voice", FISH_SPEECH_API_KEY=KEY) as (process, url):
        assert httpx.get(f"{url}/v1/models").status_code == 401
        headers = {"authorization": f"Bearer {KEY}", "host": "voice.example", "origin": "https://voice.example"}
        answer = httpx.get(f"{url}/v1/models", headers=headers)  # as a proxy asks
        assert answer.json()["data"][0]["id"] == "my voice"
        process.terminate()
        said = process.communicate(timeout=120)[1]
    assert KEY not in said


@pytest.mark.slow
def test_a_model_that_is_not_there_is_code_2_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "fish_speech.serve", "--model-path", str(tmp_path), "--port", "0", "--no-cache"]
    ended = subprocess.run(command, cwd=REPO, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert ended.returncode == 2 and "error:" in ended.stderr and "Traceback" not in ended.stderr
