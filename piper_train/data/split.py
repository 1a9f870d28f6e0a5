"""Which clips are held out: never trained on, and few enough that a small data set is not eaten.

A clip's place is drawn from the seed and its recording's content, so that moving rows about or adding some leaves the
others where they were. Each speaker gives the same share.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

FEWEST = 5  # clips of which one is held out; of fewer, none


class Split(NamedTuple):
    """Positions of clips, each in exactly one of the two, in order."""

    train: list[int]
    held_out: list[int]


def split_clips(contents: Sequence[bytes], speakers: Sequence[int], share: float, seed: int) -> Split:
    """Hold out `share` of each speaker's clips: at least one of ten or more, and at least one in all of five or more.

    At least one clip is always trained on. Raises ValueError for a share outside of 0 to 0.5.
    """
    if not 0 <= share <= 0.5:
        raise ValueError(f"validation_split is {share}; use 0 to hold nothing out, 0.1 for a tenth, 0.5 at most")
    of_speaker: dict[int, list[int]] = defaultdict(list)
    for position, speaker in enumerate(speakers):
        of_speaker[speaker].append(position)
    held_out: set[int] = set()
    drawn = [_draw(seed, content) for content in contents]
    for positions in of_speaker.values():
        count = int(len(positions) * share)
        if share > 0 and len(positions) >= 10:
            count = max(1, count)
        held_out.update(sorted(positions, key=lambda position: drawn[position])[:count])
    if not held_out and share > 0 and len(contents) >= FEWEST:
        largest = max(of_speaker.values(), key=len)
        held_out.add(min(largest, key=lambda position: drawn[position]))
    return Split([position for position in range(len(contents)) if position not in held_out], sorted(held_out))


def _draw(seed: int, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=8, key=str(seed).encode()[:64]).digest()
