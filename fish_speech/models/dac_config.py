"""What a modded DAC codec is: the shapes of its convolutions, transformers and quantizers, checked when made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from .mel import MelConfig

ARCHITECTURE = "modded_dac"  # how a codec's yaml names this one
_MOST = {
    "n_layer": 256,
    "encoder_transformer_layers": 256,
    "n_codebooks": 256,
    "codebook_size": 1 << 20,
    "semantic_codebook_size": 1 << 20,
}
_MOST_WIDE = 1 << 16  # any other size: a yaml from elsewhere must not ask for all memory
_MOST_STAGES = 16
# What other tools' files say besides: no longest sound (positions are made as needed), no dropout, one layout.
_NOT_NEEDED = {"block_size", "dropout", "attention_dropout", "decoder_transformer_layers", "quantizer_dropout"}
_FIXED = {"causal": True, "channels_first": True}


@dataclass(frozen=True)
class WindowConfig:
    """How a position attends: heads of `head_dim` channels, over the last `window` positions, itself among them."""

    head_dim: int = 64
    window: int = 512  # positions
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        _check_sizes(self)
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; positions turn pairs of channels, so it must be even")
        for name in ("rope_base", "norm_eps"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 < value < math.inf:
                raise ValueError(f"{name} is {value!r}; it must be a number above 0")


@dataclass(frozen=True)
class TransformerConfig(WindowConfig):
    """Shape of a windowed transformer."""

    window: int = 128
    n_layer: int = 8
    n_head: int = 16
    dim: int = 1024
    intermediate_size: int = 3072


@dataclass(frozen=True)
class VectorQuantizerConfig:
    """Shape of the quantizers: a semantic codebook, then residual ones, each over a few channels."""

    input_dim: int = 1024
    n_codebooks: int = 9  # residual ones
    codebook_size: int = 1024  # of each of these
    semantic_codebook_size: int = 4096
    codebook_dim: int = 8
    downsample_factor: tuple[int, ...] = (2, 2)  # rows of the encoder per frame of codes, as factors
    pre_module: TransformerConfig = field(default_factory=TransformerConfig)
    post_module: TransformerConfig = field(default_factory=TransformerConfig)

    def __post_init__(self) -> None:
        _check_sizes(self)
        for name in ("pre_module", "post_module"):
            if getattr(self, name).dim != self.input_dim:
                raise ValueError(f"{name}.dim is {getattr(self, name).dim}, but input_dim is {self.input_dim}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of different codes of each codebook."""
        return (self.semantic_codebook_size, *[self.codebook_size] * self.n_codebooks)


@dataclass(frozen=True)
class DacConfig:
    """What a modded DAC codec is; the defaults are the one of OpenAudio S1-mini."""

    sample_rate: int = 44100  # Hz
    encoder_dim: int = 64  # channels at the sample rate; every stage doubles them
    encoder_rates: tuple[int, ...] = (2, 4, 8, 8)
    decoder_dim: int = 1536  # channels before the first stage; every stage halves them
    decoder_rates: tuple[int, ...] = (8, 8, 4, 2)
    encoder_transformer_layers: tuple[int, ...] = (0, 0, 0, 4)  # after each stage of the encoder
    transformer_general_config: WindowConfig = field(default_factory=WindowConfig)  # of these
    quantizer: VectorQuantizerConfig = field(default_factory=VectorQuantizerConfig)

    def __post_init__(self) -> None:
        _check_sizes(self, least={"encoder_transformer_layers": 0}, most={"sample_rate": 1 << 20})
        stages = len(self.encoder_rates)
        if len(self.encoder_transformer_layers) != stages:
            raise ValueError(
                f"encoder_transformer_layers {self.encoder_transformer_layers} and encoder_rates {self.encoder_rates} "
                "must be equally long"
            )
        if math.prod(self.encoder_rates) != math.prod(self.decoder_rates):
            raise ValueError(
                f"encoder_rates {self.encoder_rates} and decoder_rates {self.decoder_rates} must have the same product"
            )
        if self.decoder_dim % (1 << len(self.decoder_rates)):
            raise ValueError(f"decoder_dim {self.decoder_dim} cannot be halved {len(self.decoder_rates)} times")
        if self.latent_dim != self.quantizer.input_dim:
            raise ValueError(
                f"quantizer.input_dim is {self.quantizer.input_dim}, but the encoder makes {self.latent_dim} channels "
                f"(encoder_dim {self.encoder_dim} doubled {stages} times)"
            )
        for index, layers in enumerate(self.encoder_transformer_layers):
            width, head_dim = self.encoder_dim << (index + 1), self.transformer_general_config.head_dim
            if layers and width % head_dim:
                raise ValueError(
                    f"transformer_general_config.head_dim {head_dim} does not divide the {width} channels of stage {index}"
                )

    @property
    def latent_dim(self) -> int:
        """Channels between the encoder, the quantizer and the decoder."""
        return self.encoder_dim << len(self.encoder_rates)

    @property
    def samples_per_frame(self) -> int:
        """Samples that one frame of codes stands for."""
        return math.prod(self.encoder_rates) * math.prod(self.quantizer.downsample_factor)

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.sample_rate / self.samples_per_frame

    @property
    def codebooks(self) -> int:
        """Codes per frame: the semantic one and the residual ones."""
        return 1 + self.quantizer.n_codebooks

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of different codes of each codebook."""
        return self.quantizer.sizes

    @property
    def mel(self) -> MelConfig:
        """The spectrogram by which sounds are compared; the codec itself needs none."""
        return MelConfig(sample_rate=self.sample_rate)

    @property
    def least_samples(self) -> int:
        """Length of the shortest sound that can be encoded, and compared by its mel spectrogram."""
        return (self.mel.win_length - self.mel.hop_length + 1) // 2 + 1

    def frames_of(self, samples: int) -> int:
        """Frames of codes that `samples` give: the last frame may be partly beyond the end."""
        return -(-samples // self.samples_per_frame)

    def transformer(self, stage: int) -> TransformerConfig | None:
        """Shape of the transformer that follows a stage of the encoder, if any does."""
        layers, width = self.encoder_transformer_layers[stage], self.encoder_dim << (stage + 1)
        if not layers:
            return None
        general = self.transformer_general_config
        return TransformerConfig(
            **asdict(general),
            n_layer=layers,
            n_head=width // general.head_dim,
            dim=width,
            intermediate_size=3 * width,
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> DacConfig:
        """Make a config from nested mappings (a yaml's content). Raises ValueError, naming the key, for what does not fit."""
        values = {str(name): value for name, value in values.items()}
        architecture = values.pop("architecture", ARCHITECTURE)
        if architecture != ARCHITECTURE:
            raise ValueError(f"architecture is {architecture!r}, not {ARCHITECTURE}")
        latent = values.pop("latent_dim", None)
        config: DacConfig = _made(cls, values, "")
        if latent not in (None, config.latent_dim):
            raise ValueError(
                f"latent_dim is {latent!r}; only encoder_dim * 2 ** stages = {config.latent_dim} is supported"
            )
        return config

    def to_mapping(self) -> dict[str, Any]:
        """Return nested plain values, to save: from_mapping reads them again."""
        return {"architecture": ARCHITECTURE, **_plain(asdict(self))}


def _made(kind: type, values: Any, where: str) -> Any:
    """Make a config of `kind`, and those inside it, from mappings; `where` is the key so far, for errors."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{where[:-1] or 'the config'} is {values!r}; it must hold keys and values")
    parts: dict[str, Any] = {f.name: f.default_factory for f in fields(kind) if isinstance(f.default_factory, type)}
    known, given = {f.name for f in fields(kind)}, {}
    for name, value in values.items():
        if name in known:
            given[name] = _made(parts[name], value, f"{where}{name}.") if name in parts else value
        elif name in _FIXED:
            if value is not _FIXED[name]:
                raise ValueError(f"{where}{name} is {value!r}; only {_FIXED[name]} is supported")
        elif name == "n_local_heads":
            if value not in (-1, values.get("n_head")):
                raise ValueError(f"{where}{name} is {value!r}; only as many as n_head are supported")
        elif name not in _NOT_NEEDED and not str(name).startswith("_"):
            raise ValueError(f"{where}{name} is no key of a modded DAC codec; known: {', '.join(sorted(known))}")
    try:
        return kind(**given)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from error


def _check_sizes(config: Any, least: Mapping[str, int] = {}, most: Mapping[str, int] = {}) -> None:
    """Require whole numbers of a sensible size where the annotations say int; make tuples of lists."""
    for part in fields(config):
        value, lowest = getattr(config, part.name), least.get(part.name, 1)
        if str(part.type).startswith("tuple"):
            if isinstance(value, str | bytes) or not hasattr(value, "__len__") or not 0 < len(value) <= _MOST_STAGES:
                raise ValueError(f"{part.name} is {value!r}; it must be a list of 1 to {_MOST_STAGES} whole numbers")
            object.__setattr__(config, part.name, tuple(value))
        elif str(part.type) != "int":
            continue
        highest = most.get(part.name, _MOST.get(part.name, _MOST_WIDE))
        for size in value if hasattr(value, "__len__") else [value]:
            if not isinstance(size, int) or isinstance(size, bool) or not lowest <= size <= highest:
                raise ValueError(f"{part.name} is {value!r}; it must be whole, from {lowest} to {highest}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    """The same with lists where tuples are, as yaml and json have them."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return list(value) if isinstance(value, tuple) else value
