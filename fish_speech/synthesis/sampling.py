"""Draw tokens from logits the way the released system does, with its order of operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MIN_TEMPERATURE = 1e-5


@dataclass(frozen=True)
class SamplingConfig:
    """How to draw a token."""

    temperature: float = 0.7  # 0 takes the best token
    top_p: float = 0.7  # keep the likeliest tokens of this total probability
    repetition_penalty: float = 1.2  # 1 is none; ids of the last 16 frames become less likely

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 2:
            raise ValueError(f"temperature is {self.temperature}; it must be from 0 (always the best token) to 2")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if not 0 < self.repetition_penalty < 2:
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}; it must be between 0 and 2, 1 is none")


def token_probabilities(logits: Tensor, config: SamplingConfig, previous: Tensor | None = None) -> Tensor:
    """Turn (vocab,) logits into probabilities; `previous` (tokens,) holds ids to penalise, each once.

    Top-p comes before temperature, and the token that crosses the threshold is removed: its own probability counts.
    """
    if previous is not None and config.repetition_penalty != 1:
        seen = logits[previous]
        penalty = config.repetition_penalty
        logits = logits.scatter(0, previous, torch.where(seen < 0, seen * penalty, seen / penalty))
    if config.top_p < 1:
        ranked, order = logits.sort(descending=True)
        removed = ranked.softmax(dim=-1).cumsum(dim=-1) > config.top_p
        removed[0] = False
        logits = logits.masked_fill(removed.scatter(0, order, removed), float("-inf"))
    return (logits / max(config.temperature, MIN_TEMPERATURE)).softmax(dim=-1)


def sample_token(
    logits: Tensor, config: SamplingConfig, rng: torch.Generator | None = None, previous: Tensor | None = None
) -> Tensor:
    """Draw one id from (vocab,) logits -> a scalar int64 tensor. Temperature 0 takes the best and draws nothing."""
    probabilities = token_probabilities(logits, config, previous)
    if config.temperature == 0:
        return probabilities.argmax()
    noise = torch.empty_like(probabilities).exponential_(1.0, generator=rng)
    return (probabilities / noise).argmax()  # the exponential-race form of a multinomial draw
