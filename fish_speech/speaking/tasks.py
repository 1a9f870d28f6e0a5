"""What cli_tts.py does beside speaking: list voices, look at the cache or empty it, make a reference."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from ..errors import UserError
from .options import voice_settings

log = logging.getLogger(__name__)


def list_voices(folder: Path) -> int:
    """Print the voices in `folder`, one a line, with their words; those that cannot be used with the reason."""
    from ..synthesis.voice_library import list_voices as found

    voices = found(folder)
    if not voices:
        log.info("no voices in %s; make one: python cli_tts.py --create-reference RECORDING %s",
                 folder, folder / "NAME.npy")  # fmt: skip
        return 0
    width = max(len(voice.name) for voice in voices)
    for voice in voices:
        length = f"{voice.frames:5d} frames" if voice.frames is not None else " " * 12
        told = f"cannot be used: {voice.problem}" if voice.problem else voice.text
        sys.stdout.write(f"{voice.name:<{width}}  {length}  {told}\n")
    return 0


def cache_info() -> int:
    """Print where the cache is, what is in it, and what it may hold."""
    from ..synthesis.cache import TokenCache

    info = TokenCache().info()
    sys.stdout.write(f"{info.folder}: {info.entries} segments, {_mb(info.bytes)} of at most {_mb(info.limit)}\n")
    return 0


def clear_cache() -> int:
    """Empty the cache and say what was in it."""
    from ..synthesis.cache import TokenCache

    cache = TokenCache()
    removed = cache.clear()
    sys.stdout.write(f"{cache.folder}: removed {removed.entries} segments, {_mb(removed.bytes)}\n")
    return 0


def create_reference(options: argparse.Namespace) -> int:
    """Encode a recording for later use as a reference voice, with its words."""
    from ..prepare.options import Recognition
    from ..synthesis import new_reference
    from .loading import load_codec_alone

    audio, target = options.create_reference
    if len(options.prompt_text) > 1:
        raise UserError("several texts are given", "one recording has one", "give one --prompt-text")
    new_reference.check_target(target)
    text = options.prompt_text[0] if options.prompt_text else None
    recognition = Recognition(options.asr or "auto", options.whisper_model, options.language)
    new_reference.check_words(audio, text, recognition)
    codec = load_codec_alone(voice_settings(options))
    made = new_reference.create_reference(audio, target, text, codec, recognition, options.overwrite)
    sys.stdout.write(f"{made.path}: {made.frames} frames, {made.seconds:.1f} s: {made.text}\n")
    return 0


def _mb(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
