"""The summary's arithmetic, and a page that holds everything and trusts nothing."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.audio import write_wav
from fish_speech.evaluation import ErrorCounts
from fish_speech.evaluation.plots import nice_ticks
from fish_speech.evaluation.report import render
from fish_speech.evaluation.summary import plain_table, rate_interval, summarise

EVIL = "<script>alert('x')</script> & \"quoted\" </td>"


def row(**values):
    counts = {"substitutions": 1, "deletions": 0, "insertions": 0, "length": 4}
    return {
        "name": "one", "text": "a b c d", "failure": None, "duration_s": 2.0, "speech_s": 1.0, "words_per_s": 4.0,
        "expected": "a b c d", "heard": "a x c d", "word_errors": counts, "wer": 0.25, "similarity": 0.8,
        "dnsmos": {"overall": 3.0, "signal": 3.2, "background": 4.0, "p808": 3.5}, **values,
    }  # fmt: skip


def report(*systems):
    results = [
        {"name": name, "kind": "recordings", "source": "in", "summary": summarise(rows), "clips": rows}
        for name, rows in systems
    ]
    return {"created": "now", "settings": {"command": ["a"], "seed": None}, "versions": {"x": "1"}, "systems": results}


class Page(HTMLParser):
    """Collects tags, attributes and text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.links, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]

    def handle_data(self, data):
        self.text += data


def test_error_rates_are_of_the_corpus_and_other_figures_are_means():
    long = {"substitutions": 0, "deletions": 0, "insertions": 0, "length": 16}
    summary = summarise([row(), row(word_errors=long, similarity=0.6, speech_s=3.0, words_per_s=2.0)])
    assert summary["wer"] == pytest.approx(1 / 20)
    assert summary["similarity"] == pytest.approx(0.7)
    assert summary["words_per_s"] == pytest.approx(10 / 4)
    assert (summary["clips"], summary["failed"], summary["total_s"]) == (2, 0, 4.0)


def test_a_failed_clip_counts_in_no_figure_but_is_counted():
    summary = summarise([row(), {"name": "two", "text": "a", "failure": "torn"}])
    assert (summary["clips"], summary["failed"], summary["wer"]) == (1, 1, 0.25)


def test_ending_by_itself_is_a_share():
    assert summarise([row(ends_by_itself=True), row(ends_by_itself=False)])["ends_by_itself"] == 0.5


def test_wer_added_by_a_codec_is_against_its_own_originals():
    perfect = {"substitutions": 0, "deletions": 0, "insertions": 0, "length": 4}
    assert summarise([row(original_word_errors=perfect)])["wer_added"] == pytest.approx(0.25)


def test_the_interval_holds_the_rate_and_is_the_same_each_time():
    counts = [ErrorCounts(edits, 0, 0, 10) for edits in (0, 1, 2, 3, 4, 5)]
    low, high = rate_interval(counts)
    assert 0 < low < 0.25 < high < 0.5
    assert rate_interval(counts) == [low, high]
    assert rate_interval([ErrorCounts()]) is None


def test_the_table_has_a_line_per_system_and_no_empty_column():
    lines = plain_table(report(("first", [row()]), ("second", [row()]))["systems"]).splitlines()
    assert [line.split()[0] for line in lines] == ["system", "first", "second"]
    assert "WER" in lines[0] and "LUFS" not in lines[0]
    assert len({len(line) for line in lines}) == 1


def test_text_from_outside_is_shown_and_never_becomes_markup(tmp_path):
    clip = row(name=EVIL, text=EVIL, expected=EVIL, heard=EVIL + " more", note=None)
    content = report((EVIL, [clip, {"name": EVIL, "text": None, "failure": EVIL}]))
    content["settings"] = {"speaker": EVIL, EVIL: 1}
    page = Page(render(content, tmp_path))
    assert not {"script", "iframe", "object", "link", "img"} & set(page.tags)
    assert page.text.count("<script>alert('x')</script>") >= 6


def test_the_page_refers_to_nothing_outside_itself_and_carries_the_sound(tmp_path):
    for number in range(3):
        write_wav(tmp_path / f"audio/a/{number}.wav", np.sin(np.arange(8000) * (number + 1) / 9), 8000)
    page = render(report(("a", [row(audio=f"audio/a/{number}.wav") for number in range(3)])), tmp_path, players=2)
    links = Page(page).links
    assert len(links) == 2 and all(link.startswith("data:audio/flac;base64,") for link in links)
    assert not re.search(r"https?://|url\(|@import|file:", page)
    assert "default-src 'none'" in page


def test_the_words_that_were_misheard_are_marked(tmp_path):
    page = render(report(("a", [row(expected="a b c d", heard="a x c")])), tmp_path)
    assert '<mark title="b">x</mark>' in page and "<del>d</del>" in page


def test_a_page_of_systems_without_any_optional_measure_is_made(tmp_path):
    bare = {"name": "one", "text": None, "failure": None, "duration_s": 1.0, "speech_s": 0.0, "lufs": None}
    content = report(("a", [bare]), ("b", [{"name": "two", "text": "x", "failure": "torn"}]))
    assert "torn" in render(content, tmp_path)
    json.dumps(content, allow_nan=False)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_ticks_enclose_the_values_and_are_few(low, span):
    ticks = nice_ticks(low, low + span)
    slack = 1e-6 * (ticks[-1] - ticks[0])  # far below a pixel
    assert ticks[0] <= low + slack and ticks[-1] >= low + span - slack
    assert 2 <= len(ticks) <= 9 and ticks == sorted(set(ticks))
