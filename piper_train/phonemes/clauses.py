"""From espeak's clauses to sentences of phonemes.

espeak cuts a text into clauses and says for each its phonemes, the punctuation that ended it, and whether that ended
the sentence. A phoneme is one code point of the NFD form: stress, length and combining marks are phonemes of their own.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

Sentences = list[list[str]]
Clusters = frozenset[tuple[str, ...]]

_PAUSES = (",", ":", ";")  # the sentence goes on behind them, after a space
_LANGUAGE_MARK = re.compile(r"\([^)]+\)")  # "(en)" before and "(ru)" after a word of another language


class Clause(NamedTuple):
    """What espeak makes of one clause."""

    phonemes: str
    terminator: str  # one of . ? ! , : ; or ""
    ends_sentence: bool


def sentences_of(clauses: Iterable[Clause], clusters: Clusters = frozenset()) -> Sentences:
    """Join clauses to sentences of phonemes; `clusters` of phonemes become one phoneme each."""
    sentences: Sentences = []
    current: list[str] = []
    is_open = False
    for clause in clauses:
        text = _LANGUAGE_MARK.sub("", clause.phonemes) + clause.terminator
        current.extend(unicodedata.normalize("NFD", text + " " if clause.terminator in _PAUSES else text))
        is_open = not clause.ends_sentence
        if clause.ends_sentence:
            sentences.append(current)
            current = []
    if is_open:
        sentences.append(current)
    return [merge_clusters(sentence, clusters) for sentence in sentences]


def split_raw(text: str) -> list[str]:
    """Cut a text at its `[[ phonemes ]]`: words at even places, raw phonemes in their brackets at odd ones.

    Brackets close on their line. Takes time in proportion to the text, also for brackets that never close.
    """
    parts = []
    start = line_start = 0  # of the words that come next, of the line
    for line in text.split("\n"):
        place = 0
        while (begin := line.find("[[", place)) >= 0 and (end := line.find("]]", begin + 2)) >= 0:
            place = end + 2
            parts += [text[start : line_start + begin], line[begin:place]]
            start = line_start + place
        line_start += len(line) + 1
    return [*parts, text[start:]]


def join_raw(parts: Sequence[str], spoken: Sequence[Sentences]) -> Sentences:
    """Put raw phonemes between those of the words, as the Piper client does.

    `parts` come from split_raw; `spoken` are the sentences of its even places. Raw phonemes go on with the sentence
    before them, and the words behind go on with theirs. A space stays where one stood outside the brackets. A text
    without words is one empty sentence (the client then has none to speak).
    """
    sentences: Sentences = []
    after_raw = False
    for place, part in enumerate(parts):
        if place % 2 == 0:
            words = spoken[place // 2]
            if after_raw and sentences and words:
                sentences[-1].extend(words[0])
                words = words[1:]
            sentences.extend(list(sentence) for sentence in words)
            after_raw = False
            continue
        if not sentences:
            sentences.append([])
        if parts[place - 1].endswith(" "):
            sentences[-1].append(" ")
        sentences[-1].extend(part[2:-2].strip())
        if parts[place + 1].startswith(" "):
            sentences[-1].append(" ")
        after_raw = True
    if len(sentences) > 1 and not sentences[-1]:  # a bracket or a quote behind the last full stop
        sentences.pop()
    return sentences or [[]]


def merge_clusters(phonemes: list[str], clusters: Clusters) -> list[str]:
    """Make one phoneme of each run that `clusters` holds, the longest first."""
    if not clusters:
        return phonemes
    longest = max(len(cluster) for cluster in clusters)
    merged: list[str] = []
    place = 0
    while place < len(phonemes):
        for length in range(min(longest, len(phonemes) - place), 1, -1):
            run = tuple(phonemes[place : place + length])
            if run in clusters:
                merged.append("".join(run))
                place += length
                break
        else:
            merged.append(phonemes[place])
            place += 1
    return merged


def clusters_of(value: Any) -> Clusters:
    """Read vowel clusters: `[["a", "ɪ"], ...]` as a list or as JSON text, or None. Raises ValueError."""
    if value is None or value == "":
        return frozenset()
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError('vowel_clusters is no JSON; write [["a", "ɪ"], ["a", "ʊ"]]') from None
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise ValueError('vowel_clusters is not a list; write [["a", "ɪ"], ["a", "ʊ"]]')
    clusters = set()
    for cluster in value:
        if (
            not isinstance(cluster, (list, tuple))
            or len(cluster) < 2
            or not all(isinstance(phoneme, str) and phoneme for phoneme in cluster)
        ):
            raise ValueError('each of the vowel_clusters is a list of two phonemes or more, as ["a", "ɪ"]')
        clusters.add(tuple(cluster))
    return frozenset(clusters)
