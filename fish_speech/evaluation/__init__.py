"""Measure speech: intelligibility, speaker similarity, quality, timing; compare systems; write the report.

Importing this loads numpy only: recognisers and networks are loaded when they are first used.
"""

from ..recognition import transcribe
from .intelligibility import ErrorCounts, character_errors, word_errors
from .measure import MEASURES, Listening, evaluate, evaluate_recordings, plan_listening
from .normalize import comparable_words
from .quality import dnsmos
from .similarity import SpeakerEncoder, mean_embedding, similarity
from .timing import Timing, measure_timing, speaking_rate

__all__ = [
    "MEASURES",
    "ErrorCounts",
    "Listening",
    "SpeakerEncoder",
    "Timing",
    "character_errors",
    "comparable_words",
    "dnsmos",
    "evaluate",
    "evaluate_recordings",
    "mean_embedding",
    "measure_timing",
    "plan_listening",
    "similarity",
    "speaking_rate",
    "transcribe",
    "word_errors",
]
