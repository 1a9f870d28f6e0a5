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
    import yaml

    if name not in names("lora"):
        known = ", ".join(names("lora"))
        raise UserError(f"unknown LoRA config {name!r}", f"known: {known}", "choose one of these")
    values = yaml.safe_load((CONFIGS / "lora" / f"{name}.yaml").read_text(encoding="utf-8"))
    return {key: value for key, value in values.items() if key != "_target_"}
