"""The plan of a run as lines of plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .plan import RunPlan


def render(plan: RunPlan) -> str:
    """The plan as aligned lines of plain text."""
    speakers = _count(plan.speakers, "speaker")
    rows = {
        "data": f"{_count(plan.clips, 'clip')} of {speakers}, {plan.seconds:.1f} s ({plan.seconds / 60:.1f} min), "
        f"{plan.tokens} tokens",
        "estimated": plan.estimated,
        "held out": f"{_count(plan.held_out, 'clip')} ({100 * plan.held_out_share:.1f} %), {plan.held_out_seconds:.1f} s",
        "steps": f"{_from_to(plan)} of {_samples(plan)}, about {plan.step_tokens:.0f} tokens: {plan.epochs:.1f} epochs",
        "learning rate": f"{plan.learning_rate:g} after {plan.warmup_steps} warm-up steps",
        "trained": f"{_trained(plan)}; {size(plan.checkpoint_bytes)} a checkpoint",
        "precision": plan.device.precision,
        "device": f"{plan.device.device}: {plan.device.reason}",
        "memory": _memory(plan),
        "time": _time(plan),
        "disk": f"about {size(plan.disk_bytes)} ({_count(plan.kept, 'checkpoint')}, merged folder "
        f"{size(plan.merged_bytes)}); {size(plan.free_disk_bytes)} are free at {plan.run_dir}",
    }
    lines = [f"  {name:<14} {text}" for name, text in rows.items() if text is not None]
    return "\n".join([f"plan of {plan.project}", *lines])


def _from_to(plan: RunPlan) -> str:
    return f"{plan.steps}" if not plan.start else f"{plan.start} to {plan.steps}"


def _samples(plan: RunPlan) -> str:
    several = [(plan.accumulation, "batches"), (plan.processes, "processes")]
    factors = "".join(f" x {number} {name}" for number, name in several if number > 1)
    return f"{plan.batch_size} samples{factors} of up to {plan.longest} tokens"


def _trained(plan: RunPlan) -> str:
    share = f"{plan.trained / 1e6:.2f} M weights, {100 * plan.trained / plan.weights:.2f} % of the model"
    if plan.lora is None:
        return f"all weights: {share}"
    return f"adapters r {plan.lora.r}, alpha {plan.lora.lora_alpha:g}{plan.lora.where}: {share}"


def _memory(plan: RunPlan) -> str:
    parts = (
        ("weights", plan.weight_bytes),
        ("gradients", plan.gradient_bytes),
        ("optimizer", plan.optimizer_bytes),
        ("activations", plan.activation_bytes),
    )
    text = f"about {size(plan.memory_bytes)} ({', '.join(f'{name} {size(count)}' for name, count in parts)})"
    text += "; recomputed activations" if plan.recompute else ""
    text += f"; {size(plan.room_bytes)} are there" if plan.room_bytes is not None else "; free memory unknown"
    return text + (f"; measured {size(plan.peak_bytes)}" if plan.peak_bytes is not None else "")


def _time(plan: RunPlan) -> str:
    if plan.step_s is None or plan.total_s is None:
        return "unknown: no step was tried"
    text = f"about {_clock(plan.total_s)}: {plan.step_s:.2g} s a step"
    if plan.validations:
        text += f", {_count(plan.validations, 'validation')} of {plan.validation_s or 0:.2g} s"
    return text


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _clock(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
