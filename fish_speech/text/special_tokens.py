"""The special tokens of each model family, and `special_tokens.json`, in which a model folder lists its own.

Their ids follow the ranks of `tokenizer.tiktoken` in the order of the list. The ids that the file gives say nothing more;
one that disagrees with its place is an error, because a model would be trained or heard on other tokens than it knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..versions import CONFIG_FILE, FAMILIES, FISH, S1, SPECIAL_TOKENS_FILE, TOKENIZER_FILE, family_of_folder

BEGIN_OF_TEXT, END_OF_TEXT, PAD = "<|begin_of_text|>", "<|end_of_text|>", "<|pad|>"
IM_START, IM_END = "<|im_start|>", "<|im_end|>"
PHONEME_START = "<|phoneme_start|>"
TEXT, VOICE, INTERLEAVE = "<|text|>", "<|voice|>", "<|interleave|>"
MODALITIES = {"text": TEXT, "voice": VOICE, "interleave": INTERLEAVE}
SEMANTIC = "<|semantic:{}|>"

SPECIAL_TOKEN = re.compile(r"<\|[^|]*\|>")
LARGEST_LIST = 8 << 20  # bytes; published files have about 0.1 MB

SPECIAL_TOKENS_1_5: tuple[str, ...] = (
    *(BEGIN_OF_TEXT, END_OF_TEXT, PAD, IM_START, IM_END),
    *(f"<|placeholder:{i}|>" for i in range(4)),
    *(TEXT, VOICE, INTERLEAVE),
    *(SEMANTIC.format(i) for i in range(1024)),
)
SPECIAL_TOKENS_S1: tuple[str, ...] = (
    *(BEGIN_OF_TEXT, END_OF_TEXT, PAD, IM_START, IM_END),
    *(PHONEME_START, "<|phoneme_end|>", "<|tool_call_start|>", "<|tool_call_end|>"),
    *(TEXT, VOICE, INTERLEAVE),
    *("<|audio_start|>", "<|audio_end|>", "<|audio|>"),
    *(SEMANTIC.format(i) for i in range(4096)),
)


@dataclass(frozen=True)
class _FamilyTokens:
    default: tuple[str, ...]
    own: str | None = None  # a token that no other family has
    may_be_listed: bool = False  # whether a folder's special_tokens.json replaces the default; 1.5's is not read


_FAMILIES = {
    FISH: _FamilyTokens(SPECIAL_TOKENS_1_5),
    S1: _FamilyTokens(SPECIAL_TOKENS_S1, own=PHONEME_START, may_be_listed=True),
}
_NEEDED = (END_OF_TEXT, PAD, IM_START, IM_END, VOICE, INTERLEAVE, SEMANTIC.format(0))  # what prompts and batches use


def family_of_tokens(names: Collection[str]) -> str:
    """The family whose own token is among `names`; FISH if there is none."""
    return next((family for family, tokens in _FAMILIES.items() if tokens.own in names), FISH)


def special_tokens_of(folder: Path, ranks: int) -> tuple[str, tuple[str, ...]]:
    """Return the family of a model folder and its special tokens in the order of their ids.

    ranks: entries of its tokenizer file. The family is that of config.json; without one, that of the listed tokens.
    Raises UserError if the list counts and is torn, or does not fit.
    """
    listed, family = folder / SPECIAL_TOKENS_FILE, family_of_folder(folder)
    try:
        names: Collection[str] = _read_pairs(listed) if listed.is_file() else ()
    except (OSError, ValueError, RecursionError):
        names = ()
    if family is None:
        family = family_of_tokens(names)
    tokens = _FAMILIES[family]
    foreign = next((row.own for row in _FAMILIES.values() if row.own in names and row is not tokens), None)
    if foreign is not None:
        raise UserError(
            f"{folder} has the tokenizer of {FAMILIES[family_of_tokens([foreign])]}",
            f"{SPECIAL_TOKENS_FILE} lists {foreign}, but {CONFIG_FILE} is that of {FAMILIES[family]}",
            f"copy {TOKENIZER_FILE} and {SPECIAL_TOKENS_FILE} of the base model again, or fetch it again",
        )
    return family, read_special_tokens(listed, ranks) if tokens.may_be_listed and listed.is_file() else tokens.default


def read_special_tokens(path: Path, ranks: int) -> tuple[str, ...]:
    """Read a special_tokens.json, `{token: id}`, in its order. Raises UserError if an id is not `ranks` + its place."""
    try:
        pairs = _read_pairs(path)
    except (OSError, ValueError, RecursionError) as error:
        raise _unfit(path, f"it is no list of special tokens: {error}") from None
    for place, (name, number) in enumerate(pairs.items()):
        if not SPECIAL_TOKEN.fullmatch(name) or name != name.encode(errors="replace").decode():  # half a character
            raise _unfit(path, f"{name[:60]!r} is not of the form <|name|>")
        if number != ranks + place:
            why = f"it gives {name} the id {number!r}, but token {place} of its list has {ranks + place}"
            raise _unfit(path, f"{why}: ids go on in its order behind the {ranks} of {TOKENIZER_FILE}")
    missing = [name for name in _NEEDED if name not in pairs]
    if missing:
        raise _unfit(path, f"it lacks {', '.join(missing)}")
    first = list(pairs).index(SEMANTIC.format(0))
    semantic = sum(name.startswith("<|semantic:") for name in pairs)
    if list(pairs)[first : first + semantic] != [SEMANTIC.format(code) for code in range(semantic)]:
        raise _unfit(path, f"its {semantic} semantic tokens are not one row from 0 to {semantic - 1}")
    return tuple(pairs)


def _read_pairs(path: Path) -> dict[str, Any]:
    """Read one JSON object whose keys differ. Raises OSError, ValueError and RecursionError."""
    with path.open("rb") as file:
        data = file.read(LARGEST_LIST + 1)
    if len(data) > LARGEST_LIST:
        raise ValueError(f"it has more than {LARGEST_LIST >> 20} MiB")
    values = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_differing)
    if not isinstance(values, dict):
        raise ValueError("it does not hold an object")
    return values


def _differing(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a token is in it twice")
    return values


def _unfit(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} does not fit the {TOKENIZER_FILE} beside it",
        why,
        f"copy {SPECIAL_TOKENS_FILE} and {TOKENIZER_FILE} of the same base model again, or fetch the base model again",
    )
