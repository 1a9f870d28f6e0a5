"""A script for a voice to read: a text per line, or `name|text` in every line.

A plain line is named by its words, so that what was spoken keeps its name when lines are added or moved.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from fish_speech.errors import UserError
from fish_speech.prepare.names import one_line
from fish_speech.speaking.output_names import TakenNames, output_problem
from fish_speech.speaking.texts import check_text

LARGEST_SCRIPT = 100_000_000  # bytes
LONGEST_LINE = 2_000  # characters; far beyond a clip that can be trained on
_NAME_DIGITS = 12


@dataclass(frozen=True)
class Line:
    """A text to say and the clip that it becomes."""

    number: int  # in the script, from 1
    clip: str  # file name
    text: str


@dataclass
class Script:
    """The lines that can be spoken, and the others with the reason."""

    lines: list[Line] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)  # (which line, why)


def read_script(path: Path) -> Script:
    """Read a script. Raises UserError if there is none, or nothing in it can be spoken."""
    rows = [(number, row.strip()) for number, row in enumerate(_text_of(path).splitlines(), 1) if row.strip()]
    named = bool(rows) and all(0 < row.find("|") < len(row) - 1 for _, row in rows)
    script, names, texts = Script(), TakenNames(), dict[str, int]()
    for number, row in rows:
        name, text = (part.strip() for part in row.split("|", 1)) if named else ("", row)
        clip = f"{name.removesuffix('.wav')}.wav" if named else f"{_digest(text)}.wav"
        reason = _problem(text) or (_name_problem(clip) if named else None)
        if reason is None and not named and text in texts:
            reason = f"the same text as line {texts[text]}"
        if reason is None and (other := names.take(clip, number)) is not None:
            reason = f"the same name as line {other}"
        if reason is not None:
            script.left_out.append((f"line {number}", reason))
            continue
        texts[text] = number
        script.lines.append(Line(number, clip, text))
    if not script.lines:
        why = f"{script.left_out[0][0]}: {script.left_out[0][1]}" if script.left_out else "it has no lines"
        raise UserError(f"there is nothing to say in {path}", why, "give a text per line, or name|text in every line")
    return script


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_SCRIPT + 1)
    except OSError as error:
        raise UserError(f"cannot read the script {path}", error.strerror or str(error), "check --script") from None
    if len(data) > LARGEST_SCRIPT:
        raise UserError(f"{path} is too long", f"a script may have {LARGEST_SCRIPT // 1_000_000} MB", "split it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8", f"{error.reason} at byte {error.start + 1}", "save it as UTF-8"
        ) from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_NAME_DIGITS]


def _problem(text: str) -> str | None:
    """Why a text cannot be spoken and trained on; None if it can."""
    if "|" in text:
        return "a | in the text, which separates the columns of metadata.csv"
    if len(text) > LONGEST_LINE:
        return f"longer than {LONGEST_LINE} characters"
    if any(not letter.isprintable() for letter in text.replace("\t", " ")):
        return "characters that cannot be printed"
    try:
        check_text(text)
    except UserError as error:
        return one_line(f"{error.what}: {error.why}")[:200]
    return None


def _name_problem(clip: str) -> str | None:
    return "a name with a folder" if "/" in clip else output_problem(clip)
