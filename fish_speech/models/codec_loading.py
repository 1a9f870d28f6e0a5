"""Load a codec of any family: its config from a yaml, its weights strictly, and each known for what it is.

A new architecture is a row of ARCHITECTURES. A yaml names its own (`architecture`; firefly where it names none), a
weights file is known by the names of its tensors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import check_names, read_file, state_dict_of
from ..configs import CONFIGS, names
from ..errors import UserError
from ..versions import VERSIONS
from .codec import Codec, CodecConfig
from .dac import DacCodec, DacConfig
from .firefly import FireflyCodec, FireflyConfig
from .loading import _assign
from .shapes import shapes_only

DEFAULT_CODEC = "firefly_gan_vq"
_MAX_CONFIG_BYTES = 1 << 20
_KEY = "architecture"  # in a yaml
_GENERATOR = "generator."  # before the codec's names in a full training checkpoint
_OF_A_MODEL = ("fast_embeddings.", "codebook_embeddings.")  # names in a text-to-semantic model
_WHAT = "the codec config"


@dataclass(frozen=True)
class Architecture:
    """A kind of codec."""

    name: str  # in a yaml
    config: type[CodecConfig]
    codec: Callable[[Any], Codec]  # makes one, with weights of any values
    usual: str  # the config in configs/codec of weights that come without a yaml
    mark: str  # in the name of a tensor that no other architecture has
    computed: tuple[str, ...] = ()  # how names end in published files that are no weights, but tables made anew


FIREFLY = Architecture("firefly", FireflyConfig, FireflyCodec, DEFAULT_CODEC, "quantizer.residual_fsq.")
_DAC_TABLES = (".freqs_cis", ".causal_mask")
DAC = Architecture("modded_dac", DacConfig, DacCodec, "modded_dac_vq", "quantizer.semantic_quantizer.", _DAC_TABLES)
ARCHITECTURES = {row.name: row for row in (FIREFLY, DAC)}


def load_codec(
    path: Path | str, config: Mapping[str, Any] | CodecConfig | None = None, device: str | torch.device = "cpu"
) -> Codec:
    """Load codec weights from a file, in eval mode and float32.

    `config` None takes the yaml of the same name beside the weights, else the released one of their architecture. A
    full training checkpoint is accepted: only its `generator.` entries are used. Raises UserError for what does not
    fit, and says whose weights they are if that is known.
    """
    path = Path(path)
    tensors = _read_weights(path)
    if config is None:
        beside = path.with_suffix(".yaml")
        config = codec_config(beside if beside.is_file() else (_known_by_names(tensors) or FIREFLY).usual)
    if isinstance(config, Mapping):
        config = make_codec_config(config, _WHAT)
    tensors = _without_tables(tensors, architecture_of(config))
    with shapes_only():
        codec = architecture_of(config).codec(config)
    _check_names(codec, tensors, path)
    _assign(codec, tensors, path, _WHAT, torch.float32)  # type: ignore[arg-type]  # every codec is a torch module
    return codec.to(device).eval()


def codec_config(name: str | Path) -> dict[str, Any]:
    """Read a codec's yaml by name from configs/codec, or by the path of a .yaml file."""
    import yaml

    path = Path(name) if str(name).endswith((".yaml", ".yml")) else CONFIGS / "codec" / f"{name}.yaml"
    known = names("codec")
    if not path.is_file() or path.stat().st_size > _MAX_CONFIG_BYTES:
        raise UserError(
            f"unknown codec config {str(name)!r}",
            f"known: {', '.join(known)}, or the path of a .yaml file",
            "choose one of these",
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable yaml", str(error).splitlines()[0], "mend the file") from error
    make_codec_config(values, path)
    return values


def make_codec_config(values: Any, source: object) -> CodecConfig:
    """Turn a yaml's content into a config; raise UserError naming `source` if it does not fit."""
    if not isinstance(values, Mapping):
        raise UserError(f"{source} does not describe a codec", "it holds no keys", "mend the file")
    name = values.get(_KEY, FIREFLY.name)
    row = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if row is None:
        why = f"its {_KEY} is {str(name)[:100]!r}; known: {', '.join(ARCHITECTURES)}"
        raise UserError(f"{source} describes a codec of unknown {_KEY}", why, "mend the file")
    try:
        return row.config.from_mapping({key: value for key, value in values.items() if key != _KEY})
    except (ValueError, TypeError) as error:
        raise UserError(f"{source} does not describe a {row.name} codec", str(error), "mend the file") from error


def architecture_of(config: CodecConfig) -> Architecture:
    """The row that a config is of."""
    return next(row for row in ARCHITECTURES.values() if isinstance(config, row.config))


def _read_weights(path: Path) -> dict[str, Tensor]:
    content = read_file(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if isinstance(content, Mapping) and any("generator" in str(name) for name in content):
        kept = {str(name): tensor for name, tensor in content.items() if _GENERATOR in str(name)}
        content = {name.replace(_GENERATOR, ""): tensor for name, tensor in kept.items()}
    return state_dict_of(content, path)


def _known_by_names(tensors: Mapping[str, Tensor]) -> Architecture | None:
    return next((row for row in ARCHITECTURES.values() if any(row.mark in name for name in tensors)), None)


def _without_tables(tensors: Mapping[str, Tensor], row: Architecture) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(row.computed)}


def _check_names(codec: Codec, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError for weights of another model, and say of which if that is known."""
    try:
        check_names(_shapes(codec), tensors, path, _WHAT)
    except UserError as error:
        own, kind = architecture_of(codec.config), _known_by_names(tensors)
        fitting = None if kind is None else _config_fitting(tensors, kind, path)
        if any(name.startswith(_OF_A_MODEL) for name in tensors):
            why, fix = "it holds a text-to-semantic model, no codec", "name the file that has the codec's weights"
        elif fitting is not None:
            versions = [version.name for version in VERSIONS.values() if version.codec_config == fitting]
            whose = f", of model version {versions[0]}" if versions else ""
            why = f"these are the weights of the codec {fitting}{whose}"
            fix = f"give their config, {fitting}, or the weights that belong to the one given"
        elif kind is not None and kind is not own:
            why = f"these are weights of a {kind.name} codec, the config describes a {own.name} one"
            fix = "use the weights and the config of the same model version; nothing was loaded"
        else:
            raise
        raise UserError(error.what, why, fix) from None


def _config_fitting(tensors: Mapping[str, Tensor], row: Architecture, path: Path) -> str | None:
    """Whose weights these are by all names and shapes: the yaml beside them, one in configs/codec, or None that is known."""
    shapes = {name: tuple(tensor.shape) for name, tensor in _without_tables(tensors, row).items()}
    for name in (str(path.with_suffix(".yaml")), *names("codec")):
        with contextlib.suppress(UserError):  # no yaml, or a broken one
            config = make_codec_config(codec_config(name), name)
            with shapes_only():
                if architecture_of(config) is row and _shapes(row.codec(config)) == shapes:
                    return name
    return None


def _shapes(codec: Codec) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in codec.state_dict().items()}
