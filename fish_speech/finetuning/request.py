"""Check a request before anything is run: what it lacks, and which of its flags would do nothing."""

from __future__ import annotations

import argparse
import re
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .. import configs
from ..arguments import runner_problem
from ..errors import UserError
from ..prepare import flags as prepare_flags
from ..versions import VERSIONS, settle_version

STEPS = ("prepare_data", "extract_tokens", "build_dataset", "train", "tournament", "merge_weights")
_TRAINING = (
    "--max-steps", "--max-epochs", "--batch-size", "--gradient-accumulation-steps", "--max-length", "--learning-rate",
    "--warmup-steps", "--lora-config", "--save-every-n-steps", "--log-every-n-steps", "--precision", "--seed",
    "--resume-latest", "--resume-from-checkpoint", "--checkpoint-path", "--early-stopping-patience",
    "--sample-every-n-steps", "--num-gpus", "--num-nodes",
)  # fmt: skip
_EXTRACTION = ("--batch-size-extract", "--num-workers-extract", "--device-extract")
_PREPARATION = {*prepare_flags.VALUES, *prepare_flags.SWITCHES}
_STEP_FLAGS = ("--full-pipeline", *(f"--{name.replace('_', '-')}" for name in STEPS))
# The guide names the data set beside --list-checkpoints and --merge-weights too, so that one line serves all steps.
_WITH_LIST = {"--list-checkpoints", "--project", "--data-dir"}
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # by Windows
_LONGEST_NAME = 200  # bytes; a folder's name may have 255, and ours ends in -merged
_WITH_DOCTOR = {"--doctor", "--model-version", "--device", "--pretrained-ckpt-path"}


@dataclass(frozen=True)
class Work:
    """What a request does, of all that there is to do."""

    prepares: bool
    extracts: bool
    packs: bool
    trains: bool
    compares: bool
    merges: bool

    @property
    def needs_data(self) -> bool:
        """Whether it reads a data set that the user must name."""
        return self.prepares or self.extracts or self.packs

    @property
    def needs_base(self) -> bool:
        """Whether it reads a base model."""
        return self.extracts or self.trains or self.compares or self.merges


def fill_in(options: argparse.Namespace) -> None:
    """Put the base's version, and its way of training, where the user says nothing."""
    _settle_base(options)
    recipe = VERSIONS[options.model_version].recipe
    if options.max_steps is not None or options.max_epochs is not None:  # the user's word alone says how long
        recipe = replace(recipe, max_steps=1_000_000_000, max_epochs=None)
    for name, value in asdict(recipe).items():
        if getattr(options, name, value) is None:
            setattr(options, name, value)


def _settle_base(options: argparse.Namespace) -> None:
    """Fill in the model version: that of the base, named or recorded by the project, where the user does not say it.

    Raises UserError where the base is of another family than the version asked for.
    """
    base = options.pretrained_ckpt_path
    anew = options.full_pipeline or options.train or options.extract_tokens
    if base is None and not anew and (options.merge_weights or options.tournament):
        from .starts import recorded_path

        check_project(options.project)
        base = recorded_path(options.project, "base")
    options.model_version = settle_version(options.model_version, base).name


def is_prepared(folder: Path) -> bool:
    """Whether a folder is a data set: it has transcripts as prepare_dataset.py writes them."""
    return next(folder.rglob("*.lab"), None) is not None


def work_of(options: argparse.Namespace) -> Work:
    """What the chosen steps come to; a full pipeline prepares where the data is raw."""
    full = options.full_pipeline
    return Work(
        prepares=options.prepare_data or (full and options.data_dir is not None and not is_prepared(options.data_dir)),
        extracts=options.extract_tokens or full,
        packs=options.build_dataset or options.train or full,
        trains=options.train or full,
        compares=options.tournament or (full and options.tournament_texts > 0),
        merges=options.merge_weights or full,
    )


def check(options: argparse.Namespace, given: Collection[str]) -> Work:
    """Refuse requests that do not make sense, before anything is run; return what the others do."""
    if options.doctor:
        _refuse(given, set(given) - _WITH_DOCTOR, "--doctor looks at the machine and runs no step")
    else:
        check_project(options.project)
    if options.list_checkpoints:
        _refuse(given, set(given) - _WITH_LIST, "--list-checkpoints runs no step")
    work = work_of(options)
    if options.doctor or options.list_checkpoints:
        return work
    if not any(getattr(options, name) for name in (*STEPS, "full_pipeline")):
        raise UserError("no step is chosen", "there is nothing to do", "add --full-pipeline, or a step such as --train")
    if work.needs_data:
        _check_data(options.data_dir, options.project, work)
    for names, why in _idle(options, work):
        _refuse(given, names, why)
    problem = prepare_flags.without_effect(options) or runner_problem(options)
    if problem:
        raise UserError(problem, "a flag that does nothing is a mistake", "leave it out")
    known = [*configs.names("lora"), "none"]
    if options.lora_config not in known:
        raise UserError(
            f"unknown LoRA config {options.lora_config!r}", f"known: {', '.join(known)}", "choose one of these"
        )
    _check_steps(options, work)
    if work.trains:
        check_processes(options)
    return work


def check_project(project: str | None, result: str = "merged") -> None:
    """Raise UserError for a name that cannot be a folder's, on any system that the folder may be copied to.

    The result lies in checkpoints/PROJECT-`result`.
    """
    named = f"it names results/PROJECT and checkpoints/PROJECT-{result}"
    if project is None:
        raise UserError(
            "--project is missing",
            f"{named}; --doctor alone needs none",
            "add --project my_voice",
        )
    odd = not re.fullmatch(r"[\w][\w .+-]{0,99}", project) or project[-1] in ". "  # Windows drops these at the end
    if odd or _RESERVED.fullmatch(project) or len(project.encode()) > _LONGEST_NAME:
        raise UserError(
            f"--project {project!r} cannot be a folder name",
            named,
            f"use letters, digits, and . _ - inside, at most {_LONGEST_NAME} bytes",
        )


def prepared_folder(project: str) -> Path:
    """Where preparation writes a project's data set."""
    return Path("training_data") / project


def _check_data(folder: Path | None, project: str, work: Work) -> None:
    if folder is None:
        raise UserError("--data-dir is missing", "this step reads the data set", "add --data-dir training_data/NAME")
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder" if folder.exists() else f"there is no folder {folder}",
            "the data set is read from there",
            "python prepare_dataset.py --input RECORDINGS --output training_data/NAME",
        )
    output = prepared_folder(project).resolve()
    if work.prepares and (output.is_relative_to(folder.resolve()) or folder.resolve().is_relative_to(output)):
        raise UserError(
            f"the recordings in {folder} lie where the prepared data would go",
            f"the data set of project {project} is written to {prepared_folder(project)}, and recordings stay as they are",
            "move them to a folder of their own, recordings/NAME say, or choose another --project",
        )
    if work.packs and not work.prepares and not is_prepared(folder):
        raise UserError(
            f"{folder} is no data set to train on",
            "it has no transcripts (.lab), which prepare_dataset.py writes beside the clips",
            "add --full-pipeline, or first --prepare-data, which makes training_data/PROJECT of recordings",
        )


def _refuse(given: Collection[str], idle: Collection[str], why: str) -> None:
    """Raise UserError for the first given flag that is `idle`."""
    found = sorted(set(given) & set(idle))
    if found:
        raise UserError(f"{found[0]} has no effect here", why, "leave it out")


def _idle(options: argparse.Namespace, work: Work) -> Iterator[tuple[Collection[str], str]]:
    """Yield flags that do nothing in this request, with the reason."""
    nobody = "no step of this command uses it"
    loses_clips = [work.prepares, work.extracts, work.packs]
    goes_on = sum(loses_clips) > 1 or work.trains
    computes = work.trains or work.extracts
    rules = (
        (_TRAINING, work.trains, nobody),
        (_EXTRACTION, work.extracts, nobody),
        (("--max-left-out",), work.extracts or work.packs, nobody),
        (("--max-left-out",), not options.keep_going, "--keep-going lets any number be left out"),
        (("--keep-going",), goes_on, "no step follows one that may leave clips out"),
        (("--force-mps",), computes or work.compares, nobody),
        (("--device",), computes or work.prepares or work.compares, nobody),
        (("--model-version", "--pretrained-ckpt-path", "--offline"), work.needs_base, nobody),
        (("--tournament-texts",), work.compares or options.full_pipeline, nobody),
        (("--checkpoint-step",), work.merges, nobody),
        (("--runner", "--ray-address"), work.prepares or work.extracts, nobody),
        (("--strategy",), options.num_gpus * options.num_nodes > 1, "one process trains; --num-gpus N makes it several"),
    )  # fmt: skip
    yield from ((names, why) for names, has_effect, why in rules if not has_effect)
    if not work.prepares:
        idle = _PREPARATION - {"--language"} if work.compares else _PREPARATION  # the tournament listens to it
        yield (
            idle,
            f"{options.data_dir} is a data set already: nothing is prepared" if options.full_pipeline else nobody,
        )
    if options.runner == "ray":
        yield ("--num-workers-extract",), "with --runner ray the cluster says how many"


def _check_steps(options: argparse.Namespace, work: Work) -> None:
    """Refuse numbers that contradict each other."""
    if options.tournament and options.tournament_texts == 0:
        raise UserError(
            "--tournament-texts 0 contradicts --tournament", "0 switches it off", "leave one of the two out"
        )
    if work.trains and work.merges and (options.checkpoint_step or 0) > options.max_steps:
        raise UserError(
            f"--checkpoint-step {options.checkpoint_step} is never reached",
            f"training ends at step {options.max_steps}",
            f"choose an earlier step, or --max-steps {options.checkpoint_step}",
        )


def check_gpus(wanted: int, device: str, force_mps: bool) -> None:
    """Refuse more training processes than the machine has devices for; on the CPU any number may be asked for."""
    if wanted == 1 or device == "cpu":
        return
    from ..device import probe_hardware

    hardware = probe_hardware()
    if device == "mps" or force_mps or hardware.cuda_count < wanted:
        raise UserError(
            f"--num-gpus {wanted} asks for more GPUs than can be used here",
            f"torch found: {hardware.describe()}, {hardware.cuda_count} CUDA devices",
            f"--num-gpus {max(1, hardware.cuda_count)}, or --device cpu for {wanted} processes on the CPU",
        )


def check_processes(options: argparse.Namespace) -> None:
    """Refuse processes that this machine cannot hold, and nodes for what is no training."""
    check_gpus(options.num_gpus, options.device, options.force_mps)
    several = [name for name in STEPS if getattr(options, name) and name != "train"] + ["full_pipeline"] * (
        options.full_pipeline
    )
    if options.num_nodes > 1 and several:
        raise UserError(
            f"--num-nodes {options.num_nodes} trains only, and --{several[0].replace('_', '-')} is asked for too",
            "the command is started on every node, and only training may run several times at once",
            "run the other steps before and after it, on one node",
        )
