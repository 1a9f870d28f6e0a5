"""Clips in memory: texts and codes of all shards, kept compactly, and the share of them held out of training."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..text.normalize import clean_text
from .code_origin import whose_codes
from .protos import read_records, sentence_codes
from .text_data_pb2 import Sentence

_LARGEST_CODE = (1 << 16) - 1
FEWEST_TO_HOLD_OUT = 10  # a speaker with fewer clips is trained on whole


@dataclass(frozen=True)
class Clips:
    """All clips of a data set, in the order of the shards. The codes take 2 bytes each."""

    speakers: list[str]
    texts: list[tuple[str, ...]]  # the spellings of each clip, cleaned
    codes: np.ndarray  # (codes of all clips,) uint16, each clip's rows after one another
    starts: np.ndarray  # (clips + 1,) int64, where each clip begins in `codes`
    codebooks: int
    unusable: list[tuple[str, str]]  # (speaker and text, reason) of what the shards hold and nobody can train on

    def __len__(self) -> int:
        return len(self.speakers)

    def codes_of(self, clip: int) -> np.ndarray:
        """Return a view of one clip's codes, (codebooks, frames) uint16."""
        return self.codes[self.starts[clip] : self.starts[clip + 1]].reshape(self.codebooks, -1)

    def text_of(self, clip: int, epoch: int = 0) -> str:
        """Return the spelling that `epoch` uses: with several, each has its turn."""
        return self.texts[clip][(clip + epoch) % len(self.texts[clip])]

    def frames_of(self, clip: int) -> int:
        """Return the length of a clip in frames."""
        return int(self.starts[clip + 1] - self.starts[clip]) // self.codebooks

    def name_of(self, clip: int) -> str:
        """Name a clip for people: shards hold no file names."""
        return _name(self.speakers[clip], self.texts[clip][0])

    def content_of(self, clip: int) -> bytes:
        """Return a digest of texts and codes, equal for copies of a clip whoever speaks."""
        digest = hashlib.sha256(repr(self.texts[clip]).encode("utf-8", "backslashreplace"))
        digest.update(np.ascontiguousarray(self.codes_of(clip), dtype="<u2").tobytes())
        return digest.digest()


def load_clips(shards: Sequence[Path], codebooks: int | None = None) -> Clips:
    """Read shards into memory. All clips must have `codebooks` rows of codes; None takes the first clip's number.

    Raises UserError for torn shards and for codes that do not fit.
    """
    speakers: list[str] = []
    texts: list[tuple[str, ...]] = []
    codes, starts = array("H"), array("q", [0])
    unusable: list[tuple[str, str]] = []
    for path in shards:
        for speaker, sentence in _sentences(path):
            spellings = tuple(text for text in map(clean_text, sentence.texts) if text.strip())
            rows = _rows(path, speaker, sentence)
            if rows.size == 0 or not spellings:
                unusable.append((_name(speaker, (*sentence.texts, "")[0]), "no codes" if spellings else "no text"))
                continue
            codebooks = codebooks or len(rows)
            if len(rows) != codebooks:
                raise _misfit(
                    path, speaker, f"it has {len(rows)} codebooks{whose_codes(len(rows))} instead of {codebooks}"
                )
            speakers.append(speaker)
            texts.append(spellings)
            codes.frombytes(rows.astype(np.uint16).tobytes())
            starts.append(len(codes))
    return Clips(speakers, texts, np.asarray(codes), np.asarray(starts), codebooks or 0, unusable)


def _sentences(path: Path) -> Iterator[tuple[str, Sentence]]:
    for record in read_records(path):
        for sentence in record.sentences:
            yield sys.intern(record.name), sentence


def _rows(path: Path, speaker: str, sentence: Sentence) -> np.ndarray:
    try:
        rows = sentence_codes(sentence)
    except ValueError:
        raise _misfit(path, speaker, "its codebooks have different lengths") from None
    if rows.size and rows.max() > _LARGEST_CODE:
        raise _misfit(path, speaker, f"it has the code {rows.max()}; codes are 0 to {_LARGEST_CODE}")
    return rows


def _misfit(path: Path, speaker: str, why: str) -> UserError:
    return UserError(
        f"{path} has a clip of {speaker} that this model cannot be trained on",
        why,
        "extract the codes with this model's codec and run python -m fish_speech.build_dataset again",
    )


def _name(speaker: str, text: str) -> str:
    return f"{speaker}: {text[:40]}{'...' if len(text) > 40 else ''}"


def hold_out(clips: Clips, candidates: Sequence[int], share: float, seed: int) -> list[int]:
    """Choose the clips never trained on: about `share` of each speaker's, at least one of FEWEST_TO_HOLD_OUT or more.

    The choice is a hash of seed, texts and codes, so it hardly moves when clips are added. Copies of a clip are held
    out together, another speaker's copies included: nothing that is trained on appears among the held-out clips.
    A speaker whose clips are all copies of one another is trained on whole.
    """
    if share == 0:
        return []
    copies: dict[bytes, list[int]] = {}
    by_speaker: dict[str, Counter[bytes]] = {}
    for clip in candidates:
        content = clips.content_of(clip)
        copies.setdefault(content, []).append(clip)
        by_speaker.setdefault(clips.speakers[clip], Counter())[content] += 1
    chosen: set[bytes] = set()
    for contents in by_speaker.values():
        count = contents.total()
        if count < FEWEST_TO_HOLD_OUT or len(contents) < 2:
            continue
        order = sorted(contents, key=lambda content: hashlib.sha256(b"%d " % seed + content).digest())
        wanted, held = max(1, round(share * count)), 0
        for content in order:
            if held + contents[content] <= wanted:
                chosen.add(content)
                held += contents[content]
        if not held:  # every clip has more copies than we want to hold out: take the one with the fewest
            chosen.add(min(order, key=lambda content: contents[content]))
    return sorted(clip for content in chosen for clip in copies[content])


def in_turn(clips: Clips, numbers: Sequence[int]) -> list[int]:
    """Order clips so that the first of each speaker come before the second of any."""
    said: Counter[str] = Counter()
    turns = []
    for clip in numbers:
        turns.append((said[clips.speakers[clip]], clip))
        said[clips.speakers[clip]] += 1
    return [clip for _, clip in sorted(turns)]
