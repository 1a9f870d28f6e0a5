"""Adapters and their base: load them from checkpoints, tell their shape, and make sure that the two belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import check_finite, check_names, read_file, read_state_dict, record_of, run_record, state_dict_of
from ..errors import UserError
from ..versions import FAMILIES
from .dual_ar import DualAR
from .loading import as_published
from .lora import PARTS, LoraConfig, is_lora_name

_ROWS = 4096  # of a weight that are compared at once


def load_adapter(model: DualAR, path: Path) -> dict[str, Any]:
    """Load the LoRA weights of a training checkpoint into `model`, strictly; return the checkpoint's other content."""
    content = read_file(path)
    refuse_other_family(model, path, content)
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    tensors = state_dict_of(state, path)
    expected = {name: tuple(p.shape) for name, p in model.named_parameters() if is_lora_name(name)}
    what = f"this model with LoRA r={next(iter(expected.values()))[0]}" if expected else "a model without LoRA"
    check_names(expected, tensors, path, what)
    check_finite(tensors, path)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    return {key: value for key, value in content.items() if key != "state_dict"} if "state_dict" in content else {}


def refuse_other_family(model: DualAR, path: Path, content: Any) -> None:
    """Raise UserError if a checkpoint says that it was trained on a model of another family; most adapters' names fit any."""
    family = run_record(content).get("family")
    if isinstance(family, str) and family in FAMILIES and family != model.config.family:
        raise UserError(
            f"{path} is an adapter of {FAMILIES[family]}",
            f"the base is {FAMILIES[model.config.family]}",
            "use the base that it was trained on",
        )


@torch.no_grad()
def check_base_is(model: DualAR, path: Path) -> None:
    """Raise RuntimeError unless every base weight of a model with adapters is that of the weights file, bit for bit.

    Wrapping a layer anew draws a weight for it: a toolkit that installs adapters after loading, without taking the
    weight over, trains on noise. Reads the whole file, by blocks: 5 s for S1-mini.
    """
    found = as_published(read_state_dict(path), model.config, path, tell=False)
    base = {name: tensor for name, tensor in model.state_dict().items() if not is_lora_name(name)}
    wrong = [name for name, weight in base.items() if not _is_copy(weight, found.get(name))]
    if wrong:
        raise RuntimeError(f"{len(wrong)} weights of the base are not those of {path} ({wrong[0]}, ...); this is a bug")


def _is_copy(weight: Tensor, stored: Tensor | None) -> bool:
    """Whether a weight is the stored one in its own dtype, compared by blocks of rows."""
    if stored is None or stored.shape != weight.shape:
        return False
    blocks = zip(weight.split(_ROWS), stored.split(_ROWS), strict=True)
    return all(torch.equal(ours, theirs.to(ours.device, ours.dtype)) for ours, theirs in blocks)


def adapter_shape(path: Path) -> dict[str, Any] | None:
    """The LoRA shape stored in a checkpoint, as LoraConfig's fields; r alone for other tools' files; None without LoRA.

    Checkpoints from before target_modules have adapters everywhere.
    """
    stored = record_of(path).get("lora")
    if isinstance(stored, Mapping):
        try:
            r, alpha, dropout = (stored[name] for name in ("r", "lora_alpha", "lora_dropout"))
            return asdict(LoraConfig(r, alpha, dropout, stored.get("target_modules", PARTS)))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} has a damaged LoRA record", str(error), "use another checkpoint") from error
    tensors = read_state_dict(path)
    ranks = {tensor.shape[0] for name, tensor in tensors.items() if name.endswith(".lora_A") and is_lora_name(name)}
    return {"r": ranks.pop()} if len(ranks) == 1 else None


def check_same_shape(path: Path, wanted: LoraConfig) -> None:
    """Raise UserError unless the adapters of a checkpoint mean the same in a run with adapters `wanted`.

    Their tensors may well fit where their scale (alpha) is another. Other tools' files do not say theirs.
    """
    stored = adapter_shape(path)
    if stored is None or "lora_alpha" not in stored or LoraConfig(**stored).fits(wanted):
        return
    raise UserError(
        f"{path} has other adapters than this run",
        f"{LoraConfig(**stored)} there, {wanted} here",
        "use the same --lora-config, or merge the checkpoint and train on the merged model",
    )
