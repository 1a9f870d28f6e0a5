"""Known answers for clipping, noise, bandwidth and speaking rate, on real speech and on tones."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from fish_speech.prepare.bandwidth import bandwidth_hz
from fish_speech.prepare.clipping import clipped_share
from fish_speech.prepare.health import measure
from fish_speech.prepare.noise import snr_db
from fish_speech.prepare.rate import characters_per_s, implausible_rate
from fish_speech.timeline import Span

ALLISON = sorted((Path(__file__).parents[2] / "samples" / "allison").glob("*.flac"))
SOME = ALLISON[::5]
HARMLESS = ("silence", "offset", "empty", "one sample", "tenth of a second", "impulse", "loud")


def read(path: Path) -> tuple[np.ndarray, int]:
    return soundfile.read(path, dtype="float32")


def as_16_bit(waveform: np.ndarray) -> np.ndarray:
    return (np.rint(waveform * 32768).clip(-32768, 32767) / 32768).astype(np.float32)


def tone(frequency: float, sample_rate: int = 44100, duration_s: float = 2.0) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(int(duration_s * sample_rate)) / sample_rate).astype(np.float32)


@pytest.mark.parametrize("frequency", [20, 50, 100, 220, 440, 997, 1000, 5000, 11025])
def test_a_clean_tone_at_full_scale_is_not_clipped_in_float_16_or_8_bit(frequency):
    clean = tone(frequency)
    assert clipped_share(clean) == 0
    assert clipped_share(as_16_bit(clean * 32767 / 32768)) == 0
    assert clipped_share((np.rint(clean * 127) / 128).astype(np.float32)) == 0


@pytest.mark.parametrize("frequency", [100, 220, 440, 997])
def test_a_tone_clipped_by_one_db_has_its_flat_tops_found_also_turned_down(frequency):
    gain = 10 ** (1 / 20)
    clipped = as_16_bit(np.clip(gain * tone(frequency), -1, 1))
    expected = 2 * math.acos(1 / gain) / math.pi  # of each half wave, the part above 1
    assert clipped_share(clipped) == pytest.approx(expected, abs=0.01)
    assert clipped_share(as_16_bit(0.3 * clipped)) == pytest.approx(expected, abs=0.01)


def test_clipped_speech_is_measured_to_a_quarter_and_clean_speech_is_clean():
    for path in SOME:
        waveform, _ = read(path)
        waveform /= np.abs(waveform).max()
        assert clipped_share(waveform) == clipped_share(as_16_bit(0.9 * waveform)) == 0
        for gain in (2, 4):
            clipped = np.clip(gain * waveform, -1, 1)
            share = float((np.abs(clipped) == 1).mean())
            assert 0.75 * share < clipped_share(as_16_bit(clipped)) <= 1.01 * share
            assert 0.75 * share < clipped_share(as_16_bit(0.2 * clipped)) <= 1.02 * share


def gated(path: Path, pause_s: float = 0.2) -> tuple[np.ndarray, int, list[Span]]:
    """A clip whose own noise is replaced by zeros, with pauses around, and where its speech is."""
    waveform, rate = read(path)
    size = rate // 50
    frames = waveform[: len(waveform) // size * size].reshape(-1, size)
    power = (frames**2).mean(axis=1)
    spoken = np.convolve(power > 1e-4 * power.max(), np.ones(5), "same") > 0
    clean = np.concatenate([np.zeros(int(pause_s * rate)), (frames * spoken[:, None]).ravel()])
    clean = np.concatenate([clean, np.zeros(int(pause_s * rate))])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], spoken.astype(int), [0]])))
    speech = [Span(pause_s + a * 0.02, pause_s + b * 0.02) for a, b in zip(edges[::2], edges[1::2])]
    return clean, rate, speech


def noise(kind: str, samples: int, rate: int) -> np.ndarray:
    """White or pink (equal power per octave, from 20 Hz up) noise of power 1."""
    made = np.random.default_rng(samples).standard_normal(samples)
    if kind == "pink":
        spectrum, frequency = np.fft.rfft(made), np.fft.rfftfreq(samples, 1 / rate)
        made = np.fft.irfft(np.where(frequency < 20, 0, spectrum / np.sqrt(frequency.clip(1))), samples)
    return made / np.sqrt((made**2).mean())


def speech_power(waveform: np.ndarray, rate: int, speech: list[Span]) -> float:
    return float(np.concatenate([waveform[int(s.start_s * rate) : int(s.end_s * rate)] for s in speech]).var())


@pytest.mark.parametrize("kind", ["white", "pink"])
@pytest.mark.parametrize("true_db", [0, 10, 20, 30, 40])
def test_known_noise_between_known_speech_is_measured_within_3_db(kind, true_db):
    for path in SOME:
        clean, rate, speech = gated(path)
        power = speech_power(clean, rate, speech)
        noisy = clean + noise(kind, len(clean), rate) * np.sqrt(power / 10 ** (true_db / 10))
        assert snr_db(noisy.astype(np.float32), rate, speech) == pytest.approx(true_db, abs=3)


@pytest.mark.parametrize("kind", ["white", "pink"])
@pytest.mark.parametrize("true_db", [0, 10, 20, 30])
def test_known_noise_is_measured_without_knowing_where_the_speech_is(kind, true_db):
    errors = []
    for path in SOME:
        clean, rate, speech = gated(path)
        power = speech_power(clean, rate, speech)
        noisy = clean + noise(kind, len(clean), rate) * np.sqrt(power / 10 ** (true_db / 10))
        errors.append(snr_db(noisy.astype(np.float32), rate, None) - true_db)
    assert np.abs(np.median(errors)) < 3
    assert np.abs(errors).max() < 5  # by level statistics alone


@pytest.mark.parametrize("true_db", [0, 10, 20])
def test_known_noise_is_measured_where_speech_fills_the_clip(true_db):
    for path in SOME:
        clean, rate, speech = gated(path)
        clean = np.concatenate([clean[round(s.start_s * rate) : round(s.end_s * rate)] for s in speech])
        noisy = clean + noise("white", len(clean), rate) * np.sqrt(clean.var() / 10 ** (true_db / 10))
        whole = [Span(0, len(clean) / rate)]
        assert snr_db(noisy.astype(np.float32), rate, whole) == pytest.approx(true_db, abs=3)


def test_digital_silence_in_the_pauses_gives_the_cap():
    clean, rate, speech = gated(ALLISON[0])
    assert snr_db(clean.astype(np.float32), rate, speech) == 100


def test_one_click_in_the_pause_is_not_its_noise():
    clean, rate, speech = gated(ALLISON[0])
    noisy = (clean + 0.001 * noise("white", len(clean), rate)).astype(np.float32)
    before = snr_db(noisy, rate, speech)
    noisy[rate // 20] = 0.9
    assert snr_db(noisy, rate, speech) == pytest.approx(before, abs=0.5)


def test_without_sound_or_speech_there_is_no_snr():
    assert snr_db(np.zeros(16000, np.float32), 16000, None) is None
    assert snr_db(read(ALLISON[0])[0], 16000, []) is None


def middle(waveform: np.ndarray, samples: int) -> np.ndarray:
    start = max(0, (len(waveform) - samples) // 2)
    return waveform[start : start + samples]


@pytest.mark.parametrize(("narrow", "wide"), [(16000, 44100), (8000, 44100), (8000, 16000), (22050, 48000)])
def test_the_bandwidth_of_upsampled_speech_is_told(narrow, wide):
    for path in SOME:
        waveform, rate = read(path)
        low = (
            soxr.resample(waveform, rate, narrow) if narrow < rate else waveform
        )  # 16 kHz read as 22.05: faster speech
        up = soxr.resample(low, narrow, wide)
        for sound in (up, as_16_bit(up), as_16_bit(0.1 * up), middle(up, wide)):
            assert bandwidth_hz(sound.astype(np.float32), wide) == pytest.approx(narrow / 2, rel=0.1)


def test_speech_at_its_own_rate_is_not_narrow_even_with_a_weak_high_end():
    # No full-band speech is at hand: 16 kHz speech played at 44.1 kHz has the same spectrum, 2.8 times as wide.
    for path in SOME:
        waveform, rate = read(path)
        assert bandwidth_hz(waveform, rate) == rate / 2
        for order, cutoff in ((1, 2000), (2, 3000), (2, 6000), (4, 6000), (4, 10000)):
            soft = signal.sosfilt(signal.butter(order, cutoff, fs=44100, output="sos"), waveform)
            for sound in (soft, soft + 3e-4 * noise("white", len(soft), rate)):
                assert bandwidth_hz(as_16_bit(sound), 44100) > 18000
                assert bandwidth_hz(as_16_bit(middle(sound, 44100)), 44100) > 18000


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="makes its MP3 with the ffmpeg program")
@pytest.mark.parametrize(("bit_rate", "low", "high"), [("48k", 10000, 12000), ("64k", 14500, 17500)])
def test_the_low_pass_of_an_mp3_is_told(tmp_path, bit_rate, low, high):
    sound = as_16_bit(signal.sosfilt(signal.butter(2, 6000, fs=44100, output="sos"), read(ALLISON[0])[0]))
    soundfile.write(tmp_path / "a.wav", sound, 44100)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-b:a", bit_rate, tmp_path / "a.mp3"]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    assert low < bandwidth_hz(read(tmp_path / "a.mp3")[0], 44100) < high


def test_silence_and_an_offset_have_no_bandwidth():
    assert bandwidth_hz(np.zeros(44100, np.float32), 44100) == 0
    assert bandwidth_hz(np.full(44100, 0.5, np.float32), 44100) == 0


@pytest.mark.parametrize("name", HARMLESS)
@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_every_measure_of_odd_clips_is_finite(name, rate):
    random = np.random.default_rng(0).standard_normal(rate // 10)
    impulse = np.zeros(rate // 10)
    impulse[5] = 1
    clips = (np.zeros(rate), np.full(rate, 0.5), [], [1.0], random, impulse, 5 * random)
    clip = np.asarray(dict(zip(HARMLESS, clips))[name], np.float32)
    for speech in (None, [], [Span(0, 0.05)], [Span(-1, 9)]):
        measured = measure(clip, rate, speech)
        figures = [value for value in measured.values() if isinstance(value, float)]
        assert len(figures) >= 2 and all(math.isfinite(figure) for figure in figures)
        assert 0 <= measured["clipped_share"] <= 1 and 0 <= measured["bandwidth_hz"] <= rate / 2 + 5


def test_measure_is_the_same_twice_and_leaves_the_clip_alone():
    waveform, rate = read(ALLISON[3])
    before = waveform.copy()
    first = measure(waveform, rate, [Span(0.1, 3.0)])
    assert first == measure(waveform, rate, [Span(0.1, 3.0)])
    assert set(first) == {"clipped_share", "snr_db", "bandwidth_hz", "fingerprint"}
    np.testing.assert_array_equal(waveform, before)


def test_real_speech_with_its_text_is_plausible():
    for path in ALLISON:
        text = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        waveform, rate = read(path)
        for share in (0.6, 1.0):  # speech is at least that much of these clips
            assert implausible_rate(text, share * len(waveform) / rate) is None
        assert 6 < characters_per_s(text, len(waveform) / rate) < 25


@pytest.mark.parametrize(
    ("text", "speech_s"),
    [
        ("Hello there, how are you doing today?", 0.6),
        ("x" * 410, 10),
        ("你好" * 80, 10),
        ("はい", 30),
        ("Yes.", 9),
        ("", 6),
    ],
)
def test_a_text_that_cannot_be_what_is_spoken_is_refused_with_the_figures(text, speech_s):
    assert f"{speech_s:.1f} s of speech" in implausible_rate(text, speech_s)


@pytest.mark.parametrize(
    ("text", "speech_s"),
    [
        ("No.", 4.9),  # held, or said twice
        ("777 777", 5.5),  # seven hundred and seventy-seven thousand ...
        ("50 %", 0.6),
        ("我们明天早上去北京", 1.0),
        ("こんにちは、元気ですか", 6.0),
        ("안녕하세요 반갑습니다", 1.2),
        ("สวัสดีครับยินดีต้อนรับ", 1.5),
        ("नमस्ते, आप कैसे हैं?", 1.5),
        ("a text far longer than the clip", 0.25),  # too short to judge
    ],
)
def test_a_text_that_can_be_spoken_is_not_refused(text, speech_s):
    assert implausible_rate(text, speech_s) is None


@given(st.text(max_size=300), st.floats(0.5, 60))
@settings(max_examples=100, deadline=None)
def test_twice_the_text_is_never_too_short_if_once_is_not(text, speech_s):
    if "too short" not in (implausible_rate(text, speech_s) or ""):
        assert "too short" not in (implausible_rate(text + text, speech_s) or "")
    assert characters_per_s(text, speech_s) >= 0 == characters_per_s(text, 0)
