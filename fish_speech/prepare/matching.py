"""Which heard word is which written word: two long lists of words that mostly agree, matched in order.

Runs of words that are the same, and rare enough to be found in one place only, are anchors (as in patience diff). What
lies between two anchors is short, and matched by dynamic programming with the similarity of the words as score. Hours of
speech take seconds, and no table is larger than _CELLS.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_CELLS = 1 << 22  # largest table of the dynamic programming
_ANCHOR_WORDS = (4, 3, 2, 1)  # words of an anchor, tried in this order while the table would be too large
_BY_TABLE = 400  # cells of a block that needs no anchors
# A pair scores its similarity (0-1) less _PAIR; a word without partner costs _SKIP, and starting such a run _OPEN. Two
# words are paired in place, not skipped, if they are alike by more than _PAIR - 2 * _SKIP.
_PAIR, _SKIP, _OPEN = 0.55, 0.25, 0.1
_BUCKETS = 1024  # letter pairs are hashed into as many


class Match(NamedTuple):
    """A written word and the heard word in its place; `similarity` is 1 if they are the same word."""

    written: int
    heard: int
    similarity: float


def match_words(written: Sequence[str], heard: Sequence[str]) -> list[Match]:
    """Pair words of `written` with words of `heard`, both increasing; words without a partner are left out."""
    return list(_match(written, heard, 0, len(written), 0, len(heard)))


def _match(
    written: Sequence[str], heard: Sequence[str], w0: int, w1: int, h0: int, h1: int, step: int = 0
) -> Iterator[Match]:
    head = 0
    while head < min(w1 - w0, h1 - h0) and written[w0 + head] == heard[h0 + head]:
        head += 1
    if head >= _ANCHOR_WORDS[1]:  # fewer may be chance, where a part of the text is not spoken
        yield from (Match(w0 + k, h0 + k, 1.0) for k in range(head))
        w0, h0 = w0 + head, h0 + head
    if (w1 - w0) * (h1 - h0) <= _BY_TABLE or step == len(_ANCHOR_WORDS):
        yield from _by_table(written, heard, w0, w1, h0, h1)
    else:
        at_w, at_h = w0, h0
        for start_w, start_h, count in _anchors(written, heard, w0, w1, h0, h1, _ANCHOR_WORDS[step]):
            yield from _match(written, heard, at_w, start_w, at_h, start_h, step)
            yield from (Match(start_w + k, start_h + k, 1.0) for k in range(count))
            at_w, at_h = start_w + count, start_h + count
        small = (w1 - at_w) * (h1 - at_h) <= _CELLS // 16
        if (at_w, at_h) == (w0, h0) and small and _ANCHOR_WORDS[step] <= 3:
            yield from _by_table(written, heard, at_w, w1, at_h, h1)
        else:
            next_step = step + ((at_w, at_h) == (w0, h0))
            yield from _match(written, heard, at_w, w1, at_h, h1, next_step)


def _anchors(
    written: Sequence[str], heard: Sequence[str], w0: int, w1: int, h0: int, h1: int, size: int
) -> list[tuple[int, int, int]]:
    """Find runs of equal words, as (first written, first heard, number of words), in order in both.

    A run holds a sequence of `size` words that is found once in each. Of runs that cross, the set with the most words
    is taken; a short run far off the line between its neighbours is taken for chance.
    """
    places = [_unique(written, w0, w1, size), _unique(heard, h0, h1, size)]
    seeds = sorted((place, places[1][words]) for words, place in places[0].items() if words in places[1])
    runs: list[tuple[int, int, int]] = []
    for w, h in seeds:
        if runs and w - h == runs[-1][0] - runs[-1][1] and w <= runs[-1][0] + runs[-1][2]:
            runs[-1] = (*runs[-1][:2], w + size - runs[-1][0])
        else:
            runs.append((w, h, size))
    return _plausible(_heaviest_chain(runs), (w0, h0), (w1, h1))


def _unique(words: Sequence[str], start: int, end: int, size: int) -> dict[tuple[str, ...], int]:
    grams = [tuple(words[at : at + size]) for at in range(start, end - size + 1)]
    counts = Counter(grams)
    return {gram: start + at for at, gram in enumerate(grams) if counts[gram] == 1}


def _heaviest_chain(runs: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Runs sorted by their first place -> those of the chain, increasing in both places, that has the most words."""
    ends: list[int] = []  # heard place behind the last run of each chain that is worth keeping, increasing ...
    chains: list[tuple[int, int]] = []  # ... with its words, increasing too, and its last run
    before: list[int] = []
    done = 0
    order = sorted(range(len(runs)), key=lambda at: runs[at][0] + runs[at][2])  # by the place where they end
    totals = [0] * len(runs)
    for at, (w, h, count) in enumerate(runs):
        while done < len(order) and runs[order[done]][0] + runs[order[done]][2] <= w:
            ended = order[done]
            done += 1
            end, total = runs[ended][1] + runs[ended][2], totals[ended]
            spot = bisect_left(ends, end + 1)
            if spot and chains[spot - 1][0] >= total:
                continue
            spot = bisect_left(ends, end)
            stop = spot
            while stop < len(ends) and chains[stop][0] <= total:
                stop += 1
            ends[spot:stop], chains[spot:stop] = [end], [(total, ended)]
        spot = bisect_left(ends, h + 1)
        total, last = chains[spot - 1] if spot else (0, -1)
        totals[at] = total + count
        before.append(last)
    chain: list[tuple[int, int, int]] = []
    at = max(range(len(runs)), key=totals.__getitem__) if runs else -1
    while at >= 0:
        chain.append(runs[at])
        at = before[at]
    return chain[::-1]


def _plausible(
    chain: list[tuple[int, int, int]], first: tuple[int, int], last: tuple[int, int]
) -> list[tuple[int, int, int]]:
    """Drop runs whose way there and back, in skipped words, is long for their own words."""
    kept: list[tuple[int, int, int]] = []
    for at, (w, h, count) in enumerate(chain):
        before = kept[-1] if kept else (*first, 0)
        after = chain[at + 1] if at + 1 < len(chain) else (*last, 0)
        shift, shift_before, shift_after = (place[0] - place[1] for place in ((w, h), before, after))
        detour = abs(shift - shift_before) + abs(shift_after - shift) - abs(shift_after - shift_before)
        if detour <= 6 * count:
            kept.append((w, h, count))
    return kept


def _by_table(written: Sequence[str], heard: Sequence[str], w0: int, w1: int, h0: int, h1: int) -> Iterator[Match]:
    """Match a block by dynamic programming. Of a block that is too large only the two ends are matched: thousands of
    words without one anchor are not the same text."""
    if w0 == w1 or h0 == h1:
        return
    if (w1 - w0) * (h1 - h0) > _CELLS:
        side = int(_CELLS**0.5) // 2
        w, h = min(side, (w1 - w0) // 2), min(side, (h1 - h0) // 2)
        yield from _by_table(written, heard, w0, w0 + w, h0, h0 + h)
        yield from _by_table(written, heard, w1 - w, w1, h1 - h, h1)
        return
    alike = similarity(written[w0:w1], heard[h0:h1])  # (written words, heard words)
    yield from (Match(w0 + w, h0 + h, float(alike[w, h])) for w, h in _best_path(alike))


def _best_path(alike: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of the best way through (written, heard) similarities; affine gaps (Gotoh 1982), one row at a time."""
    rows, columns = alike.shape
    gain = alike.astype(np.float32) - _PAIR
    ramp = _SKIP * np.arange(columns + 1, dtype=np.float32)
    # Best score that ends in a pair, in a skipped written word, and in any of the three, for the row above.
    came = np.zeros((rows + 1, columns + 1), dtype=np.int8)  # 0 pair, 1 skip written, 2 skip heard
    opened = np.zeros((rows + 1, columns + 1), dtype=bool)  # a skip of a written word starts here
    best = np.concatenate([[0.0], -_OPEN - ramp[1:]]).astype(np.float32)
    came[0, 1:] = 2
    starts = np.zeros((rows + 1, columns + 1), dtype=np.int32)  # where a run of skipped heard words starts
    down = np.full(columns + 1, -np.inf, dtype=np.float32)
    for row in range(1, rows + 1):
        opened[row] = best - _OPEN >= down
        down = np.maximum(best - _OPEN, down) - _SKIP
        pair = np.full(columns + 1, -np.inf, dtype=np.float32)
        pair[1:] = best[:-1] + gain[row - 1]
        best = np.maximum(pair, down)
        came[row] = down > pair
        # Skipping heard words: the best start to the left, found for all columns at once.
        start_scores = best + ramp
        peaks = np.maximum.accumulate(start_scores)
        first = np.maximum.accumulate(np.where(start_scores >= peaks, np.arange(columns + 1), 0))
        across = np.concatenate([[-np.inf], peaks[:-1] - ramp[1:] - _OPEN])
        better = across > best
        best = np.where(better, across, best).astype(np.float32)
        came[row][better] = 2
        starts[row, 1:] = first[:-1]
    pairs: list[tuple[int, int]] = []
    row, column = rows, columns
    while row and column:
        if came[row, column] == 0:
            row, column = row - 1, column - 1
            pairs.append((row, column))
        elif came[row, column] == 1:
            while not opened[row, column]:
                row -= 1
            row -= 1
        else:
            column = starts[row, column]
    return pairs[::-1]


def similarity(written: Sequence[str], heard: Sequence[str]) -> np.ndarray:
    """How alike words are, (written words, heard words) float32 in [0, 1]; 1 only for the same word.

    The mean of two Dice coefficients over pairs of neighbouring letters: of the spelling, and of a rough key of the sound.
    """
    rows, columns = sorted(set(written)), sorted(set(heard))
    numbers = {word: at for at, word in enumerate(columns)}
    table = np.zeros((len(rows), len(columns)), dtype=np.float32)
    for forms in ((rows, columns), ([sound_key(word) for word in rows], [sound_key(word) for word in columns])):
        left, right = (_letter_pairs(words) for words in forms)
        sizes = left.sum(axis=1)[:, None] + right.sum(axis=1)[None, :]
        table += left @ right.T / np.maximum(sizes, 1)
    table = np.minimum(table, 0.95)
    for at, word in enumerate(rows):
        if word in numbers:
            table[at, numbers[word]] = 1.0
    index = {word: at for at, word in enumerate(rows)}
    return table[np.ix_([index[word] for word in written], [numbers[word] for word in heard])]


def _letter_pairs(words: Sequence[str]) -> np.ndarray:
    """(words, _BUCKETS) float32: 1 where a word has a pair of neighbouring letters; its ends count as a letter."""
    table = np.zeros((len(words), _BUCKETS), dtype=np.float32)
    for row, word in enumerate(words):
        padded = f" {word} "
        for one, two in zip(padded, padded[1:]):
            table[row, (ord(one) * 37 + ord(two)) % _BUCKETS] = 1.0
    return table


_SOUNDS = tuple(
    (re.compile(pattern), sound)
    for pattern, sound in (
        ("^kn|^gn", "n"), ("^wr", "r"), ("^wh", "w"), ("^x", "s"), ("^ps", "s"), ("mb$", "m"), ("ght", "t"), ("gh", ""),
        ("ph", "f"), ("t(?=ion|ure)", "x"), ("s(?=ion|ure)", "x"), ("c(?=ia|ie|io)", "x"), ("tch|ch|sh", "x"),
        ("dge|dg|j|g(?=[eiy])", "x"), ("th", "d"), ("ck|q|c(?![eiy])", "k"), ("c", "s"), ("x(?!$)", "x"),
        ("z", "s"), ("v", "f"), ("b", "p"), ("d", "t"), ("g", "k"), ("(?<=.)[hw]", ""), ("(?<=.)[aeiouy]+", ""),
        ("^[aeiouy]", "a"), (r"(.)\1+", r"\1"),
    )
)  # fmt: skip


# The names of letters, but for those that are words.
_NAMES = dict(
    pair.split(":")
    for pair in """b:bee c:see d:dee e:ee f:ef g:gee h:aitch j:jay k:kay l:el m:em n:en o:oh p:pee q:cue r:are s:ess t:tee
    u:you v:vee w:doubleyou x:ex y:why z:zee""".split()  # noqa: SIM905
)


def sound_key(word: str) -> str:
    """A rough key of how an English word sounds: its consonants, voiced and unvoiced as one; "there", "their": "tr".

    Of a single letter, how its name sounds.
    """
    if not word.isascii():
        return word
    word = _NAMES.get(word, word)
    for pattern, sound in _SOUNDS:
        word = pattern.sub(sound, word)
    return word
