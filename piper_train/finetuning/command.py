"""`finetune_tts.py --engine piper`: parse and check, then look or run."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext

from fish_speech.arguments import given_flags
from fish_speech.errors import DONE, UserError
from fish_speech.log import setup

from .flags import make_parser
from .places import Places

log = logging.getLogger(__name__)

PREPARED = "prepared.json"  # in the cache: what data.prepare counted


def main(argv: Sequence[str]) -> int:
    """Do what the command line asks for; return the exit code."""
    options = make_parser().parse_args(argv)
    given = given_flags(argv)
    setup()
    if options.doctor:
        return _doctor(options, given)
    from .request import check

    work, source = check(options, given)
    places = Places(options.project)
    if options.list_checkpoints:
        from .starts import listing

        sys.stdout.write("\n".join(listing(places)) + "\n")
        return DONE
    from .steps import plan as planned

    plan = planned(options, work, source, given)
    if options.dry_run:
        from .rehearsal import rehearse

        return rehearse(options, work, plan)
    from fish_speech.files import write_json
    from fish_speech.only_run import only_run
    from fish_speech.pipeline import run_steps

    if work.makes and not plan.finished:
        log.warning("no --data-dir and no --teacher: a test data set of synthetic speech in %s", plan.source.folder)
    if plan.finished:
        log.info("%d epochs are trained already; the voice is left to export", plan.start.epochs_done)
    elif work.trains:
        log.info("%s", plan.start)
    if work.builds and not plan.finished and not plan.start.continues:
        write_json(places.record, plan.record())
    with only_run(places.results) if work.builds or work.changes_data else nullcontext():
        code = run_steps(plan.steps, places.logs)
    if code == DONE and work.builds and not plan.finished:
        for line in left_out(places):
            log.warning("%s", line)
    if code == DONE and work.exports:
        from .starts import to_export
        from .voice_record import write as write_voice_record

        write_voice_record(places, to_export(options, places))
        log.info('the voice speaks: python cli_tts.py "..." --model-path %s', places.voice)
    return code


def _doctor(options: argparse.Namespace, given: set[str]) -> int:
    from .request import WITH_DOCTOR

    idle = sorted(given - WITH_DOCTOR)
    if idle:
        raise UserError(
            f"{idle[0]} has no effect here", "--doctor looks at the machine and runs no step", "leave it out"
        )
    from .doctor import main as look

    return look(options.device)


def left_out(places: Places) -> list[str]:
    """Say again at the end which clips were left out, and why."""
    try:
        record = json.loads((places.cache / PREPARED).read_text(encoding="utf-8"))
        groups = dict(record["left_out"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [
        f"left out of training: {group['count']}, {reason}: {', '.join(group['names'][:3])}"
        + ("; ..." if group["count"] > 3 else "")
        for reason, group in groups.items()
    ]
