"""A language model for a second pass of pocketsphinx: it expects the words of one text, in their order.

A trigram model of the text with absolute discounting, that backs off to single words: half from the text, half from
general English, so that speech that is not in the text need not be heard as words of it.

Measured on samples/allison, joined (tests/prepare/test_biased_model.py): 98.5 % of the words are heard as written with
it, 87.4 % without; 98 % of the clips are kept instead of 93 %. With one clip in five corrupted (text that is not spoken,
speech that is not written), 84 % are kept instead of 80 %, all with their exact text either way. A number or spelled word
is expected in each of its readings: of 17 minutes with such words 84 of 86 clips are kept, 78 with the usual one alone.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

from ..extras import require
from ..recognition import Recognizer
from ..recognition.sphinx import PocketSphinx
from ..text.words import ends_sentence, words_of
from .options import Recognition
from .readings import Slot, is_ambiguous, readings_of

_DISCOUNT = 0.5  # taken from each count: what was seen once has half of the probability
_TEXT_SHARE = 0.5  # of the single words
_LOWEST = -99.0  # log10 of what never happens
_LOG_BASE = 1.0001  # of the integers in which pocketsphinx counts probabilities
_START, _END = "<s>", "</s>"

Gram = tuple[str, ...]


def expecting(text: str, wanted: Recognition) -> Recognizer:
    """Load the recogniser for a recording whose text is known: pocketsphinx expects it, others have no need to."""
    if wanted.asr == "pocketsphinx":
        with contextlib.suppress(ValueError):  # no word of the text is in the dictionary
            return PocketSphinx(biased_language_model(text, *general_english()))
    return wanted.load()


@cache
def general_english(count: int = 5000) -> tuple[frozenset[str], dict[str, float]]:
    """All words of pocketsphinx's English dictionary, and the probabilities of the `count` most frequent ones.

    About a second. Raises UserError if the package is missing.
    """
    pocketsphinx = require("pocketsphinx", "--asr pocketsphinx")
    with Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict")).open(encoding="utf-8") as lines:
        words = frozenset(line.split()[0] for line in lines if line.strip() and "(" not in line.split()[0])
    model = pocketsphinx.NGramModel.readfile(pocketsphinx.get_model_path("en-us/en-us.lm.bin"))
    scores = {word: model.prob([word]) for word in words}
    frequent = sorted(words, key=lambda word: (-scores[word], word))[:count]
    return words, {word: _LOG_BASE ** scores[word] for word in frequent}


def biased_language_model(
    text: str, dictionary: Collection[str], background: Mapping[str, float], language: str = "en"
) -> str:
    """Return a model in ARPA format of the words of `text` that are in `dictionary`; `Decoder(lm=PATH)` reads it.

    `background`: probabilities of general words; they need not sum to 1. Words are in lower case with apostrophes, as in
    pocketsphinx's dictionary; `general_english` gives both. Numbers, spelled words and addresses are expected in each of
    their readings (`readings_of`). Raises ValueError if no word of the text is known.
    """
    sentences = [_known(sentence, dictionary) for sentence in _sentences(text, language)]
    # Sentences may follow each other without a pause, so the text is counted in one go ...
    grams = _counted([slot for sentence in sentences for slot in sentence])
    if not grams[0]:
        raise ValueError("the dictionary knows no word of the text")
    for sentence in filter(None, sentences):  # ... and each one's start and end after a pause.
        marked = _counted([((_START,),), *sentence, ((_END,),)])
        for counts, more in zip(grams[1:], marked[1:]):
            counts.update({gram: count for gram, count in more.items() if gram[0] == _START or gram[-1] == _END})
    grams[0][(_END,)] = max(1, len(sentences))
    total = grams[0].total()
    known = {word: p for word, p in background.items() if word in dictionary}
    background_total = sum(known.values()) or 1.0
    share = _TEXT_SHARE if known else 1.0
    probabilities: list[dict[Gram, float]] = [
        {
            (word,): share * grams[0][(word,)] / total + (1 - share) * known.get(word, 0.0) / background_total
            for word in {*known, *(gram[0] for gram in grams[0])}
        }
    ]
    backoffs: list[dict[Gram, float]] = []
    for counts in grams[1:]:
        higher, backoff = _discounted(counts, probabilities, backoffs)
        probabilities.append(higher)
        backoffs.append(backoff)
    return _arpa(probabilities, backoffs)


def _sentences(text: str, language: str) -> list[list[Slot]]:
    from ..evaluation.normalize import comparable_words

    sentences: list[list[Slot]] = [[]]
    words = words_of(text)
    for word, following, slots in zip(words, [*words[1:], None], readings_of(words, language)):
        if is_ambiguous(slots):
            sentences[-1] += slots
        else:  # with its apostrophe
            sentences[-1] += [((part,),) for part in comparable_words(word, language)]
        if ends_sentence(word, following) and sentences[-1]:
            sentences.append([])
    return sentences


def _known(sentence: Sequence[Slot], dictionary: Collection[str]) -> list[Slot]:
    """The readings of which the dictionary has all words; if there are none, the words that it has."""
    known: list[Slot] = []
    for slot in sentence:
        whole = tuple(reading for reading in slot if all(word in dictionary for word in reading))
        if any(whole):
            known.append(whole)
        elif parts := tuple(word for word in slot[0] if word in dictionary):
            known.append((parts,))
    return known


def _counted(slots: Sequence[Slot]) -> list[Counter[Gram]]:
    """How often each n-gram can be said, for n of 1, 2, 3: once per place, in whatever readings around it."""
    grams: list[Counter[Gram]] = [Counter(), Counter(), Counter()]
    histories: set[Gram] = {()}
    for slot in slots:
        ends: set[Gram] = set()
        found: set[tuple[int, Gram]] = set()
        for history in histories:
            for reading in slot:
                said = (*history, *reading)
                for at in range(len(history), len(said)):
                    found.update((at - len(history), said[at - size : at + 1]) for size in range(min(3, at + 1)))
                ends.add(said[-2:])
        for _, gram in found:
            grams[len(gram) - 1][gram] += 1
        histories = ends
    return grams


def _discounted(
    counts: Counter[Gram], lower: list[dict[Gram, float]], backoffs: list[dict[Gram, float]]
) -> tuple[dict[Gram, float], dict[Gram, float]]:
    """Probabilities of the n-grams counted, and the weight with which each history backs off to shorter ones."""
    followers: defaultdict[Gram, list[Gram]] = defaultdict(list)
    for gram in counts:
        followers[gram[:-1]].append(gram)
    probabilities: dict[Gram, float] = {}
    weights: dict[Gram, float] = {}
    for history, seen in followers.items():
        total = sum(counts[gram] for gram in seen)
        for gram in seen:
            probabilities[gram] = (counts[gram] - _DISCOUNT) / total
        left = 1 - sum(_probability(gram[1:], lower, backoffs) for gram in seen)
        weights[history] = _DISCOUNT * len(seen) / total / max(left, 1e-6)
    return probabilities, weights


def _probability(gram: Gram, probabilities: list[dict[Gram, float]], backoffs: list[dict[Gram, float]]) -> float:
    found = probabilities[len(gram) - 1].get(gram)
    if found is not None:
        return found
    return backoffs[len(gram) - 2].get(gram[:-1], 1.0) * _probability(gram[1:], probabilities, backoffs)


def _arpa(probabilities: list[dict[Gram, float]], backoffs: list[dict[Gram, float]]) -> str:
    lines = ["\\data\\"]
    tables = [dict(table) for table in probabilities]
    tables[0][(_START,)] = 0.0
    lines += [f"ngram {size}={len(table)}" for size, table in enumerate(tables, start=1)]
    for size, table in enumerate(tables, start=1):
        lines += ["", f"\\{size}-grams:"]
        for gram in sorted(table):
            line = f"{_log10(table[gram]):.4f} {' '.join(gram)}"
            if size <= len(backoffs):
                line += f" {_log10(backoffs[size - 1].get(gram, 1.0)):.4f}"
            lines.append(line)
    return "\n".join([*lines, "", "\\end\\", ""])


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else _LOWEST
