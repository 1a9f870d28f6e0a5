"""Speak the lines of a batch with a Piper voice; files, records and settings of a line as in any other batch."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fish_speech.checkpoint import sha256
from fish_speech.errors import DONE
from fish_speech.speaking import options as flags
from fish_speech.speaking.batch import batch_source, read_batch
from fish_speech.speaking.batch_line import BatchLine, LineSettings
from fish_speech.speaking.batch_record import BatchRecord
from fish_speech.speaking.batch_run import run_batch, tell_path
from fish_speech.speaking.say_batch import FOLDER

from .options import manner_of
from .say import missing_phonemes, sound_of
from .session import config_path
from .speakers import speaker_id
from .voice import Manner, OnnxVoice

log = logging.getLogger(__name__)

_OF_OTHERS = ("temperature", "top_p", "repetition_penalty")  # settings of a line that a Piper voice has no use for


def say_batch(options: argparse.Namespace, path: Path) -> int:
    """Speak the lines of --batch into the folder -o; `voice` in a line is a speaker. Returns 1 if a line failed."""
    manner = manner_of(options)
    flags.effects(options.speed, options.pitch, options.volume)
    defaults = LineSettings(options.seed, options.speaker, options.speed, options.pitch, options.volume)
    with OnnxVoice.load(path, options.device) as voice:

        def check_line(line: BatchLine) -> None:
            speaker_id(voice.config, line.settings.voice, path)
            idle = [name for name in _OF_OTHERS if getattr(line.settings, name) != getattr(defaults, name)]
            if idle:
                raise ValueError(f"{idle[0]} has no effect on a Piper voice")

        with (
            read_batch(batch_source(options.batch), defaults, check_line) as batch,
            BatchRecord(options.output or FOLDER, options.overwrite) as record,
        ):
            decisive = _decisive(voice, manner)
            plan = record.plan(batch, lambda line: decisive)
            log.info("%d lines: %d to speak, %d done before", len(batch), len(plan.todo), plan.done)
            if not plan.todo:
                return DONE

            def speak(line: BatchLine) -> Iterator[np.ndarray]:
                return _speak(voice, line, manner)

            result = run_batch(batch, speak, record, plan, lambda line: decisive, voice.sample_rate, tell=tell_path)
    log.info("%s", result)
    for first in result.first:
        log.error("%s", first)
    return result.exit_code


def _speak(voice: OnnxVoice, line: BatchLine, manner: Manner) -> Iterator[np.ndarray]:
    """Yield the sound of a line, the same whatever was spoken before."""
    own = line.settings
    if any(voice.scales(manner)[::2]):
        voice.reseed(own.seed)
    effects = flags.effects(own.speed, own.pitch, own.volume)
    yield from sound_of(voice, line.text, replace(manner, speaker=own.voice), effects)
    told = missing_phonemes(voice)
    if told:
        log.warning("line %d: %s", line.number, told)


def _decisive(voice: OnnxVoice, manner: Manner) -> dict[str, Any]:
    """What decides the sound of every line: the voice's files, how it speaks, and what makes its phonemes."""
    files = [sha256(path) for path in (voice.path, config_path(voice.path))]
    how = [manner.sentence_silence_s, manner.normalize, manner.volume]
    return {"piper": files, "scales": voice.scales(manner), "how": how, "by": voice.phonemizer.source}
