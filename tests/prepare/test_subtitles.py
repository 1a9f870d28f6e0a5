"""Subtitles: SubRip and WebVTT as people, yt-dlp and Whisper write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.prepare.plain_text import MAX_TIME_S, Unusable
from fish_speech.prepare.subtitles import read_subtitles


def pieces_of(text: str) -> list[tuple[str, float, float]]:
    return [(p.text, p.start_s, p.end_s) for p in read_subtitles(text, "a.srt")]


def one_srt(body: str) -> list[str]:
    return [text for text, *_ in pieces_of(f"1\n00:00:01,000 --> 00:00:02,500\n{body}\n")]


WANTED = [("Hello there.", 1.0, 2.5), ("It is 1984 now.", 3.0, 4.0)]


@pytest.mark.parametrize(
    "text",
    [
        "1\n00:00:01,000 --> 00:00:02,500\nHello\nthere.\n\n2\n00:00:03,000 --> 00:00:04,000\nIt is\n1984 now.\n",
        "1\r\n00:00:01.0 --> 00:00:02.5\r\nHello there.\r\n\r\n2\r\n0:0:3 --> 0:0:4\r\nIt is 1984 now.",
        "00:01,000 --> 00:02,500 X1:40 X2:600\nHello there.\n\n00:03,000 --> 00:04,000\nIt is 1984 now.",
        "1\n00:00:01,000 --> 00:00:02,500\nHello\n\nthere.\n2\n00:00:03,000 --> 00:00:04,000\nIt is\n\n1984 now.\n",
        "2\n00:00:03,000 --> 00:00:04,000\nIt is 1984 now.\n\n1\n00:00:01,000 --> 00:00:02,500\nHello there.\n",
        "WEBVTT - title\nKind: captions\n\nNOTE a comment\nof two lines\n\nSTYLE\n::cue { color: red }\n\n"
        "intro\n00:01.000 --> 00:02.500 align:start position:0%\n<v Anna>Hello <i.loud>there</i>.\n\n"
        "NOTE another\n\nmiddle part\n00:00:03.000 --> 00:00:04.000\nIt is <c.yellow>1984</c> now.",
    ],
)
def test_forms_of_one_file_give_the_same_pieces(text):
    assert pieces_of(text) == WANTED


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<i>Yes</i>, {\\an8}<font color='#fff'>of course</font>", ["Yes, of course"]),
        ("Tom &amp; Anna&nbsp;said &lt;so&gt;", ["Tom & Anna said <so>"]),
        ("5 < 6 and 7 > 6", ["5 < 6 and 7 > 6"]),
        ("- Where?\n- There.", ["Where? There."]),
        ("-5 degrees\nand well-known", ["-5 degrees and well-known"]),
        ("&gt;&gt; Good morning. &gt;&gt; Morning.", ["Good morning. Morning."]),
        ("[music]", []),
        ("(laughs)", []),
        ("[door [front] creaks] Who is it?", ["Who is it?"]),
        ("- (sighs) No. (coughs)\n- [MAN] Why?", ["No. Why?"]),
        ("I was (coughing) there", ["I was there"]),
        ("I bought (or rather stole) it", ["I bought (or rather stole) it"]),
        ("♪ la la la ♪", []),
        ("♪ a song that goes on", []),
        ("Listen: ♪ la ♪ Nice.", ["Listen: Nice."]),
        ("（笑）はい。", ["はい。"]),
        ("...", []),
        ("漢<rt>かん</rt>字", ["漢字"]),
        ("look --> there", ["look --> there"]),
    ],
)
def test_only_what_is_said_is_kept(body, said):
    assert one_srt(body) == said


YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.389 align:start position:0%
 
hello<00:00:00.480><c> everyone</c><00:00:01.040><c> welcome</c>

00:00:02.389 --> 00:00:02.399 align:start position:0%
hello everyone welcome
 

00:00:02.399 --> 00:00:04.789 align:start position:0%
hello everyone welcome
to<00:00:02.639><c> [Music]</c><00:00:03.040><c> the</c><00:00:03.500><c> show</c>

00:00:04.789 --> 00:00:04.799 align:start position:0%
to [Music] the show
 

00:00:04.799 --> 00:00:06.000 align:start position:0%
to [Music] the show
okay
"""  # noqa: W293

YOUTUBE_WORDS = [
    ("hello", 0.16, 0.48), ("everyone", 0.48, 1.04), ("welcome", 1.04, 2.389), ("to", 2.399, 2.639),
    ("the", 3.04, 3.5), ("show", 3.5, 4.789), ("okay", 4.799, 6.0),
]  # fmt: skip


def test_rolling_captions_give_each_word_once_at_its_time():
    assert pieces_of(YOUTUBE) == YOUTUBE_WORDS


def test_rolling_captions_survive_an_editor_that_strips_white_space():
    assert pieces_of("\n".join(line.rstrip() for line in YOUTUBE.split("\n"))) == YOUTUBE_WORDS


def test_rolling_captions_without_word_times_give_each_line_once():
    text = (
        "1\n00:00:00,000 --> 00:00:02,000\nfirst line\n\n2\n00:00:02,000 --> 00:00:02,010\nfirst line\n\n"
        "3\n00:00:02,010 --> 00:00:04,000\nfirst line\nsecond line\n\n4\n00:00:04,000 --> 00:00:04,010\nsecond line\n\n"
        "5\n00:00:04,010 --> 00:00:06,000\nsecond line\nthird line\n"
    )
    assert pieces_of(text) == [("first line", 0.0, 2.0), ("second line", 2.01, 4.0), ("third line", 4.01, 6.0)]


def test_captions_that_grow_give_each_word_once():
    text = "\n\n".join(
        f"00:0{i}.000 --> 00:0{i + 1}.000\n{' '.join(['one', 'two', 'three', 'four'][: i + 1])}" for i in range(4)
    )
    assert [text for text, *_ in pieces_of("WEBVTT\n\n" + text)] == ["one", "two", "three", "four"]


def test_a_word_said_twice_is_kept_twice():
    text = "1\n00:00:01,000 --> 00:00:02,000\nNo.\n\n2\n00:00:02,000 --> 00:00:03,000\nNo.\n\n"
    text += "3\n00:00:03,000 --> 00:00:04,000\nNo way.\n\n4\n00:00:04,000 --> 00:00:05,000\nGood.\n"
    assert [text for text, *_ in pieces_of(text)] == ["No.", "No.", "No way.", "Good."]


def test_whispers_highlighted_words_give_the_subtitle_once():
    text = "WEBVTT\n\n00:00.000 --> 00:00.500\n<u>Hi</u> you\n\n00:00.500 --> 00:00.600\nHi you\n\n"
    text += "00:00.600 --> 00:01.000\nHi <u>you</u>\n\n00:02.000 --> 00:03.000\n<u>Hi</u> you\n"
    assert pieces_of(text) == [("Hi you", 0.0, 1.0), ("Hi you", 2.0, 3.0)]


def test_subtitles_that_stay_on_the_screen_end_where_the_next_begins():
    text = "".join(f"{i + 1}\n00:00:0{i},000 --> 00:00:0{i + 2},500\nline {'abcd'[i]}\n\n" for i in range(4))
    assert [(start, end) for _, start, end in pieces_of(text)] == [(0, 1), (1, 2), (2, 3), (3, 5.5)]


def test_syllables_are_one_word_and_wrong_word_times_are_not_used():
    assert pieces_of("WEBVTT\n\n00:01.000 --> 00:03.000\nHel<00:01.500>lo <00:02.000>you") == [
        ("Hello", 1.0, 2.0),
        ("you", 2.0, 3.0),
    ]
    assert pieces_of("WEBVTT\n\n00:01.000 --> 00:03.000\nHello <00:09.000>you") == [("Hello you", 1.0, 3.0)]


def test_a_piece_with_words_that_are_not_written_is_not_trusted():
    text = "1\n00:00:01,000 --> 00:00:02,000\nwhat the [&nbsp;__&nbsp;] is\n\n2\n00:00:03,000 --> 00:00:04,000\nthat\n"
    assert [(p.text, p.confidence) for p in read_subtitles(text, "a.srt")] == [("what the is", 0.0), ("that", 1.0)]


def test_sentences_end_where_they_do():
    said = ["I saw Mr.", "Smith today.", "Really?", "yes,", "it was", "late"]
    text = "".join(f"{i + 1}\n00:00:0{i},000 --> 00:00:0{i + 1},000\n{said[i]}\n\n" for i in range(6))
    ends = [p.ends_sentence for p in read_subtitles(text, "a.srt")]
    assert ends[0] is False and ends[1] is True and ends[3:5] == [False, False]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("just some text", "no subtitles with times"),
        ("", "no subtitles with times"),
        ("1\n00:00:02,000 --> 00:00:02,000\nHi\n", "line 2: a subtitle that ends at 2 s"),
        ("1\n00:00:03,000 --> 00:00:02,000\nHi\n", "not after its start"),
        ("1\n-00:00:03,000 --> 00:00:02,000\nHi\n", "before the recording starts"),
        ("1\n00:00:03,000 --> 999999:00:02,000\nHi\n", "beyond 7 days"),
        ("1\n00:00:03,000 --> 00:99:02,000\nHi\n", "cannot read the times"),
        ("1\n00:00:03,000 --> 12:\nHi\n", "cannot read the times"),
        ("1\n00:00:03,000 --> 00:00:0x,000\nHi\n", "cannot read the times"),
        (f"1\n00:00:01,000 --> 00:00:02,000\n{'a ' * 10_001}", "more than 20000 characters"),
    ],
)
def test_what_cannot_be_trusted_is_refused_with_the_line(text, reason):
    with pytest.raises(Unusable, match=reason) as error:
        read_subtitles(text, "a.srt")
    assert str(error.value).startswith("unusable transcript: a.srt") and "\n" not in str(error.value)


def test_an_empty_subtitle_may_have_any_times():
    text = "1\n00:00:01,000 --> 00:00:01,000\n\n2\n00:00:02,000 --> 00:00:03,000\nHi\n"
    assert pieces_of(text) == [("Hi", 2.0, 3.0)]


@pytest.mark.parametrize("evil", ["\n" * 500_000, "<" * 500_000, "(a)" * 6000, "-" * 500_000 + " -->", "[" * 19_000])
def test_hostile_text_does_not_take_quadratic_time(evil):
    text = f"1\n00:00:01,000 --> 00:00:02,000\nHi {evil}\n" if len(evil) < 20_000 else evil
    try:
        assert read_subtitles(text, "a.srt")
    except Unusable as error:
        assert "a.srt" in str(error)


def stamp(ms: int, point: str) -> str:
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"


WORD = st.text(st.characters(categories=["Lu", "Ll"], max_codepoint=0x4FF), min_size=1, max_size=8)
SENTENCE = st.lists(WORD, min_size=1, max_size=5).map(" ".join)
SEQUENCE = st.lists(st.tuples(SENTENCE, st.integers(1, 5000), st.integers(0, 5000)), min_size=1, max_size=8)


@given(SEQUENCE, st.booleans(), st.sampled_from(["\n", "\r\n"]))
def test_what_is_written_is_read_back(sequence, webvtt, line_break):
    now, wanted, lines = 0, [], ["WEBVTT", ""] if webvtt else []
    for number, (text, duration, pause) in enumerate(sequence, 1):
        text = f"{text} {'abcdefghi'[number]}."  # neighbours differ: equal ones could be captions that roll
        start, now = now, now + duration
        wanted.append((text, start / 1000, now / 1000))
        point = "." if webvtt else ","
        lines += [str(number), f"{stamp(start, point)} --> {stamp(now, point)}", text, ""]
        now += pause
    read = pieces_of(line_break.join(lines))
    assert [text for text, *_ in read] == [text for text, *_ in wanted]
    for got, expected in zip(read, wanted):
        assert got[1:] == pytest.approx(expected[1:], abs=1e-6)


PARTS = [
    "00:00:01,000",
    "-->",
    " --> ",
    "\n",
    "\n\n",
    "1",
    "WEBVTT",
    "NOTE",
    "<c>",
    "<00:00:01.500>",
    "a",
    "♪",
    "(",
    "]",
]


@given(
    st.lists(st.sampled_from([*PARTS, "00:00:01,000 --> 00:00:02,000\n", "<u>", "hi ", "00:01.200 --> 00:03.000\n"]))
)
def test_any_text_gives_pieces_within_time_or_a_reason(parts):
    try:
        pieces = read_subtitles("".join(parts), "a.vtt")
    except Unusable as error:
        assert str(error).startswith("unusable transcript: a.vtt")
    else:
        assert all(0 <= p.start_s < p.end_s <= MAX_TIME_S and p.text == p.text.strip() != "" for p in pieces)
        assert [p.start_s for p in pieces] == sorted(p.start_s for p in pieces)
