"""Small Piper voices for tests of export and speech: a checkpoint as training leaves it, and the voice exported from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fill import fill_state_dict

from piper_train.export_onnx import export
from piper_train.models.config import VitsConfig
from piper_train.models.synthesizer import Synthesizer
from piper_train.phonemes.ids import default_table

SMALL: dict[str, Any] = {
    "hidden_channels": 32, "inter_channels": 32, "filter_channels": 64, "n_layers": 2, "upsample_initial_channel": 32,
    "resblock_kernel_sizes": (3,), "resblock_dilation_sizes": ((1, 2),),
}  # fmt: skip
HIGH: dict[str, Any] = {  # the decoder of quality high: other blocks, four stages
    "resblock": "1", "resblock_dilation_sizes": ((1, 3, 5),), "upsample_rates": (8, 8, 2, 2),
    "upsample_kernel_sizes": (16, 16, 4, 4),
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "single": {},
    "multi": {"num_speakers": 3, "gin_channels": 16},
    "plain": {"use_sdp": False},
    "high": HIGH,
    "medium": VitsConfig().to_mapping(),  # full size
    "x-low": {"hidden_channels": 24, "inter_channels": 24, "sample_rate": 16000},
}
SPEAKERS = {"anna": 0, "Борис": 1, "17": 2}


def generator_of(kind: str) -> Synthesizer:
    """A small generator of some kind, with weights that give sound of varied durations."""
    torch.manual_seed(3)
    generator = Synthesizer(VitsConfig.from_mapping({**SMALL, **KINDS[kind]}))
    generator.load_state_dict(fill_state_dict(generator.state_dict(), 7))
    return generator.eval()


def voice_mapping(config: VitsConfig, espeak_voice: str = "en-us", **changes: Any) -> dict[str, Any]:
    """The config.json of such a voice."""
    return {
        "audio": {"sample_rate": config.sample_rate},
        "espeak": {"voice": espeak_voice},
        "phoneme_type": "espeak",
        "num_symbols": config.num_symbols,
        "num_speakers": config.num_speakers,
        "inference": {"noise_scale": 0.667, "length_scale": 1.0, "noise_w": 0.8},
        "phoneme_id_map": {phoneme: list(ids) for phoneme, ids in default_table().items()},
        "speaker_id_map": SPEAKERS if config.num_speakers > 1 else {},
        **changes,
    }


def write_checkpoint(path: Path, generator: Synthesizer, **more: Any) -> Path:
    """Write a generator as a checkpoint of training holds it; `more` are other entries, a voice_config, say."""
    path.parent.mkdir(parents=True, exist_ok=True)
    config = generator.config
    state = {f"model_g.{name}": tensor.clone() for name, tensor in generator.state_dict().items()}
    torch.save(
        {"state_dict": state, "hyper_parameters": config.to_mapping(), "epoch": 5, "global_step": 10, **more}, path
    )
    return path


def write_voice(folder: Path, kind: str = "single", name: str = "voice", **changes: Any) -> Path:
    """Export a small voice to folder/name.onnx; `changes` are keys of its config. Its checkpoint lies beside it."""
    generator = generator_of(kind)
    mapping = voice_mapping(generator.config, **changes)
    checkpoint = write_checkpoint(folder / f"{name}.ckpt", generator, voice_config=mapping)
    return export(checkpoint, folder / f"{name}.onnx")
