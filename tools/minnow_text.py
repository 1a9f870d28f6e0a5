"""The sentences of the minnow corpus: WordNet's usage examples and an own grammar, cleaned, ranked and held out.

WordNet writes a usage example in quotes after a definition. Only examples without an attribution are taken, so nothing
here is quoted from a book, and those with rare words are dropped.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tools.minnow_grammar import ONES, grammar_sentences

MAX_CHARACTERS = 75
WORDS_PER_SENTENCE = (3, 12)
HELDOUT_WORDS = (4, 10)
MIN_WORD_COUNT = 5  # how often WordNet's glosses must use every word of an example
GRAMMAR_FACTOR = 1.0  # grammar sentences for each example of WordNet
NEAR_TWIN = 0.8  # shared words by all words: nearer than this to a held-out sentence stays out of training

_EXAMPLE = re.compile(r'"([^"]+)"(?=\s*(?:;|$))')
_SENTENCE = re.compile(r"[A-Z][A-Za-z']*(?:,? [A-Za-z][A-Za-z']*)*[.?!]")
_ABBREVIATION = re.compile(
    r"\b(?:[A-Z]{2,}|Mrs?|Ms|Dr|Prof|St|Jr|Sr|etc|vs|ca|cf|eg|ie|Inc|Ltd|sb|sth|(?<!')[b-hj-zB-HJ-Z])\b"
)
_SUBJECT = r"(?:I|you|he|she|it|we|they|there|the|this|that|these|those|my|your|his|her|our|their|anyone|anybody)"
_AUXILIARY = r"(?:is|are|was|were|am|do|does|did|can|could|will|would|shall|should|have|has|had|may|must)"
_QUESTION = re.compile(
    rf"(?:(?:who|what|where|when|why|how|which|whose)(?: much| many| long| far| often| fast)? {_AUXILIARY} {_SUBJECT}"
    r"|(?:who|what|where)'s|(?!do (?:your|my|his|her|our|their|the|this|that)\b)"
    rf"(?:is|are|do|does|did|can|could|will|would|shall|should) {_SUBJECT}) ",
    re.IGNORECASE,
)
# Stems that a demo voice should not speak.
_UNWANTED = re.compile(
    r"\b(?:rap(?:e|ed|es|ist)\b|sex|nude|naked|whor|slut|fuck|shit|bitch|bastard|damn|nigg|negro|jew|gay|lesb|homosex|queer"
    r"|prostitut|porn|orgas|erot|penis|vagin|breast|genital|masturb|suicid|murder|tortur|slaughter|massacr|nazi|hitler"
    r"|terroris|slave|drug|cocaine|heroin|urin|feces|vomit|pee\b|piss|arous|seduc|virgin|abort|lynch|molest|savages?\b"
    r"|corpse|behead|stab|strangl|moron|idiot|cripple|retard|whip|flog|execut|bomb|holocaust|racis|bloody|ass\b|tits?\b)",
    re.IGNORECASE,
)


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, digits spelled out: two texts with the same words are the same to a listener."""
    text = re.sub(r"\d", lambda match: f" {ONES[int(match[0])]} ", text.lower())
    return re.findall(r"[a-z]+(?:'[a-z]+)*", text)


def is_speakable(sentence: str) -> bool:
    """Whether a sentence has the form that the corpus wants: plain words, a capital, one end mark, no abbreviation."""
    few, many = WORDS_PER_SENTENCE
    return (
        len(sentence) <= MAX_CHARACTERS
        and few <= len(sentence.split()) <= many
        and _SENTENCE.fullmatch(sentence) is not None
    )


def tidy_example(example: str) -> str | None:
    """Make a sentence of a usage example: "the train leaves at noon" becomes "The train leaves at noon."; None: cannot."""
    text = " ".join(example.replace("-", " ").replace("`", "'").split()).strip(" ,;")
    if not text or _ABBREVIATION.search(text) or _UNWANTED.search(text):
        return None
    text = re.sub(r"\bi\b", "I", text)
    if text[-1] not in ".?!":
        text += "?" if _QUESTION.match(text) else "."
    text = text[0].upper() + text[1:]
    return text if is_speakable(text) else None


def wordnet_sentences(folder: Path, min_word_count: int = MIN_WORD_COUNT) -> list[str]:
    """The usage examples of WordNet's data files in which no word is rare, the commonest wording first."""
    counts: Counter[str] = Counter()
    examples: set[str] = set()
    for name in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{name}").read_text("ascii", errors="ignore").splitlines():
            if line.startswith("  ") or "|" not in line:
                continue  # the licence at the head of the file
            gloss = line.split("|", 1)[1]
            counts.update(words_of(gloss.replace("-", " ")))
            examples.update(filter(None, map(tidy_example, _EXAMPLE.findall(gloss))))
    rarest = {text: min(counts[word] for word in words_of(text)) for text in examples}
    return sorted((text for text in examples if rarest[text] >= min_word_count), key=lambda text: (-rarest[text], text))


def drop_repeats(sentences: Iterable[str], seen: set[tuple[str, ...]]) -> Iterator[str]:
    """Yield the sentences whose words are not among `seen`, and remember them there."""
    for sentence in sentences:
        words = tuple(words_of(sentence))
        if words not in seen:
            seen.add(words)
            yield sentence


def _near_twin(words: set[str], others: Iterable[set[str]]) -> bool:
    return any(len(words & other) >= NEAR_TWIN * len(words | other) for other in others)


@dataclass
class Sentences:
    """What is read: sentences to train on, shuffled, and those held out."""

    train: list[str]
    heldout: list[str]
    from_wordnet: set[str] = field(repr=False)

    def distinct_words(self) -> int:
        """How many different words the training sentences use."""
        return len({word for sentence in self.train for word in words_of(sentence)})


def make_sentences(wordnet: Path, seed: int, heldout: int, excluded: Iterable[str] = ()) -> Sentences:
    """Collect, shuffle and split the sentences; the same arguments give the same ones.

    No sentence has the words of one of the `excluded` texts or of one of their sentences.
    """
    seen = {tuple(words_of(part)) for text in excluded for part in [text, *re.split(r"[.?!]", text)]}
    examples = list(drop_repeats(wordnet_sentences(wordnet), seen))
    speakable = filter(is_speakable, grammar_sentences(seed))
    grammar = list(islice(drop_repeats(speakable, seen), round(GRAMMAR_FACTOR * len(examples))))
    pool = examples + grammar
    rng = random.Random(seed)
    rng.shuffle(pool)
    few, many = HELDOUT_WORDS
    held = [text for text in pool if few <= len(text.split()) <= many and " is spelled " not in text][:heldout]
    held_words = [set(words_of(text)) for text in held]
    train = [text for text in pool if not _near_twin(set(words_of(text)), held_words)]
    return Sentences(train, held, set(examples))
