"""Keys, host names, other web pages: who is let in, and what is said to those who are not."""

from __future__ import annotations

import logging

import httpx
import pytest

from fish_speech.errors import UserError
from fish_speech.serving.security import check_key, is_loopback, key_needed, read_key
from fish_speech.serving.voices import VoiceShelf

from .harness import GatedSpeaker, serving

KEY = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    with serving(lambda: GatedSpeaker(is_open=True), VoiceShelf(tmp_path_factory.mktemp("voices")), key=KEY) as served:
        yield served


@pytest.fixture(scope="module")
def unlocked(tmp_path_factory):
    speaker = GatedSpeaker(is_open=True)
    with serving(lambda: speaker, VoiceShelf(tmp_path_factory.mktemp("voices"))) as served:
        yield served, speaker


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, "Bearer é"],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/audio/speech"), ("GET", "/v1/models"), ("GET", "/nothing")])
def test_without_the_key_nothing_is_told_but_401(locked, caplog, header, method, path):
    headers = {} if header is None else {"authorization": header.encode()}
    with caplog.at_level(logging.DEBUG):
        body = {"input": "a"} if method == "POST" else None
        answer = httpx.request(method, locked.url + path, headers=headers, json=body, verify=False)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert KEY not in answer.text and KEY not in caplog.text


def test_with_the_key_the_server_speaks(locked):
    assert locked.say("abc").status_code == 200
    assert httpx.get(locked.url + "/v1/models", headers={"authorization": f"bearer {KEY}"}).status_code == 200


def test_the_page_and_health_need_no_key_and_tell_no_secret(locked):
    page, health = httpx.get(locked.url + "/"), httpx.get(locked.url + "/health")
    assert page.status_code == 200 and KEY not in page.text
    assert health.json() == {"status": "ready", "needs_key": True}
    assert locked.client.get("/health").json()["model"] == "minnow"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:8000", 200),
        ("[::1]", 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8000", 421),
        ("", 421),
        ("evil.example@localhost", 421),
        ("localhost:80:80", 421),
    ],
)
def test_only_names_of_this_machine_are_answered_to(unlocked, host, status):
    served, _ = unlocked
    answer = served.client.get("/health", headers={"host": host})
    assert answer.status_code == status


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[", "http://localhost"]
)
def test_scripts_of_other_pages_are_refused_and_get_no_cors(unlocked, origin):
    served, speaker = unlocked
    begun = list(speaker.texts)
    answer = served.client.post("/v1/audio/speech", json={"input": "a"}, headers={"origin": origin})
    assert answer.status_code == 403 and speaker.texts == begun
    asked = {"origin": origin, "access-control-request-method": "POST"}
    preflight = served.client.options("/v1/audio/speech", headers=asked)
    assert preflight.status_code >= 400
    assert not [name for name in (*answer.headers, *preflight.headers) if name.startswith("access-control")]


def test_the_own_page_is_let_in(unlocked):
    served, _ = unlocked
    answer = served.client.post("/v1/audio/speech", json={"input": "a"}, headers={"origin": served.url})
    assert answer.status_code == 200


def test_every_answer_forbids_sniffing_and_framing(unlocked):
    served, _ = unlocked
    for path in ("/", "/health", "/nothing"):
        headers = served.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert "server" not in headers
    policy = served.client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_loopback_is_told_from_other_addresses():
    assert all(map(is_loopback, ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LocalHost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "192.168.1.2", "example.com", "", "localhost.example.com"]))


@pytest.mark.parametrize(
    "key", ["", "short", "x" * 513, "with spaces in between", "with\nnewline-in-between", "schlüssel-schlüssel"]
)
def test_a_key_that_cannot_be_used_is_refused_and_not_printed(key):
    with pytest.raises(UserError) as caught:
        check_key(key)
    assert not key or key not in str(caught.value)


def test_a_key_file_is_read_and_a_missing_one_named(tmp_path):
    path = tmp_path / "key"
    path.write_text(KEY + "\n", encoding="utf-8")
    assert check_key(read_key(path)) == KEY
    with pytest.raises(UserError, match="cannot read the key file"):
        read_key(tmp_path / "none")
    assert "FISH_SPEECH_API_KEY" in str(key_needed("0.0.0.0"))
