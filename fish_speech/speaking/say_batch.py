"""Speak a batch: one model for all lines, each line into its own file, and only those lines that are not done."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options as flags
from .batch import read_batch
from .batch_line import BatchLine, LineSettings
from .batch_record import BatchRecord
from .batch_run import run_batch
from .listening import complaint_about, verifier_of
from .loading import LoadedVoice, load_voice, model_folder, voice_identity
from .references import ReferenceFiles, find_references, read_references

if TYPE_CHECKING:
    import numpy as np

    from ..synthesis.speak import Said
    from ..synthesis.verify import Verifier

log = logging.getLogger(__name__)

FOLDER = Path("output/batch")


def say_batch(options: argparse.Namespace) -> int:
    """Speak the lines of --batch into the folder -o. Returns 1 if a line failed or is not right, else 0."""
    defaults = line_settings(options)
    marker = flags.marker_of(options)
    settings = flags.voice_settings(options)
    verifier = verifier_of(options)
    folder = model_folder(settings)
    choice = flags.reference_choice(options)
    files_of = cache(lambda name: find_references(replace(choice, voice=name), folder))
    source = sys.stdin.buffer if str(options.batch) == "-" else options.batch

    def check_voice(line: BatchLine) -> None:
        files_of(line.settings.voice)

    batch = read_batch(source, defaults, check_voice)
    with batch, BatchRecord(options.output or FOLDER, options.overwrite) as record:
        common = {
            "voice": voice_identity(settings, folder),
            "limits": [options.max_new_tokens, options.chunk_length],
            "marker": marker,
            "verify": [options.attempts, options.asr, options.whisper_model, options.language] if verifier else None,
        }
        digest_of = cache(lambda name: files_of(name).digest())

        def voice_of(line: BatchLine) -> dict[str, Any]:
            return {**common, "reference": digest_of(line.settings.voice)}

        plan = record.plan(batch, voice_of)
        log.info("%d lines: %d to speak, %d done before", len(batch), len(plan.todo), plan.done)
        if not plan.todo:
            for number, complaint in plan.complaints:
                log.warning("line %d is not right: %s", number, complaint)
            return bool(plan.complaints)
        voice = load_voice(settings, flags.cache_opener(options))
        lines = _Lines(options, voice, files_of, marker, verifier)
        result = run_batch(
            batch, lines.speak, record, plan, voice_of, voice.speaker.sample_rate, lines.complaint, _tell
        )
    log.info("%s", result)
    for first in result.first:
        log.error("%s", first)
    return result.exit_code


def line_settings(options: argparse.Namespace) -> LineSettings:
    """The settings of lines that give none of their own. Raises UserError for what makes no sense."""
    flags.effects(options.speed, options.pitch, options.volume)
    flags.sampling_config(options.temperature, options.top_p, options.repetition_penalty)
    return LineSettings(
        options.seed,
        options.voice,
        options.speed,
        options.pitch,
        options.volume,
        options.temperature,
        options.top_p,
        options.repetition_penalty,
    )


class _Lines:
    """Speaks lines with one voice, and says what the verifier found in the last."""

    def __init__(
        self,
        options: argparse.Namespace,
        voice: LoadedVoice,
        files_of: Callable[[str | None], ReferenceFiles],
        marker: str,
        verifier: Verifier | None,
    ):
        self._options, self._voice, self._marker, self._verifier = options, voice, marker, verifier
        self._references = cache(lambda name: read_references(files_of(name), voice.speaker))
        self._said: list[Said] = []

    def speak(self, line: BatchLine) -> Iterator[np.ndarray]:
        """Yield the sound of a line as it is made."""
        from ..synthesis.effects import Effects
        from ..synthesis.sampling import SamplingConfig
        from ..synthesis.speak import SpeechRequest

        own = line.settings
        request = SpeechRequest(
            line.text,
            self._references(own.voice),
            SamplingConfig(own.temperature, own.top_p, own.repetition_penalty),
            self._options.max_new_tokens,
            self._options.chunk_length,
            own.seed,
            Effects(own.speed, own.pitch, own.volume),
            self._marker,
        )
        self._said = []
        yield from self._voice.speaker.stream(request, self._verifier, self._said.append)

    def complaint(self, line: BatchLine) -> str | None:
        """What is not right about the line that was spoken last."""
        return complaint_about(self._said)


def _tell(path: Path) -> None:
    sys.stdout.write(f"{path}\n")
    sys.stdout.flush()
