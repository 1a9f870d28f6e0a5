"""Read what a voice is from the names and shapes of its weights: published checkpoints say little else that can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..quality import QUALITIES
from .config import VitsConfig

PREFIX = "model_g."  # of the generator's weights in a Lightning checkpoint


def config_from_state_dict(state_dict: Mapping[str, Tensor], **known: Any) -> VitsConfig:
    """The config of the generator whose weights these are; names with or without `model_g.`, other weights ignored.

    Shapes come first. `known` are `model.*` values for what shapes cannot say: sample rate, spectrogram, dilations,
    and so on; where those are missing or contradict the shapes, the qualities' values or the defaults are taken. Raises
    ValueError if these are not a Piper generator's weights.
    """
    weights = generator_weights(state_dict)
    _check_claims(weights)
    symbols, hidden = _shape(weights, "enc_p.emb.weight", 2)
    filter_channels, _, kernel_size = _shape(weights, "enc_p.encoder.ffn_layers.0.conv_1.weight", 3)
    speakers, gin = _shape(weights, "emb_g.weight", 2) if "emb_g.weight" in weights else (1, 0)
    found = {
        "num_symbols": symbols,
        "num_speakers": speakers,
        "gin_channels": gin,
        "hidden_channels": hidden,
        "inter_channels": _shape(weights, "enc_p.proj.weight", 3)[0] // 2,
        "filter_channels": filter_channels,
        "kernel_size": kernel_size,
        "n_heads": max(1, hidden // max(1, _shape(weights, "enc_p.encoder.attn_layers.0.emb_rel_k", 3)[2])),
        "n_layers": _count(weights, "enc_p.encoder.attn_layers.{}.emb_rel_k"),
        "filter_length": 2 * (_shape(weights, "enc_q.pre.weight", 3)[1] - 1),
        "use_sdp": "dp.post_pre.weight" in weights,
        **_decoder(weights),
    }
    config = VitsConfig.from_mapping({**known, **found, **_unseen(found, known)})
    _check_size(config, weights)
    return config


def generator_weights(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The generator's weights alone, without `model_g.` in their names."""
    marked = {name.removeprefix(PREFIX): value for name, value in state_dict.items() if name.startswith(PREFIX)}
    return marked or dict(state_dict)


def expected_shapes(config: VitsConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every weight of a generator, in order, without making them."""
    from .synthesizer import Synthesizer

    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in Synthesizer(config).state_dict().items()}


def _decoder(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of the decoder, which tell the qualities apart."""
    resblock = "1" if "dec.resblocks.0.convs1.0.weight_v" in weights else "2"
    block = f"dec.resblocks.{{}}.{'convs1' if resblock == '1' else 'convs'}.0.weight_v"
    stages = _count(weights, "dec.ups.{}.weight_v")
    blocks = _count(weights, block) // max(1, stages)
    return {
        "resblock": resblock,
        "upsample_initial_channel": _shape(weights, "dec.conv_pre.weight", 3)[0],
        "upsample_kernel_sizes": tuple(_shape(weights, f"dec.ups.{i}.weight_v", 3)[2] for i in range(stages)),
        "resblock_kernel_sizes": tuple(_shape(weights, block.format(i), 3)[2] for i in range(blocks)),
    }


def _unseen(found: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Rates and dilations, which leave no trace in shapes: as known if that fits, else as a quality, else as usual."""
    decoder = {name: found[name] for name in ("resblock", "resblock_kernel_sizes", "upsample_kernel_sizes")}
    chosen: dict[str, Any] = {
        "upsample_rates": tuple(kernel // 2 for kernel in found["upsample_kernel_sizes"]),
        "resblock_dilation_sizes": ((1, 3, 5) if found["resblock"] == "1" else (1, 2),)
        * len(found["resblock_kernel_sizes"]),
    }
    qualities = (values for values in QUALITIES.values() if decoder.items() <= values.items())
    for source in (*reversed(list(qualities)), known):  # the last that fits counts
        for name in chosen.keys() & source.keys():
            if _fits({**known, **found, **chosen, name: source[name]}):
                chosen[name] = source[name]
    return chosen


def _fits(values: Mapping[str, Any]) -> bool:
    try:
        VitsConfig.from_mapping(values)
    except ValueError:
        return False
    return True


def _check_claims(weights: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are larger than what the file holds of them: a small file must not ask for all memory."""
    tensors = [value for value in weights.values() if isinstance(value, Tensor) and not value.is_meta]
    held = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in tensors}
    if sum(value.numel() * value.element_size() for value in tensors) > sum(held.values()):
        raise ValueError("weights share their numbers with each other; a voice's weights do not")


def _check_size(config: VitsConfig, weights: Mapping[str, Tensor]) -> None:
    """Refuse a few weights that tell of a network far larger than all of them."""
    needed = sum(math.prod(shape) for shape in expected_shapes(config).values())
    there = sum(value.numel() for value in weights.values() if isinstance(value, Tensor))
    if needed > 2 * there:
        raise ValueError(f"these weights are {there} numbers, but their shapes are those of a voice of {needed}")


def _shape(weights: Mapping[str, Tensor], name: str, axes: int) -> tuple[int, ...]:
    value = weights.get(name)
    if not isinstance(value, Tensor):
        raise ValueError(f"these are not the weights of a Piper voice: {name} is missing")
    if value.dim() != axes:
        raise ValueError(f"these are not the weights of a Piper voice: {name} has the shape {list(value.shape)!s:.80}")
    return tuple(value.shape)


def _count(weights: Mapping[str, Tensor], pattern: str) -> int:
    """How many of the names `pattern`, numbered from 0, there are."""
    number = 0
    while pattern.format(number) in weights:
        number += 1
    return number
