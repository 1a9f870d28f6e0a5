"""Learning-rate factors as functions of the optimizer step. At step 0 a warm-up gives 0: the first update is none."""

from __future__ import annotations

import math


def constant_with_warmup(step: int, num_warmup_steps: float = 10, num_training_steps: int | None = None) -> float:
    """Rise linearly to 1 over the warm-up and stay. A warm-up between 0 and 1 is a share of num_training_steps."""
    warmup = _warmup_steps(num_warmup_steps, num_training_steps)
    return step / max(1, warmup) if step < warmup else 1.0


def cosine_with_warmup(
    step: int,
    num_warmup_steps: float = 10,
    num_training_steps: int | None = None,
    num_cycles: float = 0.5,
    final_lr_ratio: float = 0.0,
) -> float:
    """Rise linearly to 1, then follow a cosine down to final_lr_ratio at num_training_steps."""
    if num_training_steps is None:
        raise ValueError("a cosine schedule needs num_training_steps")
    warmup = _warmup_steps(num_warmup_steps, num_training_steps)
    if step < warmup:
        return step / max(1, warmup)
    progress = (step - warmup) / max(1, num_training_steps - warmup)
    return max(final_lr_ratio, 0.5 * (1.0 + math.cos(math.pi * num_cycles * 2.0 * progress)))


def cosine_to_floor(
    step: int, num_warmup_steps: float = 10, num_training_steps: int = 10000, final_lr_ratio: float = 0.05
) -> float:
    """Rise linearly to 1, go down half a cosine to final_lr_ratio at num_training_steps, and stay there.

    `cosine_with_warmup` is the released one: it cuts the cosine off at its floor, and rises again after its end.
    """
    share = cosine_with_warmup(min(step, num_training_steps), num_warmup_steps, num_training_steps)
    return (
        share
        if step < _warmup_steps(num_warmup_steps, num_training_steps)
        else final_lr_ratio + (1 - final_lr_ratio) * share
    )


def _warmup_steps(warmup: float, total: int | None) -> int:
    if 0 < warmup < 1:
        if total is None:
            raise ValueError(f"a warm-up of {warmup} is a share of the steps and needs num_training_steps")
        return int(warmup * total)
    return int(warmup)
