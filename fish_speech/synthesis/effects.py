"""Speed, pitch and volume of finished speech, as a stream: each changes what its name says and nothing else.

Speed is a time stretch (`stretch.py`), pitch a time stretch followed by resampling, volume a gain with a limiter
(`limiter.py`). Pitch moves the formants along, as a tape does: a few semitones sound like another mood, more like
another speaker.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .limiter import Limiter
from .stretch import Stretch

SPEEDS = (0.5, 2.0)  # factor
PITCHES = (-12.0, 12.0)  # semitones
VOLUMES = (-40.0, 20.0)  # dB
_BLOCK_S = 0.02  # what the resampler gets at once


@dataclass(frozen=True)
class Effects:
    """What to do to speech. Raises ValueError for a value out of its range, naming it.

    speed: 0.5-2; the duration becomes duration / speed, the pitch stays.
    pitch: -12 to 12 semitones; the duration stays.
    volume: -40 to 20 dB; what would clip is held at full scale by a limiter, so a large gain makes loud speech denser
        rather than that much louder.
    """

    speed: float = 1.0
    pitch: float = 0.0
    volume: float = 0.0

    def __post_init__(self) -> None:
        for name, unit, (least, most) in (
            ("speed", "", SPEEDS),
            ("pitch", " semitones", PITCHES),
            ("volume", " dB", VOLUMES),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
                raise ValueError(f"{name} is {value!r}; it may be {least:g} to {most:g}{unit}")

    @property
    def are_none(self) -> bool:
        """Whether sound passes unchanged."""
        return self == Effects()


class EffectChain:
    """Apply `effects` to one stream of sound, float32 (samples,) at `sample_rate` Hz.

    Feed chunks of any size, then finish: n samples give round(n / speed) in all, none beyond [-1, 1], the same however
    the input was cut. What comes out lags behind by 10 ms for volume, 50 ms more for speed and 150 ms more for pitch,
    at most, at 16 kHz and above; so much is kept in memory. Without effects the input is returned as it is.
    Raises ValueError for what is not (samples,) of finite numbers, or comes after the end.
    """

    def __init__(self, effects: Effects, sample_rate: int):
        if not 1000 <= sample_rate <= 1_000_000:
            raise ValueError(f"sample_rate is {sample_rate}; it may be 1000 to 1000000 Hz")
        self._effects = effects
        self._ratio = 2.0 ** (effects.pitch / 12)
        stretched = effects.speed / self._ratio
        self._stretch = Stretch(stretched, sample_rate) if stretched != 1 else None
        self._resample = _Resample(self._ratio, sample_rate) if effects.pitch else None
        self._limiter = Limiter(10 ** (effects.volume / 20), sample_rate)
        self._taken = self._limited = 0  # samples of input; samples that went on to the limiter
        self._surplus = np.zeros(0, np.float32)  # made, but not yet paid for by input
        self._finished = False

    def feed(self, chunk: np.ndarray) -> np.ndarray:
        """Take the next chunk and return the sound that is finished."""
        samples = np.asarray(chunk, np.float32)
        if self._finished:
            raise ValueError("the stream is finished; make a new EffectChain")
        if samples.ndim != 1:
            raise ValueError(f"a chunk is {samples.shape}; expected (samples,)")
        if self._effects.are_none:
            return samples
        if not np.isfinite(samples).all():
            raise ValueError("a chunk holds samples that are not finite")
        self._taken += len(samples)
        if self._stretch:
            samples = self._stretch.feed(samples)
        if self._resample:
            samples = self._resample.feed(samples)
        return self._limiter.feed(self._within(samples, math.floor(self._taken / self._effects.speed)))

    def finish(self) -> np.ndarray:
        """Return the rest of the sound."""
        self._finished = True
        if self._effects.are_none:
            return np.zeros(0, np.float32)
        length = round(self._taken / self._effects.speed)
        samples = np.zeros(0, np.float32)
        if self._stretch:
            samples = self._stretch.finish(math.ceil((length + 1) * self._ratio) if self._resample else length)
        if self._resample:
            samples = self._resample.finish(samples)
        samples = self._within(samples, length)
        missing = np.zeros(length - self._limited, np.float32)  # what a resampler rounds down
        return np.concatenate([self._limiter.feed(samples), self._limiter.feed(missing), self._limiter.finish()])

    def _within(self, samples: np.ndarray, length: int) -> np.ndarray:
        """Hold back what would make the sound longer than `length` samples in all."""
        samples = np.concatenate([self._surplus, samples])
        count = length - self._limited
        samples, self._surplus = samples[:count], samples[count:]
        self._limited += len(samples)
        return samples


class _Resample:
    """Play `ratio` times as fast, and as high, by soxr's band-limited resampler.

    It is fed blocks of one size, so that nothing depends on how the input was cut.
    """

    def __init__(self, ratio: float, sample_rate: int):
        import soxr

        self._stream = soxr.ResampleStream(ratio, 1.0, 1, dtype="float32", quality="HQ")
        self._block = max(1, round(_BLOCK_S * sample_rate))
        self._waiting = np.zeros(0, np.float32)

    def feed(self, samples: np.ndarray) -> np.ndarray:
        waiting = np.concatenate([self._waiting, samples])
        whole = len(waiting) // self._block * self._block
        self._waiting = waiting[whole:].copy()
        blocks = [self._stream.resample_chunk(waiting[at : at + self._block]) for at in range(0, whole, self._block)]
        return np.concatenate([self._waiting[:0], *blocks])

    def finish(self, samples: np.ndarray) -> np.ndarray:
        return np.concatenate([self.feed(samples), self._stream.resample_chunk(self._waiting, last=True)])
