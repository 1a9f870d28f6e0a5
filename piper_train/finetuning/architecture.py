"""Which network is trained: a quality, a yaml file, or what the checkpoint that is started from has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fish_speech import configs
from fish_speech.errors import UserError

from ..models.config import VitsConfig
from ..quality import QUALITIES, quality_of
from .starts import Start

DEFAULT_QUALITY = "medium"
_FREE = {"num_speakers", "gin_channels", "num_symbols", "p_dropout", "segment_size"}  # a warm start may have others
_SAID_APART = {"num_speakers", "num_symbols", "gin_channels", "sample_rate"}
_LARGEST_YAML = 1 << 20  # bytes


@dataclass(frozen=True)
class Architecture:
    """The network of a run."""

    config: VitsConfig
    arguments: tuple[str, ...]  # for `fit`

    @property
    def name(self) -> str:
        """The quality's name, or `own sizes`."""
        return quality_of(self.config) or "own sizes"


def settle_architecture(quality: str | None, start: Start, num_speakers: int) -> Architecture:
    """Choose the network. Raises UserError for an unknown quality, and for one that the start does not have."""
    there = start.checkpoint.model_config() if start.checkpoint else None
    if quality is None and there is not None:
        found = _of_checkpoint(there)
    else:
        found = _of_request(quality or DEFAULT_QUALITY)
    if there is not None:
        _refuse_other(found.config, there, quality, start)
    try:
        config = replace(found.config, num_speakers=num_speakers, gin_channels=0)
    except ValueError as error:
        raise UserError("this voice cannot be built", str(error), "correct --num-speakers") from None
    return replace(found, config=config)


def _of_checkpoint(config: VitsConfig) -> Architecture:
    name = quality_of(config)
    if name is not None:
        return _of_request(name)
    values = {key: value for key, value in config.to_mapping().items() if key not in _SAID_APART}
    return Architecture(config, tuple(f"--model.{key}={_word(value)}" for key, value in values.items()))


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _of_request(quality: str) -> Architecture:
    if quality in QUALITIES:
        path = configs.CONFIGS / "piper" / f"{quality}.yaml"
        return Architecture(VitsConfig.from_mapping(QUALITIES[quality]), ("--config", str(path)))
    path = Path(quality)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        raise UserError(
            f"there is no quality {quality!r}",
            f"there are {', '.join(QUALITIES)}, and yaml files like {configs.CONFIGS / 'piper' / 'medium.yaml'}",
            "use --quality medium",
        )
    try:
        return Architecture(VitsConfig.from_mapping(_model_values(path)), ("--config", str(path)))
    except ValueError as error:
        raise UserError(f"{path} is no network of a voice", str(error), "correct its model: values") from None


def _model_values(path: Path) -> Mapping[str, Any]:
    """The `model:` part of a yaml file. Raises ValueError."""
    import yaml

    if path.stat().st_size > _LARGEST_YAML:
        raise ValueError("the file is too large")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it cannot be read: {error}") from None
    values = content.get("model") if isinstance(content, dict) else None
    if not isinstance(values, dict):
        raise ValueError("it has no model: part")
    return values


def _refuse_other(ours: VitsConfig, theirs: VitsConfig, quality: str | None, start: Start) -> None:
    mine, other = ours.to_mapping(), theirs.to_mapping()
    differ = [
        f"{key} {other[key]} there, {mine[key]} here" for key in mine if key not in _FREE and mine[key] != other[key]
    ]
    if not differ:
        return
    name = quality_of(theirs)
    raise UserError(
        f"{start.path} is not of quality {quality}",
        f"it is {name or 'a network of other sizes'}: {'; '.join(differ[:3])}",
        f"use --quality {name}, or leave --quality out" if name else "leave --quality out",
    )
