"""Prompts of Fish Speech 1.5: messages with a role, whose parts are text or codes, become rows of ids.

Each part is tokenised on its own, so no byte-pair merge crosses a part's border, and nothing separates messages.
A clip is spoken as: system "Speak out the provided text.", user TEXT, assistant `<|voice|>` CODES. prompts.py tells the
functions that every family has.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .encoded import IGNORED, Clip, Encoded, Example, join_examples, reference_codes, semantic_ids, text_ids
from .normalize import clean_text
from .special_tokens import IM_END, IM_START, MODALITIES, VOICE
from .tokenizer import Tokenizer

SYSTEM_TEXT = "Speak out the provided text."

Part = str | np.ndarray  # text, or codes (codebooks, frames)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    parts: Sequence[Part]
    add_im_start: bool = True
    add_im_end: bool = True
    with_loss: bool = False  # whether the loss looks at this turn
    modality: Literal["text", "voice", "interleave"] | None = None  # adds the token of that name to the header
    ignore_header_loss: bool = True

    @property
    def header(self) -> str:
        """`<|im_start|>`, role and line end, and the modality's token."""
        return f"{IM_START}{self.role}\n{MODALITIES[self.modality] if self.modality else ''}"

    def encode(self, tokenizer: Tokenizer) -> Encoded:
        """Return the ids of this turn alone."""
        pieces: list[tuple[np.ndarray, bool]] = []  # ids and whether they are semantic
        header_length = 0
        if self.add_im_start:
            pieces.append((text_ids(tokenizer, self.header), False))
            header_length = len(pieces[0][0])
        codes = [part for part in self.parts if not isinstance(part, str)]
        for part in self.parts:
            if isinstance(part, str):
                pieces.append((text_ids(tokenizer, part), False))
            else:
                pieces.append((semantic_ids(tokenizer, part), True))
        if self.add_im_end:
            pieces.append((text_ids(tokenizer, IM_END), False))
        tokens = np.concatenate([ids for ids, _ in pieces]) if pieces else np.zeros(0, np.int64)
        is_code = np.concatenate([np.full(len(ids), coded) for ids, coded in pieces] or [np.zeros(0, bool)])
        labels = tokens.copy() if self.with_loss else np.full_like(tokens, IGNORED)
        if self.ignore_header_loss:
            labels[:header_length] = IGNORED
        return Encoded(tokens, labels, is_code, is_code, codes)


@dataclass(frozen=True)
class Conversation:
    """Messages in order."""

    messages: Sequence[Message]

    def encode(self, tokenizer: Tokenizer, shift: bool = True, ignored_ids: Collection[int] = ()) -> Encoded:
        """Return ids and labels. `shift` drops the last token and the first label, so that labels[i] follows tokens[i].

        Labels in `ignored_ids` become IGNORED.
        """
        turns = [message.encode(tokenizer) for message in self.messages]
        tokens = np.concatenate([turn.tokens for turn in turns])
        labels = np.concatenate([turn.labels for turn in turns])
        is_code = np.concatenate([turn.is_code_token for turn in turns])
        labels[np.isin(labels, list(ignored_ids))] = IGNORED
        codes = [part for turn in turns for part in turn.codes]
        encoded = Encoded(tokens, labels, is_code, is_code, codes)
        return encoded.shifted() if shift else encoded

    def matrix(self, tokenizer: Tokenizer, num_codebooks: int) -> np.ndarray:
        """Return the input for synthesis, (1 + codebooks, tokens) int64."""
        return self.encode(tokenizer, shift=False).matrix(num_codebooks)


_SYSTEM = Message("system", [SYSTEM_TEXT])


def packed_sample(tokenizer: Tokenizer, clips: Sequence[Clip]) -> Example:
    """Clip after clip, each a conversation of its own. The loss covers `<|voice|>`, the frames and `<|im_end|>`."""
    examples = []
    for text, codes in clips:
        turns = [_SYSTEM, Message("user", [text]), Message("assistant", [VOICE, codes], with_loss=True)]
        examples.append(Conversation(turns).encode(tokenizer, shift=True).example())
    return join_examples(examples)


EXAMPLES = {"default": packed_sample}  # the released layout


def system_block(tokenizer: Tokenizer, num_codebooks: int) -> np.ndarray:
    """The instruction."""
    return Conversation([_SYSTEM]).matrix(tokenizer, num_codebooks)


def reference_block(tokenizer: Tokenizer, text: str, codes: np.ndarray, num_codebooks: int) -> np.ndarray:
    """The question and its answer, see prompts.py."""
    spoken = reference_codes(codes, num_codebooks)
    turns = [Message("user", [clean_text(text)]), Message("assistant", [VOICE, spoken])]
    return Conversation(turns).matrix(tokenizer, num_codebooks)


def request_block(tokenizer: Tokenizer, text: str, num_codebooks: int) -> np.ndarray:
    """The question and the start of its answer: generation continues behind `<|voice|>`."""
    turns = [Message("user", [clean_text(text)]), Message("assistant", [VOICE], add_im_end=False)]
    return Conversation(turns).matrix(tokenizer, num_codebooks)
