"""What the doctor found, a line each, and how the lines are shown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import UserError

State = Literal["good", "note", "wrong"]
_LONGEST = 600  # characters of one entry: the words of a program that fails may be endless
_WIDTH = 120  # columns of the report


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `note`: nothing is wrong, but it may surprise. `fix`: what to do about it."""

    name: str
    state: State
    found: str
    fix: str = ""


def one_line(text: object) -> str:
    """Text of any origin as one printable line: names of files and words of programs may hold anything."""
    words = " ".join(str(text).split())
    shown = "".join(letter if letter.isprintable() else "?" for letter in words)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 4]} ..."


def guarded(name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """Run one check; whatever it raises becomes a finding of its own, after those that it made before."""
    found: list[Finding] = []
    try:
        found.extend(look())
    except UserError as error:
        found.append(Finding(name, "wrong", f"{error.what}: {error.why}", error.fix))
    except (Exception, SystemExit) as error:
        found.append(Finding(name, "wrong", describe(error), _how_to_mend(error)))
    return found


def describe(error: BaseException) -> str:
    """An error in a line."""
    return one_line(f"{type(error).__name__}: {error}" if str(error).strip() else type(error).__name__)


def _how_to_mend(error: BaseException) -> str:
    if isinstance(error, ImportError):
        package = (error.name or "").partition(".")[0]
        what = f"the package {package}" if package else "the package that is named"
        return f"install {what} again: pip install --force-reinstall --no-deps {package or 'PACKAGE'}"
    if isinstance(error, PermissionError):
        return "change the owner or the mode of what is named, or work in another folder"
    return "see what the message names; if that explains nothing, report this line as a bug"


def report(findings: Sequence[Finding]) -> str:
    """Aligned plain text, a line for each finding and what to do below it; the last line sums up."""
    width = max((len(one_line(finding.name)) for finding in findings), default=0)
    lines = []
    for finding in findings:
        head = f"{finding.state:<5}  {one_line(finding.name):<{width}}  "
        lines += _wrapped(head, " " * len(head), finding.found)
        if finding.fix:
            lines.append(f"{'':{len(head)}}fix: {one_line(finding.fix)}")  # in one line: it can be copied
    count = {state: sum(finding.state == state for finding in findings) for state in ("good", "note", "wrong")}
    wrong = ", ".join(dict.fromkeys(one_line(finding.name) for finding in findings if finding.state == "wrong"))
    verdict = f"{count['wrong']} wrong: {wrong}" if count["wrong"] else "nothing is wrong"
    lines.append(f"{count['good']} good, {count['note']} to note, {verdict}")
    return "\n".join(lines)


def _wrapped(first: str, rest: str, text: str) -> list[str]:
    """Lines no wider than the report; commands and paths are never cut."""
    return textwrap.wrap(
        one_line(text) or "-",
        width=max(_WIDTH, len(first) + 40),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
