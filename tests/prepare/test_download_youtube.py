"""YouTube's recordings, with yt-dlp's real extractor; what it asks YouTube for, a server on loopback answers."""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fish_speech.errors import UserError
from fish_speech.prepare.download import Download, download, guard, session, youtube

from .media_server import MediaServer

pytest.importorskip("yt_dlp")
ID = "BaW_jenozKc"
URL = f"https://www.youtube.com/watch?v={ID}"
SOUND = {
    "itag": 251,
    "url": "https://rr1---sn-x.googlevideo.com/videoplayback",
    "mimeType": 'audio/webm; codecs="opus"',
    "bitrate": 130000,
    "contentLength": "5000",
    "approxDurationMs": "3000",
}
PUZZLE = {
    **SOUND,
    "url": None,
    "signatureCipher": "s=abcdef&sp=sig&url=https%3A%2F%2Fx.googlevideo.com%2Fvideoplayback",
}
SCRIPT = "/s/player/0123abcd/player_ias.vflset/en_US/base.js"
FAKE_DENO = "#!/bin/sh\necho deno 2.9.8\n"
posix = pytest.mark.skipif(os.name == "nt", reason="the runtime of the test is a shell script")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MediaServer]:
    """Answers every request for YouTube, by its path alone."""
    open_address = guard.Guard._open

    def open_on_loopback(self: guard.Guard, request: Any) -> Any:
        parts = urlsplit(request.url)
        assert parts.hostname is not None and parts.hostname.endswith((".youtube.com", ".googlevideo.com")), request.url
        request = request.copy()
        request.url = server.url(parts.path)
        return open_address(self, request)

    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv(youtube.RUNTIME_VARIABLE, raising=False)
    monkeypatch.setattr("yt_dlp.networking._helper.ssl_load_certs", lambda *_: None)
    options, sites = session._options, {"allowed_extractors": ["youtube.*"]}
    monkeypatch.setattr(session, "_options", lambda bar: options(bar) | sites)
    monkeypatch.setattr(session, "_pause_s", lambda n: 0.0)
    monkeypatch.setattr(guard.Guard, "_open", open_on_loopback)
    with MediaServer() as server:
        yield server


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where programs are looked for; it is empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(sysconfig, "get_path", lambda *_, **__: str(folder))
    return folder


def install(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, encoding="utf-8")
    (folder / name).chmod(0o755)


def offer(server: MediaServer, *formats: dict, status: str = "OK", reason: str | None = None) -> None:
    """Have the video's page and the player's API offer these formats."""
    player = {
        "videoDetails": {"videoId": ID, "title": "A talk", "lengthSeconds": "3"},
        "playabilityStatus": {"status": status, **({"reason": reason} if reason else {})},
        "streamingData": {"adaptiveFormats": list(formats), "expiresInSeconds": "21540"},
    }
    script = f'var ytInitialPlayerResponse = {json.dumps(player)};ytcfg.set({{"PLAYER_JS_URL": "{SCRIPT}"}});'
    html = f"<html><script>{script}</script></html>"
    server.files |= {
        "/watch": html.encode(),
        "/youtubei/v1/player": json.dumps(player).encode(),
        SCRIPT: b"var player = {signatureTimestamp: 20000};",
        "/youtubei/v1/next": b'{"contents": {"any": 1}}',
        "/videoplayback": bytes(range(250)) * 20,
    }


def fetch(folder: Path) -> Download:
    (result,) = download(URL, folder / "out", show_progress=False)
    return result


def test_sound_that_youtube_offers_without_a_puzzle_needs_no_runtime(server, programs, tmp_path):
    offer(server, SOUND)
    result = fetch(tmp_path)
    assert result.failed is None and result.path.read_bytes() == server.files["/videoplayback"]
    assert (result.title, result.path.suffix) == ("A talk", ".webm")


@pytest.mark.parametrize(
    ("formats", "reason", "category"),
    [
        ([], None, "no media"),
        ([PUZZLE], None, "no media"),
        ([], "This video is not available", "not available"),
        ([{**SOUND, "itag": 248, "mimeType": 'video/webm; codecs="vp9"'}], None, "no media"),  # a picture alone
    ],
)
def test_without_audio_and_without_a_runtime_the_reason_says_to_install_deno(
    server, programs, tmp_path, formats, reason, category
):
    offer(server, *formats, status="UNPLAYABLE" if reason else "OK", reason=reason)
    result = fetch(tmp_path)
    assert result.path is None and not server.asked_for("/videoplayback")
    assert result.failed.startswith(f"{category}: ") and "\n" not in result.failed
    assert "install deno: pip install" in result.failed and '"yt-dlp[default,deno]"' in result.failed


def test_an_extractor_that_breaks_without_a_runtime_says_to_install_deno(server, programs, tmp_path):
    offer(server)
    server.files |= {"/watch": b"<html></html>", "/youtubei/v1/player": b"[1, 2"}
    assert "install deno: pip install" in fetch(tmp_path).failed


@pytest.mark.parametrize("reason", ["Private video. Sign in if you may see it", "This video has been removed"])
def test_failures_that_no_runtime_mends_do_not_ask_for_one(server, programs, tmp_path, reason):
    offer(server, status="ERROR", reason=reason)
    failed = fetch(tmp_path).failed
    assert failed.startswith(("login needed: ", "not found: ")) and "deno" not in failed


def test_no_connection_does_not_ask_for_a_runtime(server, programs, tmp_path):
    server.stop()
    server.url = lambda path: f"http://127.0.0.1:9{path}"
    failed = fetch(tmp_path).failed
    assert failed.startswith("no connection: ") and "deno" not in failed


@posix
@pytest.mark.parametrize(("version", "usable"), [("2.9.8", True), ("1.40.0", False)])
def test_a_runtime_that_is_there_is_not_asked_for_unless_it_is_too_old(
    server, programs, tmp_path, monkeypatch, version, usable
):
    monkeypatch.setattr(youtube, "_has_solver", lambda: True)
    install(programs, "deno", FAKE_DENO.replace("2.9.8", version))
    offer(server)
    assert ("install deno" in fetch(tmp_path).failed) is not usable


@posix
def test_deno_is_started_for_a_puzzle_and_is_given_no_rights(server, programs, tmp_path, monkeypatch):
    """This one cannot solve it, so there is no sound; but it has been asked."""
    monkeypatch.setattr(youtube, "_has_solver", lambda: True)
    install(programs, "deno", f'{FAKE_DENO}echo "$@" >> "{tmp_path / "asked"}"\n')
    offer(server, PUZZLE)
    assert fetch(tmp_path).failed.startswith("no media: ")
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    runs = [arguments for arguments in asked if arguments != "--version"]
    assert runs and all(arguments.startswith("run ") and arguments.endswith(" -") for arguments in runs)
    assert all("--cached-only" in arguments and "--no-remote" in arguments for arguments in runs)
    assert "--allow" not in str(runs)


@posix
def test_a_missing_solver_is_named(server, programs, tmp_path, monkeypatch):
    monkeypatch.setattr(youtube, "_has_solver", lambda: False)
    install(programs, "deno", FAKE_DENO)
    offer(server)
    assert "YouTube needs yt-dlp-ejs beside deno" in fetch(tmp_path).failed


def test_another_runtime_is_used_if_the_environment_names_it(server, programs, tmp_path, monkeypatch):
    monkeypatch.setenv(youtube.RUNTIME_VARIABLE, "node")
    offer(server)
    assert "FISH_SPEECH_JS_RUNTIME=node is missing or too old; install deno" in fetch(tmp_path).failed
    monkeypatch.setenv(youtube.RUNTIME_VARIABLE, "perl")
    with pytest.raises(UserError, match="FISH_SPEECH_JS_RUNTIME=perl") as caught:
        fetch(tmp_path)
    assert "deno" in caught.value.why


def test_deno_alone_is_enabled_and_nothing_is_fetched_to_run_in_it(monkeypatch):
    monkeypatch.delenv(youtube.RUNTIME_VARIABLE, raising=False)
    with session.open_session(show_progress=False) as opened:
        assert opened.params["js_runtimes"] == {"deno": {}} and not opened.params["remote_components"]
