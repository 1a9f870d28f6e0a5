"""How many clips a stage may leave out before it counts as failed: every one is named, whatever the number."""

from __future__ import annotations

import argparse

from .arguments import percent
from .errors import DONE, FAILED


def add_max_left_out(parser: argparse._ActionsContainer) -> None:
    """Add --max-left-out."""
    parser.add_argument(
        "--max-left-out",
        type=percent,
        default=0.0,
        metavar="PERCENT",
        help="of the clips that may be left out with exit code 0, and one clip in any case (default: 0, none at all)",
    )


def exit_code(left_out: int, clips: int, max_percent: float) -> int:
    """The exit code of a stage that had to leave out so many of its clips; FAILED if nothing else is left of them."""
    allowed = max(1, int(clips * max_percent / 100)) if max_percent > 0 else 0
    return DONE if left_out == 0 or (left_out <= allowed and left_out < clips) else FAILED
