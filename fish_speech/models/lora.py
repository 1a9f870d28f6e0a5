"""Low-rank adapters with loralib's layers and parameter names (LoRA, arXiv:2106.09685).

Weights are merged only by `merge_lora` and never while training: loralib's own merging on eval() rounds the base a
little each time, so that frozen weights would drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import loralib
import torch
from torch import Tensor, nn

from .dropout import Dropout
from .dual_ar import DualAR
from .shapes import shapes_only


@dataclass(frozen=True)
class LoraConfig:
    """Shape of the adapters; the fields are loralib's arguments."""

    r: int = 8  # width of the adapter
    lora_alpha: float = 16.0  # the adapter is scaled by lora_alpha / r
    lora_dropout: float = 0.01  # on the adapter's input, while training

    def __post_init__(self) -> None:
        if not 1 <= self.r <= 1024:
            raise ValueError(f"lora r is {self.r}; use 4-64 (leave the LoRA config out to train all weights)")
        if not self.lora_alpha > 0:
            raise ValueError(f"lora_alpha is {self.lora_alpha}; it must be above 0, usually 2 * r")
        if not 0 <= self.lora_dropout < 1:
            raise ValueError(f"lora_dropout is {self.lora_dropout}; it must be in [0, 1)")

    @property
    def scaling(self) -> float:
        """Factor of the adapter's output."""
        return self.lora_alpha / self.r

    @classmethod
    def of(cls, value: LoraConfig | Mapping[str, Any] | None) -> LoraConfig | None:
        """Accept a config, a mapping with its fields, or None."""
        if value is None or isinstance(value, LoraConfig):
            return value
        return cls(**{str(name): item for name, item in value.items() if name != "_target_"})


def install_lora(model: DualAR, config: LoraConfig) -> None:
    """Replace embeddings and linears of `model` by loralib layers, fresh adapters included, and freeze the base.

    A fresh adapter adds nothing: one of its two matrices is zero. The base weights are taken over, not copied.
    Raises ValueError for a model with tied embeddings, where merging would change the output layer too.
    """
    if model.config.tie_word_embeddings:
        raise ValueError(
            "LoRA needs tie_word_embeddings false: the adapter of the embeddings would leak into the output"
        )
    for parent, name in list(_adapted_places(model)):
        setattr(parent, name, _wrap(getattr(parent, name), config))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def _adapted_places(model: DualAR) -> Iterator[tuple[nn.Module, str]]:
    for name in ("embeddings", "codebook_embeddings", "output", "fast_embeddings", "fast_output"):
        yield model, name
    for block in [*model.layers, *model.fast_layers]:
        yield from ((block.attention, name) for name in ("wqkv", "wo"))
        yield from ((block.feed_forward, name) for name in ("w1", "w2", "w3"))


class AdaptedLinear(loralib.Linear):
    """loralib's linear layer with the adapter's sum and scale fused into one product, and a cheaper dropout.

    Adapters stay float32 and are cast to the input's dtype in use, so that a bfloat16 base works with or without autocast.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        rate = options.get("lora_dropout", 0.0)
        if rate:
            self.lora_dropout: nn.Module = Dropout(rate)

    def forward(self, x: Tensor) -> Tensor:
        out = nn.functional.linear(x, self.weight, self.bias)
        if self.r == 0 or self.merged:
            return out
        a, b = self.lora_A.to(x.dtype).T, self.lora_B.to(x.dtype).T
        low = self.lora_dropout(x) @ a  # (..., r)
        return torch.addmm(out.flatten(0, -2), low.flatten(0, -2), b, alpha=self.scaling).view(out.shape)


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
    for parent, name in list(_adapted_places(model)):
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
