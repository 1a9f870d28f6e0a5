"""Text to token ids and back: byte-pair ranks from `tokenizer.tiktoken`, and special tokens behind them.

The file holds one token per line, `base64(bytes) rank`; the rank is the id. With R ranks the special tokens get the
ids R, R + 1, ... in the order of their list, so everything is computed from the file and nothing is hard-coded.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import write_text
from ..versions import SPECIAL_TOKENS_FILE, TOKENIZER_FILE
from .special_tokens import (
    END_OF_TEXT,
    IM_END,
    IM_START,
    PAD,
    SPECIAL_TOKEN,
    family_of_tokens,
    special_tokens_of,
)

if TYPE_CHECKING:
    import tiktoken

# The escaped question mark in the last line but one makes it match a literal "?!"; published models were trained so.
SPLIT_PATTERN = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"\p{P}",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(\?!\S)",
        r"\s+",
    )
)

LONGEST_PIECE = 400_000  # characters handed to tiktoken at once
LARGEST_FILE = 64 << 20  # bytes; published files have about 2 MB
LARGEST_RANK = 1 << 24


class Tokenizer:
    """Byte-pair tokenizer of one model version.

    `path` is `tokenizer.tiktoken` or the folder that holds it; the model's config.json and special_tokens.json count
    where they lie beside it. `special_tokens` lists special tokens in the order of their ids; None takes the folder's,
    else those of its `family`. Pickles, so that data workers can have a copy.
    """

    def __init__(self, path: str | Path, special_tokens: Sequence[str] | None = None):
        path = Path(path)
        self.path = path / TOKENIZER_FILE if path.is_dir() else path
        self._ranks = read_ranks(self.path)
        names: Sequence[str]
        if special_tokens is None:
            self.family, names = special_tokens_of(self.path.parent, len(self._ranks))
        else:
            self.family, names = family_of_tokens(special_tokens), special_tokens
        self.special_tokens = {name: len(self._ranks) + i for i, name in enumerate(names)}
        self._start()

    def _start(self) -> None:
        if not all(map(SPECIAL_TOKEN.fullmatch, self.special_tokens)):
            raise ValueError("special tokens have the form <|name|>")
        self._encoding = _make_encoding(self._ranks, self.special_tokens)
        semantic = [i for name, i in self.special_tokens.items() if name.startswith("<|semantic:")]
        self.semantic_begin_id, self.semantic_end_id = min(semantic), max(semantic)
        self.im_start_id, self.im_end_id = self.id_of(IM_START), self.id_of(IM_END)
        self.pad_id, self.end_of_text_id = self.id_of(PAD), self.id_of(END_OF_TEXT)

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("path", "family", "_ranks", "special_tokens")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    @property
    def vocab_size(self) -> int:
        """Number of ids in use; a model's embedding may have more rows."""
        return len(self._ranks) + len(self.special_tokens)

    @property
    def num_semantic(self) -> int:
        """Number of semantic tokens, which bounds the codes of codebook 0."""
        return self.semantic_end_id - self.semantic_begin_id + 1

    def id_of(self, token: str) -> int:
        """Return the id of a special token such as `<|im_end|>`; KeyError if there is none of that name."""
        return self.special_tokens[token]

    def encode(self, text: str, allowed_special: bool | Collection[str] = True) -> list[int]:
        """Return the ids of `text`.

        Special tokens written in the text become their ids: all (True, as published models were trained), none (False)
        or those named. Whatever is not allowed is read as ordinary text.
        """
        ids: list[int] = []
        for start in range(0, len(text), LONGEST_PIECE):
            piece = text[start : start + LONGEST_PIECE]
            # Naming only the tokens that occur saves handing a thousand names to tiktoken each time.
            written = self.special_tokens.keys() & SPECIAL_TOKEN.findall(piece) if allowed_special else set()
            if not isinstance(allowed_special, bool):
                written &= set(allowed_special)
            ids += self._encoding.encode(piece, allowed_special=written, disallowed_special=())
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD. KeyError for an id without a token."""
        return self._encoding.decode([int(i) for i in ids])

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.tiktoken` and `special_tokens.json` into `folder`, as a base model has them."""
        write_text(Path(folder) / TOKENIZER_FILE, ranks_text(self._ranks))
        names = json.dumps(self.special_tokens, indent=2, ensure_ascii=False)
        write_text(Path(folder) / SPECIAL_TOKENS_FILE, names)


def ranks_text(ranks: Mapping[bytes, int]) -> str:
    """Return the text of a tokenizer file."""
    return "".join(f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())


def read_ranks(path: Path) -> dict[bytes, int]:
    """Read byte-pair ranks in file order. Raises UserError if the file is missing, torn or something else."""

    def broken(why: str) -> UserError:
        return UserError(
            f"{path} is not a whole tokenizer file",
            why,
            f"copy {TOKENIZER_FILE} from the base model again, or fetch the base model again",
        )

    if not path.is_file():
        raise UserError(
            f"there is no tokenizer at {path}",
            f"a model folder holds {TOKENIZER_FILE} beside its weights",
            "fetch the base model again, or give the folder it is in",
        )
    with path.open("rb") as file:
        data = file.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise broken(f"it has more than {LARGEST_FILE >> 20} MiB")
    ranks: dict[bytes, int] = {}
    lines = 0
    for number, line in enumerate(data.splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.split()
        try:
            encoded, rank = fields
            if encoded == b"=":  # how the empty byte string is written; it is no token
                continue
            token, value = base64.b64decode(encoded, validate=True), int(rank)
        except (ValueError, binascii.Error):
            raise broken(f"line {number} is not 'base64 rank': {line[:60]!r}") from None
        if not 0 <= value < LARGEST_RANK:
            raise broken(f"line {number} has the rank {value}")
        ranks[token] = value
        lines += 1
    if len(ranks) != lines or len(set(ranks.values())) != lines:
        raise broken("a token or a rank is in it twice, as when its last line was cut off")
    if not all(bytes([byte]) in ranks for byte in range(256)):
        raise broken("it lacks some of the 256 single bytes")
    if max(ranks.values()) >= lines:  # ids of special tokens begin at `lines`; a rank there would be two tokens
        raise broken(f"it has {lines} tokens but ranks up to {max(ranks.values())}: lines are missing")
    return ranks


def _make_encoding(ranks: dict[bytes, int], special_tokens: dict[str, int]) -> tiktoken.Encoding:
    import tiktoken

    return tiktoken.Encoding(
        name="fish_speech", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens=special_tokens
    )
