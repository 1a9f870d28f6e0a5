"""Join the segments of a speech: silence at their ends goes, a pause as a speaker makes it comes between, as a stream.

A model puts anything from nothing to a second of silence before and after what it says. Sound is what is less than
45 dB below the loudest 10 ms so far, so that quiet voices are sound too, and above an absolute floor.
"""

from __future__ import annotations

import math

import numpy as np

from ..text.segments import Ending, ending_of

PAUSES_S: dict[Ending, float] = {"paragraph": 0.80, "sentence": 0.45, "clause": 0.20, "word": 0.06}
LEAD_S, TAIL_S = 0.04, 0.08  # silence kept before and after the sound of a segment: its soft on- and offset
_FRAME_S = 0.01
_FADE_S = 0.004
_RANGE_DB = 45.0  # what lies so far below the loudest frame is no sound
_FLOOR_DB = -80.0  # RMS; neither is what lies below this
_CLEAR_DB = -45.0  # a voice that is recorded well gets louder than this
_SPAN, _ENOUGH = 6, 3  # frames; sound begins where at least 3 of 6 are sound: a click is shorter
_CONFIRMED = 12  # frames after which the loudness of a first sound is known
_PATIENCE = 100  # frames that a sound which stays quiet is waited with, for a louder one
_MOST_HELD = 1000  # frames of silence held back


class Joiner:
    """One speech from the sound of its segments, float32 (samples,) at `sample_rate` Hz.

    Feed each segment in chunks of any size and end it with its text; what comes back is ready to be heard. The result
    does not depend on how a segment is cut into chunks. It lags behind by 10 ms while there is sound; by up to 120 ms
    at the first sound (1 s for a very quiet voice); and by the length of a silence, up to 10 s, which is how much is
    kept in memory. Silence inside a segment stays as it is. Levels are left alone.
    Raises ValueError for chunks that are not (samples,).
    """

    def __init__(self, sample_rate: int):
        self._rate = sample_rate
        self._frame = max(1, round(_FRAME_S * sample_rate))
        self._loudest = -math.inf  # dBFS of the loudest frame of the speech so far
        self._pause: float | None = None  # seconds of pause before the next sound; None before the first
        self._tail = 0  # samples of silence kept at the end of what was said last
        self._reset()

    def _reset(self) -> None:
        self._partial = np.zeros(0, np.float32)  # less than a frame
        self._held: list[np.ndarray] = []  # frames not given out yet
        self._levels: list[float] = []  # of the held frames, dBFS
        self._speaking = False  # whether sound of this segment was given out

    def feed(self, chunk: np.ndarray) -> np.ndarray:
        """Take the next chunk of the segment and return what is known to be heard."""
        samples = np.asarray(chunk, np.float32)
        if samples.ndim != 1:
            raise ValueError(f"a chunk is {samples.shape}; expected (samples,)")
        samples = np.concatenate([self._partial, samples])
        whole = len(samples) // self._frame * self._frame
        self._partial = samples[whole:].copy()
        ready: list[np.ndarray] = []
        for start in range(0, whole, self._frame):
            ready += self._take(samples[start : start + self._frame].copy())
        return _joined(ready)

    def end_segment(self, text: str, next_text: str | None, ending: Ending | None = None) -> np.ndarray:
        """End the segment that says `text` and return its rest, with little silence at its end.

        The pause comes with the next sound: none after the last. From sound to sound it lasts `PAUSES_S[ending]`
        (default: `ending_of(text, next_text)`). `next_text` is None for the last segment. A segment without sound
        leaves nothing behind.
        """
        ready: list[np.ndarray] = []
        if len(self._partial):
            ready += self._take(self._partial)
        if not self._speaking:
            ready += self._begin()
        pause = PAUSES_S["sentence" if next_text is None else ending or ending_of(text, next_text)]
        if self._speaking:
            ready.append(self._end(min(TAIL_S, pause * 2 / 3)))
            self._pause = pause
        elif self._pause is not None and next_text is not None:  # said nothing: the longer of the two pauses
            self._pause = max(self._pause, pause)
        self._reset()
        return _joined(ready)

    def finish(self) -> np.ndarray:
        """End the speech, and the segment if it was not ended; nothing follows the margin after the last sound."""
        return self.end_segment("", None)

    def _take(self, frame: np.ndarray) -> list[np.ndarray]:
        """Hold one more frame (the last of a segment may be shorter) and return what it sets free."""
        level = _level(frame)
        self._loudest = max(self._loudest, level)
        self._held.append(frame)
        self._levels.append(level)
        if not self._speaking:
            return self._begin() if self._is_known() else self._drop_silence()
        # The newest frame stays back, so that whatever comes last can be faded out.
        if level >= self._threshold():
            return self._release(len(self._held) - 1)
        return self._release(len(self._held) - _MOST_HELD)

    def _threshold(self) -> float:
        return max(_FLOOR_DB, self._loudest - _RANGE_DB)

    def _is_known(self) -> bool:
        """Whether enough was heard to say where the sound of this segment begins."""
        first = self._first_sound()
        if first is None:
            return False
        after = len(self._held) - first
        if self._pause is not None:  # how loud the voice is, is known from an earlier segment
            return after >= _SPAN
        clear = next((n for n in range(first, len(self._held)) if self._levels[n] >= _CLEAR_DB), None)
        return after >= _PATIENCE or (clear is not None and len(self._held) - clear >= _CONFIRMED)

    def _first_sound(self) -> int | None:
        """The first held frame at which sound begins and goes on."""
        threshold = self._threshold()
        sound = [level >= threshold for level in self._levels]
        for n, is_sound in enumerate(sound):
            if is_sound and sum(sound[n : n + _SPAN]) >= _ENOUGH:
                return n
        return None

    def _drop_silence(self) -> list[np.ndarray]:
        """Forget the silence before a sound that is no longer needed for its margin."""
        if self._first_sound() is None:
            margin = math.ceil(LEAD_S * self._rate / self._frame) + _SPAN
            del self._held[:-margin], self._levels[:-margin]
        return []

    def _begin(self) -> list[np.ndarray]:
        """Give out the pause before this segment and its sound from the first on; nothing if there is no sound."""
        first = self._first_sound()
        if first is None:
            return []
        self._speaking = True
        silence = _joined(self._held[:first])
        margin_s = LEAD_S if self._pause is None else min(LEAD_S, self._pause / 3)
        lead = silence[max(0, len(silence) - round(margin_s * self._rate)) :]
        missing = round((self._pause or 0) * self._rate) - self._tail - len(lead)
        pause = np.zeros(max(0, missing), np.float32)
        self._held[:first], self._levels[:first] = [lead], [-math.inf]
        self._fade(self._held, 1)
        threshold = self._threshold()
        last = max(n for n, level in enumerate(self._levels) if level >= threshold)
        return [pause, *self._release(last)]

    def _release(self, count: int) -> list[np.ndarray]:
        ready = self._held[: max(0, count)]
        del self._held[: max(0, count)], self._levels[: max(0, count)]
        return ready

    def _end(self, margin_s: float) -> np.ndarray:
        """The held sound, and a margin of the silence after it, faded out."""
        threshold = self._threshold()
        sounding = 1 + max((n for n, level in enumerate(self._levels) if level >= threshold), default=-1)
        said, silence = _joined(self._held[:sounding]), _joined(self._held[sounding:])
        silence = silence[: round(margin_s * self._rate)]
        self._tail = len(silence)
        rest = [np.concatenate([said, silence])]
        self._fade(rest, -1)
        return rest[0]

    def _fade(self, frames: list[np.ndarray], step: int) -> None:
        """Fade in from the start of `frames` (step 1), or out at their end (-1), in place."""
        sound = _joined(frames)
        count = min(len(sound), round(_FADE_S * self._rate))
        curve = (np.sin(np.pi / 2 * (np.arange(count) + 0.5) / max(1, count)) ** 2).astype(np.float32)
        sound[::step][:count] *= curve
        edges = np.cumsum([len(frame) for frame in frames])[:-1]
        frames[:] = np.split(sound, edges)


def _level(frame: np.ndarray) -> float:
    """RMS of a frame without its mean, in dBFS."""
    power = float(np.var(frame.astype(np.float64)))
    return 10 * math.log10(power) if power > 0 else -math.inf


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.float32), *parts])
