"""Speak one text with a Piper voice, as cli_tts.py does with others: into a file, a player or a pipe."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fish_speech.errors import DONE, FAILED, UserError
from fish_speech.speaking import options as flags
from fish_speech.speaking.places import Places
from fish_speech.speaking.players import PlayerFailed
from fish_speech.speaking.sinks import Sink, SinkClosed
from fish_speech.speaking.texts import read_text

from ..phonemes.ids import describe_missing
from .ahead import ahead
from .options import manner_of
from .sound import for_sinks
from .voice import Manner, OnnxVoice

if TYPE_CHECKING:
    from fish_speech.synthesis.effects import Effects

log = logging.getLogger(__name__)


def say(options: argparse.Namespace, path: Path) -> int:
    """Speak one text with the voice at `path`, --num-samples times."""
    manner = manner_of(options)
    effects = flags.effects(options.speed, options.pitch, options.volume)
    text = read_text(options.text, options.text_file, sys.stdin)
    places = Places(options)
    with OnnxVoice.load(path, options.device, options.seed) as voice:
        voice.check(manner)
        for number in range(options.num_samples):
            if number:
                voice.reseed(options.seed + number)
            try:
                with places.open(number, voice.sample_rate) as sink:
                    speak_into(sink, voice, text, manner, effects)
                places.finish(number)
            except SinkClosed as closed:  # whoever listened has heard enough
                return closed.exit_code
            except PlayerFailed as failed:
                places.tell(number)
                log.error("%s", failed)
                return FAILED
    return DONE


def speak_into(sink: Sink, voice: OnnxVoice, text: str, manner: Manner, effects: Effects) -> None:
    """Speak one text and tell how it went. Raises UserError if no sound came out."""
    started, first, samples = time.monotonic(), 0.0, 0
    with closing(sound_of(voice, text, manner, effects)) as pieces:
        for piece in pieces:
            first = first or time.monotonic() - started
            samples += len(piece)
            sink.write(piece)
    told = missing_phonemes(voice)
    if not samples:
        raise UserError(
            "the voice said nothing",
            told or "there are no phonemes in the text",
            f"give it a text in its language, {voice.config.espeak_voice}",
        )
    if told:
        log.warning("%s", told)
    seconds, spent = samples / voice.sample_rate, time.monotonic() - started
    log.info("%.2f s of speech in %.2f s (%.1f x real time), the first sound after %.2f s",
             seconds, spent, seconds / spent, first)  # fmt: skip


def sound_of(voice: OnnxVoice, text: str, manner: Manner, effects: Effects) -> Generator[np.ndarray, None, None]:
    """Yield the sound of a text as sinks take it, sentence by sentence, the next one being made meanwhile."""
    from fish_speech.synthesis.effects import EffectChain

    chain = EffectChain(effects, voice.sample_rate)
    voice.missing.clear()
    with closing(ahead(voice.speak(text, manner))) as sentences:
        for sentence in sentences:
            yield from _some(chain.feed(sentence))
    yield from _some(chain.finish())


def _some(sound: np.ndarray) -> Generator[np.ndarray, None, None]:
    if len(sound):
        yield for_sinks(sound)


def missing_phonemes(voice: OnnxVoice) -> str | None:
    """Say which phonemes the voice left out of what it spoke last, and how often; None if it knew all."""
    total = sum(voice.missing.values())
    if not total:
        return None
    verb = "phoneme is" if total == 1 else "phonemes are"
    return f"{total} {verb} not in the table of {voice.path.name} and left out: {describe_missing(voice.missing)}"
