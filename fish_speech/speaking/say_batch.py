"""Speak a batch: one model for all lines, each line into its own file, and only those lines that are not done."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DONE, FAILED
from . import options as flags
from .batch import batch_source, read_batch
from .batch_line import BatchLine, LineSettings
from .batch_record import BatchRecord
from .batch_run import run_batch, tell_path
from .listening import check_recogniser, complaint_about, verifier_of
from .loading import LoadedVoice, load_voice, model_folder, voice_identity
from .references import ReferenceChoice, ReferenceFiles, find_references, read_references

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
    common = flags.reference_choice(options)

    def choice_of(name: str | None) -> ReferenceChoice:
        """A line's own voice goes before what the command line imitates."""
        return common if name == common.voice else ReferenceChoice(voice=name, voices_folder=common.voices_folder)

    @cache
    def files_of(name: str | None) -> ReferenceFiles:
        choice = choice_of(name)
        return find_references(choice, None if choice.is_named else model_folder(settings))

    warned = False

    def check_line(line: BatchLine) -> None:
        nonlocal warned
        if choice_of(line.settings.voice).is_named:
            files_of(line.settings.voice)
        warned = warned or flags.warn_of_markers(line.text, options.model_version)

    batch = read_batch(
        batch_source(options.batch), defaults, check_line
    )  # before weights are downloaded or anything loaded
    check_recogniser(options)
    folder = model_folder(settings)
    with batch, BatchRecord(options.output or FOLDER, options.overwrite) as record:
        decisive = {
            "voice": voice_identity(settings, folder),
            "limits": [options.max_new_tokens, options.chunk_length],
            "marker": marker,
            "verify": [options.attempts, options.asr, options.whisper_model, options.language]
            if options.verify
            else None,
        }
        digest_of = cache(lambda name: files_of(name).digest())

        def voice_of(line: BatchLine) -> dict[str, Any]:
            return {**decisive, "reference": digest_of(line.settings.voice)}

        plan = record.plan(batch, voice_of)
        log.info("%d lines: %d to speak, %d done before", len(batch), len(plan.todo), plan.done)
        if not plan.todo:
            for number, complaint in plan.complaints:
                log.warning("line %d is not right: %s", number, complaint)
            return FAILED if plan.complaints else DONE
        verifier = verifier_of(options)
        voice = load_voice(settings, flags.cache_opener(options))
        lines = _Lines(options, voice, files_of, marker, verifier)
        result = run_batch(
            batch, lines.speak, record, plan, voice_of, voice.speaker.sample_rate, lines.complaint, tell_path
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
