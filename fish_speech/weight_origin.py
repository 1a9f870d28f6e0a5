"""Tell from names and shapes what a weights file is: of which family, and whether a model or a codec."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .versions import FAMILIES, FISH, S1

_TABLES = re.compile(r"(codebook_embeddings|fast_embeddings)\.(weight|lora_A)$")


@dataclass(frozen=True)
class Origin:
    """What a weights file is, and what tells it."""

    part: str  # "model", "codec" or "adapter"
    family: str
    mark: str

    def __str__(self) -> str:
        what = {"model": "the model", "codec": "the codec", "adapter": "an adapter"}[self.part]
        return f"{what} of {FAMILIES[self.family]}"


# What only one family has among its names. A new family brings its lines here.
_NAMES = (
    (re.compile(r"quantizer\.semantic_quantizer\."), "codec", S1, "a semantic quantizer"),
    (re.compile(r"quantizer\.residual_fsq\."), "codec", FISH, "a residual FSQ"),
    (re.compile(r"layers\.\d+\.attention\.[qk]_norm\.weight$"), "model", S1, "QK norms"),
)
# Rows of the tables of codes, (codebooks x codebook size, codebook size): what the names of adapters do not tell.
_ROWS = {
    ("codebook_embeddings", 8 * 1024): (FISH, "8 codebooks of 1024 codes"),
    ("codebook_embeddings", 10 * 4096): (S1, "10 codebooks of 4096 codes"),
    ("fast_embeddings", 1024): (FISH, "codes below 1024"),
    ("fast_embeddings", 4096): (S1, "codes below 4096"),
}


def origin_of(shapes: Mapping[str, tuple[int, ...]]) -> Origin | None:
    """What the weights of these names and shapes belong to; None if nothing tells."""
    for pattern, part, family, mark in _NAMES:
        if any(pattern.search(name) for name in shapes):
            return Origin(part, family, mark)
    part = "adapter" if all(name.endswith((".lora_A", ".lora_B")) for name in shapes) else "model"
    for name, shape in sorted(shapes.items()):
        table = _TABLES.search(name)
        rows = shape[0 if table[2] == "weight" else -1] if table and len(shape) == 2 else None
        if table and (table[1], rows) in _ROWS:
            family, mark = _ROWS[table[1], rows]  # type: ignore[index]
            return Origin(part, family, mark)
    return None
