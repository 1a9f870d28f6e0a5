"""What a recogniser hears of speech made with bf16 and int8 weights, against the text and against float32's speech.

A recogniser hears something else with every seed, so that float32 with another seed is measured as well: weights that
differ less from float32 than another seed does are as good as float32 as far as this measure can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from fish_speech.evaluation.intelligibility import ErrorCounts, word_errors
from fish_speech.models import DualAR, load_codec
from fish_speech.recognition import transcribe
from fish_speech.synthesis.speak import Speaker, SpeechRequest

SEED, OTHER_SEED = 42, 43


def compare_heard(
    make: Callable[[str], DualAR], precisions: Sequence[str], folder: Path, texts: Sequence[str]
) -> Iterator[str]:
    """Yield a table: word error rate of each precision against the texts, and against what is heard of float32."""
    codec = load_codec(folder / "codec.pth")
    heard: dict[str, list[str]] = {}
    for name, precision, seed in [
        ("fp32", "fp32", SEED),
        ("fp32, other seed", "fp32", OTHER_SEED),
        *((precision, precision, SEED) for precision in precisions),
    ]:
        speaker = Speaker(make(precision), codec)
        heard[name] = [_heard(speaker, text, seed) for text in texts]
    yield f"{len(texts)} texts, heard by pocketsphinx"
    yield f"{'':<17} {'words':>6} {'WER against the text':>21} {'WER against what is heard of fp32':>34}"
    for name, lines in heard.items():
        to_text = _rate(texts, lines)
        to_float = _rate(heard["fp32"], lines)
        yield f"{name:<17} {to_text.length:6d} {to_text.rate or 0:21.3f} {to_float.rate or 0:34.3f}"


def _rate(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    return sum((word_errors(a, b) for a, b in zip(references, hypotheses, strict=True)), ErrorCounts())


def _heard(speaker: Speaker, text: str, seed: int) -> str:
    sound = np.concatenate([*speaker.stream(SpeechRequest(text, seed=seed)), np.zeros(1, np.float32)])
    return transcribe(sound, speaker.sample_rate, asr="pocketsphinx")
