"""What a DualAR model is: the content of `config.json`, and what each family of models does in its own way."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..versions import FISH, S1, S1_KEYS, family_of


@dataclass(frozen=True)
class Traits:
    """What the models of a family have in common beside their code; a new family is a new row in TRAITS."""

    absent: frozenset[str]  # fields of DualARConfig that its config.json does not have
    fixed_head_dim: bool  # heads share the width evenly, whatever head_dim says
    false_is_unset: bool  # a fast_* flag that is false takes the slow part's value, as null does
    scales_frames: bool  # obeys scale_codebook_embeddings; elsewhere the flag does nothing
    semantic_tokens: int | None  # semantic ids in the vocabulary; None: as many as a codebook has codes
    residual_codes: int | None  # how many codes all codebooks but the first have at most; None: codebook_size
    unused_weights: tuple[str, ...] = ()  # parts of names in published files that belong to no part of the model


TRAITS: dict[str, Traits] = {
    FISH: Traits(
        absent=S1_KEYS,
        fixed_head_dim=True,
        false_is_unset=True,
        scales_frames=False,
        semantic_tokens=1024,
        residual_codes=None,
    ),
    S1: Traits(
        absent=frozenset(("share_codebook_embeddings",)),
        fixed_head_dim=False,
        false_is_unset=False,
        scales_frames=True,
        semantic_tokens=None,
        residual_codes=1024,
        unused_weights=("audio_",),  # an encoder of sounds, not released
    ),
}
_MOST = 1 << 24  # of anything that is counted
_MOST_LAYERS = 1024  # a config from elsewhere must not ask for all time and memory
_SIZES = ("dim", "n_head", "n_local_heads", "head_dim", "intermediate_size")
_NUMBERS = {
    "rope_base": math.inf,
    "norm_eps": 1,
    "dropout": 1,
    "initializer_range": math.inf,
}  # and what they are below
_FLAGS = ("attention_qkv_bias", "attention_o_bias", "attention_qk_norm")


@dataclass(frozen=True)
class DualARConfig:
    """What a DualAR model is; `config.json` beside the weights. Null sizes are derived when it is made."""

    model_type: str = "dual_ar"
    vocab_size: int = 32000
    n_layer: int = 32
    n_head: int = 32
    dim: int = 4096
    intermediate_size: int | None = None  # None: 8/3 of dim, rounded up to a multiple of 256
    n_local_heads: int = -1  # KV heads; -1: as many as heads
    head_dim: int | None = 64  # None: dim // n_head, as always in FISH
    rope_base: float = 10000
    norm_eps: float = 1e-5
    max_seq_len: int = 2048  # tokens
    dropout: float = 0.0  # on attention weights, while training
    tie_word_embeddings: bool = True
    attention_qkv_bias: bool = False
    attention_o_bias: bool = False
    attention_qk_norm: bool = False  # queries and keys are normed head by head before they are turned
    codebook_size: int = 160
    num_codebooks: int = 4
    use_gradient_checkpointing: bool = True
    initializer_range: float = 0.02
    is_reward_model: bool = False
    share_codebook_embeddings: bool = True
    scale_codebook_embeddings: bool = False  # see embedding_scale
    n_fast_layer: int = 4
    fast_dim: int | None = None  # None: as the slow part, likewise below
    fast_n_head: int | None = None
    fast_n_local_heads: int | None = None
    fast_head_dim: int | None = None
    fast_intermediate_size: int | None = None
    fast_attention_qkv_bias: bool | None = None
    fast_attention_o_bias: bool | None = None
    fast_attention_qk_norm: bool | None = None
    family: str = FISH  # not in config.json: its keys say it

    def __post_init__(self) -> None:
        traits = self.traits
        if self.n_local_heads == -1:
            self._set("n_local_heads", self.n_head)
        if self.intermediate_size is None:
            hidden = int(2 * 4 * self.dim / 3)
            self._set("intermediate_size", -(-hidden // 256) * 256)
        if self.n_head < 1 or self.dim % self.n_head:
            raise ValueError(f"dim {self.dim} is not a multiple of n_head {self.n_head}")
        if traits.fixed_head_dim or self.head_dim is None:
            self._set("head_dim", self.dim // self.n_head)
        for name in (*_SIZES, *_FLAGS):
            value = getattr(self, f"fast_{name}")
            if value is None or (not value and (name in _SIZES or traits.false_is_unset)):
                self._set(f"fast_{name}", getattr(self, name))
        self._check()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check(self) -> None:
        if self.model_type != "dual_ar":
            raise ValueError(f"model_type is {self.model_type!r}; only 'dual_ar' models are supported")
        counts = ("vocab_size", "n_layer", "n_local_heads", "intermediate_size", "max_seq_len", "codebook_size")
        counts += ("num_codebooks", "n_fast_layer", "fast_dim", "fast_n_head", "fast_n_local_heads", "head_dim")  # type: ignore[assignment]
        for name in (*counts, "fast_head_dim"):
            value = getattr(self, name)
            most = _MOST_LAYERS if name in ("n_layer", "n_fast_layer") else _MOST
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
                raise ValueError(f"{name} is {value!r}; expected a whole number from 1 to {most}")
        for name, highest in _NUMBERS.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < highest:
                raise ValueError(f"{name} is {value!r}; expected a number from 0 to below {highest}")
        for name in ("tie_word_embeddings", "scale_codebook_embeddings", *_FLAGS, *(f"fast_{flag}" for flag in _FLAGS)):
            if getattr(self, name) not in (True, False):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected true or false")
        if self.fast_dim % self.fast_n_head:  # type: ignore[operator]
            raise ValueError(f"fast_dim {self.fast_dim} is not a multiple of fast_n_head {self.fast_n_head}")
        for heads, kv in ((self.n_head, self.n_local_heads), (self.fast_n_head, self.fast_n_local_heads)):
            if heads % kv:  # type: ignore[operator]
                raise ValueError(f"{heads} heads cannot share {kv} KV heads evenly")
        for size in (self.head_dim, self.fast_head_size):
            if size % 2:  # type: ignore[operator]
                raise ValueError(f"heads of {size} channels cannot be turned in pairs")
        if not self.share_codebook_embeddings:
            raise ValueError("share_codebook_embeddings false is not supported: training and generation would differ")
        if self.is_reward_model:
            raise ValueError("reward models are not supported")

    @property
    def traits(self) -> Traits:
        """What all models of the family do; ValueError for a family that is not known."""
        if self.family not in TRAITS:
            raise ValueError(f"there is no model family {self.family!r}; known: {', '.join(TRAITS)}")
        return TRAITS[self.family]

    @property
    def fast_head_size(self) -> int:
        """Channels of a head of the fast transformer."""
        assert self.fast_dim is not None and self.fast_n_head is not None and self.fast_head_dim is not None
        return self.fast_dim // self.fast_n_head if self.traits.fixed_head_dim else self.fast_head_dim

    @property
    def embedding_scale(self) -> float:
        """What the summed embeddings of a frame are divided by: 1, or the root of how many are summed."""
        scaled = self.traits.scales_frames and self.scale_codebook_embeddings
        return math.sqrt(self.num_codebooks + 1) if scaled else 1.0

    @property
    def residual_codes(self) -> int:
        """How many codes all codebooks but the first are drawn from."""
        return min(self.traits.residual_codes or self.codebook_size, self.codebook_size)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """How many codes each codebook has."""
        return (self.codebook_size, *(self.residual_codes for _ in range(self.num_codebooks - 1)))

    @property
    def semantic_tokens(self) -> int:
        """Semantic ids in the vocabulary."""
        return self.traits.semantic_tokens or self.codebook_size

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> DualARConfig:
        """Make a config from `config.json`'s content; the family comes from its keys.

        Keys that its family does not use are ignored (see `unknown_keys`), wrong values raise ValueError.
        """
        if values.get("norm_fastlayer_input"):
            raise ValueError("norm_fastlayer_input is true, as in models of Fish Audio S2, which are not supported")
        family = family_of(values)
        known = {name: value for name, value in values.items() if name in _written(family)}
        return cls(**known, family=family)

    @staticmethod
    def unknown_keys(values: Mapping[str, Any]) -> list[str]:
        """Which keys of `config.json`'s content say nothing to `from_mapping`."""
        return sorted(set(values) - _written(family_of(values)))

    def with_max_length(self, max_length: int) -> DualARConfig:
        """Return the config for sequences of at most `max_length` tokens."""
        return replace(self, max_seq_len=max_length)

    def to_json(self) -> str:
        """Return the text of `config.json` as the released tools of the family write it."""
        written = _written(self.family)
        values = {name: value for name, value in asdict(self).items() if name in written}
        return json.dumps(values, indent=4, sort_keys=True, ensure_ascii=False)


def _written(family: str) -> set[str]:
    """The keys that config.json has in a family."""
    return {field.name for field in fields(DualARConfig)} - TRAITS[family].absent - {"family"}
