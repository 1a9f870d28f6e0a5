"""Whose codes are these? Model versions differ in the number of their codebooks, which every file of codes tells."""

from __future__ import annotations

from ..versions import FAMILIES, FISH, S1

_CODEBOOKS = {8: FAMILIES[FISH], 10: FAMILIES[S1], 6: "minnow"}  # as the codecs in configs/codec have them


def whose_codes(codebooks: int) -> str:
    """Name the model whose frames have so many codes, as " (as NAME has)" behind the number; empty if none is known."""
    return f" (as {_CODEBOOKS[codebooks]} has)" if codebooks in _CODEBOOKS else ""
