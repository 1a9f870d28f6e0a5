"""Prompts and training examples for whichever family a tokenizer is of: each family's module has these functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from ..errors import UserError
from ..versions import FISH, S1
from . import content_sequence, conversation
from .encoded import Clip, Example
from .tokenizer import Tokenizer

SKIPPED_TEXT = "<|skip_text|>"  # stands for text left out on purpose; ordinary characters, no special token

ExampleFormat = Callable[[Tokenizer, Sequence[Clip]], Example]  # lays out clips for training; see `packed_sample`


class PromptFormat(Protocol):
    """What the module of a family has."""

    @property
    def EXAMPLES(self) -> Mapping[str, ExampleFormat]: ...  # by name; `default` is the one to train with

    def system_block(self, tokenizer: Tokenizer, num_codebooks: int) -> np.ndarray: ...
    def reference_block(self, tokenizer: Tokenizer, text: str, codes: np.ndarray, num_codebooks: int) -> np.ndarray: ...
    def request_block(self, tokenizer: Tokenizer, text: str, num_codebooks: int) -> np.ndarray: ...


_FORMATS: dict[str, PromptFormat] = {FISH: conversation, S1: content_sequence}


def packed_sample(tokenizer: Tokenizer, clips: Sequence[Clip], example_format: str = "default") -> Example:
    """Return (tokens, labels) for training on clips of one speaker, each (1 + codebooks, tokens) int64.

    Texts are taken as they are (the data set cleans them). A sample is as long as the examples of its clips together.
    `example_format` is one that `check_example_format` passes.
    """
    return _FORMATS[tokenizer.family].EXAMPLES[example_format](tokenizer, clips)


def packed_example(
    tokenizer: Tokenizer,
    text: str | Iterable[str],
    codes: np.ndarray,
    skip_text: bool = False,
    example_format: str = "default",
) -> Example:
    """Return the `packed_sample` of one clip; several sentences are joined by a space.

    With `skip_text` a mark stands for the text.
    """
    said = SKIPPED_TEXT if skip_text else text if isinstance(text, str) else " ".join(text)
    return packed_sample(tokenizer, [(said, codes)], example_format)


def check_example_format(tokenizer: Tokenizer, name: str) -> None:
    """Raise UserError if the tokenizer's family has no training examples of that format."""
    known = _FORMATS[tokenizer.family].EXAMPLES
    if name not in known:
        raise UserError(
            f"this model has no training examples in the format {name!r}",
            f"data.example_format is {' or '.join(known)} for models of its kind",
            "leave data.example_format out",
        )


def system_block(tokenizer: Tokenizer, num_codebooks: int) -> np.ndarray:
    """Return what opens a prompt, (1 + codebooks, tokens) int64."""
    return _FORMATS[tokenizer.family].system_block(tokenizer, num_codebooks)


def reference_block(tokenizer: Tokenizer, text: str, codes: np.ndarray, num_codebooks: int) -> np.ndarray:
    """Return a spoken example: `text` and its `codes`, (codebooks, frames) or (1, codebooks, frames).

    Rows beyond `num_codebooks` are cut; fewer are a ValueError.
    """
    return _FORMATS[tokenizer.family].reference_block(tokenizer, text, codes, num_codebooks)


def request_block(tokenizer: Tokenizer, text: str, num_codebooks: int) -> np.ndarray:
    """Return the request to speak `text`, open at its end: the frames that are generated follow it."""
    return _FORMATS[tokenizer.family].request_block(tokenizer, text, num_codebooks)


def speech_prompt(
    tokenizer: Tokenizer,
    text: str,
    num_codebooks: int,
    references: Iterable[tuple[str, np.ndarray]] = (),
    system: bool = True,
) -> np.ndarray:
    """Return a whole prompt: opening, examples (text, codes), request; (1 + codebooks, tokens) int64."""
    blocks = [system_block(tokenizer, num_codebooks)] if system else []
    blocks += [reference_block(tokenizer, spoken, codes, num_codebooks) for spoken, codes in references]
    return np.concatenate([*blocks, request_block(tokenizer, text, num_codebooks)], axis=1)
