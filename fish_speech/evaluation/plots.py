"""Strip plots as inline SVG: a row per system, a dot per clip, a bar at the system's figure. Drawn by hand: no library.

Colours and fonts come from the page's style sheet (classes dot, bar, grid, label; --s0 to --s7 are the systems).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..html import COLOURS, nice_ticks, text
from .summary import Column, clip_value

_LEFT, _WIDTH, _RIGHT, _ROW, _TOP, _BOTTOM = 130, 400, 24, 34, 8, 30  # pixels
_SPREAD = 9  # pixels up and down over which dots are spread so that equal values stay visible


def strip_plot(column: Column, results: Sequence[Mapping[str, Any]]) -> str:
    """Draw the clips' figures of one column; empty if no clip has one."""
    rows = [
        [float(v) for clip in result["clips"] if (v := clip_value(clip, column.key)) is not None] for result in results
    ]
    values = [value for row in rows for value in row]
    if not values:
        return ""
    ticks = nice_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    height = _TOP + _ROW * len(rows) + _BOTTOM
    parts = [f'<svg viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" role="img" aria-label="{text(column.title)}">']

    def x(value: float) -> float:
        return _LEFT + _WIDTH * (value - low) / (high - low)

    for tick in ticks:
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}"/>')
        parts.append(f'<text class="label" x="{x(tick):.1f}" y="{height - 10}" text-anchor="middle">{tick:g}</text>')
    for index, (result, row) in enumerate(zip(results, rows)):
        y, colour = _TOP + _ROW * (index + 0.5), f"var(--s{index % COLOURS})"
        name = text(result["name"], 18)
        parts.append(f'<text class="label" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{name}</text>')
        for number, value in enumerate(row):
            offset = _SPREAD * (2 * (number * 0.618034 % 1) - 1)  # golden ratio: neighbours land far apart
            parts.append(f'<circle class="dot" cx="{x(value):.1f}" cy="{y + offset:.1f}" r="3" fill="{colour}"/>')
        figure = result["summary"].get(column.key)
        if figure is not None and row and low <= figure <= high:
            span = f'y1="{y - 13:.1f}" y2="{y + 13:.1f}"'
            parts.append(f'<line class="bar" x1="{x(figure):.1f}" x2="{x(figure):.1f}" {span} stroke="{colour}"/>')
    return "".join([*parts, "</svg>"])
