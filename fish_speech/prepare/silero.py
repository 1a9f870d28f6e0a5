"""How likely it is that each 32 ms are speech, by the model in silero-vad's wheel, over a stream of audio.

silero-vad (https://github.com/snakers4/silero-vad, MIT) was trained on speech at common levels and misses what is far
quieter, so a quiet passage is lifted before the model hears it. The package itself is not imported: it imports torch
and sets torch's thread count.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .energy import frame_levels

PROBABILITY_FRAME = 512  # samples: 32 ms at 16 kHz
CHUNK = 125 * PROBABILITY_FRAME  # samples: 4 s, a whole number of 10 ms frames too
_CONTEXT = 64  # samples of the frame before that the model also sees
_PASSAGE = CHUNK // 5  # samples: 0.8 s
_LOUD_PERCENTILE = 90.0  # of a passage's levels: a click does not make it loud, 0.1 s of speech does
_NOISE_PERCENTILE = 10.0
_SOUND_DB = 8.0
_QUIET_DB = -35.0  # dBFS; passages below are lifted to this level
_MAX_LIFT_DB = 50.0


def speech_probabilities(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield (frames,) float32 in [0, 1] for each chunk of (CHUNK,) float32 at 16 kHz; the last may be shorter.

    The model's state goes on from chunk to chunk, so the values are those of its frame-by-frame streaming. A last
    frame that is not whole is filled with zeros. Raises UserError if the model is not installed.
    """
    session = _session()
    hidden = cell = np.zeros((1, 1, 128), np.float32)
    context = np.zeros(_CONTEXT, np.float32)
    for chunk in chunks:
        count = -(-len(chunk) // PROBABILITY_FRAME)
        frames = np.zeros((count, _CONTEXT + PROBABILITY_FRAME), np.float32)
        frames[:, _CONTEXT:].flat[: len(chunk)] = chunk
        frames[0, :_CONTEXT] = context
        frames[1:, :_CONTEXT] = frames[:-1, -_CONTEXT:]
        context = frames[-1, -_CONTEXT:]
        inputs = {"input": frames, "h": hidden, "c": cell}
        probabilities, hidden, cell = session.run(["speech_probs", "hn", "cn"], inputs)
        yield probabilities


def lift_quiet(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield the same chunks with quiet passages raised to -35 dBFS, by 50 dB at most; others stay bit by bit.

    Each 0.8 s with more in it than steady noise has its own gain, so a soft voice after a loud one is lifted too;
    steady noise keeps the gain of what came before, so a pause stays a pause. Holds two chunks at a time.
    """
    before = now = None
    for waveform in chunks:
        after = _Lift(waveform, float(now.lifts[-1]) if now else 0.0)
        if now is not None:
            yield now.applied(before, after)
        before, now = now, after
    if now is not None:
        yield now.applied(before, None)


class _Lift:
    """A chunk with, for each passage of 0.8 s: gain in dB, whether there is more than noise, and constant offset."""

    def __init__(self, waveform: np.ndarray, held_db: float):
        self.waveform = waveform
        parts = [waveform[start : start + _PASSAGE] for start in range(0, len(waveform), _PASSAGE)]
        levels = [np.percentile(frame_levels(part), (_NOISE_PERCENTILE, _LOUD_PERCENTILE)) for part in parts]
        noise, loud = np.array(levels).T
        self.sounds = loud - noise.min() > _SOUND_DB
        self.lifts = np.clip(_QUIET_DB - loud, 0.0, _MAX_LIFT_DB)
        for index in np.flatnonzero(~self.sounds):
            self.lifts[index] = min(self.lifts[index], self.lifts[index - 1] if index else held_db)
        self.offsets = np.array([part.mean(dtype=np.float64) for part in parts])

    def applied(self, before: _Lift | None, after: _Lift | None) -> np.ndarray:
        """Return the chunk, lifted, given its neighbours in time: the gain slides from passage to passage."""
        first, last = before or self, after or self
        lifts = np.concatenate((first.lifts[-1:], self.lifts, last.lifts[:1]))
        sounds = np.concatenate((first.sounds[-1:], self.sounds, last.sounds[:1]))
        offsets = np.concatenate((first.offsets[-1:], self.offsets, last.offsets[:1]))
        if not lifts.any():
            return self.waveform
        edges = np.minimum(np.arange(len(self.lifts) + 1) * _PASSAGE, len(self.waveform))
        points = np.sort(np.concatenate((edges, (edges[:-1] + edges[1:]) / 2)))  # edge, middle, edge, ..., edge
        # Where sound meets noise the slide lies in the noise; where sound meets sound the louder one is not overdriven.
        quieter = np.minimum(lifts[:-1], lifts[1:])
        of_sound = np.where(sounds[:-1], lifts[:-1], lifts[1:])
        gain_db = _interleaved(np.where(sounds[:-1] == sounds[1:], quieter, of_sound), self.lifts)
        offset = _interleaved((offsets[:-1] + offsets[1:]) / 2, self.offsets)
        samples = np.arange(len(self.waveform))
        gain = 10 ** (np.interp(samples, points, gain_db) / 20)
        lifted = self.waveform + (gain - 1) * (self.waveform - np.interp(samples, points, offset))
        return np.where(gain > 1, np.clip(lifted, -1.0, 1.0), self.waveform).astype(np.float32)


def _interleaved(edges: np.ndarray, middles: np.ndarray) -> np.ndarray:
    """(passages + 1,) and (passages,) -> (2 * passages + 1,)."""
    both = np.empty(2 * len(middles) + 1)
    both[::2], both[1::2] = edges, middles
    return both


@functools.lru_cache(maxsize=1)
def _session() -> Any:
    """Load the model once per process, on one thread of the CPU."""
    path = _model_path()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _model_path() -> Path:
    package = importlib.util.find_spec("silero_vad")
    folders = list(package.submodule_search_locations or []) if package else []
    for folder in folders:
        path = Path(folder, "data", "silero_vad_16k_sequence.onnx")
        if path.is_file() and importlib.util.find_spec("onnxruntime"):
            return path
    missing = (
        "silero-vad 6.2.3 or newer"
        if not folders
        else "onnxruntime, or silero-vad's file silero_vad_16k_sequence.onnx,"
    )
    raise UserError(
        "speech cannot be found: no voice activity detector",
        f"{missing} is not installed",
        "pip install --upgrade silero-vad onnxruntime, or use --use-silence-detection, which needs neither",
    )
