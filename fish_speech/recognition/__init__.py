"""Speech recognition, for measuring and for preparing data: text alone, or words with the times at which they are said.

Importing this loads numpy only: recognisers are loaded when they are first used, once per process.
"""

from .choose import ASR_CHOICES, choose_asr, load_recognizer, transcribe
from .hallucinations import suspicious
from .recognizer import SAMPLE_RATE, Recognizer, resample
from .whisper_weights import WHISPER_NAMES, whisper_weights
from .words import join_words

__all__ = [
    "ASR_CHOICES",
    "SAMPLE_RATE",
    "WHISPER_NAMES",
    "Recognizer",
    "choose_asr",
    "join_words",
    "load_recognizer",
    "resample",
    "suspicious",
    "transcribe",
    "whisper_weights",
]
