"""Does a sound say its text? Signs that need no recogniser first, then the words that a recogniser hears.

A voice model leaves out the end, says words twice, babbles on; a recogniser takes one word for another. So any words that
are missing at the end, repeated, or two in a row missing or added fail a sound, and others are counted against a tolerance.

Measured with pocketsphinx, which expects the words of the text here (of 14 good recordings 6 pass where it does not):
    pass, and should: 38 of 39 clips of samples/allison, by which this was tuned; 47 of 49 others of that voice; 28 of 28
    sentences of flite's voices; 3 of 14 of espeak-ng's, which it does not understand
    pass, and should not, of edited clips of samples/allison: 1 of 36 without the last word, 0 of 70 without two or a
    third of them, 3 of 31 and 0 of 31 without two and three in the middle, 3 of 31 with one word twice, 1 of 31 with two,
    0 of 35 with the end in a loop, 0 of 105 with babble or another sentence after it, 0 of 70 with another text or
    backwards; of the other clips 1 of 32 cut off at 60 or 75 % and 4 of 16 at 85 %.
What whisper may get wrong was not measured: no weights were at hand.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import cache, lru_cache
from threading import Lock

import numpy as np

from ..evaluation.timing import measure_timing
from ..recognition import Recognizer, choose_asr, load_recognizer, resample
from ..text.markers import without_markers
from .heard_words import Comparison, compare_words
from .length_limit import longest_seconds, spoken_length

log = logging.getLogger(__name__)

Hear = Callable[[np.ndarray, str], str]  # mono float32 (samples,) at 16 kHz, and the text that should be in it

QUIET_DBFS = -50.0  # of the loudest 10 ms; speech is above -30
LONGEST_PAUSE_S = 2.5
ABRUPT_DB = -12.0  # the last 30 ms against the loudest 10 ms; 206 real recordings fade to -40 and below
ENGLISH = "en"
UNENDED = "it did not end"


@dataclass(frozen=True)
class Tolerance:
    """The errors that a good sound may have, because the recogniser makes them."""

    errors: float = 1.0  # in any text, but never more than half of its words
    rate: float = 0.1  # per word, in long texts

    def allowed(self, words: int) -> float:
        """The most errors for a text of so many words."""
        return max(min(self.errors, words / 2), self.rate * words)


_ALLOWED = {"pocketsphinx": Tolerance(), "whisper": Tolerance(rate=0.15), "faster-whisper": Tolerance(rate=0.15)}


@dataclass(frozen=True)
class Attempt:
    """One try at a segment."""

    columns: np.ndarray  # (1 + codebooks, frames) int64
    waveform: np.ndarray  # (samples,) float32
    sample_rate: int  # Hz
    ended: bool  # by itself, not by the length limit


@dataclass(frozen=True)
class Verdict:
    """What is to be said about an attempt; without reasons against it, it passed."""

    reasons: tuple[str, ...]
    errors: float  # in words, as of Comparison; all of the text where nothing was heard
    comparison: Comparison | None = None  # None where it was not listened to

    @property
    def passed(self) -> bool:
        """Is nothing wrong?"""
        return not self.reasons

    def __str__(self) -> str:
        told = "; ".join(self.reasons) or "it says its text"
        return f"{told} ({self.comparison})" if self.comparison else told


class Verifier:
    """Judges attempts. One recording at a time: threads wait for each other."""

    def __init__(
        self,
        hear: Hear | None,
        attempts: int = 3,
        language: str | None = ENGLISH,
        tolerance: Tolerance | None = None,
        vocabulary: Container[str] | None = None,
        markers: bool = False,
    ):
        """`hear` None: only signs in the sound are looked at. `vocabulary`: as of `compare_words`.

        `markers`: the version obeys markers as in "(angry)", which are not said. Raises ValueError for no attempts.
        """
        if attempts < 1:
            raise ValueError(f"attempts is {attempts}; at least one is needed")
        self.attempts = attempts
        self._hear, self._language, self._vocabulary, self._markers = hear, language, vocabulary, markers
        self._tolerance = tolerance or Tolerance()
        self._lock = Lock()

    def judge(self, attempt: Attempt, text: str) -> Verdict:
        """Say what is wrong with an attempt at `text`."""
        text = without_markers(text) if self._markers else text
        expected = compare_words(text, "", self._language, self._vocabulary).expected
        silence = no_sound(attempt)
        if silence:
            unended = () if attempt.ended else (UNENDED,)
            return Verdict((*unended, silence), float(len(expected)))
        reasons = signs(attempt, text)
        if self._hear is None or not expected:
            return Verdict(tuple(reasons), float(len(expected)) if reasons else 0.0)
        with self._lock:
            heard = self._hear(resample(attempt.waveform, attempt.sample_rate), text)
        comparison = compare_words(text, heard, self._language, self._vocabulary)
        return Verdict((*reasons, *self._faults(comparison)), comparison.errors, comparison)

    def _faults(self, found: Comparison) -> list[str]:
        """What the words say. The end and repetitions are where speech models fail, and not where recognisers do."""
        faults = []
        if not found.heard:
            return ["no words were heard"]
        if found.unsaid_end:
            faults.append(f"the end is missing: {' '.join(found.expected[-found.unsaid_end :])}")
        elif found.unsaid > 1:
            faults.append(f"{found.unsaid} words in a row are missing")
        if found.repeated:
            faults.append("words are repeated")
        elif found.extra > 1:
            faults.append(f"{found.extra} words in a row are added")
        allowed = self._tolerance.allowed(len(found.expected))
        if found.errors > allowed:
            faults.append(f"{found.errors:.1f} of {len(found.expected)} words are wrong, {allowed:.1f} may be")
        return faults


def no_sound(attempt: Attempt) -> str | None:
    """Why there is nothing to listen to, or None if there is something."""
    samples = np.asarray(attempt.waveform, np.float32)
    if not len(samples):
        return "there is no sound"
    if not np.all(np.isfinite(samples)):
        return "there are samples that are no numbers"
    loudest = float(_levels(samples, attempt.sample_rate).max())
    return f"it is silent: {loudest:.0f} dBFS at most" if loudest < QUIET_DBFS else None


def signs(attempt: Attempt, text: str) -> list[str]:
    """What is wrong with a sound that can be told without hearing words."""
    found = [] if attempt.ended else [UNENDED]
    samples = np.asarray(attempt.waveform, np.float32)
    speech_s = measure_timing(samples, attempt.sample_rate).speech_s
    least_s, most_s = spoken_length(text).least_s, longest_seconds(text)
    if speech_s < least_s:
        found.append(f"{speech_s:.1f} s of sound are too short for the text, which takes {least_s:.1f} s")
    if speech_s > most_s:
        found.append(f"{speech_s:.1f} s of sound are too long for the text, {most_s:.1f} s at most")
    if attempt.ended and ends_abruptly(samples, attempt.sample_rate):
        found.append("it breaks off in the middle of a sound")
    pause_s = longest_pause_s(samples, attempt.sample_rate)
    if pause_s > LONGEST_PAUSE_S:
        found.append(f"a pause of {pause_s:.1f} s")
    return found


def longest_pause_s(samples: np.ndarray, sample_rate: int) -> float:
    """The longest silence between two sounds, in seconds."""
    levels = _levels(samples, sample_rate)
    loud = np.flatnonzero(levels > max(-65.0, levels.max() - 40.0))
    return float(np.diff(loud).max(initial=1) - 1) * 0.01


def ends_abruptly(samples: np.ndarray, sample_rate: int) -> bool:
    """Is it about as loud at the very end as it ever is? Words fade out, also without a pause behind them."""
    size = max(1, round(0.01 * sample_rate))
    levels = _levels(samples[len(samples) % size :], sample_rate)  # whole frames up to the last sample
    return bool(len(levels) > 3 and levels[-3:].max() > levels.max() + ABRUPT_DB)


def _levels(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """dBFS of each 10 ms."""
    size = max(1, round(0.01 * sample_rate))
    frames = np.pad(samples.astype(np.float64), (0, -len(samples) % size)).reshape(-1, size)
    return 10 * np.log10(np.mean(frames**2, axis=1) + 1e-12)


def make_verifier(
    asr: str = "auto",
    whisper_model: str | None = None,
    language: str | None = ENGLISH,
    attempts: int = 3,
    device: str = "auto",
    download: bool = False,
    markers: bool = False,
) -> Verifier:
    """Load the recogniser and return what judges with it. UserError for one that is not here, or not for `language`."""
    chosen = choose_asr(asr, whisper_model, language, download)
    if chosen == "pocketsphinx":
        return Verifier(_hear_expecting, attempts, language or ENGLISH, _ALLOWED[chosen], _vocabulary(), markers)
    recognizer = load_recognizer(chosen, whisper_model, language, device, download)
    log.info("sounds are checked by %s", recognizer.name)
    return Verifier(lambda samples, _: recognizer(samples), attempts, language, _ALLOWED[chosen], None, markers)


def _hear_expecting(samples: np.ndarray, text: str) -> str:
    return _expecting(text)(samples)


@lru_cache(maxsize=1)  # the attempts at one segment; a decoder takes 0.2 s to load, and memory
def _expecting(text: str) -> Recognizer:
    from ..prepare.biased_model import expecting
    from ..prepare.options import Recognition

    return expecting(text, Recognition("pocketsphinx", None, ENGLISH))


@cache
def _vocabulary() -> frozenset[str]:
    """The words that pocketsphinx can hear, without apostrophes."""
    from ..prepare.biased_model import general_english

    return frozenset(word.replace("'", "") for word in general_english()[0])
