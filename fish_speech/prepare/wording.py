"""How figures, times and names of a data set are written for a person to read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from .findings import BANDWIDTH_HZ, CONFIDENCE, DNSMOS, SNR_DB, Row, figure, plural

NAME, TEXT = 160, 400  # characters of a name and of a transcript that are shown
_SEPARATOR = re.compile(r"[/\\]")


@dataclass(frozen=True)
class Figure:
    """A measure of clips, as it is shown."""

    key: str  # in a row
    title: str
    unit: str
    digits: int = 1
    scale: float = 1.0
    limit: float | None = None  # in shown units; marked in the histogram
    note: str = ""

    def value(self, row: Row) -> float | None:
        """The clip's figure in shown units."""
        value = figure(row, self.key)
        return None if value is None else value * self.scale

    def show(self, value: float | None) -> str:
        """A figure with its unit; a dash where there is none."""
        return "–" if value is None else f"{self.number(value)} {self.unit}".strip()

    def number(self, value: float) -> str:
        """A figure without its unit."""
        return f"{value:.{self.digits}f}".replace("-", "−") if value else "0"

    @property
    def axis(self) -> str:
        """Title and unit."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


DURATION = Figure("duration_s", "Duration", "s")
LOUDNESS = Figure("lufs", "Loudness", "LUFS", note="integrated, ITU-R BS.1770")
SNR = Figure("snr_db", "SNR", "dB", limit=SNR_DB, note=f"below {SNR_DB:g} dB is noisy")
RATE = Figure("characters_per_s", "Speaking rate", "characters/s", note="letters and digits per second of the clip")
BANDWIDTH = Figure("bandwidth_hz", "Bandwidth", "kHz", scale=1e-3, limit=BANDWIDTH_HZ / 1000,
                   note="the frequencies actually used, whatever rate the file has")  # fmt: skip
MARK = Figure("dnsmos", "DNSMOS", "", 2, limit=DNSMOS, note="imitates listeners' marks, 1–5")
SURE = Figure("confidence", "Confidence", "", 2, limit=CONFIDENCE, note="of the text, 0–1")
PEAK = Figure("peak_dbfs", "Peak", "dBFS")
CLIPPED = Figure("clipped_share", "Clipped", "%", 3, scale=100)
GAIN = Figure("gain_db", "Gain", "dB")
ALIKE = Figure("speaker_similarity", "Similarity", "", 2)
PLOTTED = (DURATION, LOUDNESS, SNR, RATE, BANDWIDTH, MARK, SURE)
PER_CLIP = (DURATION, LOUDNESS, PEAK, GAIN, CLIPPED, SNR, BANDWIDTH, RATE, SURE, ALIKE, MARK)


def not_shown(count: int, what: str, which: str = "") -> str:
    """How many of a long list are missing, as a paragraph; nothing if none is."""
    if count <= 0:
        return ""
    return f'<p class="soft">{count:,} more {plural(what, count)}{which} not shown; manifest.jsonl has them all.</p>'


def from_to(row: Row) -> str:
    """Where in its source a row lies."""
    start, end = figure(row, "start_s"), figure(row, "end_s")
    if start is None or end is None:
        return ""
    return f"{clock(start, 2)} – {clock(end, 2)}"


def clock(seconds: float, digits: int = 0) -> str:
    """Hours, minutes and seconds: 1:02:03, or 2:03.45 below an hour."""
    units = round(abs(seconds) * 10**digits)
    whole, part = divmod(units, 10**digits)
    minutes, left = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    tail = f"{left:02d}" + (f".{part:0{digits}d}" if digits else "")
    return f"{hours}:{minutes:02d}:{tail}" if hours or not digits else f"{minutes}:{tail}"


def shortener(sources: Iterable[Any]) -> Callable[[Any], str]:
    """Return a function that drops from a source's path the folders that all `sources` share."""
    split = [_SEPARATOR.split(str(source))[:-1] for source in sources if source]
    low, high = (min(split), max(split)) if split else ([], [])
    shared = 0
    while shared < min(len(low), len(high)) and low[shared] == high[shared]:
        shared += 1

    def shorten(source: Any) -> str:
        return "/".join(_SEPARATOR.split(str(source))[shared:]) if source else ""

    return shorten
