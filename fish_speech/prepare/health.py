"""Health of a clip: the figures that say whether its sound can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..timeline import Span
from .bandwidth import bandwidth_hz
from .clipping import clipped_share
from .fingerprint import fingerprint
from .noise import snr_db


def measure(waveform: np.ndarray, sample_rate: int, speech: Sequence[Span] | None) -> dict[str, float | str | None]:
    """Measure mono float32 (samples,) as it was recorded, before resampling, gain or a lossy codec.

    `speech` lies on the clip's own time line; None if nobody knows. Returns clipped_share (0-1), snr_db (None without
    speech), bandwidth_hz and fingerprint ("" for what is too short or silent), rounded to what they are exact to. Takes
    about 0.1 % of the clip's duration.
    """
    snr = snr_db(waveform, sample_rate, speech)
    return {
        "clipped_share": round(clipped_share(waveform), 6),
        "snr_db": None if snr is None else round(snr, 1),
        "bandwidth_hz": round(bandwidth_hz(waveform, sample_rate), -1),
        "fingerprint": fingerprint(waveform, sample_rate),
    }
