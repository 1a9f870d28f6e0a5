"""`--dry-run`: say what would run and what training would come to, and write nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from ..errors import DONE
from ..pipeline import Step, command_line, run_step
from ..versions import VERSIONS
from .request import Work
from .steps import TEXTS, protos_folder, to_download


def rehearse(options: argparse.Namespace, work: Work, steps: Sequence[Step]) -> int:
    """Print the steps, and training's plan by a process that takes one step and keeps nothing; return its exit code."""
    for line in announced(options, work, steps):
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
    if not work.trains or to_download(options):
        return DONE
    (train,) = (step for step in steps if step.name == "train")
    return run_step(replace(train, arguments=[*train.arguments, *rehearsal_values(options, work)]), None)


def announced(options: argparse.Namespace, work: Work, steps: Sequence[Step]) -> list[str]:
    """What would be fetched and run, one line each."""
    version = VERSIONS[options.model_version]
    missing = to_download(options) if work.needs_base else []
    lines = ["dry run: nothing is written"]
    if missing:
        lines.append(f"would fetch {', '.join(missing)} of {version.hub_id} into {version.folder}")
    for number, step in enumerate(steps, 1):
        later = " --lora-weight (settled then)" if step.late is not None else ""
        lines.append(f"would run [{number}/{len(steps)}] {step.name}: {command_line(step)}{later}")
    if missing and work.trains:
        lines.append(f"the plan of the training needs the base model: {version.how_to_get}")
    return lines


def rehearsal_values(options: argparse.Namespace, work: Work) -> list[str]:
    """The config keys of a training that only plans, with the folder to guess from where no current shards are."""
    from ..build_dataset import is_current
    from ..configs import hydra_value

    values = ["dry_run=true"]
    if work.prepares or not is_current(options.data_dir, protos_folder(options), [TEXTS]):
        values.append(f"expected_data={hydra_value(options.data_dir)}")
    return values
