"""Recordings behind addresses, with yt-dlp's real path against a media server on loopback."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fish_speech.audio import read_audio
from fish_speech.errors import UserError
from fish_speech.prepare.download import Download, download, guard, is_url, run, session
from fish_speech.prepare.download.index import INDEX_NAME
from fish_speech.prepare.download.session import RETRIES, open_session

from .media_server import MediaServer

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
pytest.importorskip("yt_dlp")


def slow(*values: str) -> list:
    """More of the same: what the values of the default run already show, for the run that may take long."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry at once, and have no proxy between the test and its own machine.

    A session takes 80 ms to read certificates and to look through 1800 sites; here is only http, and no known site. The
    tests that start Python anew have both.
    """
    options, sites = session._options, {"allowed_extractors": ["youtube.*", "html5", "generic"]}
    monkeypatch.setattr(session, "_options", lambda bar: options(bar) | sites)
    monkeypatch.setattr("yt_dlp.networking._helper.ssl_load_certs", lambda *_: None)
    monkeypatch.setattr(session, "_pause_s", lambda n: 0.0)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[MediaServer]:
    with MediaServer() as server:
        yield server


@pytest.fixture(scope="module")
def speech() -> bytes:
    """A real recording, 100 kB or so of FLAC."""
    return min(
        (ROOT / "samples" / "allison").glob("*.flac"), key=lambda path: abs(path.stat().st_size - 100_000)
    ).read_bytes()


def fetch(url: str, folder: Path, **options: object) -> list[Download]:
    return download(url, folder, show_progress=False, **options)  # type: ignore[arg-type]


def one(url: str, folder: Path, **options: object) -> Download:
    (result,) = fetch(url, folder, **options)
    return result


def page(*bodies: str, title: str = "A talk") -> bytes:
    return f"<!DOCTYPE html><html><head><title>{title}</title></head><body>{''.join(bodies)}</body></html>".encode()


def feed(*items: tuple[str, str]) -> bytes:
    """An RSS feed of (title, address)."""
    rows = "".join(
        f'<item><title>{title}</title><enclosure url="{url}" type="audio/flac"/></item>' for title, url in items
    )
    return f'<?xml version="1.0" encoding="utf-8"?><rss version="2.0"><channel><title>F</title>{rows}</channel></rss>'.encode()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".lock", INDEX_NAME}


# What is fetched


def test_the_address_of_a_file_gives_the_file_byte_for_byte(server, speech, tmp_path):
    server.files["/talk.flac"] = speech
    result = one(server.url("/talk.flac"), tmp_path)
    assert result.path.read_bytes() == speech and result.path.parent == tmp_path and result.path.suffix == ".flac"
    assert (result.url, result.title, result.failed) == (server.url("/talk.flac"), "talk", None)
    assert len(read_audio(result.path)[0]) > 0


@pytest.mark.parametrize(
    "body", ['<audio src="/talk.flac"></audio>', '<meta property="og:audio" content="/talk.flac">']
)
def test_a_page_with_a_recording_gives_it_with_the_title_of_the_page(server, speech, tmp_path, body):
    server.files |= {"/page.html": page(body), "/talk.flac": speech}
    result = one(server.url("/page.html"), tmp_path)
    assert result.failed is None and result.path.read_bytes() == speech
    assert result.title.startswith("A talk")


def test_sound_alone_is_preferred_to_a_picture_with_sound(server, speech, tmp_path):
    sources = '<video><source src="/big.mp4" type="video/mp4"><source src="/talk.flac" type="audio/flac"></video>'
    server.files |= {"/page.html": page(sources), "/talk.flac": speech, "/big.mp4": bytes(1000)}
    result = one(server.url("/page.html"), tmp_path)
    assert result.path.read_bytes() == speech
    assert not server.asked_for("/big.mp4")


def test_segments_of_a_stream_are_joined_in_order_without_ffmpeg(server, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    parts = [bytes([0x47, number]) * 94 for number in range(3)]
    rows = "".join(f"#EXTINF:4.0,\n/{number}.ts\n" for number in range(3))
    server.files["/talk.m3u8"] = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n{rows}#EXT-X-ENDLIST\n".encode()
    server.files |= {f"/{number}.ts": part for number, part in enumerate(parts)}
    result = one(server.url("/talk.m3u8"), tmp_path / "out")
    assert result.failed is None and result.path.read_bytes() == b"".join(parts)


def test_a_stream_with_a_missing_segment_fails_instead_of_having_a_hole(server, tmp_path):
    rows = "".join(f"#EXTINF:4.0,\n/{number}.ts\n" for number in range(3))
    server.files["/talk.m3u8"] = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n{rows}#EXT-X-ENDLIST\n".encode()
    server.files |= {"/0.ts": bytes(188), "/2.ts": bytes(188)}
    result = one(server.url("/talk.m3u8"), tmp_path)
    assert result.path is None and result.failed.startswith("not found:")


def test_subtitles_that_people_made_lie_beside_the_audio_when_asked_for(server, speech, tmp_path):
    track = '<track kind="subtitles" srclang="en" src="/en.vtt"><track kind="subtitles" srclang="../../x" src="/x.vtt">'
    server.files["/page.html"] = page(f'<audio src="/talk.flac">{track}</audio>')
    server.files |= {
        "/talk.flac": speech,
        "/en.vtt": b"WEBVTT\n\n00:00.000 --> 00:01.000\nHello.\n",
        "/x.vtt": b"WEBVTT\n",
    }
    result = one(server.url("/page.html"), tmp_path)
    assert names_in(tmp_path) == {result.path.name}
    result = one(server.url("/page.html"), tmp_path, subtitles="en")
    assert result.path.with_suffix(".vtt").read_text(encoding="utf-8").endswith("Hello.\n")
    assert len([asked for asked in server.asked_for("/talk.flac") if asked.sent]) == 1
    asked = len(server.requests)
    fetch(server.url("/page.html"), tmp_path, subtitles="en")
    assert len(server.requests) == asked
    assert names_in(tmp_path) == {result.path.name, result.path.with_suffix(".vtt").name}


# What cannot be had


def test_failures_have_a_short_reason_in_our_words(server, tmp_path):
    server.files |= {"/page.html": page("Nothing to hear."), "/x.zip": b"PK" + bytes(100)}
    server.statuses |= {"/busy": 429, "/secret": 401, "/no": 403, "/broken": 503, "/law": 451}
    expected = {"/absent": "not found: ", "/page.html": "no media: ", "/x.zip": "not audio: ", "/busy": "too many requests: ",
                "/secret": "login needed: ", "/no": "refused: ", "/broken": "server error: ",
                "/law": "not available here: "}  # fmt: skip
    for path, start in expected.items():
        result = one(server.url(path), tmp_path)
        assert result.path is None and result.failed.startswith(start), (path, result.failed)
        assert "ERROR" not in result.failed and "report this issue" not in result.failed and "\n" not in result.failed
    assert names_in(tmp_path) == set()


def test_a_server_that_is_not_there_is_no_connection(server, tmp_path):
    url = server.url("/talk.flac")
    server.stop()
    assert one(url, tmp_path).failed.startswith("no connection: ")


def test_a_radio_is_refused_rather_than_recorded_for_ever(server, tmp_path):
    server.radios.add("/live")
    assert one(server.url("/live"), tmp_path).failed.startswith("live stream: ")


def test_a_live_stream_is_refused(server, tmp_path):
    server.files["/live.m3u8"] = b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:4.0,\n/7.ts\n"
    assert one(server.url("/live.m3u8"), tmp_path).failed.startswith("live stream: ")
    assert not server.asked_for("/7.ts")


def test_what_is_too_large_is_refused_and_leaves_nothing(server, speech, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "MAX_BYTES", len(speech) - 1)
    server.files["/talk.flac"] = speech
    assert one(server.url("/talk.flac"), tmp_path).failed.startswith("too large: ")
    assert names_in(tmp_path) == set()


def test_a_page_larger_than_memory_allows_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "MAX_PAGE_BYTES", 100_000)
    server.files["/page.html"] = page("x" * 200_000)
    assert one(server.url("/page.html"), tmp_path).failed.startswith("too large: ")


def test_a_full_disk_is_not_blamed_on_the_page(server, speech, tmp_path, monkeypatch):
    from yt_dlp.downloader.common import FileDownloader

    class FullDisk:
        def write(self, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr(FileDownloader, "sanitize_open", lambda self, name, mode: (FullDisk(), name))
    server.files["/talk.flac"] = speech
    with pytest.raises(OSError, match="No space left"):
        fetch(server.url("/talk.flac"), tmp_path)


# Cut connections


def test_a_cut_connection_resumes_within_the_same_call(server, speech, tmp_path):
    server.files["/talk.flac"] = speech
    # yt-dlp opens the file twice: a look at its head, then the download
    server.cuts["/talk.flac"] = [len(speech), 30_000, 20_000]
    result = one(server.url("/talk.flac"), tmp_path)
    assert result.failed is None and result.path.read_bytes() == speech
    look, first, second, third = (asked.range_start for asked in server.asked_for("/talk.flac"))
    assert (look, first) == (None, None) and 0 < second <= 30_000 and second < third <= second + 20_000
    assert names_in(tmp_path) == {result.path.name}


def test_a_download_that_failed_is_continued_by_the_next_call(server, speech, tmp_path):
    server.files["/talk.flac"] = speech
    server.cuts["/talk.flac"] = [len(speech), 30_000] + [1000] * RETRIES
    failed = one(server.url("/talk.flac"), tmp_path)
    (part,) = tmp_path.glob("*.part")
    kept = part.stat().st_size
    assert 0 < kept <= 30_000 + 1000 * RETRIES and part.read_bytes() == speech[:kept]
    assert (
        failed.path is None
        and failed.failed.startswith("no connection: ")
        and f"{kept} bytes are kept" in failed.failed
    )
    before = len(server.requests)
    result = one(server.url("/talk.flac"), tmp_path)
    assert result.failed is None and result.path.read_bytes() == speech
    assert [asked.range_start for asked in server.requests[before:]] == [None, kept]
    assert server.requests[-1].sent == len(speech) - kept


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is of POSIX")
@pytest.mark.parametrize("how", ["SIGKILL", *slow("SIGINT")])
def test_a_download_that_was_killed_is_continued_by_the_next_call(server, tmp_path, how):
    sound = np.random.default_rng(0).bytes(3_000_000)
    server.files["/talk.wav"] = sound
    program = f"""
        import sys, time
        from pathlib import Path
        from fish_speech.prepare.download import download, session
        whole = session.check_size
        def slow(status):
            whole(status)
            time.sleep(0.2)
        session.check_size = slow
        download({server.url("/talk.wav")!r}, Path({str(tmp_path)!r}), show_progress=False)
    """
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], env=environment, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 60
        while not any(part.stat().st_size > 1000 for part in tmp_path.glob("*.part")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(getattr(signal, how))
        assert process.wait(60) != 0
    finally:
        process.kill()
        process.communicate()
    (part,) = tmp_path.glob("*.part")
    kept = part.stat().st_size
    assert 1000 < kept < len(sound)
    result = one(server.url("/talk.wav"), tmp_path)
    assert result.path.read_bytes() == sound
    assert server.requests[-1].range_start == kept and server.requests[-1].sent == len(sound) - kept


def test_a_file_that_changed_on_the_server_is_not_spliced_to_the_old_part(server, speech, tmp_path):
    server.files["/talk.flac"], server.tags["/talk.flac"] = speech, '"first"'
    server.cuts["/talk.flac"] = [len(speech), 30_000] + [1000] * RETRIES
    assert one(server.url("/talk.flac"), tmp_path).failed
    changed = bytes(byte ^ 1 for byte in speech)
    server.files["/talk.flac"], server.tags["/talk.flac"] = changed, '"second"'
    result = one(server.url("/talk.flac"), tmp_path)
    assert result.path.read_bytes() == changed
    assert names_in(tmp_path) == {result.path.name}


# The second run


def test_a_second_run_asks_for_nothing_and_needs_no_server(server, speech, tmp_path):
    server.files["/feed.rss"] = feed(("One", server.url("/1.flac")), ("Two", server.url("/2.flac")))
    server.files |= {"/1.flac": speech, "/2.flac": speech[::-1]}
    url = server.url("/feed.rss")
    first = fetch(url, tmp_path)
    asked = len(server.requests)
    assert fetch(url, tmp_path) == first and len(server.requests) == asked
    server.stop()
    assert fetch(url, tmp_path) == first
    assert [result.path.read_bytes() for result in first] == [speech, speech[::-1]]


@pytest.mark.parametrize("harm", [lambda path: path.unlink(), lambda path: path.write_bytes(b"short")])
def test_a_file_that_is_gone_or_has_another_size_is_fetched_again(server, speech, tmp_path, harm):
    server.files["/talk.flac"] = speech
    harm(one(server.url("/talk.flac"), tmp_path).path)
    assert one(server.url("/talk.flac"), tmp_path).path.read_bytes() == speech


@pytest.mark.parametrize(
    "index",
    [
        *("", '{"addresses": {"URL": ["URL"]}, "recordings": {"URL": 3}}'),
        *slow("[]", "{", '{"addresses": [], "recordings": {"a": 3}}', '{"addresses": {"URL": ["k", 3]}}'),
        '{"addresses": {"URL": ["URL"]}, "recordings": {"URL": {"file": "../x", "size": 1}}}',
    ],
)
def test_an_index_that_is_damaged_or_points_outside_is_not_believed(server, speech, tmp_path, index):
    server.files["/talk.flac"] = speech
    url, folder = server.url("/talk.flac"), tmp_path / "downloads"
    (tmp_path / "x").write_bytes(b"1")
    folder.mkdir()
    (folder / INDEX_NAME).write_text(index.replace("URL", url), encoding="utf-8")
    assert one(url, folder).path.read_bytes() == speech


def test_two_runs_at_once_do_not_write_into_the_same_files(tmp_path):
    with run._locked(tmp_path), pytest.raises(UserError, match="another run is downloading"):
        fetch("http://127.0.0.1:9/talk.flac", tmp_path)


# Playlists


def test_a_failing_entry_of_a_list_is_reported_in_its_place_and_the_others_go_on(server, speech, tmp_path):
    items = [("One", server.url("/1.flac")), ("Gone", server.url("/2.flac")), ("Three", server.url("/3.flac"))]
    server.files |= {"/feed.rss": feed(*items), "/1.flac": speech, "/3.flac": speech[::-1]}
    first, gone, third = fetch(server.url("/feed.rss"), tmp_path)
    assert (first.path.read_bytes(), first.title, first.url) == (speech, "One", server.url("/1.flac"))
    assert (gone.path, gone.title, gone.url) == (None, "Gone", server.url("/2.flac")) and gone.failed.startswith(
        "not found:"
    )
    assert (third.path.read_bytes(), third.title) == (speech[::-1], "Three")

    before = len(server.requests)
    server.files["/2.flac"] = speech[:5000]  # it is back: only it is fetched
    again = fetch(server.url("/feed.rss"), tmp_path)
    assert [result.title for result in again] == ["One", "Gone", "Three"] and again[1].path.read_bytes() == speech[
        :5000
    ]
    assert {asked.path for asked in server.requests[before:]} == {"/feed.rss", "/2.flac"}


def test_a_list_with_a_failure_still_gives_the_rest_when_the_server_is_gone(server, speech, tmp_path):
    server.files |= {
        "/feed.rss": feed(("One", server.url("/1.flac")), ("Gone", server.url("/2.flac"))),
        "/1.flac": speech,
    }
    url = server.url("/feed.rss")
    first = fetch(url, tmp_path)
    server.stop()
    assert fetch(url, tmp_path) == first
    assert fetch(url, tmp_path) == first


def test_several_recordings_on_one_page_are_a_list(server, speech, tmp_path):
    # The same name in two folders, as sites have it: both are kept.
    bodies = [f'<audio src="/{name}/talk.flac"></audio>' for name in ("a", "b", "absent")]
    server.files |= {"/page.html": page(*bodies), "/a/talk.flac": speech, "/b/talk.flac": speech[::-1]}
    results = fetch(server.url("/page.html"), tmp_path)
    assert [result.path and result.path.read_bytes() for result in results] == [speech, speech[::-1], None]
    assert {result.url for result in results} == {server.url("/page.html")}
    assert results[2].failed.startswith("not found: ")


def test_open_graph_recordings_of_one_name_in_two_folders_are_two(server, speech, tmp_path):
    tags = [f'<meta property="og:audio" content="/{name}/talk.flac">\n' for name in ("a", "b")]
    server.files |= {"/page.html": page(*tags), "/a/talk.flac": speech, "/b/talk.flac": speech[::-1]}
    assert [result.path.read_bytes() for result in fetch(server.url("/page.html"), tmp_path)] == [speech, speech[::-1]]


def test_feeds_that_lead_to_each_other_end(server, tmp_path):
    server.files["/a.rss"] = feed(("b", server.url("/b.rss")))
    server.files["/b.rss"] = feed(("a", server.url("/a.rss")), ("a?", server.url("/a.rss?2")))
    results = fetch(server.url("/a.rss"), tmp_path)
    assert results and all(result.path is None for result in results)
    assert len(server.requests) < 50


def test_a_watch_page_opened_from_a_playlist_means_its_video_and_a_playlist_all():
    class Asked(BaseException):
        pass

    def refuse(request):
        raise Asked(request if isinstance(request, str) else request.url)

    listed = "list=PL4lCao7KL_QFVb7Iudeipvc2BCavECqzc"
    with open_session(show_progress=False) as opened:
        opened.urlopen = refuse
        entry = opened.extract_info(f"https://youtube.com/watch?v=BaW_jenozKc&{listed}", download=False, process=False)
        assert (entry["_type"], entry["ie_key"]) == ("url", "Youtube") and "list=" not in entry["url"]
        with pytest.raises(Asked, match=rf"/playlist\?.*{listed}"):
            opened.extract_info(f"https://youtube.com/playlist?{listed}", download=False, process=False)


def test_an_empty_list_is_a_failure(server, tmp_path):
    server.files["/feed.rss"] = feed()
    assert one(server.url("/feed.rss"), tmp_path).failed.startswith("no media: ")


def test_a_limit_on_the_duration_is_told(server, speech, tmp_path, caplog):
    length = (
        b"<itunes:duration xmlns:itunes='http://www.itunes.com/dtds/podcast-1.0.dtd'>1:00:00</itunes:duration></item>"
    )
    server.files["/feed.rss"] = feed(("Long", server.url("/talk.flac"))).replace(b"</item>", length)
    server.files["/talk.flac"] = speech
    with caplog.at_level(logging.INFO, logger="fish_speech"):
        one(server.url("/feed.rss"), tmp_path, max_duration_s=1200.0)
    assert "Long: 60.0 min long, of which the first 20.0 min are asked for" in caplog.text


# Names


@pytest.mark.parametrize("name", ["../../x", "a\nb", "x" * 300, "%(title)s", "\x1b[31mred", "", *slow(
    "..%2F..%2Fx", "🎤🎤", "-rf", "CON", "$HOME", "~", "a/b", "‮evil", "*?[a]", " ")])  # fmt: skip
def test_hostile_ids_and_titles_stay_in_the_folder_and_off_the_terminal(server, speech, tmp_path, name):
    from xml.sax.saxutils import escape

    shown = escape(name).replace("\x1b", "")
    guid = f"<guid>{shown}</guid>"
    server.files["/feed.rss"] = feed((shown, server.url("/talk.flac"))).replace(b"</item>", guid.encode() + b"</item>")
    server.files["/talk.flac"] = speech
    folder = tmp_path / "in" / "ner"
    result = one(server.url("/feed.rss"), folder)
    assert result.failed is None and result.path.read_bytes() == speech
    assert result.path.parent == folder and names_in(folder) == {result.path.name}
    assert list(tmp_path.iterdir()) == [tmp_path / "in"] and list((tmp_path / "in").iterdir()) == [folder]
    assert result.path.name[0].isalnum() and len(result.path.name.encode()) < 200
    assert all(character.isalnum() or character in "-_" for character in result.path.stem)
    assert result.title is None or (result.title.isprintable() and len(result.title) <= 3000)


def test_a_folder_with_signs_that_templates_know_is_used_as_it_is(server, speech, tmp_path):
    server.files["/talk.flac"] = speech
    folder = tmp_path / "%(title)s $HOME ~ [a]"
    assert one(server.url("/talk.flac"), folder).path == next(folder.glob("*.flac"))


# Protocols and programs


@pytest.mark.parametrize(
    "url",
    [
        *("file:///etc/passwd", "FILE:///etc/passwd", "ftp://127.0.0.1/x.wav", "data:audio/wav;base64,UklG"),
        *("rtmp://127.0.0.1/x", "ytsearch:cats", "javascript:alert(1)", "http://", "https:///x", "http://a b/"),
        *("http://[::1/x", "http://a/\nb", "http://a/" + "x" * 9000, ""),
    ],
)
def test_an_address_that_is_none_or_not_http_is_a_user_error(url, tmp_path):
    with pytest.raises(UserError) as caught:
        fetch(url, tmp_path / "out")
    assert caught.value.why and caught.value.fix and "\n" not in caught.value.what
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "target", ["file://SECRET", *slow("ftp://127.0.0.1:9/x.wav", "data:audio/wav;base64,UklGRg==")]
)
@pytest.mark.parametrize(
    ("way", "handler"),
    [("redirect", "urllib"), ("feed", "urllib")]
    + [(way, "requests") for way in ("redirect", "audio", "og", "refresh", "feed", "stream", "subtitles")],
)
def test_no_page_leads_to_another_protocol(server, speech, tmp_path, monkeypatch, target, way, handler):
    if handler == "urllib":
        options, legacy = session._options, {"compat_opts": ["prefer-legacy-http-handler"]}
        monkeypatch.setattr(session, "_options", lambda bar: options(bar) | legacy)
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"RIFF secret secret secret")
    target = target.replace("SECRET", str(secret))
    server.files["/talk.flac"] = speech
    path = "/page.html"
    if way == "redirect":
        server.redirects[path] = target
    elif way == "feed":
        server.files[path] = feed(("x", target))
    elif way == "stream":
        path = "/x.m3u8"
        rows = f"#EXTINF:4.0,\n{target}\n"
        server.files[path] = f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n{rows}#EXT-X-ENDLIST\n".encode()
    else:
        bodies = {
            "audio": f'<audio src="{target}"></audio>',
            "og": f'<meta property="og:audio" content="{target}">',
            "refresh": f'<meta http-equiv="refresh" content="0; url={target}">',
            "subtitles": f'<audio src="/talk.flac"><track kind="subtitles" srclang="en" src="{target}"></audio>',
        }
        server.files[path] = page(bodies[way])
    folder = tmp_path / "out"
    results = fetch(server.url(path), folder, subtitles="en")
    for found in folder.iterdir():
        assert found.name in (".lock", INDEX_NAME) or found.read_bytes() == speech, found
    if way != "subtitles":
        assert all(result.path is None and result.failed for result in results) and results


def test_a_password_in_the_address_is_used_but_not_kept(server, speech, tmp_path, caplog):
    server.files["/talk.flac"] = speech
    with caplog.at_level(logging.INFO, logger="fish_speech"):
        result = one(server.url("/talk.flac").replace("http://", "http://anna:geheim@"), tmp_path)
        failed = one(server.url("/absent").replace("http://", "http://anna:geheim@"), tmp_path)
    assert result.path and server.asked_for("/talk.flac")[0].headers["authorization"].startswith("Basic ")
    told = caplog.text + repr((result, failed)) + (tmp_path / INDEX_NAME).read_text(encoding="utf-8")
    assert "geheim" not in told


def test_no_program_no_plugin_and_no_configuration_of_the_user_is_used(server, speech, tmp_path):
    """A home with a configuration and a plugin, and an audit hook that sees every program that is started."""
    server.files |= {"/page.html": page('<audio src="/talk.flac"></audio>'), "/talk.flac": speech}
    server.files["/talk.m3u8"] = b"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4.0,\n/0.ts\n#EXT-X-ENDLIST\n"
    server.files["/0.ts"] = bytes(188)
    home = tmp_path / "home"
    plugin = home / ".config" / "yt-dlp" / "plugins" / "bad" / "yt_dlp_plugins" / "extractor"
    plugin.mkdir(parents=True)
    (plugin / "bad.py").write_text(f"open({str(tmp_path / 'plugin-ran')!r}, 'w').close()\n", encoding="utf-8")
    (home / ".config" / "yt-dlp" / "config").write_text("--exec 'touch ran'\n--write-info-json\n", encoding="utf-8")
    program = f"""
        import sys
        def hook(event, args):
            started = event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")
            if started and args[0] != "/sbin/ldconfig":  # ctypes asks where a library is
                print("STARTED", event, args)
        sys.addaudithook(hook)
        from pathlib import Path
        from fish_speech.prepare.download import download
        print(download({server.url("/page.html")!r}, Path({str(tmp_path / "out")!r})))
        print(download({server.url("/talk.m3u8")!r}, Path({str(tmp_path / "stream")!r})))
    """
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "HOME": str(home), "APPDATA": str(home / ".config")}
    environment.pop("XDG_CONFIG_HOME", None)
    command = [sys.executable, "-c", textwrap.dedent(program)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("failed=None") == 2 and "STARTED" not in ran.stdout
    assert not (tmp_path / "plugin-ran").exists() and not (home / ".cache").exists()
    assert len(names_in(tmp_path / "out")) == 1
    assert "\x1b" not in ran.stderr and "A talk" in ran.stderr  # the bar


def test_cookies_are_sent_only_when_the_environment_asks(server, speech, tmp_path, monkeypatch):
    server.files["/talk.flac"] = speech
    jar = tmp_path / "cookies.txt"
    text = "# Netscape HTTP Cookie File\n127.0.0.1\tFALSE\t/\tFALSE\t0\tlogin\tanna\n"
    jar.write_text(text, encoding="utf-8")
    one(server.url("/talk.flac"), tmp_path / "a")
    assert not any("cookie" in asked.headers for asked in server.requests)
    monkeypatch.setenv("FISH_SPEECH_COOKIES", str(jar))
    one(server.url("/talk.flac"), tmp_path / "b")
    assert server.requests[-1].headers["cookie"] == "login=anna"
    assert jar.read_text(encoding="utf-8") == text
    monkeypatch.setenv("FISH_SPEECH_COOKIES", str(tmp_path / "absent.txt"))
    with pytest.raises(UserError, match="FISH_SPEECH_COOKIES"):
        fetch(server.url("/talk.flac"), tmp_path / "c")


def test_without_yt_dlp_the_message_has_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    with pytest.raises(UserError, match="pip install"):
        fetch("https://example.org/talk.flac", tmp_path)


def test_telling_addresses_from_paths_imports_nothing_heavy():
    program = "import sys; from fish_speech.prepare.download import is_url; print(is_url('https://x'), *sys.modules)"
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    answer, *modules = ran.stdout.split()
    assert answer == "True" and not {"yt_dlp", "torch", "soundfile", "scipy", "filelock", "tqdm"} & set(modules)


def test_addresses_are_told_from_paths():
    for text in ("https://x.org/a", "HTTP://x", "file:///x", "ftp://x", "data:audio/wav,x"):
        assert is_url(text), text
    for text in ("youtu.be/abc", "www.youtube.com/watch?v=x"):
        assert is_url(text), text
    for text in ("recordings", "C:\\x\\a.wav", "C://x", "./youtube.com/x", "a:b.wav", "", "/data/x", "youtube.com"):
        assert not is_url(text), text


def test_the_index_keeps_what_the_page_said(server, speech, tmp_path):
    server.files["/talk.flac"] = speech
    result = one(server.url("/talk.flac"), tmp_path)
    index = json.loads((tmp_path / INDEX_NAME).read_text(encoding="utf-8"))
    (record,) = index["recordings"].values()
    assert (record["file"], record["size"], record["id"]) == (result.path.name, len(speech), "talk")
