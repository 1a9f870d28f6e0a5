"""The report in a real browser: headless Chromium, driven through its debugging pipe, with the page exactly as written."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fish_speech.prepare.report import render

from .test_report import EVIL, hostile_set, real_set

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# The browser reads commands from descriptor 3 and answers on 4, JSON ended by a zero byte.
LAUNCH = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
AUDIO = """Promise.all([...document.querySelectorAll('audio')].map(audio => new Promise(done => {
  const tell = () => done(audio.error ? 'error ' + audio.error.message : audio.duration);
  if (audio.error || audio.readyState > 0) return tell();
  audio.addEventListener('loadedmetadata', tell); audio.addEventListener('error', tell); audio.load(); })))"""
PLAY = """new Promise(done => { const audio = document.querySelector('audio'); audio.muted = true;
  audio.addEventListener('ended', () => done(audio.currentTime)); audio.addEventListener('error', () => done(-1));
  audio.playbackRate = 8; audio.play(); })"""
OVERFLOW = """[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1
  && !e.closest('.wide') && !e.closest('svg')).map(e => e.outerHTML.slice(0, 200))"""


class Browser:
    """A page of headless Chromium."""

    def __init__(self, program: str, profile: Path):
        to_browser, self._commands = os.pipe()
        answers, from_browser = os.pipe()
        pipes = [os.dup(to_browser), os.dup(from_browser)]
        for descriptor in (to_browser, from_browser):
            os.close(descriptor)
        while min(pipes) < 10:  # 3 and 4 are where they will be put
            pipes = [os.dup(pipe) for pipe in pipes]
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--mute-audio",
            "--remote-debugging-pipe",
        ]
        command = [
            sys.executable,
            "-c",
            LAUNCH,
            *map(str, pipes),
            program,
            *flags,
            f"--user-data-dir={profile}",
            "about:blank",
        ]
        self._process = subprocess.Popen(command, pass_fds=pipes, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for pipe in pipes:
            os.close(pipe)
        self._answers = os.fdopen(answers, "rb")
        self._number, self._session, self._rest = 0, "", b""
        self.events: list[dict[str, Any]] = []
        self._guard = threading.Timer(120, self._process.kill)  # a browser that hangs must not hang the tests
        self._guard.start()
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; what happens meanwhile goes to `events`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = self._answers.read1(1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int = 1400, dark: bool = False) -> None:
        """Load a file and wait until it is there."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        self.ask("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, expression: str) -> Any:
        """Return the value of a script of the test, promises waited for."""
        options = {"returnByValue": True, "awaitPromise": True, "userGesture": True}
        answer = self.ask("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write the whole page as PNG."""
        data = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """Everything the console and the policy said, and every page, file or address that was asked for but data."""
        said = []
        for event in self.events:
            parameters = event.get("params", {})
            if event.get("method") in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
                said.append(json.dumps(parameters)[:500])
            elif event.get("method") == "Network.requestWillBeSent":
                said.append(parameters["request"]["url"][:200])
        return [words for words in said if not words.startswith("data:")]

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(AssertionError, OSError):
            self._session = ""
            self.ask("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._guard.cancel()
        os.close(self._commands)
        self._answers.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser on the PATH: {', '.join(PROGRAMS)}")
    if os.name == "nt":
        pytest.skip("the debugging pipe is driven by POSIX descriptors")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("voice")
    rows, summary = real_set(folder)
    path = folder / "report.html"
    path.write_text(render(rows, summary, folder, created="2026-11-21"), encoding="utf-8")
    return path, rows


def test_every_player_of_the_page_decodes_to_the_length_of_its_clip(browser, page):
    path, rows = page
    browser.open(path)
    durations = browser.evaluate(AUDIO)
    expected = [row["duration_s"] for row in rows if row.get("clip")]
    assert len(expected) >= 4 and sorted(durations) == pytest.approx(sorted(expected), abs=0.001)
    labels = browser.evaluate("[...document.querySelectorAll('audio')].map(a => a.getAttribute('aria-label'))")
    by_clip = {f"Play {row['clip']}": row["duration_s"] for row in rows if row.get("clip")}
    assert durations == pytest.approx([by_clip[label] for label in labels], abs=0.001)
    assert browser.evaluate(PLAY) == pytest.approx(durations[0], abs=0.1)


@pytest.mark.parametrize(("width", "dark"), [(1400, False), (360, False), (360, True)])
def test_the_page_loads_without_a_complaint_and_nothing_but_itself(browser, page, width, dark):
    browser.open(page[0], width, dark)
    browser.evaluate(AUDIO)
    assert browser.complaints() == [page[0].as_uri()]
    assert browser.evaluate(OVERFLOW) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    light = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light != dark


def test_a_page_that_asks_for_more_is_noticed(browser, page, tmp_path):
    spoilt = tmp_path / "spoilt.html"
    extra = '<script>alert(1)</script><img src="https://example.invalid/x.png">'
    spoilt.write_text(page[0].read_text(encoding="utf-8").replace("</body>", extra + "</body>"), encoding="utf-8")
    browser.open(spoilt)
    assert sum("Content Security Policy" in words for words in browser.complaints()) >= 2


@pytest.mark.parametrize("width", [1400, 360])
def test_hostile_names_and_texts_run_nothing_and_stay_in_their_boxes(browser, tmp_path, width):
    rows, summary = hostile_set()
    path = tmp_path / "report.html"
    path.write_text(render(rows, summary, tmp_path / "voice", created=EVIL), encoding="utf-8")
    browser.open(path, width)
    assert browser.complaints() == [path.as_uri()]
    assert browser.evaluate("document.querySelectorAll('script, iframe, img, object, link, base, form').length") == 0
    assert browser.evaluate("document.querySelectorAll('body > section').length") == browser.evaluate(
        "document.querySelectorAll('nav a').length"
    )
    assert "<script>" in browser.evaluate("document.body.innerText")
    assert browser.evaluate(OVERFLOW) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    boxes = browser.evaluate(
        "[...document.querySelectorAll('.wide')].map(b => [b.scrollWidth > b.clientWidth, b.tabIndex])"
    )
    assert boxes and all(index == 0 for _, index in boxes)
