"""The text of a clip: what is spoken in it, how sure that is, and whether to believe it.

A given text is believed as far as it was heard; a recognised one as far as its recogniser is sure.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from ..recognition import join_words
from ..text.words import join, letters_of
from ..timeline import Piece
from .alignment import HEARD

# When a clip is left out; measured on 206 clips (17 min), pocketsphinx hearing 81 % of the words. Of the clips whose text
# is true 87 % are kept, all of them with their exact text; where one clip in five has text that is not spoken or speech
# that is not written (a sentence, half a clip, 3 or more words), 98.1 % of those kept are exact.
_MEAN_CONFIDENCE = 0.5
_EDGE_CONFIDENCE = 0.12  # of the first and the last word
_RUN_CONFIDENCE, _RUN_LETTERS = 0.3, 12  # so many letters in a row, each less sure than that
_EXTRA_S = 0.4  # heard between the words
_EDGE_LETTERS = 8  # about two words
# Mean over letters. pocketsphinx on 52 of Allison's clips: 0.79 of the words are wrong below, 0.30 above.
LEAST_CONFIDENCE = 0.5


def recognised_text(words: Sequence[Piece], start_s: float, end_s: float) -> tuple[str, float, str | None]:
    """Return the words whose middle lies in [start_s, end_s), their mean confidence, and why to leave it out, or None."""
    inside = _within(words, start_s, end_s)
    if not inside:
        return "", 0.0, "no words: speech in which none was recognised"
    letters = [max(1, len(word.text)) for word in inside]
    confidence = sum(word.confidence * size for word, size in zip(inside, letters)) / sum(letters)
    reason = None
    if confidence < LEAST_CONFIDENCE:
        reason = f"text uncertain: the recogniser is sure of {confidence:.0%} of it"
    return join_words(inside), confidence, reason


def clip_text(
    pieces: Sequence[Piece], start_s: float, end_s: float, heard: Sequence[Piece] = ()
) -> tuple[str, float, str | None]:
    """Return the text spoken in the clip [start_s, end_s), how sure it is (0-1), and why to leave it out, or None.

    `pieces`, in order of time, are words of `align`, recognised words or subtitles; those whose middle lies in the clip
    count. Words that `align` found not to be spoken (confidence 0 and no length) are not part of the text. With `heard`,
    what `align` was given, speech between the words that the text does not have is a reason too.
    """
    inside = _within(pieces, start_s, end_s)
    inside = [piece for piece in inside if piece.confidence > 0 or piece.end_s > piece.start_s]
    said = [piece for piece in inside if letters_of(piece.text)]
    if not said:
        return "", 0.0, "no words: speech that the text does not have"
    text = join(piece.text for piece in inside).strip()
    mean = _mean_confidence(said)
    edges = [_mean_confidence(_edge(said)), _mean_confidence(_edge(said[::-1]))]
    confidence = (mean + min(mean, *edges)) / 2
    if mean < _MEAN_CONFIDENCE:
        unheard = sum(piece.confidence < HEARD for piece in said)
        return text, confidence, f"text uncertain: {unheard} of {len(said)} words were not heard as written"
    for piece, where in ((said[0], "start"), (said[-1], "end")):
        if piece.confidence < _EDGE_CONFIDENCE:
            return text, confidence, f'text uncertain at the {where}: "{piece.text.strip()}" was not heard'
    run = _longest(said, lambda piece: piece.confidence < _RUN_CONFIDENCE, lambda piece: letters_of(piece.text))
    if sum(letters_of(piece.text) for piece in run) >= _RUN_LETTERS:
        return text, confidence, f'text uncertain: "{join(piece.text for piece in run).strip()}" was not heard'
    extra = _longest(_within(heard, start_s, end_s), lambda word: not _covered(word, inside), _length_s)
    if sum(map(_length_s, extra)) >= _EXTRA_S:
        return (
            text,
            confidence,
            (
                f'speech that the text does not have: "{join(word.text for word in extra).strip()}" was heard'
                f" at {extra[0].start_s:.1f} s"
            ),
        )
    return text, confidence, None


def _within(pieces: Sequence[Piece], start_s: float, end_s: float) -> Sequence[Piece]:
    def middle(piece: Piece) -> float:
        return (piece.start_s + piece.end_s) / 2

    return pieces[bisect_left(pieces, start_s, key=middle) : bisect_left(pieces, end_s, key=middle)]


def _length_s(piece: Piece) -> float:
    return piece.end_s - piece.start_s


def _mean_confidence(pieces: Sequence[Piece]) -> float:
    sizes = [letters_of(piece.text) for piece in pieces]
    return sum(piece.confidence * size for piece, size in zip(pieces, sizes)) / sum(sizes)


def _edge(pieces: Sequence[Piece]) -> Sequence[Piece]:
    """The first words, until they have _EDGE_LETTERS."""
    size = 0
    for count, piece in enumerate(pieces, start=1):
        size += letters_of(piece.text)
        if size >= _EDGE_LETTERS:
            return pieces[:count]
    return pieces


def _longest(
    pieces: Sequence[Piece], matches: Callable[[Piece], bool], size: Callable[[Piece], float]
) -> Sequence[Piece]:
    """The run of pieces that match with the largest sum of sizes; empty if none does."""
    best: Sequence[Piece] = ()
    start = 0
    for at, piece in enumerate(pieces):
        if not matches(piece):
            start = at + 1
        elif sum(map(size, pieces[start : at + 1])) > sum(map(size, best)):
            best = pieces[start : at + 1]
    return best


def _covered(word: Piece, pieces: Sequence[Piece]) -> bool:
    """Does some text lie where `word` was heard?"""
    overlap = sum(max(0.0, min(word.end_s, piece.end_s) - max(word.start_s, piece.start_s)) for piece in pieces)
    return overlap >= 0.3 * _length_s(word)
