"""`model.*` options: those that shape the voice, and those that upstream has but that change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fish_speech.errors import UserError

from ..models.config import VitsConfig

# Upstream's trainer takes these and never looks at them, or they need what it downloads.
WITHOUT_EFFECT: Mapping[str, Any] = {
    "n_layers_q": 3,
    "use_spectral_norm": False,
    "init_lr_ratio": 1.0,
    "warmup_epochs": 0,
    "grad_clip": None,
    "dataset": None,
}
MOS_METRICS = (None, "utmos")  # not measured: its model comes from the internet


def refuse_without_effect(given: Mapping[str, Any]) -> None:
    """Raise UserError for options that would change nothing but are not at their default."""
    wrong = [f"model.{name}={given[name]}" for name, value in WITHOUT_EFFECT.items() if given[name] != value]
    if given["mos_metric"] not in MOS_METRICS:
        wrong.append(f"model.mos_metric={given['mos_metric']}")
    if wrong:
        raise UserError(
            f"{', '.join(wrong)}: there is no such thing in this training",
            "Piper's own trainer takes these options too, but nothing comes of them",
            "leave them out",
        )


def make_config(options: Mapping[str, Any]) -> VitsConfig:
    """The voice's architecture from `model.*` options. Raises UserError."""
    try:
        return VitsConfig.from_mapping(options)
    except (ValueError, TypeError) as error:
        raise UserError(
            "the model.* options do not make a voice",
            str(error),
            "use a quality as it is, --config configs/piper/medium.yaml (x-low, low, medium, high), or correct them",
        ) from None


def refuse_nonsense(options: Mapping[str, Any]) -> None:
    """Raise UserError for rates and weights of the losses that cannot train."""
    wrong = [
        f"model.{name} is {options[name]}"
        for name in ("learning_rate", "learning_rate_d", "eps", "lr_decay", "lr_decay_d", "c_mel", "c_kl")
        if not 0 <= options[name] < float("inf") or (name.startswith(("l", "e")) and options[name] == 0)
    ]
    for name in ("betas", "betas_d"):
        values = options[name]
        if len(values) != 2 or not all(0 <= value < 1 for value in values):
            wrong.append(f"model.{name} is {list(values)}")
    if wrong:
        raise UserError(
            f"{'; '.join(wrong)}",
            "rates are above 0, weights of losses 0 or more, betas two numbers from 0 to below 1",
            "leave it out for Piper's own value",
        )
