"""Segments joined to one speech: nothing spoken is lost, silence at the ends is, and pauses fit how the text ends."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.synthesis.joining import LEAD_S, PAUSES_S, TAIL_S, Joiner

RATE = 16_000
SAMPLES = Path(__file__).parents[2] / "samples" / "allison"
NAMES = ["agent-alreadyon", "auth-incorrect", "conf-getconfno", "conf-invalid", "conf-kicked"]
FRAME = RATE // 100


def join(segments, sizes=(), endings=None, rate=RATE):
    """Join segments, each fed in chunks of `sizes` and the rest at once."""
    joiner, parts = Joiner(rate), []
    for number, sound in enumerate(segments):
        at = 0
        for size in sizes:
            parts.append(joiner.feed(sound[at : at + size]))
            at += size
        parts.append(joiner.feed(sound[at:]))
        following = "Next." if number < len(segments) - 1 else None
        parts.append(joiner.end_segment("Done.", following, endings and endings[number]))
    return np.concatenate([*parts, joiner.finish()])


def tone(seconds, amplitude=0.3, frequency=200):
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def quiet(seconds, amplitude=0.0, seed=0):
    count = round(seconds * RATE)
    return (amplitude * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def recordings():
    import soundfile

    return [soundfile.read(SAMPLES / f"{name}.flac", dtype="float32")[0] for name in NAMES]


def levels(sound):
    frames = sound[: len(sound) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64)
    return 10 * np.log10(np.maximum(frames.var(axis=1), 1e-20))


def place(part, whole):
    """Where the middle of `part` lies in `whole`, and so where its start would."""
    middle = len(part) // 2
    wanted = part[middle : middle + 800]
    for start in np.flatnonzero(whole[: len(whole) - 799] == wanted[0]):
        if np.array_equal(whole[start : start + 800], wanted):
            return start - middle
    raise AssertionError("the middle is not there")


@pytest.mark.parametrize("amplitude", [0.9, 0.3, 0.003])
@pytest.mark.parametrize("noise", [0.0, 0.0005])
def test_silence_around_a_segment_goes_but_for_its_margins(amplitude, noise):
    noise *= amplitude
    joined = join([np.concatenate([quiet(0.5, noise), tone(1.0, amplitude), quiet(0.7, noise, seed=1)])])
    assert len(joined) / RATE == pytest.approx(LEAD_S + 1.0 + TAIL_S, abs=0.021)


@pytest.mark.parametrize("ending", PAUSES_S)
def test_the_pause_between_two_segments_fits_the_ending(ending):
    segment = np.concatenate([quiet(0.31), tone(0.5), quiet(0.42)])
    joined = join([segment, segment], endings=[ending, "paragraph"])
    loud = np.flatnonzero(np.abs(joined) > 0.05)
    assert np.diff(loud).max() / RATE == pytest.approx(PAUSES_S[ending], abs=0.025)


def test_pauses_come_from_the_text_where_no_ending_is_given():
    joiner, segment = Joiner(RATE), np.concatenate([quiet(0.3), tone(0.5), quiet(0.3)])
    parts = []
    for text, following in (("One,", "two"), ("three.", "Four"), ("five", None)):
        parts += [joiner.feed(segment), joiner.end_segment(text, following)]
    loud = np.flatnonzero(np.abs(np.concatenate(parts)) > 0.05)
    gaps = np.diff(loud)[np.diff(loud) > RATE // 50] / RATE
    np.testing.assert_allclose(gaps, [PAUSES_S["clause"], PAUSES_S["sentence"]], atol=0.025)


def test_sound_that_fills_its_segments_gets_pauses_too():
    joined = join([tone(0.5), tone(0.5)])
    assert len(joined) == round((1.0 + PAUSES_S["sentence"]) * RATE)


@pytest.mark.parametrize("gain", [1.0, 0.02])
def test_no_speech_of_a_real_recording_is_cut(gain):
    for sound in recordings():
        sound = sound * np.float32(gain)
        joined = join([sound])
        start = place(joined, sound)
        inside = slice(start + 80, start + len(joined) - 80)
        np.testing.assert_array_equal(joined[80:-80], sound[inside])  # all but the fades at the ends
        floor = max(-80, levels(sound).max() - 45)
        left_out = np.concatenate([levels(sound[:start]), levels(sound[start + len(joined) :]), [-200.0]])
        assert left_out.max() < floor


def test_joined_recordings_hold_each_one_and_no_silence_at_the_ends():
    sounds = recordings()
    joined = join(sounds)
    assert len(joined) < sum(map(len, sounds)) + (len(sounds) - 1) * PAUSES_S["sentence"] * RATE
    starts = [place(join([sound]), joined) for sound in sounds]
    assert starts == sorted(starts)
    audible = np.flatnonzero(levels(joined) > levels(joined).max() - 45)
    assert audible[0] <= 5 and len(levels(joined)) - audible[-1] <= 9


def test_silence_inside_a_segment_stays():
    sound = np.concatenate([quiet(0.2), tone(0.4), quiet(12, 1e-5), tone(0.4), quiet(0.2)])
    joined = join([sound])
    start = round((0.2 - LEAD_S) * RATE)
    np.testing.assert_array_equal(joined[80:-80], sound[start + 80 : start + len(joined) - 80])
    assert len(joined) / RATE == pytest.approx(12.8 + LEAD_S + TAIL_S, abs=0.021)


def test_a_click_before_the_speech_is_no_speech_and_a_last_consonant_is():
    click, consonant = quiet(0.01, 0.003), quiet(0.01, 0.01, seed=2)
    sound = np.concatenate([click, quiet(0.3), tone(0.5), quiet(0.1), consonant, quiet(0.3)])
    joined = join([sound])
    assert len(joined) / RATE == pytest.approx(LEAD_S + 0.5 + 0.1 + 0.01 + TAIL_S, abs=0.021)


def test_segments_without_sound_leave_no_gap():
    speech = np.concatenate([quiet(0.2), tone(0.5), quiet(0.2)])
    np.testing.assert_array_equal(
        join([quiet(1), speech, quiet(2), speech, quiet(0.5), quiet(0)]), join([speech, speech])
    )


def test_nothing_but_silence_gives_nothing():
    assert len(join([quiet(1.0), quiet(3.0, 1e-6), quiet(0)])) == 0
    assert len(Joiner(RATE).finish()) == 0


def test_a_stream_that_is_finished_without_its_end_is_whole():
    joiner, sound = Joiner(RATE), np.concatenate([quiet(0.2), tone(0.5), quiet(0.3)])
    np.testing.assert_array_equal(np.concatenate([joiner.feed(sound), joiner.finish()]), join([sound]))


def test_ends_are_faded():
    joined = join([np.full(RATE, 0.2, np.float32) + tone(1.0), tone(1.0)])
    loud_step = np.abs(np.diff(np.concatenate([[0.0], joined, [0.0]]))).max()
    assert loud_step < 0.04  # the tone itself has 0.024, an uncut end 0.2


def test_sound_comes_out_while_it_goes_in():
    joiner, given_out, voice = Joiner(RATE), 0, np.concatenate([quiet(0.3), tone(3.0)])
    for at in range(0, len(voice), FRAME):
        given_out += len(joiner.feed(voice[at : at + FRAME]))
        behind = at + FRAME - round((0.3 - LEAD_S) * RATE) - given_out
        assert behind <= 3 * FRAME or at < 0.45 * RATE


def test_memory_is_bounded_in_silence():
    joiner = Joiner(RATE)
    joiner.feed(tone(0.5))
    for _ in range(40):
        joiner.feed(quiet(1.0))
    assert sum(map(len, joiner._held)) <= 10.1 * RATE
    joiner = Joiner(RATE)
    for _ in range(40):
        joiner.feed(quiet(1.0))
    assert sum(map(len, joiner._held)) <= RATE


pieces = st.tuples(st.integers(0, 1500), st.sampled_from([0.0, 1e-5, 1e-3, 0.02, 0.5]), st.integers(0, 99))
sounds = st.lists(pieces, max_size=12).map(
    lambda found: np.concatenate([quiet(0), *(quiet(n / RATE, level, seed) for n, level, seed in found)])
)


@settings(max_examples=150, deadline=None)
@given(st.lists(sounds, max_size=4), st.lists(st.integers(0, 700), max_size=30))
def test_the_speech_does_not_depend_on_the_chunks(segments, sizes):
    np.testing.assert_array_equal(join(segments, sizes), join(segments))


@settings(max_examples=100, deadline=None)
@given(st.lists(sounds, min_size=1, max_size=4))
def test_energy_stays_where_it_is_loud(segments):
    loudest = max((levels(sound).max() for sound in segments if len(sound) >= FRAME), default=-200)
    lost = sum(float(np.sum(sound.astype(np.float64) ** 2)) for sound in segments) - float(
        np.sum(join(segments) ** 2.0)
    )
    # What may go: frames 45 dB below the loudest, clicks before a beginning, and what the fades take.
    assert lost <= sum(len(s) for s in segments) * 10 ** ((loudest - 45) / 10) + len(segments) * 2 * 3 * FRAME * 4


def test_what_is_no_sound_is_refused():
    with pytest.raises(ValueError, match="expected"):
        Joiner(RATE).feed(np.zeros((1, 5), np.float32))
