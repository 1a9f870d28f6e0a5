"""The clips to listen to first: by badness, with a player, the text, the reasons and all figures of each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from ..html import player, text
from .findings import Problem, Row, badness, figure, plural
from .wording import NAME, PER_CLIP, TEXT, from_to, not_shown, shortener

_SHOWN = 60  # clips with a problem
_AT_LEAST_SHOWN = 10  # clips, if there are no more with a problem: to listen into the set
_PLAYER_BYTES = 24_000_000  # of all players together

STYLE = """
ol.clips { list-style: none; margin: 0; padding: 0; }
ol.clips li { display: grid; grid-template-columns: 230px minmax(0, 5fr) minmax(0, 3fr); gap: .3rem 1.4rem; padding: .9rem 0;
  border-bottom: 1px solid var(--line); } ol.clips audio { width: 100%; height: 36px; } ol.clips p { margin: 0 0 .25rem; }
.why { margin: 0; padding: 0; list-style: none; color: var(--miss); }
ol.clips .why li { display: block; padding: 0; border: 0; }
.figures { grid-column: 2 / -1; display: flex; flex-wrap: wrap; gap: 0 1.1rem;
  font-variant-numeric: tabular-nums; font-size: .92em; }
.figures span { white-space: nowrap; }
.figures bdi { white-space: normal; } .figures i { font-style: normal; color: var(--soft); }
@media (max-width: 760px) { ol.clips li { grid-template-columns: minmax(0, 1fr); } .figures { grid-column: 1; } }
"""


def worst_clips(kept: Sequence[Row], problems: Sequence[Sequence[Problem]], folder: Path, players: int) -> str:
    """The clips with the highest badness; among equals the noisier, then by name."""

    def order(index: int) -> tuple[float, float, str]:
        snr = figure(kept[index], "snr_db")
        return -badness(problems[index]), math.inf if snr is None else snr, str(kept[index]["clip"])

    ordered = sorted(range(len(kept)), key=order)
    troubled = sum(map(bool, problems))
    shown = ordered[: max(_AT_LEAST_SHOWN, min(troubled, _SHOWN))]
    shorten = shortener(row.get("source") for row in kept)
    items, left = [], _PLAYER_BYTES
    for index in shown:
        row = kept[index]
        sound = ""
        if players > 0 and left > 0:
            sound = _sound(row, folder)
            players, left = players - sound.startswith("<audio"), left - len(sound)
            if left < 0:
                sound = ""
        items.append(_clip(row, problems[index], sound, shorten(row.get("source"))))
    note = (
        f"{troubled:,} of {len(kept):,} {plural('clip', len(kept))} {'has' if troubled == 1 else 'have'} a problem. "
        "The badness of a clip is the sum over its problems: 1 at the limit, more beyond it, at most 5 for each. "
        "The sounds of all clips lie beside this page."
    )
    return f'<p class="soft">{note}</p><ol class="clips">{"".join(items)}</ol>' + not_shown(
        max(0, troubled - len(shown)), "clip", " with a problem"
    )


def _clip(row: Row, problems: Sequence[Problem], sound: str, source: str) -> str:
    figures = "".join(
        f"<span><i>{measure.title}</i> {measure.show(value)}</span>"
        for measure in PER_CLIP
        if (value := measure.value(row)) is not None
    )
    if row.get("transcript"):
        figures += f"<span><i>Text from</i> <bdi>{text(row['transcript'], 60)}</bdi></span>"
    if (rate := figure(row, "sample_rate")) is not None:
        figures += f"<span><i>Source at</i> {rate / 1000:g} kHz</span>"
    reasons = "".join(f"<li><bdi>{text(problem.reason, NAME)}</bdi></li>" for problem in problems)
    why = f'<ul class="why">{reasons}</ul>' if problems else '<span class="soft">no problem found</span>'
    score = f"<small>badness {badness(problems):.1f}</small>" if problems else ""
    return (
        f'<li><div>{sound}</div><div><p dir="auto" class="name">{text(row.get("text") or "", TEXT)}</p>'
        f'<small class="name"><b><bdi>{text(row["clip"], NAME)}</bdi></b></small>'
        f'<small class="name"><bdi>{text(source, NAME)}</bdi> {from_to(row)}</small></div>'
        f'<div>{why}{score}</div><div class="figures">{figures}</div></li>'
    )


def _sound(row: Row, folder: Path) -> str:
    """A player for the clip, or why there is none."""
    try:
        path = (folder / str(row["clip"])).resolve()
        if not path.is_relative_to(folder.resolve()) or not path.is_file():
            return '<span class="soft">the file is not there</span>'
        return player(path, f"Play {str(row['clip'])[:NAME]}")
    except (OSError, ValueError, RuntimeError):  # soundfile's errors are RuntimeErrors
        return '<span class="soft">the file cannot be read</span>'
