"""The report: one HTML file that holds everything, sound included. No scripts, no links to other files or sites."""

from __future__ import annotations

import base64
import difflib
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .plots import COLOURS, strip_plot
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
_MAX_PLAYER_S = 60.0  # seconds of a clip that go into the page; the rest is in the WAV file

# Nothing may be loaded from anywhere, whatever a transcript or a name holds.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src data:; img-src data:"

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c2024; --soft: #626a73; --line: #dfe3e8; --band: #f5f7f9;
  --best: #e3f4e8; --wrong: #fde4e0; --miss: #b42318;
  --s0: #2563b0; --s1: #d9730d; --s2: #15803d; --s3: #a3327f; --s4: #7a5c00; --s5: #0e7490; --s6: #b42318; --s7: #5b5bd6; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e8eb; --soft: #9aa3ad; --line: #30363d;
  --band: #1c2127; --best: #17351f; --wrong: #4a211c; --miss: #ff9b8e;
  --s0: #6ea8fe; --s1: #f5a04e; --s2: #5cc98a; --s3: #e58fc9; --s4: #d9b84a; --s5: #58c4dc; --s6: #ff8f85; --s7: #a7a7ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 1500px; background: var(--paper); color: var(--ink);
  font: 14px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; }
p { margin: .3rem 0 .8rem; } .soft { color: var(--soft); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: .35rem .45rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: middle;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: .85rem; white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child, td.text, th.text { text-align: left; } td.text { white-space: normal; min-width: 16rem; }
td.best { background: var(--best); font-weight: 600; } small { color: var(--soft); display: block; font-weight: 400; }
td.system { white-space: normal; min-width: 9rem; overflow-wrap: anywhere; }
tr.sentence td { text-align: left; white-space: normal; background: var(--band); font-weight: 600; padding-top: .6rem; }
.key { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em; }
mark { background: var(--wrong); color: inherit; border-radius: 3px; padding: 0 .15em; }
del { color: var(--miss); } audio { height: 32px; width: 180px; display: block; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1.2rem 2rem; }
figure { margin: 0; } figcaption { font-weight: 600; } figcaption .soft { display: block; font-weight: 400; font-size: .9em; }
svg { width: 100%; height: auto; display: block; }
.grid { stroke: var(--line); } .label { fill: var(--soft); font-size: 12px; } .dot { opacity: .55; }
.bar { stroke-width: 3; stroke-linecap: round; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
""" + "".join(f".s{i} {{ background: var(--s{i}); }} " for i in range(COLOURS))


def render(report: Mapping[str, Any], folder: Path, players: int = 20) -> str:
    """Return the page for the content of results.json; sounds are read from `folder`, `players` of each system."""
    results: Sequence[Result] = report["systems"]
    body = [
        "<h1>Speech evaluation</h1>",
        f'<p class="soft">{_text(report["created"])} · {len(results)} systems</p>',
        "<h2>Summary</h2>",
        _summary(results),
        "<h2>Clips</h2>",
        '<p class="soft">A dot is a clip, the bar is the figure of the whole system.</p>',
        _plots(results),
        "<h2>Sentences</h2>",
        '<p class="soft">What the recogniser heard: <mark>wrong or added words</mark>, <del>missing words</del>. '
        "All sounds are in the folder audio/ beside this page.</p>",
        _sentences(results, folder, players),
        "<h2>Figures</h2>",
        _pairs({column.title: column.meaning for column in columns_of(results)}),
        "<h2>Settings</h2>",
        _pairs(_flat(report["settings"])),
        "<h2>Versions</h2>",
        _pairs(report["versions"]),
    ]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>Speech evaluation</title><style>{_STYLE}</style>"
    )
    joined = "\n".join(body)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{joined}\n</body></html>\n'


def _summary(results: Sequence[Result]) -> str:
    columns = columns_of(results)
    arrows = {"higher": "&nbsp;↑", "lower": "&nbsp;↓", "": ""}
    head = "".join(f'<th title="{_text(c.meaning)}">{_text(c.title)}{arrows[c.better]}</th>' for c in columns)
    rows = []
    for index, result in enumerate(results):
        summary = result["summary"]
        failed = f"<small>{summary['failed']} failed</small>" if summary["failed"] else ""
        cells = [
            f'<td class="system">{_named(index, result["name"])}'
            f"<small>{_text(result['kind'])}: {_text(result['source'])}</small></td>"
        ]
        cells.append(f"<td>{summary['clips']}{failed}</td>")
        cells += [_summary_cell(column, result, results) for column in columns]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    note = '<p class="soft">↑ higher is better, ↓ lower is better; the best of several systems is shaded. '
    note += "Below WER and CER: the range that 95 % of draws of clips give.</p>"
    return f'{note}<div class="wide"><table><tr><th>System</th><th>Clips</th>{head}</tr>{"".join(rows)}</table></div>'


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
            caption = f'{_text(column.title)} <span class="soft">{_text(column.meaning)}</span>'
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
        lines.append(f'<tr class="sentence"><td colspan="{len(columns) + 3}">{_text(sentence)}</td></tr>')
        for index, row in rows:
            player = ""
            if row.get("audio") and left[index] > 0:
                player, left[index] = _player(folder / row["audio"]), left[index] - 1
            cells = [f"<td>{_named(index, results[index]['name'])}</td>", f"<td>{player}</td>"]
            cells.append(f'<td class="text">{_heard(row)}</td>')
            cells += [f"<td>{_clip_figure(column, row)}</td>" for column in columns]
            lines.append(f"<tr>{''.join(cells)}</tr>")
    head = "".join(f'<th title="{_text(c.meaning)}">{_clip_title(c)}</th>' for c in columns)
    head = f'<tr><th>System</th><th class="text">Listen</th><th class="text">Heard</th>{head}</tr>'
    return f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'


def _clip_title(column: Column) -> str:
    return "seconds" if column.key == "duration_s" else _text(column.title)


def _clip_figure(column: Column, row: Mapping[str, Any]) -> str:
    return column.show(clip_value(row, column.key))


def _heard(row: Mapping[str, Any]) -> str:
    if row.get("failure"):
        return f"<mark>failed: {_text(row['failure'])}</mark>"
    if row.get("note"):
        return f"<mark>{_text(row['note'])}</mark>"
    if "heard" not in row:
        return ""
    expected, heard = row["expected"].split(), row["heard"].split()
    parts = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, expected, heard, autojunk=False).get_opcodes():
        wanted, got = _text(" ".join(expected[a:b])), _text(" ".join(heard[c:d]))
        if kind == "equal":
            parts.append(got)
        elif kind == "delete":
            parts.append(f"<del>{wanted}</del>")
        else:
            parts.append(f'<mark title="{wanted}">{got}</mark>')
    return " ".join(parts)


def _player(path: Path) -> str:
    """An audio element that holds the sound itself as FLAC: whole, and half the size of WAV."""
    import soundfile

    with soundfile.SoundFile(path) as file:
        samples, rate = file.read(int(_MAX_PLAYER_S * file.samplerate), dtype="int16"), file.samplerate
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<audio controls preload="metadata" src="data:audio/flac;base64,{data}"></audio>'


def _named(index: int, name: str) -> str:
    return f'<span class="key s{index % COLOURS}"></span>{_text(name)}'


def _pairs(values: Mapping[str, Any]) -> str:
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in values.items())
    return f"<dl>{rows}</dl>"


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in values.items()
        if value is not None and value != []
    }


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)
