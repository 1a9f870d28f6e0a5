"""Recognised text that was never said is found; what people say is left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.recognition import suspicious

from ..conftest import REPO

SAID = [
    line.strip()
    for path in [REPO / "tools" / "demo_texts.txt", *sorted((REPO / "samples").rglob("*.txt"))]
    for line in path.read_text(encoding="utf-8").splitlines()
    if line.strip()
]


def test_what_people_say_is_trusted():
    assert len(SAID) > 30
    flagged = {text: reason for text in SAID if (reason := suspicious(text, len(text) / 14, "en", 0.9))}
    assert not flagged
    together = " ".join(SAID)
    assert suspicious(together, len(together) / 14) is None


@pytest.mark.parametrize(
    "text",
    [
        "Thanks for watching!",
        " Thank you for watching. ",
        "Thanks for watching! Thanks for watching!",
        "I'll see you in the next video.",
        "Subtitles by the Amara.org community",
        "Transcribed by https://otter.ai",
        "Субтитры сделал DimaTorzok",
        "Редактор субтитров А.Семкин Корректор А.Егорова",
        "Продолжение следует...",
        "ご視聴ありがとうございました",
        "ご視聴ありがとうございました。",
        "Untertitel im Auftrag des ZDF für funk, 2017",
        "Untertitel im Auftrag des ZDF, 2020",
        "Untertitelung des ZDF, 2020",
        "Copyright WDR 2021",
        "Sous-titres réalisés para la communauté d'Amara.org",
        "Sous-titrage ST' 501",
        "Subtítulos realizados por la comunidad de Amara.org",
        "¡Gracias por ver el video!",
        "Legendas pela comunidade Amara.org",
        "Sottotitoli creati dalla comunità Amara.org",
        "Napisy stworzone przez społeczność Amara.org",
        "Altyazı M.K.",
        "MBC 뉴스 이덕영입니다.",
        "시청해주셔서 감사합니다.",
        "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目",
        "字幕志愿者 李宗盛",
        "اشتركوا في القناة",
        "[Music]",
        "(applause) ♪ la la ♪",
        "♪♪",
        "...",
        "",
    ],
)
def test_lines_that_whisper_writes_without_speech_are_found(text):
    assert suspicious(text, 3.0)


@pytest.mark.parametrize(
    "text",
    [
        "Thank you.",
        "You.",
        "Danke.",
        "She said thanks for watching, and left the room.",
        "Thanks for watching my dog while I was away.",
        "To be continued is how the letter ended: продолжение следует, написал он.",
        "翻译这个句子。",
        "字幕很有用。",
        "Napisy są trudne.",
        "No, no, no!",
        "It was a very, very, very good day.",
        "Ring zero zero seven, then 1 1 1 1 1 1 1.",
        "Row, row, row your boat, gently down the stream.",
        "(quietly) I did not say that.",
    ],
)
def test_what_can_be_said_is_trusted(text):
    assert suspicious(text, max(1.0, len(text) / 14)) is None


def test_a_common_phrase_counts_only_if_unsure_or_far_too_short_for_its_clip():
    assert suspicious("Thank you.", 1.5, "en", 0.9) is None
    assert "sure" in suspicious("Thank you.", 1.5, "en", 0.2)
    assert "characters per second" in suspicious("Thank you.", 12.0, "en", 0.9)
    assert "characters per second" in suspicious("you", 29.0)


@pytest.mark.parametrize(
    "text",
    [
        "and the the the the the the the man",
        "I know, I know, I know, I know, I know.",
        "we will go to the shop " * 3,
        "the cat sat on a red mat and looked at me " * 3,
        "ah" * 20,
        "ああああああああああああああああ",
        "よろしく" * 10,
    ],
)
def test_loops_are_found(text):
    assert "over and over" in suspicious(text, len(text) / 10)


def test_text_that_compresses_too_well_is_a_loop_even_if_its_words_vary():
    text = " ".join(f"{first} and then they said {second}" for first in ("he", "she") * 4 for second in ("yes", "no"))
    assert "compression ratio" in suspicious(text, len(text) / 14)


@pytest.mark.parametrize(
    ("text", "duration_s", "language", "found"),
    [
        ("Please hold while I try to find the right person.", 3.0, "en", None),
        ("Please hold while I try to find the right person.", 0.5, "en", "faster"),
        ("Please hold.", 1.0, "en", None),
        ("Please hold.", 30.0, "en", "most of the sound"),
        ("今天的天气很冷但是很晴朗", 2.5, "zh", None),
        ("今天的天气很冷但是很晴朗", 2.5, None, None),
        ("今天的天气很冷但是很晴朗", 0.5, None, "faster"),
        ("words", 0.0, "en", "without any sound"),
        ("words", None, "en", None),
    ],
)
def test_rates_that_nobody_speaks_at_are_found(text, duration_s, language, found):
    reason = suspicious(text, duration_s, language)
    assert reason is None if found is None else found in reason


@given(st.text(max_size=300), st.floats(0, 60), st.none() | st.floats(0, 1))
def test_any_text_gets_an_answer(text, duration_s, confidence):
    reason = suspicious(text, duration_s, None, confidence)
    assert reason is None or (reason and "\n" not in reason)
