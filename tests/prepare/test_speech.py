"""find_speech against known recordings: samples/allison, joined with gaps of faint noise whose times are known."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.errors import UserError
from fish_speech.prepare import silero
from fish_speech.prepare.energy import frame_levels, loud_spans
from fish_speech.prepare.segments import Limits, plan_segments
from fish_speech.prepare.silero import CHUNK, lift_quiet, speech_probabilities
from fish_speech.prepare.speech import SilenceThreshold, SileroVad, find_speech, likely_spans
from fish_speech.timeline import Span

RATE = 16_000
SAMPLES = Path(__file__).parents[2] / "samples" / "allison"
needs_silero = pytest.mark.skipif(
    importlib.util.find_spec("silero_vad") is None or importlib.util.find_spec("onnxruntime") is None,
    reason="needs silero-vad and onnxruntime",
)


def noise(seconds: float, db: float, seed: int = 0) -> np.ndarray:
    scale = 10 ** (db / 20)
    return (np.random.default_rng(seed).standard_normal(round(seconds * RATE)) * scale).astype(np.float32)


def phrases(count: int) -> list[np.ndarray]:
    """The first recordings of the set, without the silence at their ends."""
    found = []
    for path in sorted(SAMPLES.glob("*.flac"))[:count]:
        waveform, rate = soundfile.read(path, dtype="float32")
        assert rate == RATE
        levels = frame_levels(waveform)
        loud = np.flatnonzero(levels > max(levels.max() - 45, -60))
        found.append(waveform[loud[0] * 160 : (loud[-1] + 1) * 160])
    return found


def joined(
    waveforms: list[np.ndarray], noise_db: float, gains_db=(0.0,), seed: int = 0
) -> tuple[np.ndarray, list[Span]]:
    """Join with gaps of 0.25-1.2 s before, between and after; return the sound and where each waveform is."""
    rng = np.random.default_rng(seed)
    parts, spans, at = [], [], 0
    for index, waveform in enumerate(waveforms):
        gap = int(rng.uniform(0.25, 1.2) * RATE)
        parts += [np.zeros(gap, np.float32), waveform * 10 ** (gains_db[index % len(gains_db)] / 20)]
        spans.append(Span((at + gap) / RATE, (at + gap + len(waveform)) / RATE))
        at += gap + len(waveform)
    sound = np.concatenate([*parts, np.zeros(RATE // 2, np.float32)])
    return (sound + noise(len(sound) / RATE, noise_db, seed)).astype(np.float32), spans


def heard_share(found: list[Span], true: Span) -> float:
    overlap = sum(max(0.0, min(s.end_s, true.end_s) - max(s.start_s, true.start_s)) for s in found)
    return overlap / true.duration_s


def edge_errors(found: list[Span], true: list[Span]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds by which each known gap is found to begin and to end too late; fails if speech is found in its middle."""
    begins, ends = [], []
    for before, after in zip(true, true[1:]):
        middle = (before.end_s + after.start_s) / 2
        assert not any(s.start_s <= middle <= s.end_s for s in found), f"speech in the gap at {middle:.2f} s"
        begins.append(max(s.end_s for s in found if s.end_s < middle) - before.end_s)
        ends.append(min(s.start_s for s in found if s.start_s > middle) - after.start_s)
    return np.array(begins), np.array(ends)


@needs_silero
def test_probabilities_are_those_of_the_packages_own_streaming_model():
    import torch

    threads = torch.get_num_threads()
    from silero_vad.utils_vad import OnnxWrapper

    sound, _ = joined(phrases(3), -60)
    sound = sound[: 2 * CHUNK + 12_345]  # chunks, then frames, then a frame that is not whole
    path = Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0], "data", "silero_vad.onnx")
    expected = OnnxWrapper(str(path), force_onnx_cpu=True).audio_forward(torch.from_numpy(sound)[None], RATE)[0].numpy()
    torch.set_num_threads(threads)  # importing the package sets it
    chunks = [sound[start : start + CHUNK] for start in range(0, len(sound), CHUNK)]
    ours = np.concatenate(list(speech_probabilities(chunks)))
    assert ours.shape == expected.shape and 0.2 < (expected > 0.5).mean() < 0.95
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5)  # bit-equal here; other CPUs may sum in another order


@needs_silero
def test_the_division_into_blocks_does_not_change_the_result():
    sound, _ = joined(phrases(4), -70, gains_db=(0.0, -45.0))
    expected = find_speech([sound])
    rng = np.random.default_rng(1)
    cuts = np.sort(rng.integers(0, len(sound), 200))
    assert len(expected) > 4
    assert find_speech(np.split(sound, cuts)) == expected
    assert find_speech(iter([sound[:1], *np.split(sound[1:], 3), sound[:0]])) == expected


@needs_silero
@pytest.mark.parametrize("noise_db", [-70, -55])
def test_speech_is_found_to_within_30_ms_and_none_of_it_is_lost(noise_db):
    sound, true = joined(phrases(20), noise_db)
    found = find_speech([sound])
    begins, ends = edge_errors(found, true)
    errors = np.abs(np.concatenate((begins, ends)))
    assert np.percentile(errors, 90) <= 0.03
    loud = frame_levels(sound) > -50
    for span in true:
        inside = loud[round(span.start_s * 100) + 1 : round(span.end_s * 100) - 1]
        frames = np.arange(round(span.start_s * 100) + 1, round(span.end_s * 100) - 1)[inside]
        heard = [any(s.start_s <= frame / 100 + 0.005 <= s.end_s for s in found) for frame in frames]
        assert np.mean(heard) > 0.99


@needs_silero
@pytest.mark.parametrize("gain_db", [-20, -40, -60])
def test_quiet_speech_is_found_as_loud_speech_is(gain_db):
    sound, true = joined(phrases(12), -70 + gain_db, gains_db=(gain_db,))
    found = find_speech([sound])
    assert min(heard_share(found, span) for span in true) > 0.7  # the recordings have pauses of their own
    begins, ends = edge_errors(found, true)
    assert begins.min() > -0.05 and ends.max() < 0.08


@needs_silero
def test_the_model_alone_loses_what_is_far_below_common_levels():
    sound, true = joined(phrases(6), -135, gains_db=(-66.0,))
    alone = find_speech([sound], SileroVad(lift_quiet=False))
    lifted = find_speech([sound])
    assert np.mean([heard_share(alone, span) for span in true]) < 0.5
    assert np.mean([heard_share(lifted, span) for span in true]) > 0.85


@needs_silero
def test_a_soft_voice_between_loud_ones_is_not_lost():
    sound, true = joined(phrases(12), -115, gains_db=(0.0, -40.0))
    found = find_speech([sound])
    assert min(heard_share(found, span) for span in true) > 0.6
    assert np.mean([heard_share(found, span) for span in true[1::2]]) > 0.85


@needs_silero
@pytest.mark.parametrize("db", [-20, -60, -85])
def test_steady_noise_hum_and_clicks_are_no_speech(db):
    hum = np.sign(np.sin(2 * np.pi * 50 * np.arange(12 * RATE) / RATE)).astype(np.float32) * np.float32(10 ** (db / 20))
    clicks = noise(12, db - 20)
    clicks[:: RATE // 2] += np.float32(10 ** (db / 20))
    assert find_speech([noise(12, db)]) == [] and find_speech([hum]) == [] and find_speech([clicks]) == []


@needs_silero
def test_a_constant_offset_does_not_hide_quiet_speech():
    sound, true = joined(phrases(4), -125, gains_db=(-55.0,))
    found = find_speech([sound + np.float32(0.02)])
    assert np.mean([heard_share(found, span) for span in true]) > 0.85


@needs_silero
def test_words_of_a_third_of_a_second_are_found():
    words = []
    for waveform in phrases(20):
        loudest = int(np.argmax(np.convolve(frame_levels(waveform), np.ones(30), "valid")))
        words.append(waveform[loudest * 160 : (loudest + 30) * 160])  # 0.3 s, cut out of a phrase
    sound = np.concatenate([part for word in words for part in (noise(1.7, -75), word)])
    found = find_speech([sound])
    heard = [heard_share(found, Span(at + 1.7, at + 2.0)) > 0.8 for at in range(0, 40, 2)]
    assert np.mean(heard) >= 0.95


@needs_silero
def test_empty_silent_and_tiny_audio_have_no_speech_and_speech_ends_with_the_recording():
    assert find_speech([]) == [] and find_speech([np.zeros(0, np.float32)]) == []
    assert find_speech([np.zeros(1, np.float32)]) == [] and find_speech([np.zeros(1600, np.float32)]) == []
    assert find_speech([np.zeros(3 * CHUNK, np.float32)]) == []
    sound = phrases(1)[0]
    sound = sound[: CHUNK // 2 + 77]
    found = find_speech([sound])
    assert found and found[-1].end_s <= len(sound) / RATE


@pytest.mark.parametrize("block", [np.zeros((10, 1), np.float32), np.full(10, np.nan, np.float32)])
def test_blocks_of_another_shape_or_with_nan_are_refused(block):
    with pytest.raises(ValueError, match="find_speech"):
        find_speech([block], SilenceThreshold())


def test_a_missing_detector_is_told_with_the_way_out(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    silero._session.cache_clear()
    with pytest.raises(UserError, match="pip install --upgrade silero-vad") as caught:
        find_speech([noise(1, -20)])
    assert "--use-silence-detection" in caught.value.fix
    assert find_speech([noise(1, -20)], SilenceThreshold()) == [Span(0.0, 1.0)]


@needs_silero
def test_finding_speech_imports_no_torch():
    code = (
        "import sys, numpy as np; from fish_speech.prepare.speech import find_speech;"
        "find_speech([np.zeros(16000, np.float32)]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=SAMPLES.parents[1]).returncode == 0


@needs_silero
def test_all_cuts_of_a_joined_recording_fall_in_its_gaps():
    waveforms = phrases(45)
    sound, true = joined(waveforms, -65, seed=3)
    duration_s = len(sound) / RATE
    segments = plan_segments(find_speech([sound]), duration_s, Limits())
    starts, ends = [0.0, *(s.end_s for s in true)], [*(s.start_s for s in true), duration_s]
    edges = [time for segment in segments for time in segment[:2]]
    in_gap = [any(start_s <= edge <= end_s for start_s, end_s in zip(starts, ends)) for edge in edges]
    assert len(edges) > 30 and np.mean(in_gap) >= 0.99
    kept = [Span(s.start_s, s.end_s) for s in segments if s.left_out is None]
    assert all(heard_share(kept, span) > 0.995 for span in true)
    assert 8 <= np.mean([s.duration_s for s in kept]) <= 12


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=60))
def test_likely_spans_hold_every_likely_frame(values):
    method = SileroVad()
    probabilities = np.array(values, np.float32)
    found = likely_spans(probabilities, method)
    for before, after in zip(found, found[1:]):
        assert after.start_s - before.end_s >= method.min_pause_s - 1e-9
    for at in np.flatnonzero(probabilities >= method.threshold):
        assert any(s.start_s <= at * 0.032 + 1e-9 and (at + 1) * 0.032 <= s.end_s + 1e-9 for s in found)


def test_the_threshold_method_divides_at_pauses_that_are_long_and_quiet_enough():
    tone = (0.1 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)).astype(np.float32)  # -23 dBFS
    gap = noise(0.6, -60)
    sound = np.concatenate([gap, tone, gap, tone, gap[: RATE // 5], tone, np.full(RATE, 0.001, np.float32)])
    assert find_speech([sound[:20_000], sound[20_000:]], SilenceThreshold()) == [
        Span(pytest.approx(0.6), pytest.approx(1.6)),
        Span(pytest.approx(2.2), pytest.approx(4.4)),
    ]
    assert len(find_speech([sound], SilenceThreshold(min_silence_ms=150))) == 3
    assert find_speech([sound], SilenceThreshold(silence_db=-20)) == []
    assert find_speech([sound[: RATE // 10]], SilenceThreshold()) == []


def test_levels_are_in_db_of_full_scale_as_pydub_counts():
    square = np.tile(np.array([1, -1], np.float32), 80)
    levels = frame_levels(np.concatenate([square, square * 0.1, square * 0, square[:40] * 0.01]))
    assert levels == pytest.approx([0, -20, -120, -40], abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([-60.0, -30.0]), max_size=40), st.sampled_from([0.01, 0.03, 0.1]))
def test_every_loud_frame_is_in_a_span_and_every_long_pause_in_none(values, min_silence_s):
    found = loud_spans(np.array(values), -40.0, min_silence_s)
    inside = {frame for s in found for frame in range(round(s.start_s * 100), round(s.end_s * 100))}
    assert {at for at, value in enumerate(values) if value == -30} <= inside
    for before, after in zip(found, found[1:]):
        assert after.start_s - before.end_s >= min_silence_s - 1e-9
    quiet_runs = "".join("q" if at in inside and value == -60 else "." for at, value in enumerate(values)).split(".")
    assert max(map(len, quiet_runs), default=0) * 0.01 < min_silence_s - 1e-9 or not any(quiet_runs)


def test_lifting_leaves_loud_audio_as_it_is_and_raises_quiet_audio_evenly():
    loud, quiet = phrases(1)[0][:CHUNK], phrases(1)[0][:CHUNK] * np.float32(0.001)
    assert all(np.array_equal(a, b) for a, b in zip(lift_quiet([loud, loud]), [loud, loud]))
    raised = np.concatenate(list(lift_quiet([quiet, quiet])))
    gain = 20 * np.log10(np.std(raised) / np.std(quiet))
    assert 15 < gain <= 50 and len(raised) == 2 * len(quiet)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SilenceThreshold(min_silence_ms=0),
        lambda: SilenceThreshold(silence_db=5),
        lambda: SileroVad(threshold=0.2),
        lambda: SileroVad(min_pause_s=0),
    ],
)
def test_options_that_cannot_work_are_refused(make):
    with pytest.raises(ValueError):
        make()
