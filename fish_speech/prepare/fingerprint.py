"""Fingerprints: tell that two clips are the same recording, whatever their level, format, sample rate and exact edges.

After Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System" (ISMIR 2002): each frame gives one bit per pair
of neighbouring bands, whether their difference grew since the frame before. The grid of frames follows the beat of the
loudness, not the start of the clip: a clip whose edges were cut a little differently has the same frames.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

_SAMPLE_RATE = 8000  # Hz; telephone recordings hold no more
_WINDOW = 1024  # samples, 128 ms
_HOP = 64  # samples, 8 ms: how exactly the grid is laid
_STRIDE = 10  # hops from one frame of the fingerprint to the next, 80 ms
_BITS = 16  # of a frame
_BAND_HZ = (200.0, 3400.0)
_RANGE_DB = 40.0  # what is quieter than the loudest by more is taken as silence
_LEAST_DB = 0.3  # of a difference that is not silence

_MAX_SHIFT = 2  # frames by which the beginnings may differ
_MAX_LENGTH_GAP = 2  # frames by which the lengths may differ
_SECTION = 8  # frames, 0.64 s: two takes agree for a word, the same recording agrees everywhere
_MAX_ERROR = 0.15  # share of different bits in all
_MAX_SECTION_ERROR = 0.22  # in any section
_MIN_FRAMES = 4  # that are not silent

_KEYS = 16  # pairs of frames by which a clip is found again
_KEY_WORD_BITS = 3  # set in each frame of a pair at least: nearly silent frames are all alike
_FLIPS = np.array([0, *(1 << bit for bit in range(2 * _BITS))])  # a copy may have one bit of a pair wrong
_PLACES = 16  # frames of a recording that share an entry of the index


def fingerprint(waveform: np.ndarray, sample_rate: int) -> str:
    """Describe mono (samples,) by 33 characters of base64 per second.

    "" if it is silent or too short to be known again.
    """
    words = _words(waveform, sample_rate)
    if np.count_nonzero(words) < _MIN_FRAMES:
        return ""
    return base64.b64encode(words.astype("<u2").tobytes()).decode("ascii")


def same_recording(a: str, b: str) -> bool:
    """Whether two fingerprints are of the same recording; another take of the same words is another recording."""
    return _alike(_decode(a), _decode(b))


def find_duplicates(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Map each key whose fingerprint is of a recording that came before to the first key with that recording.

    `items` are (key, fingerprint). Only clips of about the same length that hold the same two frames at about the same
    place are compared, so the time hardly grows faster than the number of clips.
    """
    index: defaultdict[int, list[int]] = defaultdict(list)  # pair and place -> numbers of originals
    originals: list[tuple[str, np.ndarray]] = []
    lengths: list[int] = []  # frames of each original
    duplicates: dict[str, str] = {}
    for key, text in items:
        words = _decode(text)
        pairs, places = _pairs(words)
        numbers = {number for entry in _lookups(pairs, places) for number in index.get(entry, ())}
        for number in sorted(n for n in numbers if abs(lengths[n] - len(words)) <= _MAX_LENGTH_GAP):
            if _alike(originals[number][1], words):
                duplicates[key] = originals[number][0]
                break
        else:
            least = np.argsort(_scrambled(pairs), kind="stable")[:_KEYS]
            for entry in _entries(pairs[least], places[least] // _PLACES):
                index[entry].append(len(originals))
            originals.append((key, words))
            lengths.append(len(words))
    return duplicates


def _lookups(pairs: np.ndarray, places: np.ndarray) -> list[int]:
    """The entries of the index where a clip with these pairs may be: each pair, also with one bit wrong."""
    near = (pairs[:, None] ^ _FLIPS).ravel()
    at = np.repeat(places, len(_FLIPS))
    # An original is entered by those of its pairs that are lowest when scrambled, so only low ones can be there.
    low = _scrambled(near) < 2 * _KEYS / max(1, len(pairs))
    near, at = near[low], at[low]
    first, last = (at - _MAX_SHIFT) // _PLACES, (at + _MAX_SHIFT) // _PLACES
    return _entries(near, first) + _entries(near[last > first], last[last > first])


def _entries(pairs: np.ndarray, places: np.ndarray) -> list[int]:
    """Pair and place as one number."""
    return (pairs << _BITS | places.clip(0, (1 << _BITS) - 1)).tolist()


def _scrambled(pairs: np.ndarray) -> np.ndarray:
    """A number from 0 to 1 for each pair, as good as random, the same in every clip (Knuth's multiplicative hash)."""
    return (pairs.astype(np.uint64) * np.uint64(2654435761) % np.uint64(1 << 32)) / (1 << 32)


def _decode(text: str) -> np.ndarray:
    """Words, uint16 (frames,), of a fingerprint; none if it is not one, as in a manifest that was edited by hand."""
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype="<u2")
    except ValueError:
        return np.zeros(0, dtype=np.uint16)


def _pairs(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each two words in a row that are not nearly silent, as one number, and their places: two of (pairs,)."""
    sounding = _COUNT_OF_BITS[words] >= _KEY_WORD_BITS
    places = np.flatnonzero(sounding[:-1] & sounding[1:])
    return words[places].astype(np.int64) << _BITS | words[places + 1], places


def _alike(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether the words (frames,) of two clips agree everywhere, for some small shift between them."""
    return abs(len(a) - len(b)) <= _MAX_LENGTH_GAP and any(
        _errors_are_few(a, b, shift) for shift in range(-_MAX_SHIFT, _MAX_SHIFT + 1)
    )


def _errors_are_few(a: np.ndarray, b: np.ndarray, shift: int) -> bool:
    a, b = a[max(0, shift) :], b[max(0, -shift) :]
    a, b = a[: len(b)], b[: len(a)]
    sounding = (a != 0) | (b != 0)
    if sounding.sum() < _MIN_FRAMES:
        return False
    errors = _COUNT_OF_BITS[a[sounding] ^ b[sounding]]  # (frames,)
    if errors.mean() > _MAX_ERROR * _BITS:
        return False
    section = min(_SECTION, len(errors))
    sums = np.convolve(errors, np.ones(section), "valid")
    return bool(sums.max() <= _MAX_SECTION_ERROR * _BITS * section)


_COUNT_OF_BITS = np.array([bin(number).count("1") for number in range(1 << _BITS)], dtype=np.uint8)


def _words(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Fingerprint words, uint16 (frames,), one per 80 ms; 0 for silence."""
    import soxr

    waveform = np.asarray(waveform, dtype=np.float32)
    if sample_rate != _SAMPLE_RATE and len(waveform):
        waveform = soxr.resample(waveform, sample_rate, _SAMPLE_RATE, quality="LQ")
    if len(waveform) < _STRIDE * _HOP:
        return np.zeros(0, dtype=np.uint16)
    power = _band_power(waveform)  # (hops, bands)
    top = float(power.max())
    if top <= 1e-10:  # -100 dBFS
        return np.zeros(0, dtype=np.uint16)
    level_db = 10 * np.log10(power[_grid_start(waveform) :: _STRIDE] + top * 10 ** (-_RANGE_DB / 10))
    slope_db = level_db[:, 1:] - level_db[:, :-1]  # (frames + 1, bits)
    bits = np.diff(slope_db, axis=0) > _LEAST_DB
    return (bits @ (1 << np.arange(_BITS))).astype(np.uint16)


def _grid_start(waveform: np.ndarray) -> int:
    """Hops to the first frame: the phase of the loudness at one beat per frame, which quiet edges do not move."""
    blocks = waveform[: len(waveform) // _HOP * _HOP].reshape(-1, _HOP)
    loudness = np.einsum("bs,bs->b", blocks, blocks)
    beat = np.exp(2j * np.pi / _STRIDE * np.arange(len(loudness)))
    return round(float(np.angle(loudness @ beat)) / (2 * np.pi) * _STRIDE) % _STRIDE


def _band_power(waveform: np.ndarray) -> np.ndarray:
    """Power of 8 kHz (samples,) in 17 bands, spaced evenly in log frequency, every 8 ms: (hops, bands)."""
    from scipy import fft, signal

    padded = np.pad(waveform, _WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]  # (hops, window)
    window = signal.get_window("hann", _WINDOW).astype(np.float32) / (_WINDOW / 2)
    edges = np.geomspace(*_BAND_HZ, _BITS + 3) * _WINDOW / _SAMPLE_RATE  # in bins
    weights = _triangles(edges)
    blocks = []
    for start in range(0, len(frames), 512):  # flat memory
        spectrum = fft.rfft(frames[start : start + 512] * window, axis=1)
        blocks.append((spectrum.real**2 + spectrum.imag**2) @ weights)
    return np.concatenate(blocks)


def _triangles(edges: np.ndarray) -> np.ndarray:
    bins = np.arange(_WINDOW // 2 + 1)[:, None]
    low, mid, high = edges[:-2], edges[1:-1], edges[2:]
    return np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)).clip(0).astype(np.float32)
