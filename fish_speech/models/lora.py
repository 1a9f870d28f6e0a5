"""Low-rank adapters with loralib's layers and parameter names (LoRA, arXiv:2106.09685).

Weights are merged only by `merge_lora` and never while training: loralib's own merging on eval() rounds the base a
little each time, so that frozen weights would drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import loralib
import torch
from torch import Tensor, nn

from .adapted_layers import AdaptedLinear
from .dual_ar import DualAR
from .shapes import shapes_only

# What gets adapters, by the names that Fish Audio's tools use: a plain name means both transformers, `fast_` the fast one.
PARTS = ("attention", "mlp", "embeddings", "output")
FAST_PARTS = tuple(f"fast_{part}" for part in PARTS)
_LAYERS = {  # beside the blocks; a model with tied embeddings has no output
    "embeddings": "embeddings",
    "codebook_embeddings": "embeddings",
    "output": "output",
    "fast_embeddings": "fast_embeddings",
    "fast_output": "fast_output",
}


@dataclass(frozen=True)
class LoraConfig:
    """Shape of the adapters, by loralib's arguments, and where they are.

    `target_modules` is kept in one order and without repeats, so that equal choices are equal values.
    """

    r: int = 8  # width of the adapter
    lora_alpha: float = 16.0  # the adapter is scaled by lora_alpha / r
    lora_dropout: float = 0.01  # on the adapter's input, while training
    target_modules: tuple[str, ...] = PARTS  # of PARTS and FAST_PARTS

    def __post_init__(self) -> None:
        if not isinstance(self.r, int) or not 1 <= self.r <= 1024:
            raise ValueError(f"lora r is {self.r}; use 4-64 (leave the LoRA config out to train all weights)")
        if not 0 < self.lora_alpha < math.inf:
            raise ValueError(f"lora_alpha is {self.lora_alpha}; it must be a number above 0, usually 2 * r")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout is {self.lora_dropout}; it must be in [0, 1)")
        object.__setattr__(self, "target_modules", _in_order(self.target_modules))

    @property
    def scaling(self) -> float:
        """Factor of the adapter's output."""
        return self.lora_alpha / self.r

    @property
    def where(self) -> str:
        """What the adapters are on, for messages; nothing where they are on all that they can be."""
        return "" if self.target_modules == PARTS else f" on {', '.join(self.target_modules)}"

    def __str__(self) -> str:
        return f"r {self.r}, alpha {self.lora_alpha}, dropout {self.lora_dropout}{self.where}"

    def fits(self, other: LoraConfig | None) -> bool:
        """Whether adapters of the other shape mean the same here; dropout is the training's own affair."""
        return other is not None and replace(other, lora_dropout=self.lora_dropout) == self

    @classmethod
    def of(cls, value: LoraConfig | Mapping[str, Any] | None) -> LoraConfig | None:
        """Accept a config, a mapping with its fields, or None. Raises ValueError or TypeError for values that make none."""
        if value is None or isinstance(value, LoraConfig):
            return value
        return cls(**{str(name): item for name, item in value.items() if name != "_target_"})


def _in_order(targets: Any) -> tuple[str, ...]:
    """The names of target modules in the order of PARTS and FAST_PARTS, without repeats and what others include."""
    known = (*PARTS, *FAST_PARTS)
    given = [targets] if isinstance(targets, str) else list(targets)
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        found = f"has {', '.join(map(repr, unknown))}" if unknown else "is empty"
        raise ValueError(f"lora target_modules {found}; known: {', '.join(known)}")
    return tuple(name for name in known if name in given and (name in PARTS or name.removeprefix("fast_") not in given))


def install_lora(model: DualAR, config: LoraConfig) -> None:
    """Replace embeddings and linears of `model` by loralib layers, fresh adapters included, and freeze the base.

    A fresh adapter adds nothing: one of its two matrices is zero. The base weights are taken over, not copied, so it
    is all the same whether they are loaded before or after. Where the embeddings are the output layer too, their one
    adapter acts in both places.
    """
    for parent, name in list(_places(model, config.target_modules)):
        setattr(parent, name, _wrap(getattr(parent, name), config))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_lora_name(name))


def _places(model: DualAR, targets: Sequence[str]) -> Iterator[tuple[nn.Module, str]]:
    """Where adapters of the target modules go, as (owner, attribute); in the order in which they draw their first values."""

    def wanted(part: str) -> bool:
        return part in targets or part.removeprefix("fast_") in targets

    for name, part in _LAYERS.items():
        if wanted(part) and hasattr(model, name):
            yield model, name
    for prefix, blocks in (("", model.layers), ("fast_", model.fast_layers)):
        for block in blocks:
            if wanted(f"{prefix}attention"):
                yield from ((block.attention, name) for name in ("wqkv", "wo"))  # type: ignore[misc]
            if wanted(f"{prefix}mlp"):
                yield from ((block.feed_forward, name) for name in ("w1", "w2", "w3"))  # type: ignore[misc]


def _wrap(layer: nn.Module, config: LoraConfig) -> nn.Module:
    adapted: nn.Module
    with shapes_only():  # the base weight is taken over below, so none is drawn
        if isinstance(layer, nn.Embedding):
            adapted = loralib.Embedding(
                layer.num_embeddings, layer.embedding_dim, r=config.r, lora_alpha=config.lora_alpha, merge_weights=False
            )
        else:
            assert isinstance(layer, nn.Linear)
            adapted = AdaptedLinear(
                layer.in_features,
                layer.out_features,
                r=config.r,
                lora_alpha=config.lora_alpha,
                lora_dropout=config.lora_dropout,
                merge_weights=False,
                bias=layer.bias is not None,
            )
    adapted.weight = layer.weight
    if isinstance(layer, nn.Linear) and layer.bias is not None:
        adapted.bias = layer.bias
    adapted.train(layer.training)
    for name in ("lora_A", "lora_B"):
        shape = getattr(adapted, name).shape
        weight = layer.weight
        device = "cpu" if weight.is_meta else weight.device  # type: ignore[union-attr]
        setattr(adapted, name, nn.Parameter(torch.zeros(shape, dtype=torch.float32, device=device)))  # type: ignore[arg-type]
    if isinstance(layer, nn.Embedding):
        nn.init.normal_(adapted.lora_B)  # type: ignore[arg-type]
    else:
        nn.init.kaiming_uniform_(adapted.lora_A, a=math.sqrt(5))  # type: ignore[arg-type]
    return adapted


def is_lora_name(name: str) -> bool:
    """Tell adapter weights from base weights by name."""
    return name.rpartition(".")[2] in ("lora_A", "lora_B")


def add_adapter_(weight: Tensor, lora_a: Tensor, lora_b: Tensor, scaling: float, is_embedding: bool) -> None:
    """Add the adapter to a base weight (rows, columns) in place, by blocks of rows, rounding once to its dtype.

    The product is taken in float32 whatever the weight's dtype is: a bfloat16 product loses small adapters.
    """
    rows = max(1, (1 << 19) // weight.size(1))
    a, b = lora_a.float(), lora_b.float()  # linear: (r, in), (out, r); embedding: (r, entries), (dim, r)
    for start in range(0, weight.size(0), rows):
        part = slice(start, start + rows)
        delta = a[:, part].T @ b.T if is_embedding else b[part] @ a
        weight[part] = (weight[part].float() + delta * scaling).to(weight.dtype)


@torch.no_grad()
def merge_lora(model: DualAR) -> None:
    """Fold every adapter into its base weight and put plain layers back; the answers stay the same."""
    for parent, name in list(_places(model, PARTS)):
        layer = getattr(parent, name, None)
        if not isinstance(layer, loralib.LoRALayer):
            continue
        is_embedding = isinstance(layer, nn.Embedding)
        add_adapter_(layer.weight.data, layer.lora_A, layer.lora_B, layer.scaling, is_embedding)  # type: ignore[arg-type,union-attr]
        plain: nn.Module
        with shapes_only():
            if isinstance(layer, nn.Embedding):
                plain = nn.Embedding(layer.num_embeddings, layer.embedding_dim)
            else:
                assert isinstance(layer, nn.Linear)
                plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        plain.weight = layer.weight
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            plain.bias = layer.bias
        plain.train(layer.training)
        setattr(parent, name, plain)
