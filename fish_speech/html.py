"""Pages that hold everything, sound included: frame, style, escaped text, players, ticks of axes.

A page has no scripts and refers to nothing outside itself; its policy forbids it, whatever a transcript or a name holds.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLOURS = 8  # in the style sheet, --s0 to --s7 and classes s0 to s7; more systems or speakers start over
MAX_PLAYER_S = 60.0  # seconds of a clip that go into the page; the rest is in the file

# Nothing may be loaded from anywhere.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src data:; img-src data:"
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and newline

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
small { color: var(--soft); display: block; font-weight: 400; }
.key { display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em; }
audio { height: 32px; width: 180px; display: block; }
figure { margin: 0; } figcaption { font-weight: 600; } figcaption .soft { display: block; font-weight: 400; font-size: .9em; }
svg { width: 100%; height: auto; display: block; }
.grid { stroke: var(--line); } .label { fill: var(--soft); font-size: 12px; }
dl { display: grid; grid-template-columns: fit-content(40%) minmax(0, 1fr); gap: .15rem 1.2rem; margin: 0; }
dt, dd { overflow-wrap: anywhere; } dt { color: var(--soft); } dd { margin: 0; }
""" + "".join(f".s{i} {{ background: var(--s{i}); }} " for i in range(COLOURS))


def page(title: str, body: str, style: str = "") -> str:
    """Return a whole page around `body`; `style` is added to the common style sheet."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{text(title)}</title><style>{_STYLE}{style}</style>"
    )
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def text(value: Any, length: int | None = None) -> str:
    """Escape for text and quoted attributes alike, cut to `length` characters.

    Lone surrogates (names that are no UTF-8) and control characters are shown as escapes: no page can hold them.
    """
    string = str(value)
    if length is not None and len(string) > length:
        string = string[: length - 1] + "…"
    string = string.encode("utf-8", "backslashreplace").decode("utf-8")
    string = _CONTROLS.sub(lambda match: f"\\x{ord(match.group()):02x}", string)
    return html.escape(string, quote=True)


def pairs(values: Mapping[str, Any]) -> str:
    """A list of names and values."""
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in values.items())
    return f"<dl>{rows}</dl>"


def player(path: Path, label: str = "") -> str:
    """An audio element that holds the sound itself as FLAC: whole, and half the size of WAV.

    Raises OSError or soundfile.LibsndfileError if the file cannot be read.
    """
    import soundfile

    with path.open("rb") as raw, soundfile.SoundFile(raw) as file:
        samples, rate = file.read(int(MAX_PLAYER_S * file.samplerate), dtype="int16"), file.samplerate
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="FLAC", subtype="PCM_16")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    named = f' aria-label="{text(label)}"' if label else ""
    return f'<audio controls preload="metadata"{named} src="data:audio/flac;base64,{data}"></audio>'


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers that enclose low to high, at least two."""
    span = high - low
    if span < 1e-6 * max(1.0, abs(high)):  # one value, as far as an axis can tell
        span = max(1.0, abs(high))
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]
