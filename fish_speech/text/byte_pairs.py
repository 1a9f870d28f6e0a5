"""Learn byte-pair merges from texts: the ranks of a `tokenizer.tiktoken` (arXiv:1508.07909).

Words are cut as the Tokenizer cuts them when it encodes, so no merge crosses a word's border; a leading space belongs to
its word. Equal texts give equal merges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from .tokenizer import SPLIT_PATTERN

Pair = tuple[bytes, bytes]


def count_words(texts: Iterable[str]) -> Counter[bytes]:
    """Count the words of `texts`, cut by the Tokenizer's pattern, as UTF-8."""
    import regex

    pattern = regex.compile(SPLIT_PATTERN)
    words: Counter[bytes] = Counter()
    for text in texts:
        words.update(found.group().encode() for found in pattern.finditer(text))
    return words


def learn_ranks(words: Mapping[bytes, int], merges: int) -> dict[bytes, int]:
    """Return the 256 bytes and at most `merges` longer tokens with their ranks, learned from word counts.

    Each step joins the commonest pair of neighbours, of equally common ones the first in byte order; it ends early where
    no pair occurs twice.
    """
    ranks = {bytes([byte]): byte for byte in range(256)}
    pieces = {word: [bytes([byte]) for byte in word] for word in sorted(words)}
    while len(ranks) < 256 + merges:
        pairs: Counter[Pair] = Counter()
        for word, parts in pieces.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] += words[word]
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            break
        ranks.setdefault(best[0] + best[1], len(ranks))
        pieces = {word: _joined(parts, best) for word, parts in pieces.items() if len(parts) > 1}
    return ranks


def _joined(parts: list[bytes], pair: Pair) -> list[bytes]:
    joined: list[bytes] = []
    index = 0
    while index < len(parts):
        if tuple(parts[index : index + 2]) == pair:
            joined.append(pair[0] + pair[1])
            index += 2
        else:
            joined.append(parts[index])
            index += 1
    return joined
