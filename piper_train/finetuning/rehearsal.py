"""`--dry-run`: say what would run and what training would come to, and write nothing."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from fish_speech.errors import DONE
from fish_speech.pipeline import command_line

from .architecture import Architecture
from .request import Work
from .steps import Plan

_SPEECH = 15.0  # characters of text in a second of speech, about
_ADAM_BYTES = 16  # float32: a weight, its gradient, two moments
_DISCRIMINATOR = 46_747_132  # weights of the multi-period discriminator, in every quality


def rehearse(options: argparse.Namespace, work: Work, plan: Plan) -> int:
    """Print the commands and the plan; return the exit code."""
    for line in [*announced(plan), *planned(options, work, plan)]:
        sys.stdout.write(line + "\n")
    return DONE


def announced(plan: Plan) -> Iterator[str]:
    """What would be run, a line each."""
    yield "dry run: nothing is written"
    for number, step in enumerate(plan.steps, 1):
        later = " --checkpoint (the last one then)" if step.late is not None else ""
        yield f"would run [{number}/{len(plan.steps)}] {step.name}: {command_line(step)}{later}"


def planned(options: argparse.Namespace, work: Work, plan: Plan) -> Iterator[str]:
    """What training would come to, as far as the data tells it already."""
    if plan.finished:
        yield f"{plan.start.epochs_done} epochs are trained: the voice is left to export"
        return
    if not (work.builds and plan.architecture):
        return
    yield "plan:"
    clips, line = clips_expected(options, work, plan)
    yield f"  data           {line}"
    speakers = plan.architecture.config.num_speakers
    yield f"  voice          {plan.architecture.name}, {plan.architecture.config.sample_rate} Hz, " + (
        f"{speakers} speakers" if speakers > 1 else "one speaker"
    )
    yield f"  phonemes       espeak voice {plan.espeak_voice}"
    if not work.trains:
        return
    yield f"  start          {plan.start}"
    if clips is not None:
        yield from _epochs(options, plan, clips)
    yield f"  device         {options.device}, {options.precision}: {options.device_reason}" + (
        f"; {options.num_gpus} processes" if options.num_gpus > 1 else ""
    )
    yield f"  memory         {memory_line(plan.architecture)}"


def _epochs(options: argparse.Namespace, plan: Plan, clips: int) -> Iterator[str]:
    held_out = held_out_clips(clips)
    batches = batches_per_epoch(clips - held_out, options.batch_size, options.num_gpus)
    left = options.max_epochs - plan.start.epochs_done
    steps = math.ceil(batches / options.gradient_accumulation_steps)
    yield f"  held out       about {held_out} of {clips} clips"
    yield (
        f"  epochs         {left} to train, up to {options.max_epochs} in all; {batches} batches of up to "
        f"{options.batch_size} clips an epoch"
        + (f" in each of {options.num_gpus} processes" if options.num_gpus > 1 else "")
    )
    yield f"  steps          {left * steps} of each network"


def held_out_clips(clips: int) -> int:
    """Clips of one speaker that are held out, by the data module's default share."""
    from ..data.split import split_clips

    return len(split_clips([number.to_bytes(8, "big") for number in range(clips)], [0] * clips, 0.1, 0).held_out)


def batches_per_epoch(clips: int, batch_size: int, processes: int) -> int:
    """Batches of an epoch in each process, as data.sampler cuts it."""
    return math.ceil(clips / (batch_size * processes))


def clips_expected(options: argparse.Namespace, work: Work, plan: Plan) -> tuple[int | None, str]:
    """How many clips there are or will be, and a line on them."""
    source = plan.source
    if work.makes:
        words = next(step.arguments for step in plan.steps if step.name == "quick_start")
        clips = int(words[list(words).index("--clips") + 1])
        return clips, f"{clips} clips of a test data set, in {source.folder}"
    if work.teaches:
        from ..teach_script import read_script

        script = read_script(options.script)
        seconds = sum(len(line.text) for line in script.lines) / _SPEECH
        left_out = f", {len(script.left_out)} lines cannot be spoken" if script.left_out else ""
        return len(script.lines), f"{len(script.lines)} lines to read, about {seconds:.0f} s{left_out}"
    if work.prepares or not source.is_there:
        found = recordings_of(options.data_dir) if options.data_dir else []
        _, seconds = _lengths(found)
        return None, f"{len(found)} recordings, {seconds:.1f} s, not prepared yet"
    rows = source.rows(plan.architecture.config.num_speakers if plan.architecture else None)
    readable, seconds = _lengths([row.audio for row in rows.rows])
    left_out = "".join(f"; left out: {line}" for line in rows.left_out.lines())
    unread = len(rows.rows) - readable
    return readable, f"{readable} clips, {seconds:.1f} s{left_out}" + (f"; {unread} cannot be read" if unread else "")


def recordings_of(folder: Path) -> list[Path]:
    """Files of sound below a folder."""
    from fish_speech.audio import find_audio

    return list(find_audio(folder))


def _lengths(files: list[Path]) -> tuple[int, float]:
    """How many files say how long they are, and their seconds together."""
    import soundfile

    count, seconds = 0, 0.0
    for path in files:
        try:
            seconds += soundfile.info(str(path)).duration
            count += 1
        except (soundfile.SoundFileError, OSError):  # of a format that ffmpeg reads, or broken
            continue
    return count, seconds


def memory_line(architecture: Architecture) -> str:
    """What the weights take while they are trained."""
    weights = count_weights(architecture) + _DISCRIMINATOR
    return (
        f"{weights * _ADAM_BYTES / 1e9:.1f} GB for {weights / 1e6:.1f} million weights in training; batches add to it"
    )


def count_weights(architecture: Architecture) -> int:
    """Weights of the generator. Allocates none of them."""
    import torch

    from ..models.synthesizer import Synthesizer

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Synthesizer(architecture.config).parameters())
