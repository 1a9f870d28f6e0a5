import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.prepare.segments import Limits, Segment, plan_segments, windows
from fish_speech.timeline import Piece, Span

LIMITS = Limits()


def spans_of(*times: float) -> list[Span]:
    return [Span(start_s, end_s) for start_s, end_s in zip(times[::2], times[1::2])]


def words_in(speech: list[Span], ends_at: set[int]) -> list[Piece]:
    """One piece for each span; those in `ends_at` end a sentence."""
    return [Piece("word", *span, 1.0, index in ends_at) for index, span in enumerate(speech)]


@st.composite
def recordings(draw) -> tuple[list[Span], float]:
    """Speech of all lengths in a recording, pauses from nothing to a minute."""
    pause = st.one_of(st.floats(0.001, 0.6), st.floats(0.1, 2.0), st.floats(2.0, 60.0))
    length = st.one_of(st.floats(0.03, 1.0), st.floats(0.5, 8.0), st.floats(8.0, 70.0))
    spans, at = [], draw(st.floats(0, 3))
    for _ in range(draw(st.integers(0, 25))):
        spans.append(Span(at, at + draw(length)))
        at = spans[-1].end_s + draw(pause)
    return spans, (spans[-1].end_s if spans else 0.0) + draw(st.floats(0, 3))


@st.composite
def pieces_over(draw, duration_s: float) -> list[Piece]:
    starts = draw(st.lists(st.floats(-1, duration_s + 1), max_size=20))
    return [Piece("x", at, at + draw(st.floats(0, 6)), 1.0, draw(st.booleans())) for at in starts]


limits = st.builds(
    lambda low, target, high: Limits(low + target, low, low + target + high),
    st.floats(0.3, 3.0),
    st.floats(0.0, 12.0),
    st.floats(0.0, 20.0),
)


@settings(max_examples=200, deadline=None)
@given(st.data(), recordings(), limits)
def test_each_span_lies_whole_in_one_segment_and_cuts_lie_in_pauses(data, recording, limits):
    speech, duration_s = recording
    pieces = data.draw(st.one_of(st.just([]), pieces_over(duration_s)))
    segments = plan_segments(speech, duration_s, limits, pieces)
    for before, after in zip(segments, segments[1:]):
        assert before.end_s <= after.start_s + 1e-9
    for span in speech:
        holders = [s for s in segments if s.start_s <= span.start_s and span.end_s <= s.end_s]
        touched = [s for s in segments if s.start_s < span.end_s - 1e-9 and span.start_s + 1e-9 < s.end_s]
        assert len(holders) == 1 and touched == holders
    for segment in segments:
        inside = [s for s in speech if segment.start_s <= s.start_s and s.end_s <= segment.end_s]
        assert inside, "a segment without speech"
        assert segment.start_s >= 0 and segment.end_s <= duration_s
        edges = inside[0].start_s - segment.start_s, segment.end_s - inside[-1].end_s
        assert all(0 <= edge <= 0.2 + 1e-9 for edge in edges)
        if segment.left_out is None:
            assert limits.min_s <= segment.end_s - segment.start_s <= limits.max_s
            assert all(after.start_s - before.end_s <= 5.0 for before, after in zip(inside, inside[1:]))
        else:
            category, _, details = segment.left_out.partition(": ")
            assert category in ("too short", "no pause", "long silence") and details and "\n" not in segment.left_out
    for at, (left, right) in enumerate(zip(segments, segments[1:])):
        pause = min(s.start_s for s in speech if s.start_s >= right.start_s) - max(
            s.end_s for s in speech if s.end_s <= left.end_s
        )
        assert pause >= 0.1 - 2e-6, f"segment {at} ends in a pause of {pause} s"
    assert plan_segments(speech, duration_s, limits, pieces) == segments


@settings(max_examples=200, deadline=None)
@given(recordings(), st.floats(2.0, 30.0), st.floats(0.2, 3.0))
def test_windows_cover_all_speech_and_are_no_longer_than_asked(recording, max_s, max_silence_s):
    speech, duration_s = recording
    found = windows(speech, duration_s, max_s, max_silence_s)
    for before, after in zip(found, found[1:]):
        assert before.end_s <= after.start_s + 1e-9
    assert all(0 <= w.start_s < w.end_s <= duration_s and w.duration_s <= max_s + 1e-6 for w in found)
    for span in speech:
        covered = sum(max(0.0, min(span.end_s, w.end_s) - max(span.start_s, w.start_s)) for w in found)
        assert covered == pytest.approx(span.duration_s, abs=1e-6)
        if span.duration_s + 0.4 <= max_s:
            assert any(w.start_s <= span.start_s and span.end_s <= w.end_s for w in found)
    for before, after in zip(speech, speech[1:]):
        if after.start_s - before.end_s > max_silence_s:
            assert not any(w.start_s < before.end_s and after.start_s < w.end_s for w in found)


def test_clips_are_near_the_target_and_keep_a_fifth_of_a_second_of_the_pause():
    speech = [Span(at, at + 4.4) for at in range(0, 100, 5)]  # pauses of 0.6 s
    segments = plan_segments(speech, 100.0, LIMITS)
    assert [s.left_out for s in segments] == [None] * 10
    assert segments[1] == Segment(pytest.approx(9.8), pytest.approx(19.6), None)


def test_half_of_a_short_pause_goes_to_each_side():
    segments = plan_segments(spans_of(0.05, 10.0, 10.3, 20.0), 20.1, LIMITS)
    assert segments == [Segment(0.0, pytest.approx(10.15), None), Segment(pytest.approx(10.15), 20.1, None)]


def test_the_longer_pause_is_the_better_cut():
    speech = spans_of(0, 5, 5.25, 9.8, 10.05, 12, 12.8, 15, 15.25, 20, 20.25, 22.0)
    assert [round(s.end_s, 2) for s in plan_segments(speech, 22, LIMITS)] == [12.2, 22.0]


def test_a_short_phrase_is_joined_to_its_neighbour_even_over_four_seconds():
    segments = plan_segments(spans_of(0, 10, 14, 14.2), 30.0, LIMITS)
    assert segments == [Segment(0.0, pytest.approx(14.4), None)]


def test_a_short_phrase_out_of_reach_is_left_out_with_the_numbers():
    segments = plan_segments(spans_of(0, 10, 18, 18.4, 30.4, 40), 40.0, LIMITS)
    reason = "too short: 0.4 s of speech alone between pauses of 8.0 and 12.0 s; --min-segment-len is 1 s"
    assert [s.left_out for s in segments] == [None, reason, None]
    assert segments[1][:2] == (pytest.approx(17.8), pytest.approx(18.6))


@pytest.mark.parametrize(
    "speech, duration_s, where",
    [
        ((1, 1.4), 3.0, "alone in the recording"),
        ((1, 1.4, 9, 20), 20.0, "alone before a pause of 7.6 s"),
        ((1, 20, 28, 28.4), 30.0, "alone after a pause of 8.0 s"),
        ((1, 1.4, 2, 31.5), 32.0, "whose neighbours leave no room in a clip of at most 30 s"),
    ],
)
def test_the_reason_says_why_a_short_phrase_stands_alone(speech, duration_s, where):
    reasons = [s.left_out for s in plan_segments(spans_of(*speech), duration_s, LIMITS) if s.left_out]
    assert reasons == [f"too short: 0.4 s of speech {where}; --min-segment-len is 1 s"]


def test_long_speech_is_cut_at_a_pause_of_a_tenth_of_a_second():
    segments = plan_segments(spans_of(0, 20, 20.1, 40), 40.0, LIMITS)
    assert segments == [Segment(0.0, pytest.approx(20.05), None), Segment(pytest.approx(20.05), 40.0, None)]


def test_a_pause_below_a_fifth_of_a_second_is_not_cut_at_without_need():
    assert len(plan_segments(spans_of(0, 10, 10.15, 20), 20.0, LIMITS)) == 1
    assert len(plan_segments(spans_of(0, 10, 10.25, 20), 20.0, LIMITS)) == 2


def test_speech_without_a_pause_is_left_out_whole_with_the_reason():
    segments = plan_segments(spans_of(0, 8, 9, 30, 30.05, 50.2, 51, 60), 60.0, LIMITS)
    reason = "no pause: 41.2 s of speech without a pause to cut at; clips are at most 30 s"
    assert [s.left_out for s in segments] == [None, reason, None]


def test_speech_that_fits_only_with_narrow_edges_is_kept():
    (segment,) = plan_segments(spans_of(1, 30.8), 32.0, LIMITS)
    assert segment == Segment(pytest.approx(0.9, abs=1e-5), pytest.approx(30.9, abs=1e-5), None)


def test_no_clip_holds_more_than_five_seconds_of_silence_on_end():
    segments = plan_segments(spans_of(0, 3, 8.1, 11), 11.0, LIMITS)
    assert [s.left_out for s in segments] == [None, None]


def test_cuts_fall_at_the_ends_of_sentences():
    speech = [Span(at, at + 1.7) for at in range(0, 40, 2)]  # twenty phrases with pauses of 0.3 s
    ends = {3, 11, 19}  # sentences of 4, 8 and 8 phrases
    segments = plan_segments(speech, 40.0, LIMITS, words_in(speech, ends))
    assert [round(s.end_s, 2) for s in segments] == [7.85, 23.85, 39.9]


def test_no_cut_divides_a_subtitle_but_its_time_may_reach_into_its_neighbour():
    speech = spans_of(0, 9.8, 10.2, 16, 16.4, 25)
    across = [Piece("one long subtitle", 3.0, 15.9, 1.0, True), Piece("next", 16.4, 25.0, 1.0, True)]
    assert [round(s.end_s, 2) for s in plan_segments(speech, 25, LIMITS, across)] == [16.2, 25.0]
    late = [Piece("stays on the screen", 0.0, 10.6, 1.0, True), Piece("next", 10.2, 25.0, 1.0, True)]
    assert [round(s.end_s, 2) for s in plan_segments(speech, 25, LIMITS, late)] == [10.0, 25.0]


def test_a_word_whose_time_reaches_over_the_silence_beside_it_forbids_no_cut():
    speech = spans_of(0, 10, 11, 20)
    stretched = [Piece("said", 9.5, 10.0), Piece("then", 10.0, 11.4), Piece("more", 11.4, 12.0)]
    assert len(plan_segments(speech, 20, LIMITS, stretched)) == 2


def test_a_long_silence_within_one_subtitle_is_told():
    segments = plan_segments(spans_of(0, 6, 13, 20), 20.0, LIMITS, [Piece("a b", 0.0, 20.0)])
    assert [s.left_out for s in segments] == ["long silence: 7.0 s inside a word or subtitle; clips have at most 5 s"]


def test_spans_that_touch_overlap_or_leave_the_recording_are_joined_and_clipped():
    segments = plan_segments(spans_of(4, 8, -1, 3, 2, 4, 8, 12, 20, 21), 10.0, LIMITS)
    assert segments == [Segment(0.0, 10.0, None)]
    assert plan_segments([], 10.0, LIMITS) == [] and windows([], 10.0) == []
    assert plan_segments(spans_of(3, 3), 10.0, LIMITS) == []


@pytest.mark.parametrize(
    "values", [(10, 0, 30), (10, 11, 30), (10, 1, 9), (10, 1, float("inf")), (float("nan"), 1, 30)]
)
def test_limits_that_contradict_each_other_are_refused(values):
    with pytest.raises(ValueError, match="--min-segment-len"):
        Limits(*values)


def test_a_window_ends_at_the_last_good_pause():
    speech = spans_of(0, 9, 9.4, 20, 20.4, 26, 26.12, 27.5, 27.62, 33)
    assert windows(speech, 33.0) == [Span(0.0, pytest.approx(20.2)), Span(pytest.approx(20.2), 33.0)]


def test_a_window_skips_silence_and_divides_endless_speech_evenly():
    assert windows(spans_of(0.5, 2, 3.5, 5), 6.0) == [Span(0.3, 2.2), Span(3.3, 5.2)]
    assert windows(spans_of(0.5, 2, 3.5, 5), 6.0, max_silence_s=2) == [Span(0.3, 5.2)]
    assert [round(w.duration_s, 3) for w in windows(spans_of(0, 60), 60.0)] == [20.0] * 3
