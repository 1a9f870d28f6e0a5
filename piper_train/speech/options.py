"""The flags of cli_tts.py that are for Piper voices, and those that are not. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from fish_speech.errors import UserError

if TYPE_CHECKING:
    from .voice import Manner

SUFFIX = ".onnx"

_OWN = ("--speaker", "--length-scale", "--noise-scale", "--noise-w-scale", "--sentence-silence", "--no-normalize")
# Flags of cli_tts.py that do for a Piper voice what they do for the others.
_SHARED = {
    "--text-file", "--batch", "--output", "--play", "--stream", "--format", "--model-path", "--device", "--overwrite",
    "--speed", "--pitch", "--volume", "--seed", "--num-samples",
}  # fmt: skip
_WHY = {
    "--voice": "a Piper voice imitates nobody; its speakers are chosen by --speaker",
    "--temperature": "the noise of a Piper voice is set by --noise-scale and --noise-w-scale",
    "--precision": "an .onnx has its numbers as they are",
    "--verify": "nothing listens to a Piper voice here",
    "--create-reference": "a Piper voice imitates nobody",
    "--chunk-length": "a Piper voice speaks sentence by sentence",
    "--force-mps": "a Piper voice runs on the CPU or on CUDA",
}
_LIKE = {
    "--voice": ("--voices-dir", "--prompt-tokens", "--prompt-text", "--prompt-tokens-file", "--reference-audio",
                "--no-reference", "--list-voices"),
    "--temperature": ("--top-p", "--repetition-penalty"),
    "--precision": ("--quantize",),
    "--verify": ("--attempts", "--asr", "--whisper-model", "--language"),
    "--chunk-length": ("--max-new-tokens",),
}  # fmt: skip


def add_piper(group: argparse._ActionsContainer) -> None:
    """Add how a Piper voice speaks."""
    group.add_argument("--speaker", metavar="N|NAME", help="which of its speakers (default: the first)")
    group.add_argument("--length-scale", type=float, metavar="FACTOR",
                       help="how long phonemes last; below 1 is faster (default: the voice's, often 1)")  # fmt: skip
    group.add_argument("--noise-scale", type=float, metavar="N",
                       help="liveliness of the sound, 0 is none (default: the voice's, often 0.667)")  # fmt: skip
    group.add_argument("--noise-w-scale", type=float, metavar="N",
                       help="liveliness of the rhythm, 0 is none (default: the voice's, often 0.8)")  # fmt: skip
    group.add_argument("--sentence-silence", type=float, default=0.0, metavar="S",
                       help="seconds between sentences (default: 0)")  # fmt: skip
    group.add_argument("--no-normalize", action="store_true", help="leave each sentence as loud as the model makes it")


def piper_voice(model_path: Path | None) -> Path | None:
    """The .onnx that --model-path names, itself or by a folder with one in it, not necessarily there; None for others.

    Raises UserError for a folder with several.
    """
    if model_path is None:
        return None
    if model_path.suffix.lower() == SUFFIX and not model_path.is_dir():
        return model_path
    try:
        voices = sorted(path for path in model_path.iterdir() if path.suffix.lower() == SUFFIX)
        others = (model_path / "model.pth").exists() or (model_path / "config.json").exists()
    except OSError:
        return None
    if others or not voices:
        return None
    if len(voices) > 1:
        raise UserError(
            f"{model_path} holds {len(voices)} voices",
            ", ".join(path.name for path in voices[:5]),
            f"name one: --model-path {voices[0]}",
        )
    return voices[0]


def check(voice: Path | None, given: Collection[str]) -> None:
    """Raise UserError for a flag that has no effect on a Piper voice, or, where `voice` is None, only on one."""
    if voice is None:
        idle = [flag for flag in _OWN if flag in given]
        if idle:
            raise UserError(
                f"{idle[0]} has no effect here",
                "it is for Piper voices",
                f"drop {idle[0]}, or name one: --model-path VOICE.onnx",
            )
        return
    idle = sorted(set(given) - _SHARED - set(_OWN))
    if idle:
        flag = idle[0]
        like = next((chief for chief, others in _LIKE.items() if flag in others), flag)
        why = _WHY.get(like, "a Piper voice has no use for it")
        raise UserError(f"{flag} has no effect here", why, f"drop {flag}")


def manner_of(options: argparse.Namespace) -> Manner:
    """What add_piper's flags say. Raises UserError for what makes no sense."""
    from .voice import Manner

    try:
        return Manner(
            options.speaker,
            options.length_scale,
            options.noise_scale,
            options.noise_w_scale,
            options.sentence_silence,
            not options.no_normalize,
        )
    except ValueError as error:
        raise UserError("the voice cannot speak so", str(error), "correct the flag") from None
