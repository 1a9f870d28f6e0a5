"""Measure what a model in training says: words that a recogniser misses, and how like the speaker it sounds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..extras import how_to_install, missing
from ..prepare.language import is_english

if TYPE_CHECKING:
    from ..evaluation import SpeakerEncoder

log = logging.getLogger(__name__)

RECORDINGS = 20  # of the speaker, spread over the folder
SECONDS = 8.0  # heard of each
INTELLIGIBILITY = ("pocketsphinx", "jiwer", "num2words")
SIMILARITY = ("resemblyzer", "webrtcvad")


@dataclass(frozen=True)
class Sample:
    """A text and how it was said."""

    text: str
    sound: np.ndarray  # (samples,) float32; empty if the model said nothing
    sample_rate: int  # Hz


class Listener:
    """Measures samples with what is installed, and says once what it cannot measure and why.

    texts: what the samples say; the recogniser knows English only
    data_dir: recordings of the speaker; None: none are known
    speakers: how many there are in them; of several there is no one voice to compare with
    """

    def __init__(self, texts: Sequence[str], data_dir: Path | None, speakers: int = 1):
        self._data_dir = data_dir
        self._encoder: SpeakerEncoder | None = None
        self._voice: np.ndarray | None = None  # mean embedding of the recordings
        lacking = missing(*INTELLIGIBILITY), missing(*SIMILARITY)
        self.hears = not lacking[0] and all(map(is_english, texts))
        self.compares = not lacking[1] and data_dir is not None and data_dir.is_dir() and speakers == 1
        if lacking[0] or lacking[1]:
            log.info("of the spoken samples WER and speaker similarity could be measured: %s", how_to_install("eval"))
        if not lacking[0] and not self.hears:
            log.info("the WER of the spoken samples is not measured: the recogniser hears English only")
        if not lacking[1] and not self.compares:
            why = f"there are {speakers} speakers" if speakers != 1 else f"there is no folder of recordings {data_dir}"
            log.info("the speaker similarity of the spoken samples is not measured: %s", why)

    def measure(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Return val/wer (of all words together) and val/similarity (the mean), each only if it can be measured."""
        measured = {}
        if self.hears and samples:
            rate = self._word_error_rate(samples)
            if rate is not None:
                measured["val/wer"] = rate
        if self.compares and any(len(sample.sound) for sample in samples):
            score = self._similarity(samples)
            if score is not None:
                measured["val/similarity"] = score
        return measured

    def _word_error_rate(self, samples: Sequence[Sample]) -> float | None:
        from ..evaluation import ErrorCounts, transcribe, word_errors

        total = ErrorCounts()
        for sample in samples:  # of what was not said all words are missing
            heard = transcribe(sample.sound, sample.sample_rate, "pocketsphinx") if len(sample.sound) else ""
            total += word_errors(sample.text, heard)
        return total.rate

    def _similarity(self, samples: Sequence[Sample]) -> float | None:
        from ..evaluation import SpeakerEncoder, mean_embedding, similarity

        self._encoder = encoder = self._encoder or SpeakerEncoder()
        if self._voice is None:
            found = [encoder.embed(sound, rate) for sound, rate in self._recordings()]
            heard = [embedding for embedding in found if embedding is not None]
            if not heard:
                log.info("val/similarity is not measured: no recording in %s holds a voice", self._data_dir)
                self.compares = False
                return None
            self._voice = mean_embedding(heard)
        said = [encoder.embed(sample.sound, sample.sample_rate) for sample in samples if len(sample.sound)]
        scores = [similarity(embedding, self._voice) for embedding in said if embedding is not None]
        return float(np.mean(scores)) if scores else 0.0  # a sound without a voice is like nobody

    def _recordings(self) -> Iterator[tuple[np.ndarray, int]]:
        from ..audio import MAX_CLIP_S, AudioError, find_audio, read_audio

        assert self._data_dir is not None
        paths = find_audio(self._data_dir.resolve())
        for path in paths[:: max(1, -(-len(paths) // RECORDINGS))]:
            try:
                sound, rate = read_audio(path, max_duration_s=MAX_CLIP_S)
            except AudioError:  # another one will do
                continue
            yield sound[: int(SECONDS * rate)], rate
