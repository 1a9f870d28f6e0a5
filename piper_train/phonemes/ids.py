"""Phonemes to ids: `^`, then each phoneme with a pad behind it, then `$`, as every Piper voice was trained.

A table maps a phoneme to its ids. Voices carry their own (`phoneme_id_map` in their config): always use that one to
speak; the default table is for training a new voice.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fish_speech.errors import UserError
from fish_speech.prepare.names import one_line

PAD, BOS, EOS = "_", "^", "$"
_MAX_BYTES = 1_000_000  # of a table's file; the default one has 3000
_MAX_ID = 65_535

PhonemeTable = Mapping[str, tuple[int, ...]]


@cache
def default_table() -> PhonemeTable:
    """Piper's own table: 166 phonemes, ids 0-165."""
    text = (files("piper_train.phonemes") / "phoneme_ids.json").read_text(encoding="utf-8")
    return table_of(json.loads(text))


def table_of(values: Any, num_symbols: int | None = None) -> PhonemeTable:
    """Check and freeze a map of phoneme to id or ids, as JSON or a voice's `phoneme_id_map` has it.

    Ids have to be below `num_symbols` (rows of the voice's embedding), where it is given. Raises ValueError with the
    first problem.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"it holds a {type(values).__name__}, not a map of phonemes to ids")
    limit = _MAX_ID + 1 if num_symbols is None else num_symbols
    table: dict[str, tuple[int, ...]] = {}
    for phoneme, ids in values.items():
        if not isinstance(phoneme, str) or not phoneme:
            raise ValueError(f"{phoneme!r} is no phoneme: keys are texts of at least one character")
        numbers = ids if isinstance(ids, Sequence) and not isinstance(ids, str) else [ids]
        if not numbers or not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            raise ValueError(f"the phoneme {_shown(phoneme)} has {_shown(ids)}, not a whole number or a list of them")
        wrong = [number for number in numbers if not 0 <= number < limit]
        if wrong:
            raise ValueError(f"the phoneme {_shown(phoneme)} has the id {wrong[0]}; ids go from 0 to {limit - 1}")
        table[phoneme] = tuple(numbers)
    absent = [mark for mark in (PAD, BOS, EOS) if mark not in table]
    if absent:
        raise ValueError(f"it lacks {', '.join(absent)} (pad {PAD}, begin of sentence {BOS}, end of sentence {EOS})")
    return MappingProxyType(table)


def read_table(path: Path, num_symbols: int | None = None) -> PhonemeTable:
    """Read a table from a JSON file (`data.phonemes_path`). Raises UserError."""
    fix = 'write a JSON object like {"_": 0, "^": 1, "$": 2, " ": 3, "a": 4}, or leave --data.phonemes_path out'
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES / 1e6:g} MB")
        return table_of(json.loads(content.decode("utf-8-sig"), object_pairs_hook=_no_twins), num_symbols)
    except OSError as error:
        raise UserError(f"cannot read the phoneme table {path}", error.strerror or str(error), fix) from None
    except RecursionError:
        raise UserError(f"{path} is no phoneme table", "it is nested too deeply", fix) from None
    except ValueError as error:  # JSON and UTF-8 errors too
        raise UserError(f"{path} is no phoneme table", one_line(str(error)), fix) from None


def ids_of_sentence(phonemes: Iterable[str], table: PhonemeTable, missing: Counter[str] | None = None) -> list[int]:
    """Ids of one sentence: `1 0 p1 0 p2 0 ... 2` with the default table.

    A phoneme that the table lacks is left out with its pad, and counted in `missing`.
    """
    pad = table[PAD]
    ids = [*table[BOS], *pad]
    for phoneme in phonemes:
        known = table.get(phoneme)
        if known is None:
            if missing is not None:
                missing[phoneme] += 1
            continue
        ids += known
        ids += pad
    ids += table[EOS]
    return ids


def ids_of(sentences: Iterable[Iterable[str]], table: PhonemeTable, missing: Counter[str] | None = None) -> list[int]:
    """Ids of all sentences of a text, one after the other, each with its own begin and end, as training takes them."""
    return [number for sentence in sentences for number in ids_of_sentence(sentence, table, missing)]


def describe_missing(missing: Counter[str], most: int = 12) -> str:
    """Name phonemes that a table lacks, most frequent first: `U+0361 '͡' 14 times, 'Q' once`. Empty if none."""
    named = [f"{_named(phoneme)} {_times(count)}" for phoneme, count in _by_count(missing)[:most]]
    more = len(missing) - len(named)
    return ", ".join(named) + (f", and {more} more" if more > 0 else "")


def _by_count(missing: Counter[str]) -> list[tuple[str, int]]:
    return sorted(missing.items(), key=lambda item: (-item[1], item[0]))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _named(phoneme: str) -> str:
    points = " ".join(f"U+{ord(character):04X}" for character in phoneme[:8])
    return f"{_shown(phoneme)} ({points})"


def _shown(value: Any) -> str:
    text = one_line(value if isinstance(value, str) else json.dumps(value, default=str))
    return f"'{text if len(text) <= 40 else text[:40] + '...'}'"


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twins = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twins:
        raise ValueError(f"the phoneme {_shown(twins[0])} stands in it twice")
    return dict(pairs)
