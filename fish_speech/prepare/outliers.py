"""Outliers: clips whose voice is not the speaker's (GE2E embeddings), and marks for the sound (DNSMOS).

Needs the `eval` extra, asked for when it is used. Among one speaker's clips those of another voice stand out; a set
that is half another voice has no outliers, only two speakers.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..evaluation.similarity import SpeakerEncoder

_MIN_CLIPS = 4  # that one can call a voice
_SHORT_S = 1.5  # a clip below says too little about its voice
_BOUND = 0.78  # cosine; clips of the speaker over 1.5 s are above, as a rule, other voices of the same sex below
_SHORT_BOUND = 0.55
_DEVIATIONS = 3.5  # robust ones, below the speaker's median
_MIN_DEVIATION = 0.02


def embed_voice(waveform: np.ndarray, sample_rate: int) -> np.ndarray | None:
    """Embed mono float (samples,) -> (256,) float32; None if it holds no voice. About 0.02 s per second of sound."""
    return _encoder().embed(waveform, sample_rate)


def sound_quality(waveform: np.ndarray, sample_rate: int) -> dict[str, float] | None:
    """DNSMOS marks, 1-5, of mono float (samples,): overall, signal, background, p808; None without samples."""
    from ..evaluation.quality import dnsmos

    return dnsmos(waveform, sample_rate)


def voice_similarity(embeddings: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Cosine of each clip of one speaker to the centroid of the speaker's other clips; {} for fewer than two clips.

    The centroid is of the half of the clips that is most like all: a few foreign voices do not pull it over.
    """
    if len(embeddings) < 2:
        return {}
    unit = np.stack([vector / max(float(np.linalg.norm(vector)), 1e-9) for vector in embeddings.values()])
    unit = unit.astype(np.float64)  # (clips, dim)
    typical = np.ones(len(unit), dtype=bool)
    for _ in range(5 if len(unit) >= _MIN_CLIPS else 0):  # settles in two or three
        likeness = _cosine_to_others(unit, typical)
        nearest = likeness >= np.median(likeness)
        if (nearest == typical).all():
            break
        typical = nearest
    return dict(zip(embeddings, map(float, _cosine_to_others(unit, typical))))


def speaker_outliers(embeddings: Mapping[str, np.ndarray], durations_s: Mapping[str, float]) -> dict[str, float]:
    """Return the clips of one speaker that are another voice, by all measures, with their similarity to the others.

    An outlier is below an absolute bound and far below the speaker's median; short clips have a lower bound, because
    they score lower by nature. Fewer than 4 clips are not judged.
    """
    similarity = voice_similarity(embeddings)
    if len(similarity) < _MIN_CLIPS:
        return {}
    values = np.array(list(similarity.values()))
    median = float(np.median(values))
    deviation = max(_MIN_DEVIATION, 1.4826 * float(np.median(np.abs(values - median))))
    expected = median - _DEVIATIONS * deviation
    return {
        key: value
        for key, value in similarity.items()
        if value < min(expected, _BOUND if durations_s[key] >= _SHORT_S else _SHORT_BOUND)
    }


def _cosine_to_others(unit: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Cosine of each of (clips, dim) to the sum of the chosen ones without itself: (clips,)."""
    others = unit[chosen].sum(axis=0) - unit * chosen[:, None]
    return (unit * others).sum(axis=1) / np.linalg.norm(others, axis=1).clip(1e-9)


@cache
def _encoder() -> SpeakerEncoder:
    from ..evaluation.similarity import SpeakerEncoder

    return SpeakerEncoder()
