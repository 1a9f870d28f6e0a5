"""The page that explains a data set: what it says, in which order, and that nothing in it can break out of it."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.audio import read_audio, write_wav
from fish_speech.html import page as html_page
from fish_speech.html import text as html_text
from fish_speech.prepare.charts import Series, Share, bin_edges, histogram, stacked_bar
from fish_speech.prepare.findings import KINDS, Judge, badness, find
from fish_speech.prepare.report import render

from ..conftest import REPO

EVIL = (
    "</script></title></style><script>alert('x')</script>\"><img src=x onerror=alert(1)>\n\u202egnp.\x00\udcff"
    + "w" * 300
)
SECTIONS = ["seconds", "findings", "figures", "speakers", "worst", "left-out", "options"]


def clip(number: int = 0, speaker: str = "anna", **values: Any) -> dict[str, Any]:
    """A row of a kept clip without a problem."""
    return {
        "source": "/recordings/anna/take.wav",
        "start_s": 10.0 * number,
        "end_s": 10.0 * number + 8.0,
        "speaker": speaker,
        "clip": f"{speaker}/take__{number:04d}.wav",
        "text": f"Sentence number {number}.",
        "left_out": None,
        "duration_s": 8.0,
        "lufs": -23.0,
        "peak_dbfs": -6.0,
        "gain_db": 2.0,
        "clipped_share": 0.0,
        "snr_db": 40.0 + number % 7,
        "bandwidth_hz": 16000.0,
        "characters_per_s": 14.0 + number % 3,
        "sample_rate": 44100,
        "transcript": "txt",
        "confidence": 0.95,
        **values,
    }


def gone(reason: str, start: float = 0.0, seconds: float | None = 2.0, **values: Any) -> dict[str, Any]:
    """A row of a segment that was left out."""
    end = None if seconds is None else start + seconds
    return {"source": "/recordings/anna/take.wav", "start_s": start, "end_s": end, "speaker": "anna", "clip": None,
            "text": None, "left_out": reason, **values}  # fmt: skip


def real_set(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Real recordings as clips in `folder`, and a summary that fits."""
    rows = []
    for number, path in enumerate(sorted((REPO / "samples" / "allison").glob("*.flac"))[:4]):
        waveform, rate = read_audio(path, 44100)
        write_wav(folder / f"allison/{path.stem}.wav", waveform, rate)
        seconds = len(waveform) / rate
        text = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        rows.append(
            clip(
                number,
                "allison",
                clip=f"allison/{path.stem}.wav",
                source=str(path),
                text=text,
                duration_s=seconds,
                start_s=0.0,
                end_s=seconds,
                snr_db=[9.0, 30.0, 31.0, 32.0][number],
            )
        )
    rows += [gone("silent: nothing is louder than -70 LUFS"), gone("not aligned: 2 of 9 words", 5.0, 3.0)]
    total = sum(row["end_s"] - row["start_s"] for row in rows)
    summary = {"processing_options": {"target_lufs": -23.0}, "input": {"seconds": total + 4, "seconds_of_pauses": 4.0}}
    return rows, summary


def hostile_set() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Every field that is text holds the worst of it."""
    bad = {"speaker": EVIL, "clip": EVIL, "text": EVIL, "source": EVIL, "transcript": EVIL, "duplicate_of": EVIL}
    rows = [clip(number, **bad) for number in range(3)]
    rows += [
        clip(9, speaker="b" * 300, snr_db=3.0),
        gone(EVIL, text=EVIL, source=EVIL),
        gone(f"x: {EVIL}"),
        gone("", source=None),
    ]
    summary = {"processing_options": {EVIL: EVIL, "many": [EVIL, EVIL]}, "input": {"seconds": 100.0}}
    return rows, summary


class Page(HTMLParser):
    """What a browser would make of a page: tags, text by section, links; complains about tags that do not match."""

    def __init__(self, markup: str):
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.text, self.sections, self.links, self.ids, self.open = "", {}, [], [], []  # type: ignore[var-annotated]
        self.feed(markup)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        values = dict(attrs)
        assert len(values) == len(attrs) and not any(name.startswith("on") for name in values)
        if tag == "section":
            self.sections[values["id"]] = ""
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values[name] for name in ("src", "href") if name in values]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data
        if self.sections:
            self.sections[list(self.sections)[-1]] += data + " "


def test_the_sections_come_in_their_order_with_title_totals_and_date(tmp_path):
    rows = [clip(number) for number in range(6)] + [gone("silent: nothing")]
    folder = tmp_path / "my voice"
    page = Page(render(rows, {"processing_options": {"normalize": True}}, folder, created="21 November 2026"))
    assert list(page.sections) == SECTIONS
    assert "Data set my voice" in page.text and "21 November 2026" in page.text
    assert "6 clips · 0.8 minutes · 1 speaker · from 1 recording, 1 segment left out" in page.text
    assert [link for link in page.links if link.startswith("#")] == [f"#{key}" for key in SECTIONS]


def test_seconds_are_accounted_for_by_reason_and_what_is_missing_is_said(tmp_path):
    rows = [clip(0), clip(1), gone("silent: x"), gone("silent: y"), gone("no text: z", 0, 1), gone("torn: q", 0, None)]
    summary = {"input": {"seconds": 40.0, "seconds_of_pauses": 9.0}}
    cells = re.findall(r"<td[^>]*>(.*?)</td>", render(rows, summary, tmp_path).partition('id="findings"')[0])
    table = {re.sub("<[^>]*>", "", line[0]): line[1:] for line in zip(*[iter(cells[:-4])] * 5)}
    assert table["kept"] == ("16.0", "40.0 %", "0:00:16", "2")
    assert table["silent"] == ("4.0", "10.0 %", "0:00:04", "2")
    assert table["no text"] == ("1.0", "2.5 %", "0:00:01", "1")
    assert table["torn"] == ("0.0", "0.0 %", "0:00:00", "1")
    assert table["pauses between segments"] == ("9.0", "22.5 %", "0:00:09", "")
    assert table["not explained"] == ("10.0", "25.0 %", "0:00:10", "")
    assert "1 left-out file has an unknown length" in render(rows, summary, tmp_path)
    assert "are counted more than once" in render(rows, {"input": {"seconds": 15.0}}, tmp_path)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("clipped", {"clipped_share": 0.01}),
        ("noisy", {"snr_db": 14.9}),
        ("narrow", {"bandwidth_hz": 8000}),
        ("rate", {"characters_per_s": 30.0}),
        ("rate", {"characters_per_s": 0}),
        ("unsure", {"confidence": 0.5}),
        ("other_voice", {"speaker_outlier": True, "speaker_similarity": 0.3}),
        ("duplicate", {"duplicate_of": "anna/take__0001.wav"}),
        ("poor", {"dnsmos": {"overall": 2.0}}),
        ("loudness", {"lufs": -30.0}),
        ("short", {"duration_s": 0.9}),
        ("long", {"duration_s": 31.0}),
        ("no_text", {"text": " "}),
    ],
)
def test_each_problem_is_found_named_and_explained(tmp_path, kind, values):
    rows = [clip(number) for number in range(9)] + [clip(9, **values)]
    judge = Judge(rows, -23.0)
    assert [problem.kind for problem in judge.problems(rows[-1])] == [kind]
    assert not any(judge.problems(row) for row in rows[:-1])
    page = Page(render(rows, {}, tmp_path))
    assert f"1 of 10 clips: {KINDS[kind].title}" in page.sections["findings"]
    assert judge.problems(rows[-1])[0].reason in page.sections["worst"]
    assert page.sections["worst"].index("take__0009") < page.sections["worst"].index("take__0000")


def test_every_kind_of_problem_has_advice():
    assert all(kind.advice.endswith(".") and len(kind.advice) > 40 for kind in KINDS.values())


@given(st.floats(0, 60), st.floats(0, 60))
def test_the_noisier_of_two_clips_is_never_the_better_one(one, other):
    judge = Judge([])
    better, worse = (badness(judge.problems(clip(snr_db=snr))) for snr in sorted((one, other), reverse=True))
    assert worse >= better


def test_a_rate_is_judged_by_the_speakers_own_and_not_at_all_among_few_clips():
    slow = [clip(number, "slow", characters_per_s=7.0) for number in range(6)]
    fast = [clip(number, "fast", characters_per_s=16.0) for number in range(6)]
    judge = Judge([*slow, *fast])
    assert not any(judge.problems(row) for row in [*slow, *fast])
    assert [p.kind for p in judge.problems(clip(0, "slow", characters_per_s=16.0))] == ["rate"]
    assert not Judge(fast[:3]).problems(clip(0, "fast", characters_per_s=99.0))


def test_the_set_is_judged_too_for_little_speech_balance_and_what_was_left_out():
    much = [clip(number, duration_s=30.0, end_s=10.0 * number + 30) for number in range(24)]
    little = [clip(0, "bob")]
    none = [[] for _ in range(25)]
    assert find(much, none, {"silent": 1.0}) == []
    titles = [finding.title for finding in find([*much, *little], none, {"silent": 900.0, "torn": 1.0})]
    assert "bob\u2069 0.1 min" in titles[0] and titles[0].startswith("Speakers with less than 10 minutes")
    assert titles[1].startswith("Speakers are unbalanced: \u2068anna\u2069 12.0 min, \u2068bob\u2069 0.1 min")
    assert titles[2].startswith("55 % of what was found") and "silent" in titles[2]
    assert find(little, none, {})[0].title == "Less than 10 minutes of speech: 0.1 min"
    assert find([], [], {})[0].title == "No clip was kept"


def test_a_good_set_gets_no_finding_but_clips_to_listen_to(tmp_path):
    rows = [clip(number, duration_s=30.0, end_s=10.0 * number + 30) for number in range(25)]
    page = Page(render(rows, {}, tmp_path))
    assert "Nothing stands out" in page.sections["findings"]
    assert page.sections["worst"].count("no problem found") == 10


def test_the_players_are_those_of_the_worst_clips_and_no_more_than_asked_for(tmp_path):
    for number in range(4):
        write_wav(tmp_path / f"anna/take__{number:04d}.wav", np.sin(np.arange(8000) * (number + 1) / 9), 8000)
    rows = [clip(number, snr_db=[20.0, 10.0, 12.0, 5.0][number]) for number in range(4)]
    markup = render(rows, {}, tmp_path, players=2)
    assert re.findall(r'<audio[^>]*aria-label="Play anna/take__(\d+)', markup) == ["0003", "0001"]
    assert all(link.startswith(("data:audio/flac;base64,", "#")) for link in Page(markup).links)
    assert not re.search(r"https?://|url\(|@import|file:", markup) and "default-src 'none'" in markup
    assert render(rows, {}, tmp_path, players=0).count("<audio") == 0


def test_the_sound_of_all_players_is_bounded(tmp_path, monkeypatch):
    write_wav(tmp_path / "anna/one.wav", np.random.default_rng(0).uniform(-1, 1, 80000), 8000)
    rows = [clip(number, clip="anna/one.wav") for number in range(10)]
    one = len(render(rows, {}, tmp_path, players=1))
    monkeypatch.setattr("fish_speech.prepare.worst._PLAYER_BYTES", 700_000)
    markup = render(rows, {}, tmp_path)
    assert markup.count("<audio") == 3 and len(markup) < one + 700_000


@pytest.mark.parametrize("name", ["../secret.wav", "anna/missing.wav", "anna/torn.wav", "anna", "a\0b.wav", "x" * 5000])
def test_no_sound_from_outside_the_folder_and_none_that_cannot_be_read(tmp_path, name):
    folder = tmp_path / "voice"
    write_wav(tmp_path / "secret.wav", np.zeros(800), 8000)
    (folder / "anna").mkdir(parents=True)
    (folder / "anna/torn.wav").write_bytes(b"RIFF")
    markup = render([clip(clip=name)], {}, folder)
    assert "<audio" not in markup and re.search("the file (is not there|cannot be read)", markup)


def test_hostile_names_and_texts_are_shown_and_never_become_markup(tmp_path):
    rows, summary = hostile_set()
    markup = render(rows, summary, tmp_path / "</script><b>", created=EVIL, versions={EVIL: EVIL})
    page = Page(markup)
    assert not {"script", "iframe", "object", "link", "img", "base"} & set(page.tags)
    assert list(page.sections) == [*SECTIONS, "versions"]
    assert page.text.count("<script>alert('x')</script>") > 10
    assert "\\x00\\udcff" in page.text and "\x00" not in markup
    markup.encode("utf-8")


FIELDS = [*clip(), "dnsmos", "duplicate_of", "speaker_similarity", "speaker_outlier"]
NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats())
ANYTHING = NUMBERS | st.text(max_size=9) | st.lists(NUMBERS, max_size=2) | st.dictionaries(st.just("overall"), NUMBERS)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), ANYTHING), max_size=4))
def test_any_field_may_be_missing_or_of_any_kind(rows):
    page = Page(render(rows, {}, Path("voice"), players=0))
    assert list(page.sections)[:5] == SECTIONS[:5]


def test_a_page_of_nothing_is_made(tmp_path):
    page = Page(render([], {}, tmp_path))
    assert "No clip was kept" in page.text and "Nothing was left out" in page.text
    assert list(page.sections) == SECTIONS[:-1]


def test_twenty_thousand_rows_give_a_page_of_bounded_size_that_counts_what_it_does_not_show(tmp_path):
    text = "A sentence of usual length that somebody has said. " * 2
    rows = [clip(number, f"speaker {number % 150}", snr_db=number % 40, text=text) for number in range(15000)]
    rows += [gone(f"reason {number % 40}: detail {number}", number, text=text) for number in range(5000)]
    markup = render(rows, {}, tmp_path)
    page = Page(markup)
    assert len(markup) < 1_000_000
    assert page.tags["tr"] < 600
    assert "5,565 more clips with a problem not shown" in page.sections["worst"]
    assert "50 more speakers not shown" in page.sections["speakers"]
    hidden = sum(int(n.replace(",", "")) for n in re.findall(r"([\d,]+) more segments", page.sections["left-out"]))
    shown = markup.partition('id="left-out"')[2].count("<tr><td")
    assert shown <= 300 and hidden + shown == 5000


def test_a_histogram_counts_every_value_once():
    values = [1.0, 1.1, 2.0, 2.2, 2.3, 7.0]
    drawing = histogram("t", "Duration, s", [Series("a", "red", values[:3]), Series("<b>", "blue", values[3:])])
    counts = re.findall(r"(\d+) clips, (a|&lt;b&gt;)</title>", drawing)
    assert sum(int(count) for count, name in counts if name == "a") == 3
    assert sum(int(count) for count, name in counts if name != "a") == 3
    assert histogram("t", "x", [Series("a", "red", [])]) == ""


def test_bars_stay_inside_the_chart_and_the_tallest_is_as_high_as_its_count():
    drawing = histogram("t", "x", [Series("a", "red", [1.0] * 50 + [2.0] * 25)])
    heights = [float(height) for height in re.findall(r'<rect[^>]* height="([\d.]+)"', drawing)]
    tops = [float(y) for y in re.findall(r'<rect[^>]* y="([\d.]+)"', drawing)]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.02)  # written with two decimals
    assert min(tops) >= 0 and all(top + height == pytest.approx(176, abs=0.06) for top, height in zip(tops, heights))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50))
def test_bars_enclose_what_is_usual_and_are_few(values):
    edges = bin_edges(np.array(values))
    middle = np.percentile(values, 50)
    slack = 1e-6 * (edges[-1] - edges[0])
    assert 2 <= len(edges) <= 28 and (np.diff(edges) > 0).all()
    assert edges[0] <= middle + slack and edges[-1] >= middle - slack


def test_a_value_far_from_the_rest_does_not_squeeze_them():
    values = [*np.linspace(1, 10, 99), 1e5]
    assert bin_edges(np.array(values))[-1] <= 50
    assert "above 9.5, " in (drawing := histogram("t", "x", [Series("a", "red", values)])) and "NaN" not in drawing


def test_the_parts_of_the_bar_are_as_wide_as_their_seconds():
    bar = stacked_bar([Share("kept", "red", 30.0), Share("none", "blue", 0.0), Share("lost", "blue", 10.0)], "label")
    assert [float(grow) for grow in re.findall(r"flex-grow:([\d.]+)", bar)] == [0.75, 0.25]
    assert stacked_bar([Share("kept", "red", 0.0)], "label") == ""


@given(st.text(alphabet=st.characters(codec=None), max_size=60), st.integers(1, 80))
def test_escaped_text_reads_back_as_it_was_but_for_what_no_page_can_hold(value, length):
    page = Page(html_page("t", f'<p title="{html_text(value, length)}">{html_text(value)}</p>'))
    readable = value.encode("utf-8", "backslashreplace").decode()
    readable = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match.group()):02x}", readable)
    assert page.text == Page(html_page("t", "<p>@</p>")).text.replace("@", readable)
    assert page.tags["p"] == 1


def test_the_rows_of_a_manifest_are_not_changed(tmp_path):
    rows = [clip(number) for number in range(3)] + [gone("x: y")]
    before = json.dumps(rows)
    first, second = (render(rows, {}, tmp_path, created="now") for _ in range(2))
    assert json.dumps(rows) == before and first == second
    assert math.isfinite(len(first))
