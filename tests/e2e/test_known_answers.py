"""A recording of which every word's place is known, prepared as a user does: the right words land in the right clips."""

from __future__ import annotations

import json
import re
from collections import Counter

import numpy as np
import pytest
import soundfile

from ..prepare.long_recordings import LongRecording, long_recording
from .scripts import run

pytestmark = pytest.mark.slow

RATE = 22050
NOISE_DB = -65.0  # in the gaps; see long_recording


@pytest.fixture(scope="module", params=[0, 1])
def known(request) -> LongRecording:
    """45 clips of samples/ in one recording of almost four minutes, with other gaps each time."""
    return long_recording(seed=request.param, noise_db=NOISE_DB, sample_rate=RATE)


@pytest.fixture(scope="module")
def rows(known, tmp_path_factory) -> list[dict]:
    """The manifest of that recording, prepared with its whole text and pocketsphinx."""
    folder = tmp_path_factory.mktemp("known")
    (folder / "in").mkdir()
    soundfile.write(folder / "in/session.wav", known.samples, RATE)
    (folder / "in/session.txt").write_text(known.text, encoding="utf-8")
    run("prepare_dataset.py", "--input", "in", "--output", "out", "--asr", "pocketsphinx", cwd=folder)
    lines = (folder / "out/manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def test_cuts_fall_in_the_gaps_or_in_the_speakers_own_pauses(known, rows):
    edges = [edge for row in rows for edge in (row["start_s"], row["end_s"])]
    assert edges == sorted(edges) and len(edges) > 30
    between = [
        edge for edge in edges if not any(clip.start_s + 0.01 < edge < clip.end_s - 0.01 for clip in known.clips)
    ]
    quiet = [edge for edge in edges if level_db(known, edge) < NOISE_DB + 12]
    assert len(set(between) | set(quiet)) >= 0.99 * len(set(edges))
    assert len(between) >= 0.85 * len(edges), "most clips are shorter than a segment, so most cuts are between them"


def level_db(known: LongRecording, time_s: float) -> float:
    """Level around a moment, dB of full scale."""
    around = known.samples[max(0, round((time_s - 0.01) * RATE)) : round((time_s + 0.01) * RATE)]
    return 10 * np.log10(np.mean(np.square(around, dtype=np.float64)) + 1e-12)


def test_no_second_of_speech_is_in_no_segment(known, rows):
    lost = 0.0
    for clip in known.clips:
        found = sum(max(0.0, min(clip.end_s, r["end_s"]) - max(clip.start_s, r["start_s"])) for r in rows)
        lost += clip.end_s - clip.start_s - found
    assert lost < 0.1


def test_nine_of_ten_words_land_in_the_clip_that_speaks_them(known, rows):
    """Words of a clip that was cut in two count for both parts together."""
    right = 0
    for spoken, kept in groups(known, rows):
        said = Counter(word for clip in spoken for word in words(clip.text))
        written = Counter(word for row in kept for word in words(row["text"]))
        right += sum((said & written).values())
    assert right >= 0.9 * len(words(known.text))


def test_what_is_kept_is_what_is_said(known, rows):
    wrong = written = 0
    for spoken, kept in groups(known, [row for row in rows if row["clip"]]):
        said = Counter(word for clip in spoken for word in words(clip.text))
        got = Counter(word for row in kept for word in words(row["text"]))
        written += sum(got.values())
        wrong += sum((got - said).values())
    assert written > 400 and wrong <= 0.01 * written


def groups(known: LongRecording, rows: list[dict]) -> list[tuple[list, list[dict]]]:
    """Rows and the clips that they touch, joined where a clip was cut."""
    found: list[tuple[list, list[dict]]] = []
    for row in rows:
        touched = [clip for clip in known.clips if clip.start_s < row["end_s"] and row["start_s"] < clip.end_s]
        if found and touched and found[-1][0] and found[-1][0][-1] == touched[0]:
            found[-1] = ([*found[-1][0], *touched[1:]], [*found[-1][1], row])
        else:
            found.append((touched, [row]))
    return [(spoken, [row for row in own if row["clip"]]) for spoken, own in found]
