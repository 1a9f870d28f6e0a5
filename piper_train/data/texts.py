"""The phonemes of the rows' texts: those that are known from before, and the rest by a phonemizer.

Phonemes are kept as one text: `U+001F` behind each phoneme, `U+001E` behind each sentence. Neither can be a phoneme, as
control characters are taken out of every text that is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import islice

from piper_train.phonemes.phonemizer import open_phonemizer

from .rows import Row

_PHONEME, _SENTENCE = "\x1f", "\x1e"
_AT_ONCE = 512  # texts handed to the phonemizer together

Sentences = list[list[str]]


def pack(sentences: Sequence[Sequence[str]]) -> str:
    """Sentences of phonemes as one text."""
    return "".join("".join(phoneme + _PHONEME for phoneme in sentence) + _SENTENCE for sentence in sentences)


def unpack(packed: str) -> Sentences:
    """The sentences of a packed text."""
    return [sentence.split(_PHONEME)[:-1] for sentence in packed.split(_SENTENCE)[:-1]]


def text_key(text: str, made_by: str) -> bytes:
    """16 bytes that stand for a text and for how its phonemes are made."""
    return hashlib.blake2b(f"{made_by}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def phonemes_of_rows(
    rows: Sequence[Row],
    known: Mapping[bytes, str],
    phoneme_type: str,
    espeak_voice: str,
    vowel_clusters: Sequence[Sequence[str]],
    source: str,
) -> tuple[dict[str, tuple[bytes, str]], str, bool]:
    """Return text -> (key, packed phonemes) for all rows, what made them, and whether it is what the client uses.

    `known` maps keys to packed phonemes of an earlier run. Raises UserError if there is nothing to make phonemes with.
    """
    clusters = [list(cluster) for cluster in vowel_clusters] or None
    with open_phonemizer(phoneme_type, espeak_voice, clusters, source) as phonemizer:
        made_by = json.dumps([phoneme_type, espeak_voice, clusters, phonemizer.source])
        keys = {row.text: text_key(row.text, made_by) for row in rows if row.ids is None}
        found = {text: (key, known[key]) for text, key in keys.items() if key in known}
        unknown = (text for text in keys if text not in found)
        fresh = {}
        while texts := list(islice(unknown, _AT_ONCE)):
            for text, sentences in zip(texts, phonemizer.many(texts)):
                fresh[text] = (keys[text], pack(sentences))
        return {**found, **fresh}, phonemizer.source, phonemizer.exact
