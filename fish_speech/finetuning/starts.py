"""Where training starts and what is merged: find checkpoints, read what they say of their runs, list them."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import configs
from ..checkpoint import CheckpointFile, checkpoint_dir, list_checkpoints, record_of
from ..checkpoint_metrics import HELD_OUT_LOSS, lowest, scores
from ..errors import UserError
from ..versions import FAMILIES, FISH, VERSIONS, version_of_folder

log = logging.getLogger(__name__)


def start_values(options: argparse.Namespace, data: Path, base: Path) -> dict[str, object]:
    """Where training starts, as config keys: this project's checkpoint (exact) or another's (weights only)."""
    own = checkpoint_dir(options.project)
    given = options.resume_from_checkpoint or options.checkpoint_path
    if given is not None:
        path = existing(given)
        if path.resolve() == own.resolve():
            return {}
        if path.resolve().parent == own.resolve():
            step = next((c.step for c in list_checkpoints(own) if c.path.name == path.name), None)
            return {"resume_step": step}
        return {"ckpt_path": path}
    if options.resume_latest and not list_checkpoints(own):
        return {"ckpt_path": newest_fitting(options, data, base).path}
    return {}


def existing(path: Path) -> Path:
    """The checkpoint as given, or without the folder `fish-speech/` that older toolkits put in front."""
    for candidate in (path, Path(*path.parts[1:]) if path.parts[:1] == ("fish-speech",) else path):
        if candidate.is_file() or (candidate.is_dir() and list_checkpoints(candidate)):
            return candidate
    raise UserError(
        f"there is no checkpoint {path}",
        "the folder has no step_N.ckpt" if path.is_dir() else "the path does not exist",
        "see what there is: python finetune_tts.py --project NAME --list-checkpoints",
    )


def newest_fitting(options: argparse.Namespace, data: Path, base: Path) -> CheckpointFile:
    """The newest checkpoint of any project with the same base, data folder and LoRA shape; UserError with what there is."""
    lora = None if options.lora_config == "none" else configs.read_lora(options.lora_config)
    found = [c for folder in Path("results").glob("*/checkpoints") for c in list_checkpoints(folder)]
    for checkpoint in sorted(found, key=lambda c: (c.modified, c.step), reverse=True):
        try:
            record = record_of(checkpoint.path)
        except UserError:  # torn, perhaps of a project that nobody thinks of any more
            log.warning("passed over: %s cannot be read", checkpoint.path)
            continue
        if (
            _same_adapters(record.get("lora"), lora)
            and _is_path(record.get("data"), data)
            and _is_path(record.get("base"), base)
        ):
            return checkpoint
    there = "; ".join(f"{c.path}" for c in found[:10]) or "none at all"
    raise UserError(
        f"--resume-latest finds no checkpoint that fits project {options.project}",
        f"it must have the same base ({base}), data folder ({data}) and LoRA shape ({options.lora_config}); "
        f"there is: {there}",
        "leave --resume-latest out for a new run, or name one with --resume-from-checkpoint",
    )


def _same_adapters(recorded: object, wanted: Mapping[str, Any] | None) -> bool:
    """Whether a checkpoint's adapters have the shape and the places of those wanted; None stands for none."""
    if recorded is None or wanted is None:
        return recorded is None and wanted is None
    from ..models import LoraConfig

    try:
        shape = LoraConfig.of(recorded)  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError):  # a damaged record
        return False
    return shape is not None and shape.fits(LoraConfig.of(wanted))


def _is_path(recorded: object, path: Path) -> bool:
    return isinstance(recorded, str) and Path(recorded).resolve() == path.resolve()


def refuse_other_family(project: str, model_version: str) -> None:
    """Raise UserError if the project was trained on a model of another family than the version's.

    Training would refuse it too, but only after that version's codes have taken the place of the project's.
    """
    wanted = VERSIONS[model_version]
    for checkpoint in reversed(list_checkpoints(checkpoint_dir(project))):
        try:
            record = record_of(checkpoint.path)
        except UserError:  # torn: the step that needs it says so
            continue
        family = record.get("family", FISH) if record else None  # before there were two, none was named
        if not isinstance(family, str) or family not in FAMILIES or family == wanted.family:
            return
        base = recorded_path(project, "base")
        own = (base and version_of_folder(base)) or next(it for it in VERSIONS.values() if it.family == family)
        raise UserError(
            f"project {project} was trained on {FAMILIES[family]}, and cannot go on with version {wanted.name}",
            f"{checkpoint.path} holds weights of version {own.name}",
            f"use --model-version {own.name} to continue it, or a new --project; for version {wanted.name} best with a copy "
            "of the data folder, since the codes in it are made anew",
        )


def recorded_path(project: str, name: str) -> Path | None:
    """The folder that the project's newest readable checkpoint was trained with as `base` or on as `data`, if it is there."""
    for checkpoint in reversed(list_checkpoints(checkpoint_dir(project))):
        try:
            value = record_of(checkpoint.path).get(name)
        except UserError:  # torn: the step that needs it says so
            continue
        return Path(value) if isinstance(value, str) and Path(value).is_dir() else None
    return None


def trained(project: str, step: int | None, purpose: str = "merge") -> list[CheckpointFile]:
    """The project's checkpoints, of `step` alone if one is named, newest last. Raises UserError for none."""
    found = list_checkpoints(checkpoint_dir(project))
    wanted = [c for c in found if step in (None, c.step)]
    if not wanted:
        there = ", ".join(str(c.step) for c in found) or "none"
        asked = f"step {step}" if step else "checkpoint"
        raise UserError(
            f"project {project} has no {asked} to {purpose}", f"steps there: {there}", "train first, or choose a step"
        )
    return wanted


def checkpoint_to_merge(project: str, step: int | None) -> Path:
    """The project's checkpoint of `step`; without one what the tournament recommends, else the newest."""
    wanted = trained(project, step)
    recommended = None if step else _recommended(project)
    for checkpoint in wanted:
        if checkpoint.step == recommended:
            log.info("merging step %d, which the tournament recommends; --checkpoint-step chooses another", recommended)
            return checkpoint.path
    if step is None and len(wanted) > 1:
        log.info(
            "merging the newest, step %d: no tournament of just these %d checkpoints recommends one; --tournament holds it",
            *(wanted[-1].step, len(wanted)),
        )
    return wanted[-1].path


def _recommended(project: str) -> int | None:
    from ..tournament_record import recommended_step

    return recommended_step(project)


def listing(project: str) -> list[str]:
    """The project's checkpoints as lines, newest last, and which of them stand out. Raises UserError for none."""
    found = list_checkpoints(checkpoint_dir(project))
    if not found:
        raise UserError(
            f"project {project} has no checkpoints", f"{checkpoint_dir(project)} has no step_N.ckpt", "train it first"
        )
    lines = [f"Available checkpoints for project '{project}':", *map(str, found), f"Latest: {found[-1].path.name}"]
    losses = scores(found, HELD_OUT_LOSS)
    best = lowest(found, losses)
    if best is not None:
        lines.append(f"Best by held-out loss: {best.path.name} ({losses[best.step]:.3f})")
    by_step = {checkpoint.step: checkpoint.path.name for checkpoint in found}
    recommended = _recommended(project)
    if recommended in by_step:
        lines.append(f"Recommended by the tournament: {by_step[recommended]}")
    return lines
