"""Where the yaml files of configs/ are, and reading one of them by group and name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"


def names(group: str, folder: Path = CONFIGS) -> list[str]:
    """Names of the yaml files in a group such as "lora" or "codec", sorted; "." is the folder itself."""
    return sorted(path.stem for path in (folder / group).glob("*.yaml"))


def read_lora(name: str) -> dict[str, Any]:
    """Return the values of configs/lora/NAME.yaml: r, lora_alpha, lora_dropout; raise UserError listing what there is."""
    return {key: value for key, value in _read("lora", "LoRA", name).items() if key != "_target_"}


def read_model(name: str) -> dict[str, Any]:
    """Return the values of configs/model/NAME.yaml, the shape of a model without its vocabulary; raise UserError likewise."""
    return _read("model", "model", name)


def _read(group: str, what: str, name: str) -> dict[str, Any]:
    import yaml

    if name not in names(group):
        known = ", ".join(names(group))
        raise UserError(f"unknown {what} config {name!r}", f"known: {known}", "choose one of these")
    return yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8"))
