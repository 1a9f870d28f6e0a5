"""Histograms and a stacked bar, drawn by hand as inline SVG and HTML: no library, no scripts.

Colours and fonts come from the page's style sheet (fish_speech.html): --s0 to --s7 are the speakers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

from ..html import COLOURS, nice_ticks, text
from .findings import Row, speaker_of
from .wording import PLOTTED

_LEFT, _WIDTH, _RIGHT, _TOP, _HEIGHT, _BOTTOM = 42, 340, 12, 26, 150, 40  # pixels
_BINS = 24  # about
_FENCE = 4.0  # times the distance of the quartiles; beyond, a value would squeeze all others into a few bars


class Series(NamedTuple):
    """The values of one speaker."""

    name: str
    colour: str  # as in CSS
    values: Sequence[float]


def histogram(title: str, axis: str, series: Sequence[Series], limit: float | None = None) -> str:
    """Draw how many clips have which value, series stacked; empty if there are no values.

    `axis` names the x axis with its unit. `limit` is marked by a dashed line if it is within the axis. Values far from
    the rest are counted in the outermost bars, which then say so.
    """
    everything = np.array([value for one in series for value in one.values], dtype=np.float64)
    if not len(everything):
        return ""
    edges = bin_edges(everything)
    low, high = float(edges[0]), float(edges[-1])
    counts = [np.histogram(np.clip(one.values, low, high), edges)[0] if len(one.values) else None for one in series]
    tallest = max(int(sum(own[index] for own in counts if own is not None)) for index in range(len(edges) - 1))
    y_ticks = _round_edges(0, tallest, 4, whole=True)
    top, bottom = float(y_ticks[-1]), _TOP + _HEIGHT

    def x(value: float) -> float:
        return _LEFT + _WIDTH * (value - low) / (high - low)

    parts = [f'<svg viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {bottom + _BOTTOM}" role="img" aria-label="{text(title)}">']
    for tick in y_ticks:
        y = bottom - _HEIGHT * tick / top
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="label" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:,.0f}</text>')
    below, above = bool((everything < low).any()), bool((everything > high).any())
    for index in range(len(edges) - 1):
        left, right, y = x(edges[index]) + 0.5, x(edges[index + 1]) - 0.5, float(bottom)
        span = f"{edges[index]:g}–{edges[index + 1]:g}"
        if index == 0 and below:
            span = f"below {edges[1]:g}"
        elif index == len(edges) - 2 and above:
            span = f"above {edges[-2]:g}"
        for one, own in zip(series, counts):
            count = 0 if own is None else int(own[index])
            if not count:
                continue
            height = _HEIGHT * count / top
            y -= height
            label = f"{axis}: {span}, {count} clips" + (f", {one.name[:60]}" if len(series) > 1 else "")
            parts.append(
                f'<rect x="{left:.1f}" y="{y:.1f}" width="{max(right - left, 0.5):.1f}" height="{height:.2f}" '
                f'fill="{one.colour}"><title>{text(label)}</title></rect>'
            )
    for tick in nice_ticks(low, high, 6):
        if low - 1e-9 <= tick <= high + 1e-9:
            parts.append(f'<line class="tick" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{bottom}" y2="{bottom + 4}"/>')
            parts.append(
                f'<text class="label" x="{x(tick):.1f}" y="{bottom + 17}" text-anchor="middle">{_minus(f"{tick:g}")}</text>'
            )
    if limit is not None and low < limit < high:
        parts.append(f'<line class="limit" x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="{_TOP - 8}" y2="{bottom}"/>')
    middle = _LEFT + _WIDTH / 2
    parts.append(f'<text class="label" x="{middle}" y="{bottom + 34}" text-anchor="middle">{text(axis)}</text>')
    parts.append(f'<text class="label" x="{_LEFT - 6}" y="{_TOP - 14}" text-anchor="end">clips</text></svg>')
    return "".join(parts)


def bin_edges(values: np.ndarray) -> np.ndarray:
    """Edges of about 24 bars at round numbers. They hold all values but those beyond 4 quartile distances."""
    first, third = np.percentile(values, (25, 75))
    fence = _FENCE * (third - first)
    inside = values[(values >= first - fence) & (values <= third + fence)] if fence > 0 else values
    low, high = float(inside.min()), float(inside.max())
    span = high - low
    if span < 1e-3 * max(1.0, abs(high)):  # one value: a few bars around it
        span = max(1.0, 0.1 * abs(high))
        low, high = low - span / 2, high + span / 2
    return _round_edges(low, high, _BINS)


def _round_edges(low: float, high: float, parts: int, whole: bool = False) -> np.ndarray:
    """Multiples of a round number that enclose low to high, in about `parts` parts; `whole` numbers if asked for."""
    raw = max((high - low) / parts, 1.0 if whole else 0.0)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return np.round(np.arange(start, max(end, start + 1) + 1) * step, 10)


def _minus(number: str) -> str:
    return number.replace("-", "−")


class Share(NamedTuple):
    """A part of a whole."""

    name: str
    colour: str  # as in CSS
    seconds: float


def stacked_bar(shares: Sequence[Share], label: str) -> str:
    """A bar across the page, one part per share; empty if the shares add up to nothing."""
    total = math.fsum(share.seconds for share in shares)
    if total <= 0:
        return ""
    parts = [
        f'<span style="flex-grow:{share.seconds / total:.6f};background:{share.colour}" '
        f'title="{text(share.name, 120)}: {100 * share.seconds / total:.1f} %"></span>'
        for share in shares
        if share.seconds > 0
    ]
    return f'<div class="stack" role="img" aria-label="{text(label)}">{"".join(parts)}</div>'


def histograms(kept: Sequence[Row]) -> str:
    """A histogram for each measure; speakers in colours, the ones with most clips first."""
    counts = Counter(map(speaker_of, kept)).most_common()
    fitting = counts if len(counts) <= COLOURS else counts[: COLOURS - 1]
    groups = {name: (name, f"var(--s{index})") for index, (name, _) in enumerate(fitting)}
    other = (f"{len(counts) - len(fitting)} other speakers", "var(--soft)")
    plots, without = [], []
    for measure in PLOTTED:
        values: dict[tuple[str, str], list[float]] = {group: [] for group in (*groups.values(), other)}
        for row in kept:
            if (value := measure.value(row)) is not None:
                values[groups.get(speaker_of(row), other)].append(value)
        everything = [value for own in values.values() for value in own]
        if not everything:
            without.append(measure.title)
            continue
        series = [Series(name, colour, own) for (name, colour), own in values.items() if own]
        least = measure.number(min(everything))
        told = f"median {measure.show(median(everything))}, from {least} to {measure.show(max(everything))}"
        if len(everything) < len(kept):
            told += f"; measured for {len(everything):,} of {len(kept):,}"
        note = f'<span class="soft">{text(measure.note)}</span>' if measure.note else ""
        caption = f'<figcaption>{measure.title}<span class="soft">{told}</span>{note}</figcaption>'
        drawing = histogram(f"{measure.title}: {told}", measure.axis, series, measure.limit)
        plots.append(f"<figure>{caption}{drawing}</figure>")
    if not plots:
        return "<p>No clip has a figure.</p>"
    legend = ""
    if len(counts) > 1:
        shown = [*groups.values(), *([other] if len(counts) > len(fitting) else [])]
        keys = (
            f'<span><span class="key" style="background:{c}"></span><bdi>{text(n, 80)}</bdi></span>' for n, c in shown
        )
        legend = f'<p class="legend">{"".join(keys)}</p>'
    absent = f'<p class="soft">Not measured: {", ".join(without)}.</p>' if without else ""
    note = '<p class="soft">A dashed line is the limit of a problem. Point at a bar for its numbers.</p>'
    return f'{note}{legend}<div class="plots">{"".join(plots)}</div>{absent}'
