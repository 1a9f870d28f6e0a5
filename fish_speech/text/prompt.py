"""Lay out prompts of version 1.5: messages with a role, whose parts are text or codes, become rows of ids.

Each part is tokenised on its own, so no byte-pair merge crosses a part's border, and nothing separates messages.
A clip is spoken as: system "Speak out the provided text.", user TEXT, assistant `<|voice|>` CODES.
Matrices are (1 + codebooks, tokens) int64: row 0 holds ids (semantic begin + code of codebook 0 at frames), the other
rows hold the codes of a frame and 0 elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .normalize import clean_text
from .tokenizer import IM_END, IM_START, INTERLEAVE, TEXT, VOICE, Tokenizer

IGNORED = -100  # label that the loss skips
SYSTEM_TEXT = "Speak out the provided text."
SKIPPED_TEXT = "<|skip_text|>"  # stands for text left out on purpose; ordinary characters, no special token
MODALITIES = {"text": TEXT, "voice": VOICE, "interleave": INTERLEAVE}

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
            pieces.append((_ids(tokenizer, self.header), False))
            header_length = len(pieces[0][0])
        codes = [part for part in self.parts if not isinstance(part, str)]
        for part in self.parts:
            if isinstance(part, str):
                pieces.append((_ids(tokenizer, part), False))
            else:
                pieces.append((_semantic_ids(tokenizer, part), True))
        if self.add_im_end:
            pieces.append((_ids(tokenizer, IM_END), False))
        tokens = np.concatenate([ids for ids, _ in pieces]) if pieces else np.zeros(0, np.int64)
        is_code = np.concatenate([np.full(len(ids), coded) for ids, coded in pieces] or [np.zeros(0, bool)])
        labels = tokens.copy() if self.with_loss else np.full_like(tokens, IGNORED)
        if self.ignore_header_loss:
            labels[:header_length] = IGNORED
        return Encoded(tokens, labels, is_code, is_code, codes)


@dataclass(frozen=True)
class Encoded:
    """A conversation as ids. All arrays but `codes` are (tokens,); masks are true at frames."""

    tokens: np.ndarray  # int64
    labels: np.ndarray  # int64, IGNORED where there is no loss
    is_code_token: np.ndarray  # bool, over `tokens`
    is_code_label: np.ndarray  # bool, over `labels`
    codes: list[np.ndarray]  # (codebooks, frames) each, in order of appearance

    def matrix(self, num_codebooks: int) -> np.ndarray:
        """Return (1 + codebooks, tokens) int64, the model's input."""
        grid = np.zeros((1 + num_codebooks, len(self.tokens)), np.int64)
        grid[0] = self.tokens
        if self.codes:
            # A shift may have cut the last frame off, so take as many frames as the mask has.
            joined = np.concatenate([codes[:num_codebooks] for codes in self.codes], axis=1)
            grid[1:, self.is_code_token] = joined[:, : int(self.is_code_token.sum())]
        return grid


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
        if shift:
            return Encoded(tokens[:-1], labels[1:], is_code[:-1], is_code[1:], codes)
        return Encoded(tokens, labels, is_code, is_code, codes)

    def matrix(self, tokenizer: Tokenizer, num_codebooks: int) -> np.ndarray:
        """Return the input for synthesis, (1 + codebooks, tokens) int64."""
        return self.encode(tokenizer, shift=False).matrix(num_codebooks)


def packed_example(
    tokenizer: Tokenizer, text: str | Iterable[str], codes: np.ndarray, skip_text: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return (tokens, labels) of one clip for training, each (1 + codebooks, tokens) int64.

    `text` is taken as it is (the data set cleans it); several sentences are joined by a space. `codes` is (codebooks,
    frames). The loss covers `<|voice|>`, the frames and `<|im_end|>`. The last column of the code labels is 0, not
    IGNORED: published models were trained so.
    """
    text = text if isinstance(text, str) else " ".join(text)
    reply = Message("assistant", [VOICE, codes], with_loss=True)
    conversation = Conversation([_SYSTEM, Message("user", [SKIPPED_TEXT if skip_text else text]), reply])
    encoded = conversation.encode(tokenizer, shift=True)
    labels = np.full((1 + len(codes), len(encoded.labels)), IGNORED, np.int64)
    labels[0] = encoded.labels
    labels[1:, encoded.is_code_label] = codes
    labels[1:, -1] = 0
    return encoded.matrix(len(codes)), labels


def system_block(tokenizer: Tokenizer, num_codebooks: int) -> np.ndarray:
    """Return the instruction that opens a prompt, (1 + codebooks, tokens) int64."""
    return Conversation([_SYSTEM]).matrix(tokenizer, num_codebooks)


def reference_block(tokenizer: Tokenizer, text: str, codes: np.ndarray, num_codebooks: int) -> np.ndarray:
    """Return a spoken example: `text` and its `codes`, (codebooks, frames) or (1, codebooks, frames).

    Rows beyond `num_codebooks` are cut; fewer are a ValueError.
    """
    codes = np.asarray(codes)
    codes = codes[0] if codes.ndim == 3 and len(codes) == 1 else codes
    if codes.ndim != 2 or len(codes) < num_codebooks:
        raise ValueError(f"reference codes have the shape {codes.shape}; expected ({num_codebooks}, frames)")
    turns = [Message("user", [clean_text(text)]), Message("assistant", [VOICE, codes[:num_codebooks]])]
    return Conversation(turns).matrix(tokenizer, num_codebooks)


def request_block(tokenizer: Tokenizer, text: str, num_codebooks: int) -> np.ndarray:
    """Return the request to speak `text`, open at its end: generation continues behind `<|voice|>`."""
    turns = [Message("user", [clean_text(text)]), Message("assistant", [VOICE], add_im_end=False)]
    return Conversation(turns).matrix(tokenizer, num_codebooks)


def speech_prompt(
    tokenizer: Tokenizer,
    text: str,
    num_codebooks: int,
    references: Iterable[tuple[str, np.ndarray]] = (),
    system: bool = True,
) -> np.ndarray:
    """Return a whole prompt: instruction, examples (text, codes), request; (1 + codebooks, tokens) int64."""
    blocks = [system_block(tokenizer, num_codebooks)] if system else []
    blocks += [reference_block(tokenizer, spoken, codes, num_codebooks) for spoken, codes in references]
    return np.concatenate([*blocks, request_block(tokenizer, text, num_codebooks)], axis=1)


_SYSTEM = Message("system", [SYSTEM_TEXT])


def _ids(tokenizer: Tokenizer, text: str) -> np.ndarray:
    return np.asarray(tokenizer.encode(text), np.int64)


def _semantic_ids(tokenizer: Tokenizer, codes: np.ndarray) -> np.ndarray:
    """Map the codes of codebook 0 to ids; ValueError where there is no such semantic token."""
    first = np.asarray(codes[0]).astype(np.int64)
    if first.size and not 0 <= first.min() <= first.max() < tokenizer.num_semantic:
        last = tokenizer.num_semantic - 1
        raise ValueError(f"codebook 0 has codes {first.min()} to {first.max()}, the tokenizer knows 0 to {last}")
    return first + tokenizer.semantic_begin_id
