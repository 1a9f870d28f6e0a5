"""The report on a data set: one HTML page from the manifest's rows. What was kept, what was not, and what to listen to.

The page has no scripts and its size is bounded: of long lists the worst are shown, with the number of those that are not.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ..html import COLOURS, page, pairs, text
from .charts import Share, histograms, stacked_bar
from .findings import Finding, Judge, Problem, Row, figure, find, plural, seconds_of, speaker_of
from .wording import (
    ALIKE,
    BANDWIDTH,
    DURATION,
    LOUDNESS,
    MARK,
    NAME,
    RATE,
    SNR,
    TEXT,
    clock,
    from_to,
    not_shown,
    shortener,
)
from .worst import STYLE, worst_clips

_LEFT_OUT_SHOWN = 300  # segments
_SPEAKERS_SHOWN = 100
_CATEGORIES_SHOWN = 20  # reasons with a table of their own
_OTHER = "other reasons"

_STYLE = """
:root { --pause: #ccd2d9; } @media (prefers-color-scheme: dark) { :root { --pause: #464e57; } }
body { max-width: 1160px; overflow-wrap: anywhere; } th { overflow-wrap: normal; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: .8rem 0 0; } a { color: var(--s0); }
a:focus-visible, summary:focus-visible, .wide:focus-visible { outline: 2px solid var(--s0); outline-offset: 2px; }
.stack { display: flex; gap: 2px; height: 26px; margin: .8rem 0; border-radius: 4px; overflow: hidden; }
.stack span { min-width: 2px; flex-basis: 0; }
ul.findings { margin: 0; padding: 0; list-style: none; max-width: 62rem; }
ul.findings li { padding: .55rem 0; border-bottom: 1px solid var(--line); } ul.findings b, ul.findings span { display: block; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 1.6rem 2rem; }
.tick { stroke: var(--soft); } .limit { stroke: var(--ink); stroke-dasharray: 4 3; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; margin: 0 0 1rem; }
td.name { white-space: normal; min-width: 9rem; max-width: 24rem; }
details { margin: .4rem 0; } summary { cursor: pointer; padding: .35rem 0; font-weight: 600; }
@media (max-width: 760px) { body { padding: 1.2rem 1rem 3rem; } }
"""


def render(
    rows: Sequence[Row],
    summary: Mapping[str, Any],
    folder: Path,
    players: int = 40,
    created: str = "",
    versions: Mapping[str, str] | None = None,
) -> str:
    """Return the page for the rows of manifest.jsonl and the content of dataset_summary.json.

    Sounds are read from `folder`, for at most `players` clips and 24 MB of page. `created` is the date to show.
    """
    kept = sorted((row for row in rows if row.get("clip")), key=lambda row: str(row["clip"]))
    left_out = [row for row in rows if not row.get("clip")]
    options = summary.get("processing_options") or {}
    judge = Judge(kept, figure(options, "target_lufs"))
    problems = [judge.problems(row) for row in kept]
    lost: dict[str, float] = defaultdict(float)
    for row in left_out:
        lost[_category(row)] += seconds_of(row) or 0.0
    name = text(folder.resolve().name, NAME)
    sections = {
        "seconds": ("Where every second went", _seconds(kept, left_out, lost, summary)),
        "findings": ("Findings", _findings(find(kept, problems, lost))),
        "figures": ("Figures", histograms(kept)),
        "speakers": ("Speakers", _speakers(kept, problems)),
        "worst": ("Worst clips first", worst_clips(kept, problems, folder, players)),
        "left-out": ("Left out", _left_out(left_out)),
        "options": ("Options", pairs(_flat(options))),
        "versions": ("Versions", pairs(_flat(versions or {}))),
    }
    shown = {key: section for key, section in sections.items() if section[1] != pairs({})}
    links = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in shown.items())
    body = "\n".join(f'<section id="{key}"><h2>{title}</h2>\n{part}</section>' for key, (title, part) in shown.items())
    title = f"<h1>Data set <bdi>{name}</bdi></h1><p>{_totals(kept, left_out)}</p>"
    when = f'<p class="soft">{text(created)}</p>' if created else ""
    nav = f'<nav aria-label="Contents">{links}</nav>'
    return page(f"Data set {folder.resolve().name[:NAME]}", f"{title}{when}{nav}\n{body}", _STYLE + STYLE)


def _totals(kept: Sequence[Row], left_out: Sequence[Row]) -> str:
    minutes = math.fsum(figure(row, "duration_s") or 0.0 for row in kept) / 60
    speakers = len({speaker_of(row) for row in kept})
    sources = len({str(row.get("source")) for row in (*kept, *left_out)})
    return (
        f"<b>{len(kept):,}</b> {plural('clip', len(kept))} · <b>{minutes:,.1f}</b> minutes · "
        f"<b>{speakers}</b> {plural('speaker', speakers)} · from {sources:,} {plural('recording', sources)}, "
        f"{len(left_out):,} {plural('segment', len(left_out))} left out"
    )


def _category(row: Row) -> str:
    return str(row.get("left_out") or "no reason given").split(":", 1)[0].strip()[:NAME] or "no reason given"


def _seconds(kept: Sequence[Row], left_out: Sequence[Row], lost: dict[str, float], summary: Mapping[str, Any]) -> str:
    """The stacked bar and its table. What the rows and the summary do not explain is shown as such."""
    totals = summary.get("input") or {}
    number = Counter(map(_category, left_out))
    kept_s = math.fsum(seconds_of(row) or 0.0 for row in kept)
    shares = [(Share("kept", "var(--s0)", kept_s), len(kept))]
    ordered = sorted(lost, key=lambda name: (-lost[name], name))
    for index, name in enumerate(ordered[: COLOURS - 1]):
        shares.append((Share(name, f"var(--s{index + 1})", lost[name]), number[name]))
    if rest := ordered[COLOURS - 1 :]:
        seconds, count = math.fsum(lost[name] for name in rest), sum(number[name] for name in rest)
        shares.append((Share(_OTHER, "var(--soft)", seconds), count))
    pauses = figure(totals, "seconds_of_pauses")
    if pauses is not None:
        shares.append((Share("pauses between segments", "var(--pause)", pauses), 0))
    told = math.fsum(share.seconds for share, _ in shares)
    total = figure(totals, "seconds")
    if total is None:
        total = told
    gap = total - told
    notes = []
    if gap > max(0.5, 1e-4 * total):
        shares.append((Share("not explained", "var(--ink)", gap), 0))
    elif gap < -max(0.5, 1e-4 * total):
        notes.append(f"{-gap:,.1f} s are counted more than once.")
    unknown = sum(seconds_of(row) is None for row in left_out)
    if unknown:
        words = "file has" if unknown == 1 else "files have"
        notes.append(f"{unknown:,} left-out {words} an unknown length, as they cannot be read, and count as 0 s.")
    whole = max(total, told) or 1.0
    lines = [
        f'<tr><td class="name"><span class="key" style="background:{share.colour}"></span><bdi>{text(share.name)}</bdi></td>'
        f"<td>{share.seconds:,.1f}</td><td>{100 * share.seconds / whole:.1f} %</td><td>{clock(share.seconds)}</td>"
        f"<td>{f'{count:,}' if count else ''}</td></tr>"
        for share, count in shares
    ]
    lines.append(f"<tr><th>all input</th><td>{total:,.1f}</td><td></td><td>{clock(total)}</td><td></td></tr>")
    head = "<tr><th>Part</th><th>Seconds</th><th>Share</th><th>h:min:s</th><th>Segments</th></tr>"
    bar = stacked_bar([share for share, _ in shares], "Seconds of the input by what became of them, as in the table")
    note = f'<p class="soft">{" ".join(notes)}</p>' if notes else ""
    return bar + _table("Seconds", head, lines) + note


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return "<p>Nothing stands out. Listen to a few clips below all the same.</p>"
    items = "".join(f'<li><b dir="auto">{text(f.title)}</b><span>{text(f.advice)}</span></li>' for f in findings)
    note = (
        "Delete a clip's .wav and its .lab, and it stays out; delete the .wav alone, and the next run makes it again."
    )
    return f'<ul class="findings">{items}</ul><p class="soft">{note}</p>'


def _speakers(kept: Sequence[Row], problems: Sequence[Sequence[Problem]]) -> str:
    own: dict[str, list[Row]] = defaultdict(list)
    troubled: Counter[str] = Counter()
    for row, found in zip(kept, problems):
        own[speaker_of(row)].append(row)
        troubled[speaker_of(row)] += bool(found)
    seconds = {name: math.fsum(figure(row, "duration_s") or 0.0 for row in rows) for name, rows in own.items()}
    total = math.fsum(seconds.values()) or 1.0
    ordered = sorted(own, key=lambda name: (-seconds[name], name))
    measures = [
        m for m in (DURATION, LOUDNESS, SNR, RATE, BANDWIDTH, ALIKE, MARK) if any(m.value(r) is not None for r in kept)
    ]
    lines = []
    for name in ordered[:_SPEAKERS_SHOWN]:
        medians = []
        for measure in measures:
            values = [value for row in own[name] if (value := measure.value(row)) is not None]
            medians.append(f"<td>{measure.number(median(values)) if values else '–'}</td>")
        lines.append(
            f'<tr><td class="name"><bdi>{text(name, NAME)}</bdi></td><td>{len(own[name]):,}</td>'
            f"<td>{seconds[name] / 60:,.1f}</td><td>{100 * seconds[name] / total:.1f} %</td>"
            f"<td>{troubled[name]:,}</td>{''.join(medians)}</tr>"
        )
    head = "<tr><th>Speaker</th><th>Clips</th><th>Minutes</th><th>Share</th><th>With a problem</th>"
    head += "".join(f"<th>{m.title}<small>median{m.unit and ', ' + m.unit}</small></th>" for m in measures) + "</tr>"
    return _table("Speakers", head, lines) + not_shown(len(ordered) - _SPEAKERS_SHOWN, "speaker")


def _left_out(left_out: Sequence[Row]) -> str:
    """All segments that were left out, by reason; of many, the first of each reason."""
    if not left_out:
        return "<p>Nothing was left out.</p>"
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in left_out:
        groups[_category(row)].append(row)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    if len(ordered) > _CATEGORIES_SHOWN:
        rest = [row for _, rows in ordered[_CATEGORIES_SHOWN - 1 :] for row in rows]
        ordered = [*ordered[: _CATEGORIES_SHOWN - 1], (_OTHER, rest)]
    limit = len(left_out) if len(left_out) <= _LEFT_OUT_SHOWN else max(5, _LEFT_OUT_SHOWN // len(ordered))
    shorten = shortener(row.get("source") for row in left_out)
    parts = []
    for name, rows in ordered:
        shown = sorted(rows, key=lambda row: (str(row.get("source")), figure(row, "start_s") or 0.0))[:limit]
        details = [_details(row, whole=name == _OTHER) for row in shown]
        columns = {"Details": details, "Text": [str(row.get("text") or "") for row in shown]}
        columns = {title: cells for title, cells in columns.items() if any(cells)}
        lines = []
        for index, row in enumerate(shown):
            source, length = text(shorten(row.get("source")), NAME), DURATION.show(seconds_of(row))
            words = (f'<td class="text" dir="auto">{text(cells[index], TEXT)}</td>' for cells in columns.values())
            lines.append(
                f'<tr><td class="name"><bdi>{source}</bdi></td><td>{from_to(row)}</td><td>{length}</td>{"".join(words)}</tr>'
            )
        head = "<tr><th>Source</th><th>From – to</th><th>Length</th>"
        head += "".join(f'<th class="text">{title}</th>' for title in columns) + "</tr>"
        seconds = math.fsum(seconds_of(row) or 0.0 for row in rows)
        count = f"{len(rows):,} {plural('segment', len(rows))}, {seconds:,.1f} s"
        opened = " open" if len(lines) <= 10 else ""
        table = _table(f"Left out: {name}", head, lines) + not_shown(len(rows) - len(lines), "segment")
        parts.append(
            f'<details{opened}><summary><bdi>{text(name)}</bdi> <span class="soft">{count}</span></summary>{table}</details>'
        )
    return "".join(parts)


def _details(row: Row, whole: bool) -> str:
    """What follows the category in a row's reason, or the `whole` reason."""
    reason = str(row.get("left_out") or "no reason given")
    return reason if whole else reason.partition(":")[2].strip()


def _table(label: str, head: str, lines: Sequence[str]) -> str:
    """A table in a box that scrolls by itself, by keyboard too."""
    box = f'<div class="wide" tabindex="0" role="region" aria-label="{text(label, NAME)}">'
    return f"{box}<table><thead>{head}</thead><tbody>{''.join(lines)}</tbody></table></div>"


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    shown: dict[str, str] = {}
    for name, value in list(values.items())[:100]:
        if isinstance(value, Mapping):
            shown |= {f"{name} {key}": inner for key, inner in _flat(value).items()}
        elif value is not None and value != []:
            words = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            shown[str(name)[:NAME]] = {"True": "yes", "False": "no"}.get(words, words)[:TEXT]
    return shown
