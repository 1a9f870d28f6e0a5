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


def hydra_value(value: object) -> str:
    """Write a value so that hydra reads it back as it is, whatever characters a path has."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}: {hydra_value(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(hydra_value, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    text = value.as_posix() if isinstance(value, Path) else str(value)
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _read(group: str, what: str, name: str) -> dict[str, Any]:
    import yaml

    if name not in names(group):
        known = ", ".join(names(group))
        raise UserError(f"unknown {what} config {name!r}", f"known: {known}", "choose one of these")
    return yaml.safe_load((CONFIGS / group / f"{name}.yaml").read_text(encoding="utf-8"))
