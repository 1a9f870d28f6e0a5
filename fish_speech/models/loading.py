"""Load models from their folders: strictly, on any device, in the precision asked for."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import MODEL_PREFIX, as_float, check_finite, check_names, read_state_dict
from ..errors import UserError
from ..text import Tokenizer
from ..versions import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from .dual_ar import DualAR, DualARConfig
from .lora import LoraConfig, install_lora
from .quantize import check_int8, quantize_int8
from .shapes import shapes_only

_MAX_CONFIG_BYTES = 1 << 20
_SHOWN_KEYS = 8

log = logging.getLogger(__name__)


def load_dual_ar(
    folder: Path | str,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    lora: LoraConfig | Mapping[str, Any] | None = None,
    *,
    max_length: int | None = None,
    load_weights: bool = True,
    weights: Path | None = None,
    seed: int = 0,
    quantize: bool = False,
) -> DualAR:
    """Load the text-to-semantic model of a checkpoint folder, in eval mode, with `.config` and `.tokenizer`.

    Every part gets `dtype`, whatever the file has; adapters of `lora` are always float32 and fresh. `max_length`
    replaces the config's longest sequence (tokens). `weights` is read instead of the folder's own file: a checkpoint
    of a run that trained all weights, say. `load_weights` false draws new weights from `seed` (training from scratch).
    `quantize` gives int8 weights for speaking on the CPU (see quantize_int8) without ever holding all weights as floats
    of `dtype`. Raises UserError for a folder, a config or weights that do not fit, and where int8 does not work.
    """
    folder, adapters = Path(folder), _lora_config(lora)
    if quantize:
        check_int8(str(device), "fp32" if dtype == torch.float32 else str(dtype).removeprefix("torch."))
        if lora is not None or not load_weights:
            raise ValueError("a model is quantized when it is whole: merge adapters first, then call quantize_int8")
    config = read_config(folder)
    if max_length is not None:
        config = config.with_max_length(max_length)
    tokenizer = Tokenizer(folder / TOKENIZER_FILE)
    _check_tokenizer(tokenizer, config, folder)
    with shapes_only():
        model = DualAR(config, tokenizer.semantic_begin_id, tokenizer.semantic_end_id)
    if load_weights:
        path = weights or weights_path(folder)
        as_stored = None if quantize else dtype
        _assign(model, read_state_dict(path), path, f"the model that {folder / CONFIG_FILE} describes", as_stored)
        if quantize:
            quantize_int8(model)
        model.to(device)
    else:
        model.to_empty(device="cpu")
        model.reset_parameters(torch.Generator().manual_seed(seed))
        model.to(device=device, dtype=dtype)
    model.tokenizer = tokenizer
    if adapters is not None:
        install_lora(model, adapters)
    return model.eval()


def _lora_config(values: LoraConfig | Mapping[str, Any] | None) -> LoraConfig | None:
    try:
        return LoraConfig.of(values)
    except (TypeError, ValueError) as error:
        fix = "choose a config of configs/lora, or correct the value"
        raise UserError("the LoRA config is not one that can be used", str(error), fix) from error


def _check_tokenizer(tokenizer: Tokenizer, config: DualARConfig, folder: Path) -> None:
    """Raise UserError where a folder's tokenizer is another model's: ids would mean something else."""
    if tokenizer.family != config.family:
        why = f"the tokenizer is of the family {tokenizer.family}, the model of the family {config.family}"
    elif tokenizer.vocab_size > config.vocab_size:
        why = f"the tokenizer makes {tokenizer.vocab_size} ids, the model knows {config.vocab_size}"
    elif config.codebook_size > tokenizer.num_semantic:
        why = (
            f"the tokenizer has {tokenizer.num_semantic} semantic tokens, the model's codes are {config.codebook_size}"
        )
    else:
        return
    raise UserError(
        f"{folder / TOKENIZER_FILE} does not fit {folder / CONFIG_FILE}",
        why,
        "use the tokenizer and the config of the same model",
    )


def read_config(folder: Path) -> DualARConfig:
    """Read and check `config.json` of a checkpoint folder; keys that say nothing to this toolkit are warned about."""
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        why = "the folder does not exist" if not Path(folder).is_dir() else f"it has no {CONFIG_FILE}"
        raise UserError(
            f"{folder} is not a model folder",
            why,
            "give the folder that has config.json, model.pth and tokenizer.tiktoken",
        )
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError("it is larger than 1 MB")
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("it does not hold an object")
        config = DualARConfig.from_mapping(values)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not a model config this toolkit knows", str(error), "restore the file") from error
    if unknown := DualARConfig.unknown_keys(values):
        log.warning("%s: unknown keys are left out: %s", path, ", ".join(map(repr, unknown[:_SHOWN_KEYS])))
    return config


def weights_path(folder: Path) -> Path:
    """The weights in a model folder: `model.pth`, or `model.safetensors` where only that exists."""
    path = Path(folder) / WEIGHTS_FILE
    alternative = path.with_suffix(".safetensors")
    return alternative if alternative.is_file() and not path.exists() else path


def _assign(
    model: nn.Module, tensors: dict[str, torch.Tensor], path: Path, what: str, dtype: torch.dtype | None
) -> None:
    """Make `tensors` the parameters of a `model` built without memory; converts one tensor at a time, or none (None)."""
    if isinstance(model, DualAR):
        tensors = as_published(tensors, model.config, path)
    check_names({name: tuple(t.shape) for name, t in model.state_dict().items()}, tensors, path, what)
    check_finite(tensors, path)
    for name in list(tensors):
        tensor = tensors.pop(name)
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        kept = tensor if dtype is None else as_float(tensor, dtype)
        setattr(module, leaf, nn.Parameter(kept, requires_grad=tensor.is_floating_point()))


def as_published(
    tensors: dict[str, torch.Tensor], config: DualARConfig, path: Path, tell: bool = True
) -> dict[str, torch.Tensor]:
    """The weights by the names of the published files: without further `model.`, without the parts that no model of the
    family computes with, and with wq, wk and wv, as older files have them, joined into wqkv."""
    found: dict[str, torch.Tensor] = {}
    left_out = []
    for full_name, tensor in tensors.items():
        name = full_name.replace(MODEL_PREFIX, "")
        if any(part in name for part in config.traits.unused_weights):
            left_out.append(name)
        elif name in found:
            raise UserError(f"{path} does not fit a model", f"it has two weights {name}", "use the published file")
        else:
            found[name] = tensor
    if left_out and tell:
        log.info(
            "%s: %d weights of parts that are not used here are left out, such as %s", path, len(left_out), left_out[0]
        )
    for query in [name for name in found if name.endswith("attention.wq.weight")]:
        parts = [query.replace("wq.weight", f"{part}.weight") for part in ("wq", "wk", "wv")]
        if all(part in found for part in parts):
            found[query.replace("wq.weight", "wqkv.weight")] = torch.cat([found.pop(part) for part in parts])
    return found
