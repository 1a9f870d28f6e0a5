"""Export a trained voice: VOICE.onnx with VOICE.onnx.json beside it, which every Piper client speaks.

  python -m piper_train.export_onnx --checkpoint lightning_logs/version_0/checkpoints/last.ckpt --output-file anna.onnx

Before the .onnx gets its name it speaks, without noise, what torch speaks. Checkpoints of Piper's own training and
published ones do not carry the voice's config: give it with --config."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fish_speech.arguments import make_parser
from fish_speech.errors import UserError, run
from fish_speech.files import atomic_path, write_json
from fish_speech.log import setup

from .checkpoints import PiperCheckpoint, read_checkpoint
from .speech.options import SUFFIX
from .speech.session import config_path
from .voice_config import VoiceConfig, read_config_file

if TYPE_CHECKING:
    from .models.config import VitsConfig
    from .models.synthesizer import Synthesizer

log = logging.getLogger("piper_train.export_onnx")  # not __name__: that is __main__ when this is run


def export(checkpoint: Path, output: Path, config: Mapping[str, Any] | None = None) -> Path:
    """Write the voice of a checkpoint to `output`, a .onnx, and its config beside it; return `output`.

    config: the voice's config.json; None takes the one that the checkpoint carries. Files that are there are replaced.
    Raises UserError for a checkpoint or config that is missing, no Piper voice's, or does not fit the other.
    """
    started = time.monotonic()
    _check_output(output)
    read = read_checkpoint(checkpoint)
    if config is None:
        config = read.voice_config
    if config is None:
        raise UserError(
            f"{checkpoint} does not carry the voice's config",
            "another program trained it; phonemes, language and sample rate stand in the voice's config.json",
            "give it: --config path/to/config.json (of a published voice: its .onnx.json)",
        )
    voice_config = VoiceConfig.from_mapping(config, "the voice's config")
    model_config = read.model_config()
    _check_config(voice_config, model_config, read)
    generator = _generator(read, model_config)

    from . import onnx_graph

    voice = onnx_graph.SpokenVoice(generator)
    with atomic_path(output) as temporary:
        onnx_graph.write_graph(voice, temporary)
        onnx_graph.check_graph(temporary, model_config.num_speakers > 1)
        difference = onnx_graph.largest_difference(voice, temporary)
        size = temporary.stat().st_size
        write_json(config_path(output), {**config, "hop_length": model_config.hop_length})
    log.info("%s: %.1f MB, in %.1f s; without noise its samples are torch's within %.1g",
             output, size / 1e6, time.monotonic() - started, difference)  # fmt: skip
    return output


def _check_output(output: Path) -> None:
    if output.suffix != SUFFIX or output.is_dir():
        fix = f"--output-file {output / 'voice.onnx' if output.is_dir() else output.with_name(output.name + SUFFIX)}"
        raise UserError(f"cannot export to {output}", "a voice is a file that ends in .onnx", f"use {fix}")
    there = next((folder for folder in output.absolute().parents if folder.exists()), None)
    if there is not None and not there.is_dir():
        raise UserError(f"cannot export to {output}", f"{there} is a file", "name another folder with --output-file")


def _check_config(config: VoiceConfig, model: VitsConfig, checkpoint: PiperCheckpoint) -> None:
    """Raise UserError where the config is that of another voice."""
    told = [
        f"{name} is {stated} in the config, {found} in the checkpoint"
        for name, stated, found in (
            ("num_symbols", config.num_symbols, model.num_symbols),
            ("num_speakers", config.num_speakers, model.num_speakers),
            (
                "audio.sample_rate",
                config.sample_rate,
                checkpoint.hyper_parameters.get("sample_rate", config.sample_rate),
            ),
        )
        if stated != found
    ]
    if told:
        raise UserError(
            f"the config does not belong to {checkpoint.path}", "; ".join(told), "give the config.json of its training"
        )


def _generator(checkpoint: PiperCheckpoint, config: VitsConfig) -> Synthesizer:
    """The checkpoint's generator. Raises UserError if weights are missing, too many, or no numbers."""
    import torch

    from fish_speech.checkpoint import check_finite

    from .models.synthesizer import Synthesizer

    weights = checkpoint.generator()
    check_finite(weights, checkpoint.path)
    with torch.random.fork_rng(devices=[]):
        generator = Synthesizer(config)
    try:
        generator.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]] or [str(error)]
        raise UserError(
            f"{checkpoint.path} is not a whole Piper voice",
            " ".join(lines)[:500],
            "give a checkpoint as training wrote it",
        ) from None
    return generator


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and export."""
    parser = make_parser("python -m piper_train.export_onnx", __doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a .ckpt that training wrote")
    parser.add_argument("--output-file", type=Path, required=True, metavar="VOICE.onnx", help="the voice; its config "
                        "is written to VOICE.onnx.json")  # fmt: skip
    parser.add_argument("--config", type=Path, help="the voice's config.json (default: what the checkpoint carries)")
    options = parser.parse_args(argv)
    setup()
    config = None if options.config is None else read_config_file(options.config)
    sys.stdout.write(f"{export(options.checkpoint, options.output_file, config)}\n")
    return 0


if __name__ == "__main__":
    run(main)
