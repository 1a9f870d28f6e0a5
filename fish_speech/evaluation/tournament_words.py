"""What a tournament says in the end: which step to use, whether training helped, and what to change if it did not."""

from __future__ import annotations

from collections.abc import Sequence

from .tournament_decision import LOSS, SIMILARITY, SPEECH, WER, Contestant, Decision, gains, measured

_TITLES = {SPEECH: "unspoken sentences", WER: "WER", SIMILARITY: "similarity", LOSS: "held-out loss"}
_REASONS = {
    SPEECH: "it is silent or does not end by itself",
    WER: "more wrong words",
    SIMILARITY: "further from the voice",
    LOSS: "higher held-out loss",
}
_FEW_TEXTS = 16  # below this, more texts may show what is hidden now


def conclude(decision: Decision, contestants: Sequence[Contestant], texts: int) -> list[str]:
    """Lines for the terminal and the page; the first is `use step N: ...`, if one is recommended."""
    checkpoints = [c for c in contestants if c.step is not None]
    base = next((c for c in contestants if c.step is None), None)
    chosen = decision.recommended
    if chosen is None:
        return [
            "no step is recommended: nothing was measured that tells the checkpoints apart; merging takes the newest"
        ]
    equal = len(checkpoints) - len(decision.lost)
    place = "the only checkpoint" if len(checkpoints) == 1 else f"the best of {len(checkpoints)} checkpoints"
    if equal > 1:
        place = f"the earliest of {equal} that are as good as the best" + f" of {len(checkpoints)}"
    lines = [f"use step {chosen.step}: {place} ({figures(chosen, checkpoints)})"]
    if decision.lost:
        lost = (f"{name} ({_REASONS[measure]})" for name, measure in decision.lost.items())
        lines.append(f"clearly worse: {', '.join(lost)}")
    if decision.all_fail:
        lines.append(
            "no checkpoint speaks: each is silent or runs into the limit in most sentences; expect little of any. "
            "Check that the transcripts say what is spoken, lower --learning-rate, and train on 10 minutes or more"
        )
    if base is not None:
        lines += against_base(base, chosen, checkpoints, texts)
    return lines


def figures(contestant: Contestant, others: Sequence[Contestant]) -> str:
    """A system's figures by the measures that all `others` have too."""
    return ", ".join(f"{_TITLES[m]} {_figure(contestant, m)}" for m in measured(others) if m != SPEECH) or "no figures"


def _figure(contestant: Contestant, measure: str) -> str:
    mean = contestant.costs[measure].mean or 0.0
    return f"{-mean if measure == SIMILARITY else mean:.3f}"


def against_base(base: Contestant, chosen: Contestant, checkpoints: Sequence[Contestant], texts: int) -> list[str]:
    """Whether training helped; what to change if it did not."""
    found = gains(base, chosen)
    if not found:
        return []
    changes = {"better": "better", "worse": "worse", "equal": "no clear change"}
    parts = (f"{_TITLES[m]} {_figure(base, m)} -> {_figure(chosen, m)} ({changes[found[m]]})" for m in found)
    lines = [f"against the base: {', '.join(parts)}"]
    all_gains = {checkpoint.name: gains(base, checkpoint) for checkpoint in checkpoints}
    if any("better" in one.values() for one in all_gains.values()):
        if "better" not in found.values():
            better = [name for name, one in all_gains.items() if "better" in one.values()]
            lines.append(f"{', '.join(better)} gained on the base, but at the price of what counts more here")
        return lines
    heard = " and ".join(_TITLES[measure] for measure in found)
    lines.append(f"training did not help: in {heard} no checkpoint is clearly better than the base")
    lines.append(f"what to change: {_advice(base, checkpoints, all_gains)}")
    if texts < _FEW_TEXTS:
        few = f"{texts} sentences show" if texts > 1 else "one sentence shows"
        lines.append(f"{few} large differences only; --tournament-texts {3 * texts} shows smaller ones")
    return lines


def _advice(base: Contestant, checkpoints: Sequence[Contestant], all_gains: dict[str, dict[str, str]]) -> str:
    last = max(checkpoints, key=lambda c: c.step or 0)
    learnt = None
    if LOSS in measured([base, last]):
        learnt = (last.costs[LOSS].mean or 0.0) < (base.costs[LOSS].mean or 0.0)
    if learnt is False or "worse" in all_gains[last.name].values():
        return (
            "a lower --learning-rate (2e-5) or fewer --max-steps, and transcripts that say exactly what is spoken: "
            "the model got worse as it trained"
        )
    if learnt:
        return (
            "more --max-steps, or more recordings (10 minutes and more of one voice): the held-out loss falls, "
            "but it is not to be heard yet"
        )
    return "more recordings (10 minutes and more of one voice) with exact transcripts, then more --max-steps"
