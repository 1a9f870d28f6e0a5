"""Start a voice with another voice's weights: all that fits is copied, optimizers and epochs begin anew."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING

import torch

from fish_speech.checkpoint import check_finite
from fish_speech.errors import UserError

from ..checkpoints import PiperCheckpoint
from ..models.config import VitsConfig
from ..quality import quality_of

if TYPE_CHECKING:
    from .module import VitsModule

VOCODER = ("model_g.dec.", "model_g.enc_q.", "model_g.flow.")  # what makes the sound, whatever the language
# What may differ between a voice and the one it starts from.
_FREE = {"num_symbols", "num_speakers", "gin_channels", "use_sdp", "p_dropout", "segment_size", "mel_channels"}


def warm_start(module: VitsModule, checkpoint: PiperCheckpoint, prefixes: tuple[str, ...] | None = None) -> str:
    """Copy the tensors of equal name and shape, of all names or those with `prefixes`; return a line that says so.

    Raises UserError for a voice of another quality, or broken weights.
    """
    theirs = checkpoint.model_config()
    refuse_other_quality(module.config, theirs, checkpoint)
    ours = {
        name: tensor for name, tensor in module.state_dict().items() if prefixes is None or name.startswith(prefixes)
    }
    fitting = {
        name: checkpoint.state_dict[name]
        for name, tensor in ours.items()
        if name in checkpoint.state_dict and checkpoint.state_dict[name].shape == tensor.shape
    }
    check_finite(fitting, checkpoint.path)
    with torch.no_grad():
        for name, tensor in fitting.items():
            ours[name].copy_(tensor)
    new = [name for name in ours if name not in fitting]
    unused = [
        name
        for name in checkpoint.state_dict
        if name not in fitting and (prefixes is None or name.startswith(prefixes))
    ]
    what = "warm start" if prefixes is None else "warm start of decoder, posterior encoder and flow"
    line = f"{what} from {checkpoint.path} ({describe(theirs)}): {len(fitting)} of {len(ours)} tensors, epoch 0"
    if theirs.num_speakers != module.config.num_speakers:
        line += f"; {_speakers(theirs)} there, {_speakers(module.config)} here"
    if new:
        line += f"; new here: {_parts(new)}"
    if unused:
        line += f"; not used from there: {_parts(unused)}"
    return line


def _speakers(config: VitsConfig) -> str:
    return "1 speaker" if config.num_speakers == 1 else f"{config.num_speakers} speakers"


def _parts(names: Iterable[str]) -> str:
    """Parts of the model that tensors belong to, each once: model_d, dec.cond, emb_g."""
    seen = []
    for name in names:
        network, *path = name.split(".")
        part = ".".join(path[:2] if path[0] in ("dec", "enc_q", "flow", "enc_p", "dp") else path[:1])
        part = part if network == "model_g" else network
        if part not in seen:
            seen.append(part)
    return ", ".join(seen)


def refuse_other_quality(ours: VitsConfig, theirs: VitsConfig, checkpoint: PiperCheckpoint) -> None:
    """Raise UserError that names both where weights of the one cannot serve the other."""
    unknown = set() if checkpoint.knows_sample_rate else {"sample_rate"}
    different = [
        f"{f.name} is {_shown(getattr(theirs, f.name))} there, {_shown(getattr(ours, f.name))} here"
        for f in fields(VitsConfig)
        if f.name not in _FREE | unknown and getattr(theirs, f.name) != getattr(ours, f.name)
    ]
    if not different:
        return
    quality = quality_of(theirs)
    fix = f"train with --config configs/piper/{quality}.yaml" if quality else "train with the same model.* options"
    raise UserError(
        f"{checkpoint.path} is of another quality: {describe(theirs)}, where this voice is {describe(ours)}",
        "; ".join(different),
        f"{fix}, or start from a checkpoint of {quality_of(ours) or 'the same sizes'}",
    )


def _shown(value: object) -> str:
    return str(value).replace(" ", "")


def describe(config: VitsConfig) -> str:
    """A quality by its name and rate, or the sizes of a voice that has none."""
    quality = quality_of(config)
    if quality:
        return f"{quality} ({config.sample_rate} Hz)"
    return f"hidden {config.hidden_channels}, decoder {config.upsample_initial_channel}, {config.sample_rate} Hz"
