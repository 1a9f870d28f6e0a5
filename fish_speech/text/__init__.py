"""Text: cleaning, splitting, tokenising, and the layout of prompts. Needs numpy and tiktoken, no torch."""

from .encoded import IGNORED, Encoded
from .normalize import clean_text
from .prompts import (
    check_example_format,
    packed_example,
    packed_sample,
    reference_block,
    request_block,
    speech_prompt,
    system_block,
)
from .split import split_text
from .tokenizer import Tokenizer

__all__ = [
    "IGNORED",
    "Encoded",
    "Tokenizer",
    "check_example_format",
    "clean_text",
    "packed_example",
    "packed_sample",
    "reference_block",
    "request_block",
    "speech_prompt",
    "split_text",
    "system_block",
]
