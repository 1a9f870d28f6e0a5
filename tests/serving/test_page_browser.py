"""The page in a real browser: type, choose, speak, listen, compare; by keyboard; with a key; with errors."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import struct
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import soundfile

from fish_speech.serving import page
from fish_speech.serving.limits import Limits
from fish_speech.serving.voices import VoiceShelf
from fish_speech.versions import VERSIONS, SamplingDefaults

from ..prepare.test_report_browser import OVERFLOW, PROGRAMS, Browser
from .harness import GatedSpeaker, Served, serving, until

KEY = "correct-horse-battery-staple"
AUDIO = """[...document.querySelectorAll('article')].map(a => [a.querySelector('h3').textContent,
  a.querySelector('audio').duration, a.querySelector('audio').error && a.querySelector('audio').error.message])"""


class Tab(Browser):
    """A page of the server in the browser."""

    def visit(self, url: str, width: int = 1200, dark: bool = False, height: int = 900) -> None:
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        self.ask("Page.navigate", url="about:blank")
        self.wait("location.href === 'about:blank'")
        self.events.clear()
        self.ask("Page.navigate", url=url)
        self.wait(f"location.href.startsWith('{url}') && document.readyState === 'complete'")

    def type(self, text: str) -> None:
        self.ask("Input.insertText", text=text)

    def press(self, key: str, code: int, modifiers: int = 0) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.ask(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, modifiers=modifiers
            )

    def wait(self, expression: str, seconds: float = 40) -> Any:
        """Wait until a script gives something true, and return that."""
        end = time.monotonic() + seconds
        while not (found := self.evaluate(expression)):
            assert time.monotonic() < end, (expression, self.evaluate("document.body && document.body.innerText"))
            time.sleep(0.05)
        return found

    def set(self, field: str, value: str) -> None:
        self.evaluate(f"document.getElementById('{field}').value = {json.dumps(value)}")

    def takes(self, count: int) -> list[Any]:
        """Wait for so many takes whose sound is loaded."""
        return self.wait(f"(rows => rows.length === {count} && rows.every(r => r[1] || r[2]) && rows)({AUDIO})")

    def errors(self) -> list[str]:
        """What the console and the policy complained of."""
        return [words for words in self.complaints() if not words.startswith(("http", "blob:"))]


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser on the PATH: {', '.join(PROGRAMS)}")
    if os.name == "nt":
        pytest.skip("the debugging pipe is driven by POSIX descriptors")
    tab = Tab(program, tmp_path_factory.mktemp("profile"))
    tab._guard.cancel()
    yield tab
    tab.close()


def picture(tab: Tab, name: str) -> None:
    """Keep a picture where the variable says; for people who look at the page."""
    if folder := os.environ.get("PAGE_PICTURES"):
        tab.screenshot(Path(folder) / f"{name}.png")


@pytest.mark.slow
def test_a_text_is_typed_a_voice_chosen_and_two_takes_are_compared(tab, real: Served):
    tab.visit(real.url)
    tab.wait("document.getElementById('voice').dataset.known")
    assert tab.evaluate("[...document.getElementById('voice').options].map(o => o.value)") == [
        "default",
        "Käthe 2",
        "anna",
    ]
    assert "minnow is ready" in tab.evaluate("document.getElementById('state').textContent")
    picture(tab, "empty")
    tab.evaluate("document.getElementById('input').focus()")
    tab.type("Hello there. This is a small voice.")
    tab.set("voice", "anna")
    tab.set("seed", "11")
    tab.evaluate("document.getElementById('speak').click()")
    assert tab.evaluate("document.getElementById('speak').disabled && !document.getElementById('stop').disabled")
    (first,) = tab.takes(1)
    assert first[0] == "Take 1" and first[1] > 0.5 and first[2] is None
    tab.evaluate("document.querySelector('article .again').click()")
    second, first = tab.takes(2)
    assert second[1] > 0.5 and second[0] == "Take 2"
    differing = tab.evaluate("[...document.querySelectorAll('article:first-child dt.differs')].map(e => e.textContent)")
    assert differing == ["Seed"]
    tab.set("voice", "default")
    tab.set("speed", "1.25")
    tab.set("response_format", "mp3")
    tab.evaluate("document.getElementById('speak').click()")
    third = tab.takes(3)[0]
    assert third[1] > 0.5 and third[2] is None
    differing = tab.evaluate("[...document.querySelectorAll('article:first-child dt.differs')].map(e => e.textContent)")
    assert differing == ["Voice", "Seed", "Speed", "File"]
    names = tab.evaluate("[...document.querySelectorAll('article a')].map(a => a.download)")
    assert names[2] == "take_1_anna_seed_11.wav" and names[0].startswith("take_3_default_seed_")
    picture(tab, "three")
    playing = "[...document.querySelectorAll('audio')].map(a => !a.paused)"
    tab.evaluate("document.querySelectorAll('audio')[1].play()")
    assert tab.evaluate(playing) == [False, True, False]
    tab.evaluate("document.querySelectorAll('audio')[2].play()")
    assert tab.evaluate(playing) == [False, False, True]
    tab.evaluate("document.querySelectorAll('article')[2].querySelector('.use').click()")
    assert tab.evaluate("[voice.value, seed.value, speed.value, response_format.value, fresh.checked]") == [
        "anna", "11", "1", "wav", False]  # fmt: skip
    tab.evaluate("document.querySelectorAll('article')[0].querySelector('.remove').click()")
    assert [row[0] for row in tab.takes(2)] == ["Take 2", "Take 1"]
    assert tab.errors() == []


@pytest.mark.slow
def test_the_file_that_is_downloaded_is_a_whole_wav_and_the_same_as_the_servers(tab, real: Served):
    tab.visit(real.url)
    tab.wait("document.getElementById('voice').dataset.known")
    tab.evaluate("document.getElementById('input').value = 'Good morning.'; document.getElementById('seed').value = 5")
    tab.evaluate("document.getElementById('form').requestSubmit()")
    ((_, seconds, _),) = tab.takes(1)
    expected = real.say("Good morning.", seed=5, response_format="wav", voice="default").content
    held = tab.evaluate("takes[0].blob.arrayBuffer().then(data => btoa(String.fromCharCode(...new Uint8Array(data))))")
    sound, rate = soundfile.read(io.BytesIO(base64.b64decode(held)), dtype="int16")
    assert sound.tobytes() == expected[44:] and base64.b64decode(held)[40:44] == struct.pack("<I", len(expected) - 44)
    assert seconds == pytest.approx(len(sound) / rate, abs=0.001)
    shown = tab.evaluate("[...document.querySelectorAll('article dd')].map(e => e.textContent)")
    assert "5" in shown and f"{seconds:.2f} s" in shown


@pytest.mark.slow
def test_all_is_done_by_keyboard_alone(tab, real: Served):
    tab.visit(real.url)
    tab.wait("document.getElementById('voice').dataset.known")
    tab.press("Tab", 9)
    assert tab.evaluate("document.activeElement.id") == "input"
    tab.type("Hello.")
    reached = []
    for _ in range(7):
        tab.press("Tab", 9)
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert reached == ["voice", "seed", "speed", "response_format", "fresh", "SUMMARY", "speak"]
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    tab.evaluate("document.getElementById('input').focus()")
    tab.press("Enter", 13, modifiers=2)
    tab.takes(1)
    labels = tab.evaluate("[...document.querySelectorAll('article, audio, a')].map(e => e.getAttribute('aria-label'))")
    assert labels == ["Take 1", "Play take 1", "Download take 1"]
    unnamed = tab.evaluate(
        "[...document.querySelectorAll('input, select, textarea')].filter(e => !e.labels.length).length"
    )
    assert unnamed == 0


def test_errors_are_said_clearly_and_the_field_is_shown(tab, tmp_path):
    speaker = GatedSpeaker(is_open=True)
    with serving(lambda: speaker, VoiceShelf(tmp_path), Limits(characters=50)) as served:
        tab.visit(served.url)
        tab.wait("document.getElementById('voice').dataset.known")
        error = "document.getElementById('error').hidden ? '' : document.getElementById('error').textContent"
        speak = "document.getElementById('form').requestSubmit()"
        tab.evaluate(speak)
        assert "type a text" in tab.evaluate(error)
        assert tab.evaluate("document.activeElement.id") == "input"
        tab.set("input", "a" * 51)
        tab.evaluate(speak)
        assert "51 characters; at most 50" in tab.evaluate(error)
        tab.set("input", "abc")
        tab.set("top_p", "7")
        tab.evaluate(speak)
        assert "Top-p must be from 0.01 to 1" in tab.evaluate(error)
        assert tab.evaluate("document.activeElement.id") == "top_p" and tab.evaluate(
            "document.querySelector('details').open"
        )
        tab.set("top_p", "0.7")
        tab.set("input", "...")
        tab.evaluate(speak)
        assert "nothing to say" in tab.wait(error) and "(400)" in tab.evaluate(error)
        tab.set("input", "!abc")
        tab.evaluate(speak)
        assert "(500)" in tab.wait(f"({error}).includes('500') && ({error})")
        tab.set("input", "abcdefgh!")
        tab.evaluate(speak)
        assert tab.wait(f"({error}).includes('broke off')")
        assert tab.evaluate("document.querySelectorAll('article').length") == 0
        picture(tab, "error")
        tab.set("input", "abc")
        tab.evaluate(speak)
        tab.takes(1)
        assert tab.evaluate(error) == ""


def test_stop_ends_the_generation(tab, gated):
    served, speaker = gated
    tab.visit(served.url)
    tab.wait("document.getElementById('voice').dataset.known")
    tab.set("input", "a" * 50)
    tab.evaluate("document.getElementById('form').requestSubmit()")
    speaker.let(3)
    tab.wait("document.getElementById('progress').textContent.startsWith('Speaking')")
    tab.press("Escape", 27)
    until(lambda: speaker.ended == ["stopped"])
    tab.wait("!document.getElementById('speak').disabled")
    assert tab.evaluate("document.querySelectorAll('article').length") == 0
    assert tab.evaluate("document.getElementById('error').hidden")


def test_the_key_is_asked_for_and_sent(tab, tmp_path):
    with serving(lambda: GatedSpeaker(is_open=True), VoiceShelf(tmp_path), key=KEY) as served:
        tab.visit(served.url)
        tab.wait("!document.getElementById('key-field').hidden")
        tab.set("input", "abc")
        tab.evaluate("document.getElementById('form').requestSubmit()")
        tab.wait("document.getElementById('error').textContent.includes('API key is missing or wrong')")
        assert tab.evaluate("document.activeElement.id") == "key"
        picture(tab, "key")
        tab.type(KEY)
        tab.press("Tab", 9)
        tab.evaluate("document.getElementById('form').requestSubmit()")
        tab.takes(1)
        assert KEY not in tab.evaluate("document.documentElement.outerHTML") and KEY not in tab.evaluate(
            "location.href"
        )
        tab.visit(served.url)
        tab.wait("document.getElementById('state').textContent.includes('minnow is ready')")
        tab.evaluate("sessionStorage.clear()")


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (360, False), (360, True), (1200, True)])
def test_the_page_fits_and_loads_nothing_but_itself(tab, tmp_path, width, dark):
    with serving(lambda: GatedSpeaker(is_open=True), VoiceShelf(tmp_path)) as served:
        tab.visit(served.url, width, dark)
        tab.wait("document.getElementById('voice').dataset.known")
        hostile = "<img src=x onerror=alert(1)>" + "W" * 300
        tab.set("input", hostile)
        tab.evaluate("document.querySelector('details').open = true")
        for count in (1, 2):
            tab.evaluate("document.getElementById('form').requestSubmit()")
            tab.takes(count)
        assert tab.evaluate(OVERFLOW) == []
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("document.querySelectorAll('article img').length") == 0
        asked = {words for words in tab.complaints() if words.startswith("http")}
        assert asked <= {f"{served.url}{path}" for path in ("/", "/health", "/v1/voices", "/v1/audio/speech")}
        assert tab.errors() == []
        light = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert light != dark
        picture(tab, f"fits_{width}_{'dark' if dark else 'light'}")


def test_the_page_is_one_answer_whose_policy_holds_its_own_hashes():
    text = page.render(SamplingDefaults())
    assert "/*style*/" not in text and "/*script*/" not in text
    assert "http://" not in text and "https://" not in text
    assert text.count("<script") == text.count("<style") == 1
    assert page.policy().count("'sha256-") == 2


@pytest.mark.parametrize("version", VERSIONS.values(), ids=list(VERSIONS))
def test_the_fields_hold_what_the_version_draws_by(version):
    """The page sends what its fields hold: a model would be drawn by another version's defaults."""
    text = page.render(version.sampling)
    for name, value in asdict(version.sampling).items():
        assert re.findall(rf'<input id="{name}" [^>]*value="([^"]*)"', text) == [f"{value:g}"]
    assert not re.search(r'value="{', text)
