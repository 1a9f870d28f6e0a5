"""What of a plan is outside the safe ranges, each with what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .plan_text import size

if TYPE_CHECKING:
    from .plan import RunPlan

FEWEST_MINUTES = 10  # of speech; the guide's minimum
MOST_EPOCHS = 50


def warnings_of(plan: RunPlan) -> list[str]:
    """What is outside the safe ranges, each with what to change."""
    recipe = plan.version.recipe
    found = []
    if plan.learning_rate > recipe.safe_learning_rate * (1 + 1e-9):
        found.append(
            f"learning rate {plan.learning_rate:g} is above {recipe.safe_learning_rate:g}, which is safe for "
            f"{plan.version.name}: the voice may become noise; use --learning-rate {recipe.safe_learning_rate:g}"
        )
    if recipe.safe_steps is not None and plan.steps > recipe.safe_steps:
        found.append(
            f"{plan.steps} steps are more than {recipe.safe_steps}, beyond which {plan.version.name} tends to overfit: "
            f"use --max-steps {recipe.safe_steps}, or watch the held-out loss and let --early-stopping-patience 3 stop it"
        )
    minutes = (plan.seconds + plan.held_out_seconds) / 60
    if minutes < FEWEST_MINUTES:
        found.append(
            f"{minutes:.1f} minutes of speech are less than {FEWEST_MINUTES}: the voice will be learned poorly; "
            "add recordings to the data set"
        )
    if plan.epochs > MOST_EPOCHS:
        found.append(
            f"every clip is seen {plan.epochs:.0f} times: more than {MOST_EPOCHS} teach the clips by heart; "
            f"use --max-steps {MOST_EPOCHS * plan.steps_per_epoch}, or add recordings"
        )
    if not plan.held_out:
        found.append(
            "nothing is held out, so nothing tells when the voice overfits: a speaker needs 10 clips for that; "
            "add recordings, or cut them into shorter clips"
        )
    return [*found, *_memory_warnings(plan), *_disk_warnings(plan)]


def _memory_warnings(plan: RunPlan) -> list[str]:
    if plan.micro_batch < plan.batch_size:
        return [
            f"{plan.batch_size} samples are computed by {plan.micro_batch}, as fits into memory or as this run began: with "
            f"the same result but slower; --batch-size {plan.micro_batch} with "
            f"--gradient-accumulation-steps {-(-plan.batch_size * plan.accumulation // plan.micro_batch)} is the same"
        ]
    tried = plan.peak_bytes is not None or plan.step_s is not None  # a step went well: no guess is better
    if tried or plan.room_bytes is None or plan.memory_bytes <= plan.room_bytes:
        return []
    return [
        f"{plan.batch_size} samples of {plan.longest} tokens need about {size(plan.memory_bytes)}, "
        f"{size(plan.room_bytes)} are there; use a smaller --batch-size, or --max-length {max(1, plan.longest // 2)}"
    ]


def _disk_warnings(plan: RunPlan) -> list[str]:
    if plan.disk_bytes <= plan.free_disk_bytes:
        return []
    return [
        f"the run writes about {size(plan.disk_bytes)}, {size(plan.free_disk_bytes)} are free at {plan.run_dir}; "
        "free some space, or work in a folder on another disk"
    ]
