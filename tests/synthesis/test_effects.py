"""Speed, pitch and volume, measured: what changes is what the name says, by how much it says, however it is streamed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.synthesis.effects import EffectChain, Effects

from ..pitch import median_pitch

RATE = 16_000
SAMPLES = Path(__file__).parents[2] / "samples" / "allison"
SPEEDS = [0.5, 0.8, 1.25, 2.0]
PITCHES = [-12, -3.5, 1, 12]


def apply(sound, rate=RATE, sizes=(), **values):
    """Feed `sound` in chunks of `sizes`, the rest at once."""
    chain, at, parts = EffectChain(Effects(**values), rate), 0, []
    for size in sizes:
        parts.append(chain.feed(sound[at : at + size]))
        at += size
    return np.concatenate([*parts, chain.feed(sound[at:]), chain.finish()])


def sine(frequency, seconds=2.0, rate=RATE, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def middle(sound):
    return sound[len(sound) // 8 : -len(sound) // 8].astype(np.float64)


def frequency(sound, rate=RATE):
    spectrum = np.abs(np.fft.rfft(middle(sound) * np.hanning(len(middle(sound))), 1 << 18))
    return spectrum.argmax() * rate / (1 << 18)


def level_db(sound):
    return 10 * np.log10(np.mean(middle(sound) ** 2))


def recording(name, seconds=3.0):
    import soundfile

    sound, rate = soundfile.read(SAMPLES / f"{name}.flac", dtype="float32")
    return sound[: round(seconds * rate)], rate


@pytest.mark.parametrize("tone", [90, 220, 1000])
@pytest.mark.parametrize("speed", SPEEDS)
def test_speed_changes_the_duration_and_neither_pitch_nor_level(tone, speed):
    sound = sine(tone)
    faster = apply(sound, speed=speed)
    assert len(faster) == round(len(sound) / speed)
    assert frequency(faster) == pytest.approx(tone, rel=0.01)
    assert level_db(faster) == pytest.approx(level_db(sound), abs=0.1)


@pytest.mark.parametrize("tone", [90, 220, 1000])
@pytest.mark.parametrize("pitch", PITCHES)
def test_pitch_changes_the_frequency_and_neither_duration_nor_level(tone, pitch):
    sound = sine(tone)
    higher = apply(sound, pitch=pitch)
    assert len(higher) == len(sound)
    assert frequency(higher) == pytest.approx(tone * 2 ** (pitch / 12), rel=0.01)
    assert level_db(higher) == pytest.approx(level_db(sound), abs=0.1)


@pytest.mark.parametrize("volume", [-40, -6, 0.5, 6])
def test_volume_changes_the_level_by_its_decibels_where_nothing_clips(volume):
    sound = sine(220)
    louder = apply(sound, volume=volume)
    assert len(louder) == len(sound)
    assert level_db(louder) == pytest.approx(level_db(sound) + volume, abs=0.01)
    np.testing.assert_allclose(louder, sound * np.float32(10 ** (volume / 20)), rtol=1e-6, atol=1e-9)


def test_all_effects_together_do_what_each_does_alone():
    sound = sine(220)
    changed = apply(sound, speed=1.3, pitch=5, volume=-10)
    assert len(changed) == round(len(sound) / 1.3)
    assert frequency(changed) == pytest.approx(220 * 2 ** (5 / 12), rel=0.01)
    assert level_db(changed) == pytest.approx(level_db(sound) - 10, abs=0.1)


@pytest.mark.parametrize("speed", [0.7, 1.5])
def test_speed_keeps_the_pitch_and_level_of_a_voice(speed):
    sound, rate = recording("conf-invalid", 2.0)
    changed = apply(sound, rate, speed=speed)
    assert median_pitch(changed, rate) == pytest.approx(median_pitch(sound, rate), rel=0.03)
    assert 10 * np.log10(np.mean(changed**2) / np.mean(sound**2)) == pytest.approx(0, abs=0.25)


@pytest.mark.parametrize("pitch", [-4, 4])
def test_pitch_moves_a_voice_by_its_semitones(pitch):
    sound, rate = recording("conf-invalid", 2.0)
    changed = apply(sound, rate, pitch=pitch)
    ratio = median_pitch(changed, rate) / median_pitch(sound, rate)
    assert ratio == pytest.approx(2 ** (pitch / 12), rel=0.03)


@pytest.mark.parametrize("values", [{"speed": 0.7}, {"speed": 1.5}, {"pitch": -4}, {"pitch": 4}])
def test_a_voice_keeps_its_level_and_has_its_duration(values):
    sound, rate = recording("conf-invalid")
    changed = apply(sound, rate, **values)
    assert len(changed) == round(len(sound) / values.get("speed", 1.0))
    speech_db = 10 * np.log10(np.sum(changed**2, dtype=np.float64) / np.sum(sound**2, dtype=np.float64))
    assert speech_db + 10 * np.log10(len(sound) / len(changed)) == pytest.approx(0, abs=0.25)  # no steady tone


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_what_is_said_when_follows_the_speed(speed):
    sound = np.zeros(3 * RATE, np.float32)
    bursts = (0.4, 1.1, 2.0, 2.6)  # seconds
    for start in bursts:
        sound[round(start * RATE) :][: RATE // 10] = sine(300, 0.1)
    changed = apply(sound, speed=speed)
    loud = np.flatnonzero(np.abs(changed) > 0.1)
    starts = loud[np.flatnonzero(np.diff(loud, prepend=-RATE) > RATE // 20)] / RATE
    # A piece of 15 ms is taken up to 10 ms of input away from its place.
    np.testing.assert_allclose(starts, np.array(bursts) / speed, atol=0.015 + 0.010 / speed)


def test_hiss_keeps_its_level_when_it_is_stretched():
    hiss = (0.1 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)
    assert level_db(apply(hiss, speed=0.7)) == pytest.approx(level_db(hiss), abs=0.4)  # plain cross-fades: -1


def test_a_gain_that_would_clip_is_held_at_full_scale_without_distortion():
    sound = sine(100) * np.float32(0.9)
    louder = apply(sound, volume=20)
    assert np.abs(louder).max() <= 1
    assert np.abs(middle(louder)).max() > 0.999
    spectrum = np.abs(np.fft.rfft(middle(louder) * np.hanning(len(middle(louder)))))
    peak = spectrum.argmax()
    overtones = np.concatenate([spectrum[: peak - 5], spectrum[peak + 6 :]])
    assert overtones.max() < 1e-3 * spectrum[peak]


def test_a_loud_part_leaves_the_quiet_parts_their_gain():
    sound = np.concatenate([sine(200, 1, amplitude=0.01), sine(200, 0.3, amplitude=0.9), sine(200, 1, amplitude=0.01)])
    louder = apply(sound, volume=12)
    gain = 10 ** (12 / 20)
    away = np.r_[0 : RATE - 400, round(1.3 * RATE) + 1400 : len(sound)]
    np.testing.assert_allclose(louder[away], sound[away] * np.float32(gain), rtol=1e-5, atol=1e-7)
    assert np.abs(louder).max() <= 1


noise = st.integers(0, 2**32 - 1).flatmap(
    lambda seed: st.integers(0, 9000).map(
        lambda count: np.random.default_rng(seed).uniform(-1, 1, count).astype(np.float32)
    )
)
some_effects = st.fixed_dictionaries(
    {},
    optional={
        "speed": st.floats(0.5, 2),
        "pitch": st.floats(-12, 12),
        "volume": st.floats(-40, 20),
    },
)


@settings(max_examples=60, deadline=None)
@given(noise, st.lists(st.integers(0, 2000), max_size=12), some_effects)
def test_the_sound_does_not_depend_on_the_chunks_and_has_its_length_and_range(sound, sizes, values):
    whole = apply(sound, **values)
    np.testing.assert_array_equal(apply(sound, sizes=sizes, **values), whole)
    assert whole.dtype == np.float32
    assert len(whole) == round(len(sound) / values.get("speed", 1.0))
    assert len(whole) == 0 or np.abs(whole).max() <= 1


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8), some_effects)
def test_the_output_lags_by_a_bounded_time_and_runs_ahead_of_nothing(sizes, values):
    chain, speed = EffectChain(Effects(**values), RATE), values.get("speed", 1.0)
    taken = given_out = 0
    for size in sizes:
        taken += size
        given_out += len(chain.feed(np.zeros(size, np.float32)))
        assert 0 <= taken / speed - given_out < 0.21 * RATE


def test_no_effects_return_the_input_bit_by_bit():
    sound = np.random.default_rng(1).normal(size=999).astype(np.float32)
    np.testing.assert_array_equal(apply(sound, sizes=(1, 500)), sound)
    assert Effects().are_none and not Effects(volume=0.1).are_none


@pytest.mark.parametrize("values", [{"speed": 0.6}, {"pitch": 7}, {"volume": 20}, {"speed": 2, "pitch": -12}])
def test_silence_stays_silence(values):
    changed = apply(np.zeros(RATE, np.float32), **values)
    assert len(changed) == round(RATE / values.get("speed", 1)) and not changed.any()


@pytest.mark.parametrize("values", [{}, {"speed": 0.5}, {"speed": 2.0}, {"pitch": 12}, {"pitch": -12}, {"volume": 20}])
@pytest.mark.parametrize("count", [0, 1, 2, 37])
def test_very_short_sound_has_its_length(values, count):
    changed = apply(sine(500)[:count], **values)
    assert len(changed) == round(count / values.get("speed", 1.0)) and np.isfinite(changed).all()


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"speed": 0.49}, "speed"), ({"speed": 2.01}, "speed"), ({"speed": float("nan")}, "speed"),
        ({"speed": "fast"}, "speed"), ({"speed": True}, "speed"), ({"pitch": 12.5}, "pitch"),
        ({"pitch": float("-inf")}, "pitch"), ({"volume": 20.1}, "volume"), ({"volume": None}, "volume"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_by_its_name(values, name):
    with pytest.raises(ValueError, match=name):
        Effects(**values)


def test_what_is_no_sound_is_refused():
    chain = EffectChain(Effects(speed=1.5), RATE)
    with pytest.raises(ValueError, match="expected"):
        chain.feed(np.zeros((2, 10), np.float32))
    with pytest.raises(ValueError, match="finite"):
        chain.feed(np.array([0, np.nan], np.float32))
    chain.finish()
    with pytest.raises(ValueError, match="finished"):
        chain.feed(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="sample_rate"):
        EffectChain(Effects(), 0)
