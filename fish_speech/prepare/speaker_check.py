"""Compare each clip's voice with its speaker's other clips, and mark those of somebody else."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np

from ..audio import read_audio
from ..log import progress
from ..workers import run_tasks
from .outliers import embed_voice, speaker_outliers, voice_similarity
from .rows import Row


def check_speakers(rows: Iterable[Row], output: Path, workers: int) -> list[Row]:
    """Fill speaker_similarity and speaker_outlier of all kept rows; return all rows.

    Marked clips stay in the set: a whisper or a shout is like another voice. UserError if the `eval` extra is missing.
    """
    rows = list(rows)
    clips = [row["clip"] for row in rows if row["clip"] is not None]
    embedded = run_tasks(partial(_embed, output), clips, min(workers, len(clips)))
    voices = dict(progress(embedded, "compare voices", total=len(clips), unit="clip"))
    judged: dict[str, Row] = {}
    for speaker in sorted({row["speaker"] for row in rows}):
        durations = {row["clip"]: row["duration_s"] for row in rows if row["speaker"] == speaker}
        embeddings = {clip: voice for clip in durations if (voice := voices.get(clip)) is not None}
        outliers = speaker_outliers(embeddings, durations)
        for clip, similarity in voice_similarity(embeddings).items():
            judged[clip] = {"speaker_similarity": round(similarity, 3), "speaker_outlier": clip in outliers}
    return [row | judged.get(row["clip"], {}) for row in rows]


def _embed(output: Path, clip: str) -> tuple[str, np.ndarray | None]:
    return clip, embed_voice(*read_audio(output / clip))
