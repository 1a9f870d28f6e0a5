"""Load what speaks: a model folder, or a checkpoint over its base, and the codec."""

from __future__ import annotations

from pathlib import Path

import torch

from ..device import probe_hardware
from ..errors import UserError
from ..models import DualAR, LoraConfig, adapter_shape, load_adapter, load_codec, load_dual_ar, merge_lora
from ..models.quantize import check_int8, quantize_int8
from .speak import Speaker


def load_speaker(
    folder: Path,
    codec_path: Path,
    codec_config: dict | None = None,
    checkpoint: Path | None = None,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    int8: bool = False,
) -> Speaker:
    """Load a model folder and a codec; with `checkpoint`, its adapter is merged in memory, or its full weights taken.

    Where less than float32 is asked for, the codec's head computes in bfloat16 too, on CPUs that have it.
    Raises UserError for folders, weights or a checkpoint that do not fit, and where `int8` weights have no kernels.
    """
    model = _load_model(folder, checkpoint, device, dtype, int8)
    codec = load_codec(codec_path, codec_config, device=device)
    if device == "cpu" and (int8 or dtype == torch.bfloat16) and probe_hardware().cpu_bf16:
        # Speed was asked for: a third of the time, 46 dB below ten recordings (minnow).
        codec.head_dtype = torch.bfloat16
    codec.piece_decoder()  # prepares its weights now, not while the first sound is waited for
    return Speaker(model, codec)


def _load_model(folder: Path, checkpoint: Path | None, device: str, dtype: torch.dtype, int8: bool) -> DualAR:
    shape = None if checkpoint is None else adapter_shape(checkpoint)
    if checkpoint is None or shape is None:
        return load_dual_ar(folder, device=device, dtype=dtype, weights=checkpoint, quantize=int8)
    if int8:
        check_int8(device)
    if "lora_alpha" not in shape:
        raise UserError(
            f"{checkpoint} does not say its LoRA shape",
            "only checkpoints of this toolkit can be spoken without merging",
            "merge it first: python -m fish_speech.merge_lora --lora-config ... --lora-weight ... --output ...",
        )
    model = load_dual_ar(folder, dtype=dtype, lora=LoraConfig(**shape))
    load_adapter(model, checkpoint)
    merge_lora(model)
    if int8:
        quantize_int8(model)
    return model.to(device)
