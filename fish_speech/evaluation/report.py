"""The report: one HTML file that holds everything, sound included. No scripts, no links to other files or sites."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..html import COLOURS, page, pairs, player, text
from .plots import strip_plot
from .summary import COLUMNS, Column, clip_value, columns_of

Result = Mapping[str, Any]

_PLOTTED = (
    "wer",
    "similarity",
    "similarity_to_original",
    "mel_l1",
    "dnsmos_overall",
    "words_per_s",
    "trailing_silence_s",
)
_PER_CLIP = ("wer", "similarity", "similarity_to_original", "mel_l1", "dnsmos_overall", "words_per_s", "duration_s",
             "trailing_silence_s", "ends_by_itself")  # fmt: skip

_STYLE = """
td.best { background: var(--best); font-weight: 600; }
p.conclusion { font-size: 1.1rem; font-weight: 600; margin-top: 1rem; }
.note { background: var(--best); border-radius: 3px; padding: 0 .3em; font-size: .85em; }
td.system { white-space: normal; min-width: 9rem; overflow-wrap: anywhere; }
tr.sentence td { text-align: left; white-space: normal; background: var(--band); font-weight: 600; padding-top: .6rem; }
mark { background: var(--wrong); color: inherit; border-radius: 3px; padding: 0 .15em; } del { color: var(--miss); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1.2rem 2rem; }
.dot { opacity: .55; } .bar { stroke-width: 3; stroke-linecap: round; }
"""


def render(
    report: Mapping[str, Any],
    folder: Path,
    players: int = 20,
    title: str = "Speech evaluation",
    conclusion: Sequence[str] = (),
    notes: Mapping[str, str] | None = None,
) -> str:
    """Return the page for the content of results.json; sounds are read from `folder`, `players` of each system.

    `conclusion`: lines that open the page; `notes`: what to add to a system's name in the summary.
    """
    results: Sequence[Result] = report["systems"]
    body = [
        f"<h1>{text(title)}</h1>",
        f'<p class="soft">{text(report["created"])} · {len(results)} systems</p>',
        *(f'<p class="conclusion">{text(line)}</p>' for line in conclusion[:1]),
        *(f"<p>{text(line)}</p>" for line in conclusion[1:]),
        "<h2>Summary</h2>",
        _summary(results, notes or {}),
        "<h2>Clips</h2>",
        '<p class="soft">A dot is a clip, the bar is the figure of the whole system.</p>',
        _plots(results),
        "<h2>Sentences</h2>",
        '<p class="soft">What the recogniser heard: <mark>wrong or added words</mark>, <del>missing words</del>. '
        "All sounds are in the folder audio/ beside this page.</p>",
        _sentences(results, folder, players),
        "<h2>Figures</h2>",
        pairs({column.title: column.meaning for column in columns_of(results)}),
        "<h2>Settings</h2>",
        pairs(_flat(report["settings"])),
        "<h2>Versions</h2>",
        pairs(report["versions"]),
    ]
    return page(title, "\n".join(body), _STYLE)


def _summary(results: Sequence[Result], notes: Mapping[str, str]) -> str:
    columns = columns_of(results)
    arrows = {"higher": "&nbsp;↑", "lower": "&nbsp;↓", "": ""}
    head = "".join(f'<th title="{text(c.meaning)}">{text(c.title)}{arrows[c.better]}</th>' for c in columns)
    rows = []
    for index, result in enumerate(results):
        summary = result["summary"]
        failed = f"<small>{summary['failed']} failed</small>" if summary["failed"] else ""
        cells = [
            f'<td class="system">{_named(index, result["name"])}{_note(notes.get(result["name"]))}'
            f"<small>{text(result['kind'])}: {text(result['source'])}</small></td>"
        ]
        cells.append(f"<td>{summary['clips']}{failed}</td>")
        cells += [_summary_cell(column, result, results) for column in columns]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    note = '<p class="soft">↑ higher is better, ↓ lower is better; the best of several systems is shaded. '
    note += "Below WER and CER: the range that 95 % of draws of clips give.</p>"
    return f'{note}<div class="wide"><table><tr><th>System</th><th>Clips</th>{head}</tr>{"".join(rows)}</table></div>'


def _note(note: str | None) -> str:
    return f' <span class="note">{text(note)}</span>' if note else ""


def _summary_cell(column: Column, result: Result, results: Sequence[Result]) -> str:
    value = result["summary"].get(column.key)
    others = [r["summary"][column.key] for r in results if r["summary"].get(column.key) is not None]
    best = {"higher": max, "lower": min}.get(column.better)
    shaded = (
        best is not None and value is not None and len(others) > 1 and value == best(others) and len(set(others)) > 1
    )
    interval = result["summary"].get(f"{column.key}_95")
    below = f"<small>{interval[0]:.2f}–{interval[1]:.2f}</small>" if interval else ""
    opening = '<td class="best">' if shaded else "<td>"
    return f"{opening}{column.show(value)}{below}</td>"


def _plots(results: Sequence[Result]) -> str:
    figures = []
    for column in COLUMNS:
        drawing = strip_plot(column, results) if column.key in _PLOTTED else ""
        if drawing:
            caption = f'{text(column.title)} <span class="soft">{text(column.meaning)}</span>'
            figures.append(f"<figure><figcaption>{caption}</figcaption>{drawing}</figure>")
    return f'<div class="plots">{"".join(figures)}</div>'


def _sentences(results: Sequence[Result], folder: Path, players: int) -> str:
    columns = [column for column in columns_of(results) if column.key in _PER_CLIP]
    groups: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for index, result in enumerate(results):
        for row in result["clips"]:
            groups.setdefault(row["text"] or row["name"], []).append((index, row))
    left = [players] * len(results)
    lines = []
    for sentence, rows in groups.items():
        lines.append(f'<tr class="sentence"><td colspan="{len(columns) + 3}">{text(sentence)}</td></tr>')
        for index, row in rows:
            sound = ""
            if row.get("audio") and left[index] > 0:
                sound, left[index] = player(folder / row["audio"]), left[index] - 1
            cells = [f"<td>{_named(index, results[index]['name'])}</td>", f"<td>{sound}</td>"]
            cells.append(f'<td class="text">{_heard(row)}</td>')
            cells += [f"<td>{_clip_figure(column, row)}</td>" for column in columns]
            lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f'<th title="{text(c.meaning)}">{_clip_title(c)}</th>' for c in columns)
    head = f'<tr><th>System</th><th class="text">Listen</th><th class="text">Heard</th>{head}</tr>'
    return f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'


def _clip_title(column: Column) -> str:
    return "seconds" if column.key == "duration_s" else text(column.title)


def _clip_figure(column: Column, row: Mapping[str, Any]) -> str:
    return column.show(clip_value(row, column.key))


def _heard(row: Mapping[str, Any]) -> str:
    if row.get("failure"):
        return f"<mark>failed: {text(row['failure'])}</mark>"
    if row.get("note"):
        return f"<mark>{text(row['note'])}</mark>"
    if "heard" not in row:
        return ""
    expected, heard = row["expected"].split(), row["heard"].split()
    parts = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, expected, heard, autojunk=False).get_opcodes():
        wanted, got = text(" ".join(expected[a:b])), text(" ".join(heard[c:d]))
        if kind == "equal":
            parts.append(got)
        elif kind == "delete":
            parts.append(f"<del>{wanted}</del>")
        else:
            parts.append(f'<mark title="{wanted}">{got}</mark>')
    return " ".join(parts)


def _named(index: int, name: str) -> str:
    return f'<span class="key s{index % COLOURS}"></span>{text(name)}'


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in values.items()
        if value is not None and value != []
    }
