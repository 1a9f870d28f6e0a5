"""Copies of a recording are known again; other takes of the same words are not."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from fish_speech.prepare.fingerprint import find_duplicates, fingerprint, same_recording

ALLISON = sorted((Path(__file__).parents[2] / "samples" / "allison").glob("*.flac"))
SOME = ALLISON[::3]


def read(path: Path) -> tuple[np.ndarray, int]:
    return soundfile.read(path, dtype="float32")


def quantized(waveform: np.ndarray) -> np.ndarray:
    return (np.rint(waveform * 32768) / 32768).astype(np.float32)


def resampled(waveform: np.ndarray, rate: int, to: int) -> tuple[np.ndarray, int]:
    return quantized(soxr.resample(waveform, rate, to)), to


COPIES = {
    "20 dB quieter": lambda w, r: (quantized(0.1 * w), r),
    "turned over": lambda w, r: (-w, r),
    "at 44.1 kHz": lambda w, r: resampled(w, r, 44100),
    "at 8 kHz": lambda w, r: resampled(w, r, 8000),
    "50 ms trimmed at the start": lambda w, r: (w[r // 20 :], r),
    "50 ms trimmed at both ends": lambda w, r: (w[r // 20 : -r // 20], r),
    "odd trims at 48 kHz": lambda w, r: resampled(w[371:-655], r, 48000),
    "40 ms of silence before": lambda w, r: (np.pad(w, (r // 25, 0)), r),
}


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_a_copy_is_the_same_recording_and_found_in_the_index(change):
    items = [(path.stem, fingerprint(*read(path))) for path in SOME]
    copies = [(f"copy of {path.stem}", fingerprint(*change(*read(path)))) for path in SOME]
    assert all(same_recording(a[1], b[1]) for a, b in zip(items, copies))
    assert find_duplicates(items + copies) == {copy: key for (copy, _), (key, _) in zip(copies, items)}


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="makes its MP3 with the ffmpeg program")
def test_an_mp3_of_a_trimmed_clip_is_the_same_recording(tmp_path):
    for path in SOME[::3]:
        waveform, rate = resampled(*read(path), 44100)
        soundfile.write(tmp_path / "a.wav", waveform[1500:], rate)
        command = ["ffmpeg", "-v", "error", "-y", "-i", tmp_path / "a.wav", "-b:a", "64k", tmp_path / "a.mp3"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        copy = fingerprint(*read(tmp_path / "a.mp3"))
        assert find_duplicates([("a", fingerprint(waveform, rate)), ("b", copy)]) == {"b": "a"}


def test_different_clips_are_different_recordings():
    prints = [fingerprint(*read(path)) for path in ALLISON]
    assert find_duplicates((path.stem, text) for path, text in zip(ALLISON, prints)) == {}
    assert not any(same_recording(a, b) for i, a in enumerate(prints) for b in prints[:i])


def test_the_same_sentence_spoken_slower_or_faster_is_another_recording():
    import librosa

    for path in SOME[::2]:
        waveform, rate = read(path)
        for speed in (0.95, 1.06):
            take = librosa.effects.time_stretch(waveform, rate=speed)
            assert not same_recording(fingerprint(waveform, rate), fingerprint(take, rate))


def test_a_recording_with_one_word_replaced_is_another_recording():
    waveform, rate = read(ALLISON[0])
    other, _ = read(ALLISON[1])
    changed = waveform.copy()
    changed[2 * rate : 2 * rate + rate * 7 // 10] = other[rate : rate + rate * 7 // 10]
    assert not same_recording(fingerprint(waveform, rate), fingerprint(changed, rate))


@pytest.mark.skipif(shutil.which("flite") is None, reason="speaks its takes with the flite program")
def test_synthetic_takes_of_one_sentence_are_different_recordings(tmp_path):
    base = "the meeting begins at nine in the large room on the second floor"
    takes = [
        ("1", base + ".", "1.0"),
        ("1 slower", base + ".", "1.05"),
        ("1 faster", base + ".", "0.94"),
        ("other floor", base.replace("second", "seventh") + ".", "1.0"),
        ("other hour", base.replace("nine", "ten") + ".", "1.0"),
    ]
    items = []
    for name, text, stretch in takes:
        path = tmp_path / "take.wav"
        command = ["flite", "-voice", "slt", "--setf", f"duration_stretch={stretch}", "-t", text, "-o", path]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        items.append((name, fingerprint(*read(path))))
    assert all(text for _, text in items)
    assert find_duplicates(items) == {}
    assert find_duplicates([*items, ("again", items[0][1])]) == {"again": "1"}


def test_a_later_copy_is_mapped_to_the_first_and_not_to_another_copy():
    text = fingerprint(*read(ALLISON[0]))
    other = fingerprint(*read(ALLISON[1]))
    items = [("z", text), ("b", other), ("a", text), ("c", text), ("d", other)]
    assert find_duplicates(items) == {"a": "z", "c": "z", "d": "b"}


@pytest.mark.parametrize("waveform", [[], [1.0], np.zeros(16000), np.full(16000, 0.3), np.ones(800)])
def test_silence_has_no_fingerprint_and_is_no_duplicate(waveform):
    text = fingerprint(np.asarray(waveform, np.float32), 16000)
    assert text == ""
    assert not same_recording(text, text)
    assert find_duplicates([("a", text), ("b", text)]) == {}


@pytest.mark.parametrize("text", ["QUJD", "not base64!", "é", "AA"])
def test_what_is_no_fingerprint_is_no_duplicate(text):
    assert find_duplicates([("a", text), ("b", text)]) == {}
    assert not same_recording(text, text)


def test_a_fingerprint_is_short_text():
    waveform, rate = read(ALLISON[0])
    text = fingerprint(waveform, rate)
    assert text.isascii() and len(base64.b64decode(text)) % 2 == 0
    assert len(text) < 36 * len(waveform) / rate


def test_the_copies_among_thousands_are_found():
    rng = np.random.default_rng(0)
    pool = np.frombuffer(b"".join(base64.b64decode(fingerprint(*read(path))) for path in ALLISON), "<u2")
    made = [rng.choice(pool, int(rng.integers(30, 120))) for _ in range(3000)]  # frames of speech, in any order
    items = [(str(number), base64.b64encode(words.tobytes()).decode()) for number, words in enumerate(made)]
    copies = [(f"copy of {key}", text) for key, text in items[::10]]
    assert find_duplicates(items + copies) == {key: key.removeprefix("copy of ") for key, _ in copies}
