"""Limits of length against real recordings, and against what espeak-ng takes for other scripts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fish_speech.audio import read_audio
from fish_speech.evaluation.timing import measure_timing
from fish_speech.synthesis.length_limit import SPARE_S, least_frames, longest_frames, longest_seconds, spoken_length

from ..conftest import REPO


def test_real_recordings_lie_well_within_the_limits():
    for path in sorted((REPO / "samples" / "allison").glob("*.flac")):
        spoken = spoken_length(path.with_suffix(".txt").read_text(encoding="utf-8"))
        speech_s = measure_timing(*read_audio(path)).speech_s
        assert 2 * spoken.least_s < speech_s < (spoken.longest_s + SPARE_S) / 1.6, path.stem


@pytest.mark.parametrize(
    ("text", "seconds"),  # as espeak-ng 1.51 says it at its usual speed
    [
        ("1,234,567", 4.02), ("1.234.567", 4.42), ("$1,777.77", 3.66), ("+49 177 7777777", 6.96), ("777777", 4.0),
        ("WWW", 1.24), ("HTTP", 0.83), ("IBM PBX ISDN", 1.41), ("U.S.A.", 0.51), ("www.example.com", 2.5), ("27%", 1.25),
        ("人人生而自由，在尊严和权利上一律平等。", 7.4), ("他们赋有理性和良心，并应以兄弟关系的精神相对待。", 8.1),
        ("すべてのにんげんは、うまれながらにしてじゆうであり、かつ、そんげんとけんりとについてびょうどうである。", 5.9),
        ("모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.", 5.2),
        ("มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ", 6.3),
        ("يولد جميع الناس أحرارا متساوين في الكرامة والحقوق.", 4.5),
        ("Все люди рождаются свободными и равными в своем достоинстве и правах.", 4.0),
    ],
)  # fmt: skip
def test_numbers_acronyms_and_other_scripts_have_room_but_none_to_babble(text, seconds):
    spoken = spoken_length(text)
    assert 2 * spoken.least_s < seconds < (spoken.longest_s + SPARE_S) / 1.4
    assert spoken.longest_s < 8 * seconds + SPARE_S


def test_capitals_spell_only_where_they_stand_out():
    assert spoken_length("the FBI man").longest_s > spoken_length("the fbi man").longest_s + 1
    loud = "PLEASE ENTER YOUR PIN AND PRESS THE KEY"
    assert spoken_length(loud) == spoken_length(loud.lower())


@pytest.mark.parametrize("run", ["...", "!!!", "?!?!", " . . . "])
def test_a_run_of_punctuation_is_one_pause(run):
    assert spoken_length(f"Well{run}").longest_s == spoken_length("Well.").longest_s


def test_frames_follow_the_frame_rate():
    assert longest_seconds("hello") == pytest.approx(2.7)
    assert longest_frames("hello", 20) == 54  # (5 * 0.14 + 2) s
    assert least_frames("hello there", 20) == 4  # 10 * 0.02 s
    assert longest_frames("", 21.5) == 43 and least_frames("", 21.5) == 1


@given(st.text(max_size=80), st.text(max_size=20))
def test_the_least_is_never_over_the_longest_and_no_text_breaks_it(text, more):
    spoken = spoken_length(text)
    assert 0 <= spoken.least_s <= spoken.longest_s + SPARE_S
    assert least_frames(text, 21.5) <= longest_frames(text, 21.5)
    assert spoken_length(f"{text}. {more.lower()}").least_s < spoken.least_s + 0.5 * len(more) + 1
