"""Sentences from a small grammar: telephone prompts, numbers, dates, times, directions and everyday talk.

A template is a sentence with {slots}. A slot is a list of alternatives, which may hold slots themselves, or a function
that draws one (numbers, digits, times). The texts are this project's own, so the corpus may be used without conditions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

WORDS = Path(__file__).with_suffix(".txt")
Slot = list[str] | Callable[[random.Random], str]


class Templates(NamedTuple):
    """A group of templates with its share of all sentences."""

    share: float
    sentences: list[str]


def _alternatives(text: str) -> list[str]:
    """Alternatives parted by semicolons or line ends."""
    return [part.strip() for part in re.split(r"[;\n]", text) if part.strip()]


ONES = _alternatives(
    """zero; one; two; three; four; five; six; seven; eight; nine; ten; eleven; twelve; thirteen; fourteen; fifteen; sixteen
    seventeen; eighteen; nineteen"""
)
TENS = _alternatives("twenty; thirty; forty; fifty; sixty; seventy; eighty; ninety")
_ORDINAL_ENDS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth",
    "twelve": "twelfth",
}  # fmt: skip


def cardinal(number: int) -> str:
    """Spell a whole number from 0 to 999,999 as it is read aloud: 215 is "two hundred and fifteen"."""
    if number < 20:
        return ONES[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else "")
    size, name, joint = (100, "hundred", " and ") if number < 1000 else (1000, "thousand", " ")
    rest = number % size
    joint = " and " if rest < 100 else joint
    return f"{cardinal(number // size)} {name}" + (joint + cardinal(rest) if rest else "")


def ordinal(number: int) -> str:
    """Spell an ordinal from 1 to 999: 23 is "twenty third"."""
    *head, last = cardinal(number).split()
    if last not in _ORDINAL_ENDS:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
        return " ".join([*head, last])
    return " ".join([*head, _ORDINAL_ENDS[last]])


def _digits(rng: random.Random, low: int, high: int) -> str:
    return " ".join(rng.choice(ONES[:10]) for _ in range(rng.randint(low, high)))


def _clock(rng: random.Random) -> str:
    hour = rng.choice(ONES[1:13])
    minute = rng.randint(1, 59)
    return rng.choice(
        [
            f"{hour} o'clock",
            f"half past {hour}",
            f"quarter past {hour}",
            f"quarter to {hour}",
            f"{hour} {'oh ' if minute < 10 else ''}{cardinal(minute)}",
            f"{cardinal(rng.choice([5, 10, 20, 25]))} past {hour}",
            f"{cardinal(rng.choice([5, 10, 20, 25]))} to {hour}",
        ]
    )


def _year(rng: random.Random) -> str:
    century, rest = rng.choice([17, 18, 19, 20]), rng.randint(1, 99)
    tail = f"oh {ONES[rest]}" if rest < 10 else cardinal(rest)
    return f"{cardinal(century)} {tail}"


def _money(rng: random.Random) -> str:
    unit = rng.choice(["dollars", "pounds", "euros"])
    whole = cardinal(rng.choice([rng.randint(2, 99), rng.randint(100, 999)]))
    cents = f" and {cardinal(rng.randint(2, 99))} cents" if unit == "dollars" and rng.random() < 0.3 else ""
    return f"{whole} {unit}{cents}"


def _spelled(rng: random.Random) -> str:
    word = expand("{spelled_word}", rng)
    return f"{word} is spelled {', '.join(word.upper())}"


def _sections(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yield each section of the words' file as its head ("slot", "day") and its lines."""
    lines = [line for line in path.read_text("utf-8").splitlines() if line and not line.startswith("#")]
    heads = [i for i, line in enumerate(lines) if line.startswith("[")]
    for start, stop in zip(heads, [*heads[1:], len(lines)]):
        yield lines[start].strip("[]").split(), lines[start + 1 : stop]


def _verb_slots(lines: list[str]) -> dict[str, Slot]:
    """Verb phrases by form: base "open the door", third, past, ing, done (participle)."""
    forms: dict[str, list[str]] = {name: [] for name in ("base", "third", "past", "ing", "done")}
    for line in lines:
        verbs, objects = line.split("|")
        for name, verb in zip(forms, verbs.split(), strict=True):
            forms[name] += [f"{verb} {thing}" for thing in _alternatives(objects)]
    return dict(forms)


def _read_words(path: Path) -> tuple[dict[str, Slot], dict[str, Templates]]:
    """Read the slots and the groups of templates."""
    slots: dict[str, Slot] = dict(DRAWN)
    templates: dict[str, Templates] = {}
    for (kind, *names), lines in _sections(path):
        if kind == "verbs":
            slots |= _verb_slots(lines)
        elif kind == "slot":
            slots[names[0]] = _alternatives("\n".join(lines))
        else:
            templates[names[0]] = Templates(float(names[1]), lines)
    return slots, templates


DRAWN: dict[str, Slot] = {
    "digit": ONES[:10],
    "key": [*ONES[:10], *ONES[1:10], "star", "pound"],
    "small": lambda rng: cardinal(rng.randint(2, 12)),
    "count": lambda rng: cardinal(rng.randint(2, 99)),
    "number": lambda rng: cardinal(rng.choice([rng.randint(2, 99), rng.randint(100, 999), rng.randint(1000, 99999)])),
    "nth": lambda rng: ordinal(rng.choice([rng.randint(1, 12), rng.randint(1, 99)])),
    "daynth": lambda rng: ordinal(rng.randint(1, 31)),
    "digits3": lambda rng: _digits(rng, 3, 4),
    "digits7": lambda rng: _digits(rng, 5, 7),
    "clock": _clock,
    "year": _year,
    "money": _money,
    "spelled": _spelled,
    "letter": list("BCDEFGHIJKLMNOPQRSTUVWXYZ"),
}
SLOTS, TEMPLATES = _read_words(WORDS)


def expand(template: str, rng: random.Random) -> str:
    """Replace every {slot} by a random alternative, until none is left."""
    while "{" in template:
        name = template[template.index("{") + 1 : template.index("}")]
        slot = SLOTS[name]
        choice = slot(rng) if callable(slot) else rng.choice(slot)
        template = template.replace("{" + name + "}", choice, 1)
    return template


# How people say it: half of the sentences that hold one of these are contracted.
_CONTRACTIONS = {
    "do not": "don't", "does not": "doesn't", "cannot": "can't", "could not": "couldn't", "will not": "won't",
    "should not": "shouldn't", "is not": "isn't", "was not": "wasn't", "has not": "hasn't", "I am": "I'm",
    "I have": "I've", "I would": "I'd", "it is": "it's", "you are": "you're", "we are": "we're", "they are": "they're",
    "that is": "that's", "let us": "let's", "where is": "where's", "what is": "what's",
    "I will": "I'll", "we will": "we'll", "you will": "you'll", "she will": "she'll", "he will": "he'll",
}  # fmt: skip
_CONTRACTIBLE = re.compile(rf"\b({'|'.join(_CONTRACTIONS)})\b(?! to )")


def _finish(text: str, contract: bool) -> str:
    text = re.sub(r"\b([Aa]) (?=[aeiou])(?!(one|use|uni|euro))", r"\1n ", " ".join(text.split()))
    text = re.sub(r"\bi\b", "I", text)
    text = re.sub(r"\b(I|you|we|they) is\b", lambda match: {"I": "I am"}.get(match[1], f"{match[1]} are"), text)
    if contract:
        text = _CONTRACTIBLE.sub(lambda match: _CONTRACTIONS[match[0]], text)
    text = re.sub(r"\b([a-z]+) (?=Street|Avenue)", lambda match: match[0].capitalize(), text)
    return text[0].upper() + text[1:]


def grammar_sentences(seed: int) -> Iterator[str]:
    """Yield sentences without end, the same ones for the same seed; some come more than once."""
    rng = random.Random(seed)
    groups = list(TEMPLATES.values())
    shares = [share for share, _ in groups]
    while True:
        _, templates = rng.choices(groups, shares)[0]
        yield _finish(expand(rng.choice(templates), rng), contract=rng.random() < 0.5)
