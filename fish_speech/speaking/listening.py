"""--verify: which recogniser listens, and what it has to say about speech that was kept although it is not right."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..versions import VERSIONS

if TYPE_CHECKING:
    from ..synthesis.speak import Said
    from ..synthesis.verify import Verifier


def verifier_of(options: argparse.Namespace) -> Verifier | None:
    """What listens to each segment; None without --verify. Raises UserError for a recogniser that is not there."""
    if not options.verify:
        return None
    from ..synthesis.verify import ENGLISH, make_verifier

    return make_verifier(options.asr or "auto", options.whisper_model, options.language or ENGLISH, options.attempts,
                         markers=VERSIONS[options.model_version].markers)  # fmt: skip


def check_recogniser(options: argparse.Namespace) -> None:
    """Raise UserError for a recogniser that is not there, without loading the one that is."""
    if options.verify:
        from ..recognition import choose_asr
        from ..synthesis.verify import ENGLISH

        choose_asr(options.asr or "auto", options.whisper_model, options.language or ENGLISH)


def complaint_about(said: Iterable[Said]) -> str | None:
    """What no attempt got right, segment by segment, in a phrase; None if there is nothing."""
    wrong = [part for part in said if part.verdict is not None and not part.verdict.passed]
    told = [f"segment {part.index + 1} of {part.count} ({part.tried} attempts): {part.verdict}" for part in wrong]
    return "; ".join(told) or None
