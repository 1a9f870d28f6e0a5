"""Prompts of OpenAudio S1: one sequence of texts and codes without roles becomes rows of ids.

A clip is spoken as `<|interleave|>` `<|speaker:0|>` TEXT CODES `<|im_end|>`, references before it in the same way but for
the opening. Each part is tokenised on its own, so no byte-pair merge crosses a part's border; the speaker's name is
ordinary text. prompts.py tells the functions that every family has.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .encoded import IGNORED, Clip, Encoded, Example, join_examples, reference_codes, semantic_ids, text_ids
from .normalize import clean_text
from .special_tokens import IM_END, MODALITIES, VOICE
from .tokenizer import Tokenizer

SPEAKER = "<|speaker:{}|>"  # no special token of this family
RELEASED_INSTRUCTION = "Speak out the provided text."


@dataclass(frozen=True)
class Part:
    """Text, ids of tokens, or codes (codebooks, frames)."""

    content: str | Sequence[int] | np.ndarray  # an array is codes
    with_loss: bool = False  # whether the loss looks at this part

    def ids(self, tokenizer: Tokenizer) -> np.ndarray:
        """Return the ids of this part alone, (tokens,) int64."""
        if isinstance(self.content, np.ndarray):
            return semantic_ids(tokenizer, self.content)
        if isinstance(self.content, str):
            return text_ids(tokenizer, self.content)
        return np.asarray(self.content, np.int64)


@dataclass(frozen=True)
class ContentSequence:
    """Parts in order."""

    parts: tuple[Part, ...] = ()

    @classmethod
    def of(cls, modality: Literal["text", "voice", "interleave"], *parts: Part) -> ContentSequence:
        """Return `parts` behind the token of a modality, which is added unless the first is a text that starts with it."""
        opening = MODALITIES[modality]
        first = parts[0].content if parts else ""
        has_it = isinstance(first, str) and first.startswith(opening)
        return cls(parts if has_it else (Part(opening), *parts))

    def append(self, parts: Sequence[Part], end: bool = False, speaker: int | str | None = None) -> ContentSequence:
        """Return this sequence with more parts: the speaker's name before them, `<|im_end|>` behind them.

        The end has the loss that the part before it has.
        """
        named = [] if speaker is None else [Part(SPEAKER.format(speaker))]
        longer = (*self.parts, *named, *parts)
        ended = (Part(IM_END, bool(longer) and longer[-1].with_loss),) if end else ()
        return ContentSequence((*longer, *ended))

    def encode(self, tokenizer: Tokenizer, shift: bool = True, ignored_ids: Collection[int] = ()) -> Encoded:
        """Return ids and labels. `shift` drops the last token and the first label, so that labels[i] follows tokens[i].

        Labels in `ignored_ids` become IGNORED.
        """
        ids = [part.ids(tokenizer) for part in self.parts]
        tokens = np.concatenate([*ids, np.zeros(0, np.int64)])
        lengths = [len(of_part) for of_part in ids]
        has_loss = np.repeat(np.array([part.with_loss for part in self.parts], bool), lengths)
        is_code = np.repeat(np.array([isinstance(part.content, np.ndarray) for part in self.parts], bool), lengths)
        labels = np.where(has_loss & ~np.isin(tokens, list(ignored_ids)), tokens, IGNORED)
        codes = [part.content for part in self.parts if isinstance(part.content, np.ndarray)]
        encoded = Encoded(tokens, labels, is_code, is_code, codes)
        return encoded.shifted() if shift else encoded

    def matrix(self, tokenizer: Tokenizer, num_codebooks: int) -> np.ndarray:
        """Return the input for synthesis, (1 + codebooks, tokens) int64."""
        return self.encode(tokenizer, shift=False).matrix(num_codebooks)


_OPENING = ContentSequence.of("interleave")


def packed_sample(tokenizer: Tokenizer, clips: Sequence[Clip]) -> Example:
    """One prompt: the first clip as it is asked for alone, each other as it is behind references.

    The loss covers the frames of all clips and the `<|im_end|>` behind each.
    """
    sequence = _OPENING
    for text, codes in clips:
        sequence = sequence.append([Part(text), Part(codes, with_loss=True)], end=True, speaker=0)
    return sequence.encode(tokenizer, shift=True).example()


def released_sample(tokenizer: Tokenizer, clips: Sequence[Clip]) -> Example:
    """As the released system trains, which is not how it asks for speech; for comparisons."""
    examples = []
    for text, codes in clips:
        parts = [
            Part(RELEASED_INSTRUCTION),
            Part(f"{SPEAKER.format('user')} {text}"),
            Part(IM_END),
            Part(f"{SPEAKER.format('assistant')} {VOICE}"),
            Part(codes, with_loss=True),
        ]
        examples.append(ContentSequence().append(parts, end=True).encode(tokenizer, shift=True).example())
    return join_examples(examples)


EXAMPLES = {"default": packed_sample, "released": released_sample}


def system_block(tokenizer: Tokenizer, num_codebooks: int) -> np.ndarray:
    """The token `<|interleave|>`."""
    return _OPENING.matrix(tokenizer, num_codebooks)


def reference_block(tokenizer: Tokenizer, text: str, codes: np.ndarray, num_codebooks: int) -> np.ndarray:
    """Text and codes of one speaker, see prompts.py; all references are of speaker 0, as is the request."""
    parts = [Part(clean_text(text)), Part(reference_codes(codes, num_codebooks))]
    return ContentSequence().append(parts, end=True, speaker=0).matrix(tokenizer, num_codebooks)


def request_block(tokenizer: Tokenizer, text: str, num_codebooks: int) -> np.ndarray:
    """The text alone: generation continues behind it."""
    return ContentSequence().append([Part(clean_text(text))], speaker=0).matrix(tokenizer, num_codebooks)
