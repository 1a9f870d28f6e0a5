"""Check a request of --engine piper before anything is run: what it lacks, and which of its flags would do nothing."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from fish_speech.device import choose_device
from fish_speech.errors import UserError
from fish_speech.finetuning.request import check_gpus, check_project
from fish_speech.prepare import flags as prepare_flags
from fish_speech.prepare.names import safe_name

from .. import teach
from .data_source import Source, source_of
from .flags import PRECISIONS
from .places import Places
from .starts import last_checkpoint

log = logging.getLogger(__name__)

STEPS = ("prepare_data", "teach", "build_dataset", "train", "export")
QUICK_START_PROJECT = "quick-start"
TRY = {"quality": "x-low", "clips": 40, "batch_size": 8, "max_epochs": 3}
_TRAINING = (
    "--max-epochs", "--batch-size", "--gradient-accumulation-steps", "--learning-rate", "--log-every-n-steps",
    "--precision", "--num-gpus",
)  # fmt: skip
_PREPARATION = {*prepare_flags.VALUES, *prepare_flags.SWITCHES}
_TEACHING = {"--teacher", "--script", "--verify", "--attempts", "--max-seconds"}
_LISTENING = {"--asr", "--whisper-model", "--language"}
_WITH_LIST = {"--engine", "--list-checkpoints", "--project", "--data-dir"}
WITH_DOCTOR = {"--engine", "--doctor", "--device"}


@dataclass(frozen=True)
class Work:
    """What a request does, of all that there is to do."""

    prepares: bool
    teaches: bool
    makes: bool  # a test data set
    builds: bool
    trains: bool
    exports: bool

    @property
    def changes_data(self) -> bool:
        """Whether the data set itself is made."""
        return self.prepares or self.teaches or self.makes


def settle_project(options: argparse.Namespace) -> Places:
    """Name the project where the user does not, by its data or its teacher; return its folders."""
    if options.project is None:
        options.project = _project_name(options)
    check_project(options.project, "piper")
    return Places(options.project)


def _project_name(options: argparse.Namespace) -> str:
    if options.teacher is not None:  # training_data/NAME is most likely what the teacher itself was trained on
        return safe_name(options.teacher.resolve().name.removesuffix("-merged"), "voice") + "-taught"
    return QUICK_START_PROJECT if options.data_dir is None else safe_name(options.data_dir.resolve().name, "voice")


def work_of(options: argparse.Namespace, source: Source, places: Places) -> Work:
    """What the chosen steps come to. A teacher without a step named teaches and trains."""
    if options.teacher is not None and not any(getattr(options, name) for name in STEPS):
        options.full_pipeline = True
    full = options.full_pipeline
    from_start = full or options.build_dataset or options.train
    return Work(
        prepares=options.prepare_data or (full and source.kind == "recordings"),
        teaches=options.teach or (full and source.kind == "teacher"),
        makes=source.kind == "quick start" and from_start,
        builds=from_start,
        trains=full or options.train,
        exports=full or options.export,
    )


def check(options: argparse.Namespace, given: Collection[str]) -> tuple[Work, Source]:
    """Refuse requests that do not make sense; return what the others do, and with which data."""
    places = settle_project(options)
    if options.list_checkpoints:
        _refuse(given, set(given) - _WITH_LIST, "--list-checkpoints runs no step")
    if options.teacher is not None and options.data_dir is not None:
        raise UserError("--data-dir and --teacher are given", "each is where clips come from", "give one of them")
    source = source_of(options, places)
    work = work_of(options, source, places)
    if options.list_checkpoints:
        return work, source
    if not any(getattr(options, name) for name in (*STEPS, "full_pipeline")):
        raise UserError("no step is chosen", "there is nothing to do", "add --full-pipeline, or a step such as --train")
    _check_sources(options, work, source)
    for names, why in _idle(options, work, source):
        _refuse(given, names, why)
    problem = prepare_flags.without_effect(options)
    if problem:
        raise UserError(problem, "a flag that does nothing is a mistake", "leave it out")
    if work.trains:
        check_device(options)
        if work.makes and options.device == "cpu" and "--max-epochs" not in given:
            _make_it_a_try(options, given, places)
    return work, source


def _make_it_a_try(options: argparse.Namespace, given: Collection[str], places: Places) -> None:
    """Let a training on a test data set end in minutes on a CPU, where nobody says how long it may take."""
    begun = options.checkpoint is not None or last_checkpoint(places) is not None
    for name, value in TRY.items():
        if f"--{name.replace('_', '-')}" not in given and not (name == "quality" and begun):
            setattr(options, name, value)
    log.info(
        "a try on a CPU: --quality %s --clips %d --batch-size %d --max-epochs %d; a training is --max-epochs 1000 on a GPU",
        *(options.quality or "as before", options.clips, options.batch_size, options.max_epochs),
    )


def _check_sources(options: argparse.Namespace, work: Work, source: Source) -> None:
    """Refuse a step whose input nobody names."""
    if work.teaches or _TEACHING & {
        f"--{name}" for name in ("teacher", "script") if getattr(options, name) is not None
    }:
        for name, other in (("teacher", "DIR"), ("script", "FILE")):
            if getattr(options, name) is None:
                raise UserError(f"--{name} is missing", "a Fish voice reads a script", f"add --{name} {other}")
        teach.check_teacher(options.teacher)
        if not options.script.is_file():
            raise UserError(f"there is no script {options.script}", "the teacher reads it", "check --script")
        teach.refuse_other(source.folder)
    if options.prepare_data and options.data_dir is None:
        raise UserError("--data-dir is missing", "the recordings are read from there", "add --data-dir RECORDINGS")
    if work.builds and not work.changes_data and not source.is_there:
        raise UserError(
            f"{source.folder} is no data set",
            "it has neither metadata.csv nor transcripts (.lab)",
            "name a data set with --data-dir, add --full-pipeline, or first "
            + {"recordings": "--prepare-data", "teacher": "--teach"}.get(source.kind, "python prepare_dataset.py"),
        )


def _refuse(given: Collection[str], idle: Collection[str], why: str) -> None:
    """Raise UserError for the first given flag that is `idle`."""
    found = sorted(set(given) & set(idle))
    if found:
        raise UserError(f"{found[0]} has no effect here", why, "leave it out")


def _idle(options: argparse.Namespace, work: Work, source: Source) -> Iterator[tuple[Collection[str], str]]:
    """Yield flags that do nothing in this request, with the reason."""
    nobody = "no step of this command uses it"
    if not work.trains:
        yield _TRAINING, nobody
    if not (work.trains or work.changes_data):
        yield ("--seed",), nobody
    if not (work.trains or work.teaches or work.prepares):
        yield ("--device",), nobody
    if not work.builds:
        yield ("--espeak-voice", "--quality", "--num-speakers", "--num-workers"), nobody
    if not (work.trains or work.exports):
        yield ("--checkpoint",), nobody
    if not work.makes:
        yield ("--clips",), "no test data set is made"
    if not work.teaches:
        yield _TEACHING - {"--teacher", "--script"}, "no teacher reads here"
    elif not options.verify:
        yield {"--attempts", *_LISTENING}, "nobody listens to the teacher: --verify is not given"
    if not work.prepares:
        kept = _LISTENING if work.teaches else set()
        why = f"{options.data_dir} is a data set already: nothing is prepared" if options.data_dir else nobody
        yield _PREPARATION - kept, why


def check_device(options: argparse.Namespace) -> None:
    """Refuse processes, devices and precisions that this machine does not have; a device that is there becomes the choice."""
    if options.precision not in PRECISIONS:
        near = {"bf16": "bf16-mixed", "16": "16-mixed", "fp16": "16-mixed", "32": "fp32"}.get(options.precision, "fp32")
        raise UserError(
            f"unknown precision {options.precision!r}", f"known: {', '.join(PRECISIONS)}", f"use --precision {near}"
        )
    check_gpus(options.num_gpus, options.device, False)
    bf16 = options.precision == "bf16-mixed"
    choice = choose_device(options.device, "training", precision="bf16-mixed" if bf16 else "fp32")
    if options.precision == "16-mixed" and choice.device != "cuda":
        raise UserError(
            f"--precision 16-mixed is not available on {choice.device}",
            "half precision is for CUDA",
            "use --precision fp32",
        )
    options.device, options.device_reason = choice.device, choice.reason
