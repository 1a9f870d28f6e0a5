"""What was meant by `trainer.*` options that reach Lightning in another shape than they were typed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fish_speech.errors import UserError

# Lightning takes 1 as one batch and 1.0 as all of them; its parser makes 1.0 of both.
_BATCHES = ("limit_train_batches", "limit_val_batches", "val_check_interval", "overfit_batches")


def whole_numbers(words: Sequence[str], trainer: Mapping[str, Any]) -> dict[str, int]:
    """The options that were typed as the whole number 1, and have become 1.0."""
    meant = {}
    for name in _BATCHES:
        option = f"--trainer.{name}"
        typed = [after for word, after in zip(words, [*words[1:], ""]) if word == option]
        typed += [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
        if trainer.get(name) == 1 and typed[-1:] == ["1"]:
            meant[name] = 1
    return meant


def as_list(value: Any) -> list[Any]:
    """An option that holds nothing, one object or several, as a list."""
    return list(value) if isinstance(value, list | tuple) else [value] if value else []


def batches_of_a_step(given: int | None) -> int:
    """What `accumulate_grad_batches` says. Raises UserError for less than 1."""
    count = 1 if given is None else int(given)
    if count < 1:
        raise UserError(
            f"trainer.accumulate_grad_batches is {count}", "a step needs a batch", "use 1 or more, or leave it out"
        )
    return count
