"""What clients may send: each wrong thing has its status code, in OpenAI's form, and the real voice speaks what is right."""

from __future__ import annotations

import contextlib
import io
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fish_speech.serving.errors import ApiError
from fish_speech.serving.limits import Limits
from fish_speech.serving.requests import parse_body, speech_request
from fish_speech.serving.voices import VoiceShelf
from fish_speech.versions import SamplingDefaults

from .harness import GatedSpeaker, serving

SHORT = {"input": "Hi.", "response_format": "wav"}


def check_error(answer: Any, status: int, code: str | None = None, param: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert "Traceback" not in answer.text and "site-packages" not in answer.text
    if code is not None:
        assert (error["code"], error["param"]) == (code, param)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b'{"input": "\xff"}', "invalid_json", None),
        (b'{"input": "\\ud800"}', "invalid_json", None),
        (b"[" * 50_000, "invalid_json", None),
        (b"[]", "invalid_type", None),
        (b'"hello"', "invalid_type", None),
        (b"null", "invalid_type", None),
        (b"{}", "missing_required_parameter", "input"),
        (b'{"input": null}', "invalid_type", "input"),
        (b'{"input": 5}', "invalid_type", "input"),
        (b'{"input": ["a"]}', "invalid_type", "input"),
        (b'{"input": ""}', "empty_text", "input"),
        (b'{"input": " \\n\\u0000 ... "}', "empty_text", "input"),
        (b'{"input": "a", "speed": NaN}', "invalid_value", "speed"),
        (b'{"input": "a", "temperature": Infinity}', "invalid_value", "temperature"),
        (b'{"input": "a", "speed": 1e999}', "invalid_value", "speed"),
        (b'{"input": "a", "speed": 4}', "invalid_value", "speed"),
        (b'{"input": "a", "speed": -1}', "invalid_value", "speed"),
        (b'{"input": "a", "speed": "1"}', "invalid_type", "speed"),
        (b'{"input": "a", "speed": true}', "invalid_type", "speed"),
        (b'{"input": "a", "pitch": 13}', "invalid_value", "pitch"),
        (b'{"input": "a", "volume": 1000}', "invalid_value", "volume"),
        (b'{"input": "a", "top_p": 0}', "invalid_value", "top_p"),
        (b'{"input": "a", "repetition_penalty": 2}', "invalid_value", "repetition_penalty"),
        (b'{"input": "a", "temperature": -0.1}', "invalid_value", "temperature"),
        (b'{"input": "a", "seed": -1}', "invalid_value", "seed"),
        (b'{"input": "a", "seed": 1.5}', "invalid_type", "seed"),
        (b'{"input": "a", "seed": 9223372036854775808}', "invalid_value", "seed"),
        (b'{"input": "a", "seed": ' + b"9" * 5000 + b"}", None, None),
        (b'{"input": "a", "response_format": "aac"}', "invalid_value", "response_format"),
        (b'{"input": "a", "response_format": null}', "invalid_value", "response_format"),
        (b'{"input": "a", "stream_format": "sse"}', "invalid_value", "stream_format"),
        (b'{"input": "a", "voice": 7}', "invalid_type", "voice"),
    ],
)
def test_a_wrong_body_is_a_400_that_names_the_field(real, body, code, param):
    answer = real.client.post("/v1/audio/speech", content=body, headers={"content-type": "application/json"})
    check_error(answer, 400, code, param)


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("../outside", 400),
        ("..\\outside", 400),
        ("/etc/passwd", 400),
        ("C:\\outside", 400),
        ("..", 400),
        (".", 400),
        ("", 400),
        ("anna/../anna", 400),
        ("anna\x00", 400),
        ("anna\n", 400),
        ("file:anna", 400),
        ("anna.npy", 404),
        ("ANNA", 404),
        ("nobody", 404),
        ("%2e%2e%2foutside", 404),
        ("a" * 256, 404),
        ("a" * 257, 400),
        ("a" * 100_000, 400),
        ("spoilt", 400),
    ],
)
def test_a_voice_that_is_none_is_refused_and_no_path_leads_out(real, voices_folder, name, status):
    answer = real.say("Hi.", voice=name)
    check_error(answer, status)
    assert answer.json()["error"]["param"] == "voice"
    assert str(voices_folder) not in answer.text


def test_texts_have_a_longest_length_and_requests_a_largest_size(real):
    check_error(real.say("a" * 4097), 400, "string_above_max_length", "input")
    check_error(real.say("ü" * 1_000_000), 413, "request_too_large")
    check_error(real.say("a" * 20_000_000), 413, "request_too_large")
    check_error(real.say("Hi.", instructions="a" * 200_000), 413, "request_too_large")


@pytest.mark.parametrize("form", ["length", "chunks"])
def test_a_text_of_the_longest_length_is_taken_however_it_is_escaped(form):
    limits = Limits(characters=700_000)  # an emoji takes 12 bytes: more than is read of a body that is too large
    body = json.dumps({"input": "\U0001f600" * 699_999 + "a", "response_format": "none"}).encode()
    assert len(body) > 8 << 20
    with serving(lambda: GatedSpeaker(), VoiceShelf(Path()), limits) as served:
        content = body if form == "length" else iter([body])
        answer = served.client.post("/v1/audio/speech", content=content, headers={"content-type": "application/json"})
        check_error(answer, 400, "invalid_value", "response_format")


def chunked(size: int):
    for _ in range(size // 1000):
        yield b"a" * 1000


@pytest.mark.parametrize("size", [1_000_000, 30_000_000])
def test_a_body_of_unknown_length_is_not_read_without_end(real, size):
    import httpx

    try:
        answer = real.client.post(
            "/v1/audio/speech", content=chunked(size), headers={"content-type": "application/json"}
        )
    except httpx.TransportError:
        assert size > 8_000_000  # the connection is closed before all of it is sent
    else:
        check_error(answer, 413, "request_too_large")
    assert real.client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("text/plain", json.dumps(SHORT)),
        ("application/x-www-form-urlencoded", "input=Hi."),
        ("multipart/form-data; boundary=x", "--x--"),
        ("", json.dumps(SHORT)),
    ],
)
def test_what_a_form_of_another_page_could_send_is_refused(real, kind, data):
    check_error(real.client.post("/v1/audio/speech", content=data, headers={"content-type": kind}), 415)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/audio/speech", 405),
        ("DELETE", "/v1/audio/speech", 405),
        ("OPTIONS", "/v1/audio/speech", 405),
        ("POST", "/", 405),
        ("POST", "/health", 405),
        ("GET", "/v1/audio", 404),
        ("GET", "/docs", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/v1/voices/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/v1/audio/speech/%00", 404),
    ],
)
def test_unknown_addresses_and_methods_are_told_in_the_same_form(real, method, path, status):
    check_error(real.client.request(method, path), status, "unknown_url")


def test_an_unknown_model_is_a_404_and_names_that_clients_have_built_in_are_not(real):
    check_error(real.say("Hi.", model="whisper-1"), 404, "model_not_found", "model")
    for model in ("minnow", "tts-1", "gpt-4o-mini-tts"):
        body = json.dumps({"input": "Hi.", "model": model}).encode()
        assert parse_body(body, Limits(), "minnow").model == model


def test_models_voices_and_health_are_told(real):
    models = real.client.get("/v1/models").json()
    assert models["object"] == "list" and [row["id"] for row in models["data"]] == ["minnow"]
    voices = real.client.get("/v1/voices").json()["data"]
    assert [row["id"] for row in voices] == ["default", "Käthe 2", "anna"]
    assert voices[2]["text"] and voices[2]["seconds"] > 0.5
    health = real.client.get("/health")
    assert health.status_code == 200 and health.json()["model"] == "minnow"


def sound_of(answer: Any) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return soundfile.read(io.BytesIO(answer.content), dtype="float32")[0]


def test_the_server_speaks_what_the_speaker_speaks_and_the_same_for_the_same_seed(real, minnow):
    from fish_speech.synthesis.speak import SpeechRequest

    answer = real.say("Hello.", response_format="wav", seed=7, model="tts-1", voice="default", instructions="Gently.")
    expected = np.concatenate(list(minnow.stream(SpeechRequest("Hello.", seed=7))))
    assert answer.headers["content-type"] == "audio/wav" and answer.headers["x-seed"] == "7"
    assert np.abs(sound_of(answer) - expected).max() < 1 / 32000
    assert real.say("Hello.", response_format="wav", seed=7).content == answer.content
    assert real.say("Hello.", response_format="wav", seed=8).content != answer.content


def test_a_voice_changes_what_is_spoken_and_speed_its_length(real):
    plain = sound_of(real.say("Hello.", response_format="wav", voice="default"))
    anna = sound_of(real.say("Hello.", response_format="wav", voice="anna"))
    assert len(anna) != len(plain) or not np.array_equal(anna, plain)
    slow = sound_of(real.say("Hello.", response_format="wav", voice="default", speed=0.5))
    assert len(slow) == pytest.approx(2 * len(plain), rel=0.01)


@pytest.mark.parametrize("text", ["<|im_end|> hello", "\u202ehello\u0007", "你好", "h\u0301\u0302ello"])
def test_odd_texts_are_spoken_or_refused_and_nothing_breaks(real, text):
    assert real.say(text, response_format="pcm").status_code in (200, 400)


def test_a_body_that_comes_too_slowly_is_a_408():
    with serving(lambda: GatedSpeaker(), VoiceShelf(Path()), Limits(body_s=0.3, headers_s=2)) as served:
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                           b'Content-Length: 100\r\n\r\n{"input"')  # fmt: skip
            assert client.recv(100).startswith(b"HTTP/1.1 408 ")
        slow = [socket.create_connection(("127.0.0.1", served.port), timeout=20) for _ in range(2)]
        slow[1].sendall(b"GET /health HTTP/1.1\r\nHost: local")  # headers that never end
        for client in slow:
            with client, contextlib.suppress(ConnectionResetError):
                assert client.recv(100) == b""
        with socket.create_connection(("127.0.0.1", served.port)) as client:  # too long a head
            client.sendall(b"GET /health HTTP/1.1\r\nX: " + b"a" * 100_000)
            assert b" 400 " in client.recv(100)
        assert served.client.get("/health").status_code == 200


fields = st.dictionaries(
    st.sampled_from(
        ["input", "model", "voice", "response_format", "speed", "seed", "temperature", "pitch", "volume", "x"]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200) | fields.map(lambda found: json.dumps(found).encode()))
def test_no_body_at_all_raises_anything_but_an_api_error(data):
    try:
        body = parse_body(data, Limits(), "minnow")
    except ApiError as error:
        assert error.status in (400, 404)
    else:
        assert body.input.strip()


def test_what_a_client_leaves_open_is_drawn_as_the_version_has_it():
    body = parse_body(json.dumps({**SHORT, "top_p": 0.5}).encode(), Limits(), "minnow")
    sampling = speech_request(body, (), 7, SamplingDefaults(0.8, 0.9, 1.1)).sampling
    assert (sampling.temperature, sampling.top_p, sampling.repetition_penalty) == (0.8, 0.5, 1.1)
