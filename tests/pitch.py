"""The pitch of a voice by autocorrelation, in plain numpy: librosa's pyin compiles itself when it is first called, and two
test processes that do so at once have crashed."""

import numpy as np

FRAME_S, HOP_S = 0.05, 0.01
VOICED = 0.6  # normalised autocorrelation; noise and breath are below


def pitch_track(sound: np.ndarray, rate: int, lowest: float = 70.0, highest: float = 600.0) -> np.ndarray:
    """Hz of each voiced frame of (samples,)."""
    size, hop = round(FRAME_S * rate), round(HOP_S * rate)
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(sound, np.float64), size)[::hop]
    frames = frames - frames.mean(axis=1, keepdims=True)
    frames = frames[np.square(frames).mean(axis=1) > 1e-3 * np.square(frames).mean(axis=1).max()]
    longest = min(int(rate / lowest), size - 2)
    spectrum = np.fft.rfft(frames, 2 * size)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[:, : longest + 2]
    ends = np.cumsum(np.square(frames), axis=1)
    lags = np.arange(longest + 2)
    # Energy of the two parts that a lag compares, so that a perfect period gives 1 at any lag.
    first, second = ends[:, size - 1 - lags], ends[:, -1:] - np.where(lags > 0, ends[:, lags - 1], 0.0)
    normed = correlation / np.sqrt(np.maximum(first * second, 1e-12))
    shortest = int(rate / highest)
    found = []
    for row in normed:
        middle = row[shortest : longest + 1]
        is_peak = (middle >= row[shortest - 1 : longest]) & (middle > row[shortest + 1 : longest + 2])
        peaks = shortest + np.flatnonzero(is_peak)
        if not len(peaks) or row[peaks].max() < VOICED:
            continue
        lag = peaks[row[peaks] >= 0.9 * row[peaks].max()][0]  # the shortest period, not a multiple of it
        before, at, after = row[lag - 1 : lag + 2]
        found.append(rate / (lag + 0.5 * (before - after) / (before - 2 * at + after)))
    return np.array(found)


def median_pitch(sound: np.ndarray, rate: int) -> float:
    """Hz, of the voiced frames."""
    return float(np.median(pitch_track(sound, rate)))
