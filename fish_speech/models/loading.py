"""Load models from their folders: strictly, on any device, in the precision asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoint import as_float, check_finite, check_names, read_file, read_state_dict, state_dict_of
from ..errors import UserError
from ..text import Tokenizer
from ..versions import CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from .dual_ar import DualAR, DualARConfig
from .lora import LoraConfig, install_lora
from .quantize import check_int8, quantize_int8
from .shapes import shapes_only

_MAX_CONFIG_BYTES = 1 << 20


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
    folder = Path(folder)
    if quantize:
        check_int8(str(device), "fp32" if dtype == torch.float32 else str(dtype).removeprefix("torch."))
        if lora is not None or not load_weights:
            raise ValueError("a model is quantized when it is whole: merge adapters first, then call quantize_int8")
    config = read_config(folder)
    if max_length is not None:
        config = config.with_max_length(max_length)
    tokenizer = Tokenizer(folder / TOKENIZER_FILE)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{folder / TOKENIZER_FILE} does not fit {folder / CONFIG_FILE}",
            f"the tokenizer makes {tokenizer.vocab_size} ids, the model knows {config.vocab_size}",
            "use the tokenizer and the config of the same model",
        )
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
    config_of_lora = LoraConfig.of(lora)
    if config_of_lora is not None:
        try:
            install_lora(model, config_of_lora)
        except ValueError as error:
            raise UserError(f"{folder} cannot take LoRA adapters", str(error), "train all weights instead") from error
    return model.eval()


def read_config(folder: Path) -> DualARConfig:
    """Read and check `config.json` of a checkpoint folder."""
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
        return DualARConfig.from_mapping(values)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not a model config this toolkit knows", str(error), "restore the file") from error


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
        tensors = _fuse_attention(tensors)
    check_names({name: tuple(t.shape) for name, t in model.state_dict().items()}, tensors, path, what)
    check_finite(tensors, path)
    for name in list(tensors):
        tensor = tensors.pop(name)
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        kept = tensor if dtype is None else as_float(tensor, dtype)
        setattr(module, leaf, nn.Parameter(kept, requires_grad=tensor.is_floating_point()))


def _fuse_attention(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Join separate wq, wk, wv weights into wqkv, as older files have them."""
    fused = dict(tensors)
    for name in tensors:
        if name.endswith("attention.wq.weight"):
            parts = [name.replace("wq.weight", f"{part}.weight") for part in ("wq", "wk", "wv")]
            if all(part in fused for part in parts):
                joined = torch.cat([fused.pop(part) for part in parts])
                fused[name.replace("wq.weight", "wqkv.weight")] = joined
    return fused
