"""Speak a text: everything that can be wrong is found before a model is loaded; then sound goes out while it is made."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
import time
from typing import TYPE_CHECKING

from ..errors import DONE, FAILED, UserError
from . import options as flags
from .listening import complaint_about, verifier_of
from .loading import load_voice, model_folder
from .places import Places
from .players import PlayerFailed
from .references import find_references, read_references
from .sinks import SinkClosed
from .texts import read_text

if TYPE_CHECKING:
    from ..synthesis.speak import Said, Speaker, SpeechRequest
    from ..synthesis.verify import Verifier
    from .sinks import Sink

log = logging.getLogger(__name__)


def say(options: argparse.Namespace) -> int:
    """Speak one text, --num-samples times. Returns 1 if --verify found something that is not right, else 0."""
    text = read_text(options.text, options.text_file, sys.stdin)
    effects = flags.effects(options.speed, options.pitch, options.volume)
    sampling = flags.sampling_config(options.temperature, options.top_p, options.repetition_penalty)
    marker = flags.marker_of(options)
    flags.warn_of_markers(text, options.model_version)
    settings = flags.voice_settings(options)
    places = Places(options)
    verifier = verifier_of(options)
    choice = flags.reference_choice(options)
    named = find_references(choice) if choice.is_named else None  # before weights are downloaded
    files = named or find_references(choice, model_folder(settings))
    voice = load_voice(settings, flags.cache_opener(options))
    references = read_references(files, voice.speaker)
    from ..synthesis.speak import SpeechRequest

    doubtful = False
    for number in range(options.num_samples):
        request = SpeechRequest(
            text,
            references,
            sampling,
            options.max_new_tokens,
            options.chunk_length,
            options.seed + number,
            effects,
            marker,
        )
        try:
            with places.open(number, voice.speaker.sample_rate) as sink:
                said = speak_into(sink, voice.speaker, request, verifier)
            places.finish(number)
        except SinkClosed as closed:  # whoever listened has heard enough
            return closed.exit_code
        except PlayerFailed as failed:
            places.tell(number)
            log.error("%s", failed)
            return FAILED
        complaint = complaint_about(said)
        if complaint:
            log.error("not right, but the best of what was tried is kept: %s", complaint)
            doubtful = True
    return FAILED if doubtful else DONE


def speak_into(sink: Sink, speaker: Speaker, request: SpeechRequest, verifier: Verifier | None) -> list[Said]:
    """Speak one request; return how its segments came out. Raises UserError if no sound came out."""
    said: list[Said] = []
    started, first, samples = time.monotonic(), 0.0, 0
    with contextlib.closing(speaker.stream(request, verifier, said.append)) as pieces:
        for piece in pieces:
            first = first or time.monotonic() - started
            samples += len(piece)
            sink.write(piece)
    if not samples:
        raise UserError("the model said nothing", "it ended at once", "try another --seed or a higher --temperature")
    seconds, spent = samples / speaker.sample_rate, time.monotonic() - started
    log.info("%.2f s of speech in %.1f s (%.2f x real time), the first sound after %.1f s",
             seconds, spent, seconds / spent, first)  # fmt: skip
    return said
