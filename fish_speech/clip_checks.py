"""What packing asks of each clip: can it be trained on, and does its text fit its sound.

A clip is left out only for what makes it useless: codes or text that cannot be read, codes of another codec, a text that
nobody can speak in the time. What is merely odd is packed and named, so that a person can look: a text much faster or
slower than the speaker's others, a clip longer than training does well with.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from .audio import MAX_CLIP_S
from .codes import largest_of_rows, row_too_large
from .datasets.code_origin import whose_codes
from .datasets.recordings import LONG_S
from .datasets.sources import Clip, UnusableClip, read_codes, read_texts
from .prepare.rate import characters_per_s, implausible_rate

FRAME_RATE = 44100 / 2048  # frames per second of the 1.5 codec, for data that does not say its own
_USUAL_CODES = 1024  # entries of a codebook; a codec with more uses them in nearly every clip
# 45 clips of one reader, 3 to 19 s: 0.70 to 1.22 times the median rate, with a robust deviation of 0.16 in the logarithm.
_TIMES = 2.0  # faster or slower than the speaker's median, at least, to be odd
_DEVIATIONS = 4.0  # robust ones of the logarithm, at least
_FEWEST = 8  # clips that tell a speaker's rate
_JUDGED_FROM_S = 2.0  # one word in a shorter clip may take any part of it
_SYLLABIC = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")  # kana, han, hangul
_LETTERS_PER_SYLLABLE = 3  # so that texts of several scripts of one speaker can be compared


class CodecFacts(NamedTuple):
    """What is known of the codec that made the codes; None where the data does not say."""

    frame_rate: float | None = None  # frames of codes per second
    codebook_size: int | None = None  # codes are below
    codebook_sizes: tuple[int, ...] | None = None  # each codebook's own, where they differ


class Facts(NamedTuple):
    """What one clip is, or why it cannot be used."""

    reason: str | None = None
    largest: tuple[int, ...] = ()  # code of each codebook
    seconds: float = 0.0
    rate: float = 0.0  # letters per second of the first text
    implausible: str | None = None  # why no text of it can be what is spoken

    @property
    def codebooks(self) -> int:
        """Codes per frame."""
        return len(self.largest)


class Verdict(NamedTuple):
    """Why a clip is left out, or what is odd about it."""

    left_out: str | None = None
    odd: str | None = None


def look_at(frame_rate: float, clip: Clip) -> Facts:
    """Read a clip once and return what there is to judge."""
    try:
        codes, texts = read_codes(clip.codes), read_texts(clip)
    except UnusableClip as error:
        return Facts(str(error))
    seconds = codes.shape[1] / frame_rate
    letters = characters_per_s(texts[0], 1.0) + (_LETTERS_PER_SYLLABLE - 1) * len(_SYLLABIC.findall(texts[0]))
    implausible = next(filter(None, (implausible_rate(text, seconds) for text in texts)), None)
    return Facts(None, largest_of_rows(codes), seconds, letters / seconds, implausible)


def codebooks_of(facts: Sequence[Facts], codec: CodecFacts) -> int:
    """The number of codebooks that clips must have: the codec's, else what most usable clips have; 0 if there are none."""
    if codec.codebook_sizes is not None:
        return len(codec.codebook_sizes)
    counts = Counter(fact.codebooks for fact in facts if fact.reason is None)
    return max(counts, key=lambda count: (counts[count], count), default=0)


def judge(speakers: Sequence[str], facts: Sequence[Facts], codec: CodecFacts) -> list[Verdict]:
    """Return the verdict on each clip, given its speaker and what was found in it."""
    usable = [fact for fact in facts if fact.reason is None]
    codebooks = codebooks_of(facts, codec)
    sizes = _sizes(codebooks, usable, codec)
    # Without the frame rate the seconds are a guess; if they make most texts impossible, it was a wrong one.
    impossible = sum(fact.implausible is not None for fact in usable)
    seconds_known = codec.frame_rate is not None or 2 * impossible <= len(usable)
    rates = defaultdict(list)
    for speaker, fact in zip(speakers, facts):
        if fact.reason is None and fact.seconds >= _JUDGED_FROM_S and fact.rate > 0 and not fact.implausible:
            rates[speaker].append(math.log(fact.rate))
    usual = {speaker: _median_and_bound(values) for speaker, values in rates.items() if len(values) >= _FEWEST}

    def verdict(speaker: str, fact: Facts) -> Verdict:
        if fact.reason is not None:
            return Verdict(fact.reason)
        if fact.codebooks != codebooks:
            others = "most clips have" if codec.codebook_sizes is None else "this codec has"
            return Verdict(f"{fact.codebooks} codebooks{whose_codes(fact.codebooks)}, where {others} {codebooks}")
        if (row := row_too_large(fact.largest, sizes)) is not None:
            where = f" in codebook {row}" if len(set(sizes)) > 1 else ""
            return Verdict(
                f"it has the code {fact.largest[row]}{where}: codes of another codec, those of this one are "
                f"below {sizes[row]}"
            )
        if seconds_known and fact.implausible:
            return Verdict(f"{fact.implausible.removesuffix(' of speech')}; is it the transcript of this clip?")
        if seconds_known and fact.seconds > MAX_CLIP_S:
            return Verdict(f"too long: {fact.seconds:.0f} s, a clip has at most {MAX_CLIP_S:.0f} s; split it")
        odd = [_odd_rate(fact, *usual[speaker])] if speaker in usual else []
        if seconds_known and fact.seconds > LONG_S:
            odd.append(f"{fact.seconds:.1f} s long: 10 to 30 s train best; prepare_dataset.py cuts it")
        if fact.rate == 0:
            odd.append("no letter or digit in its transcript")
        return Verdict(odd="; ".join(filter(None, odd)) or None)

    return [verdict(speaker, fact) for speaker, fact in zip(speakers, facts)]


def _sizes(codebooks: int, usable: Sequence[Facts], codec: CodecFacts) -> list[int | None]:
    """What the codes of each codebook must be below. What nobody says is taken from what most clips have."""
    if codec.codebook_sizes is not None or codec.codebook_size is not None:
        return list(codec.codebook_sizes or [codec.codebook_size] * codebooks)
    alike = [fact.largest for fact in usable if fact.codebooks == codebooks]
    rows = range(codebooks)
    return [_USUAL_CODES if 2 * sum(it[row] < _USUAL_CODES for it in alike) > len(alike) else None for row in rows]


def _median_and_bound(logarithms: list[float]) -> tuple[float, float]:
    middle = median(logarithms)
    deviation = 1.4826 * median([abs(value - middle) for value in logarithms])
    return middle, max(math.log(_TIMES), _DEVIATIONS * deviation)


def _odd_rate(fact: Facts, middle: float, bound: float) -> str | None:
    """Say how far a text is off the speaker's rate, if it is far off."""
    if fact.seconds < _JUDGED_FROM_S or fact.rate <= 0 or abs(away := math.log(fact.rate) - middle) <= bound:
        return None
    return (
        f"its text is {math.exp(abs(away)):.1f} times as {'fast' if away > 0 else 'slow'} as this speaker's others "
        f"({fact.rate:.1f} letters/s, median {math.exp(middle):.1f}); is it the transcript of this clip?"
    )
