"""Text: cleaning, splitting, tokenising, and the layout of prompts. Needs numpy and tiktoken, no torch."""

from .normalize import clean_text
from .prompt import (
    IGNORED,
    Conversation,
    Encoded,
    Message,
    packed_example,
    reference_block,
    request_block,
    speech_prompt,
    system_block,
)
from .split import split_text
from .tokenizer import Tokenizer

__all__ = [
    "IGNORED",
    "Conversation",
    "Encoded",
    "Message",
    "Tokenizer",
    "clean_text",
    "packed_example",
    "reference_block",
    "request_block",
    "speech_prompt",
    "split_text",
    "system_block",
]
