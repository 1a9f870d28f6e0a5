"""Stage: let the base and the kept checkpoints of a project speak the same sentences, and recommend one of them."""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import arguments, errors, files, log
from .checkpoint import CheckpointFile, checkpoint_dir, list_checkpoints, sha256
from .device import allow_mps_fallback, choose_device
from .errors import DONE, FAILED, UserError
from .finetuning.request import check_project
from .tournament_record import FORMAT, RESULTS, is_current, read_record, tournament_dir
from .workers import WorkerLost

if TYPE_CHECKING:
    from .evaluation import Listening
    from .evaluation.tournament import Played
    from .evaluation.tournament_run import Run

logger = logging.getLogger("fish_speech.tournament")  # not __name__: that is __main__ when the stage runs

DESCRIPTION = """Find the checkpoint to use: the base and the kept checkpoints of a project speak the same sentences.

  python -m fish_speech.tournament --project my_voice

The sentences are those of clips that training held out. Writes results/PROJECT/tournament: results.json, report.html (one
file, with players) and audio/. The earliest checkpoint that is as good as the best is recommended, and merging takes it.
Exit code: 0 done; 1 a checkpoint could not take part; 2 wrong request."""

REPORT, AUDIO = "report.html", "audio"
_BY_SYSTEM = re.compile(r"\..*|Thumbs\.db|desktop\.ini", re.IGNORECASE)  # file managers leave these where one looks
_STAGING = "-tournament"  # end of the name of a folder in the making; ours alone


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this stage; its help imports nothing heavy."""
    parser = arguments.make_parser("python -m fish_speech.tournament", DESCRIPTION)
    add = parser.add_argument
    add("--project", required=True, help="name of the run: results/NAME")
    add("--base", type=Path, metavar="DIR", help="base model folder (default: the one the checkpoints were trained on)")
    add("--codec", type=Path, metavar="FILE", help="codec weights (default: the base folder's)")
    add("--data-dir", type=Path, metavar="DIR", help="data set with the recordings (default: as in training)")
    speech = parser.add_argument_group("what is spoken, and how")
    add = speech.add_argument
    add("--num-texts", type=arguments.positive_int, default=8, metavar="N",
        help="sentences: of held-out clips, then fixed English ones (default: 8)")  # fmt: skip
    add("--texts", type=Path, metavar="FILE", help="sentences of your own instead, one per line, UTF-8")
    add("--no-reference", action="store_true", help="no example of the voice in the prompt (merged voices have one)")
    arguments.add_seed(speech)
    arguments.add_device(speech)
    arguments.add_force_mps(speech)
    listening = parser.add_argument_group("how it is listened to")
    add = listening.add_argument
    add("--asr", choices=("auto", "pocketsphinx", "whisper"), default="auto",
        help="recogniser; auto is whisper if its weights are here, else pocketsphinx (default: auto)")  # fmt: skip
    add("--whisper-model", metavar="NAME|PATH", help="whisper weights, never downloaded (default: the best found)")
    add("--language", default="en", help="of the texts; pocketsphinx knows en only (default: en)")
    add("--workers", type=arguments.positive_int, default=os.cpu_count() or 1,
        help="processes that listen (default: one per core)")  # fmt: skip
    output = parser.add_argument_group("output")
    output.add_argument("--players", type=arguments.non_negative_int, default=20, metavar="N",
                        help="clips of each system that can be played in the report (default: 20)")  # fmt: skip
    output.add_argument("--force", action="store_true", help="do it again even if nothing has changed")
    return parser


def check_request(given: argparse.Namespace) -> list[CheckpointFile]:
    """Return the project's checkpoints; raise UserError for what can be seen to be wrong before any work."""
    check_project(given.project)
    found = list_checkpoints(checkpoint_dir(given.project))
    if not found:
        raise UserError(
            f"project {given.project} has no checkpoints",
            f"{checkpoint_dir(given.project)} has no step_N.ckpt",
            "train it first: python finetune_tts.py --project NAME --data-dir DIR --train",
        )
    for flag, path in (("--base", given.base), ("--data-dir", given.data_dir)):
        if path is not None and not path.is_dir():
            raise UserError(f"there is no folder {path}", f"it was given as {flag}", "check the path")
    if given.codec is not None and not given.codec.is_file():
        raise UserError(f"there is no codec file {given.codec}", "it was given as --codec", "check the path")
    return found


def check_output(output: Path) -> None:
    """Raise UserError if files of the user's lie where a tournament is written."""
    ours = (RESULTS, REPORT, AUDIO)
    there = [path.name for path in output.iterdir() if path.name not in ours] if output.is_dir() else []
    foreign = [name for name in there if not _BY_SYSTEM.fullmatch(name)]
    if foreign or (output.exists() and not output.is_dir()):
        raise UserError(
            f"{output} has files that no tournament wrote",
            f"the folder is written anew; first: {(foreign or [output.name])[0]!a}",
            "move them away",
        )


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """Yield an empty folder beside `output` that takes its place at the end; after an error nothing has changed.

    Only one process may do this for a project at a time: what others left half-made is removed.
    """
    for left in output.parent.glob(f"{files.TEMPORARY_PREFIX}*{_STAGING}"):
        shutil.rmtree(left, ignore_errors=True)
    staging = output.with_name(f"{files.TEMPORARY_PREFIX}{os.getpid()}{_STAGING}")
    old = output.with_name(f"{files.TEMPORARY_PREFIX}{os.getpid()}-old{_STAGING}")
    try:
        staging.mkdir()
        yield staging
        if output.exists():
            output.rename(old)
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if old.exists() and not output.exists():
            old.rename(output)
        shutil.rmtree(old, ignore_errors=True)


def tournament(given: argparse.Namespace) -> int:
    """Run the stage and return its exit code."""
    checkpoints = check_request(given)
    from . import evaluation
    from .evaluate import read_texts
    from .evaluation.tournament_run import base_of, choose_run, describe_inputs, read_records

    texts = read_texts(given.texts, given.num_texts) if given.texts else []
    listening, lacking = evaluation.plan_listening(None, given.asr, given.whisper_model, given.language)
    records, unreadable = read_records(checkpoints, None)
    if not records:
        why = "; ".join(f"{name}: {reason}" for name, reason in unreadable.items())
        raise UserError(f"no checkpoint of project {given.project} can be read", why, "put whole checkpoints back")
    run = choose_run(given, records, base_of(given, records))
    record = read_record(tournament_dir(given.project) / RESULTS)
    inputs = describe_inputs(given, checkpoints, run, listening)
    if not given.force and is_current(record, inputs, checkpoints):
        logger.info("the tournament of these checkpoints has been held; --force holds it again")
        return tell(record, tournament_dir(given.project))
    check_output(tournament_dir(given.project))
    for line in lacking:
        logger.info("%s", line)
    from .only_run import only_run

    with only_run(Path("results") / given.project):
        checkpoints = check_request(given)  # a training that was waited for has made more
        inputs = describe_inputs(given, checkpoints, run, listening)
        record = hold(given, checkpoints, run, inputs, listening, texts, lacking)
    return tell(record, tournament_dir(given.project))


def hold(
    given: argparse.Namespace,
    checkpoints: list[CheckpointFile],
    run: Run,
    inputs: dict[str, Any],
    listening: Listening,
    texts: list[str],
    lacking: list[str],
) -> dict[str, Any]:
    """Hold the tournament, write its folder, and return what results.json says."""
    from .evaluation.systems import usual_sampling
    from .evaluation.tournament import BASE, Entry, play
    from .evaluation.tournament_run import base_hash, name_of, read_records

    choice = choose_device(given.device, "synthesis", given.force_mps)
    logger.info("%s", choice)
    hashes = [sha256(checkpoint.path) for checkpoint in checkpoints]
    inputs["checkpoints"] = [{**c, "sha256": found} for c, found in zip(inputs["checkpoints"], hashes)]
    digest = base_hash(run.base)
    records, left_out = read_records(checkpoints, digest)
    entries = [Entry(BASE, None, None)] if digest is not None else []
    entries += [Entry(name_of(c), c.step, c) for c in checkpoints if name_of(c) in records]
    for name, why in left_out.items():
        logger.warning("%s cannot take part: %s", name, why)
    if not records:
        raise UserError(
            f"no checkpoint of project {given.project} fits {run.base}",
            "; ".join(f"{name}: {why}" for name, why in left_out.items()),
            "give the base that was trained on as --base",
        )
    if digest is None:
        logger.info("%s has no weights: this was training from scratch, so there is no base to compare with", run.base)
    with staging_folder(tournament_dir(given.project)) as folder:
        played = play(
            run, entries, folder, listening, usual_sampling(run.base),
            device=choice.device, seed=given.seed, count=given.num_texts, texts=texts,
            with_reference=not given.no_reference, workers=given.workers,
        )  # fmt: skip
        played.left_out = {**left_out, **played.left_out}
        record = write(given, played, inputs, lacking, folder)
    return record


def write(
    given: argparse.Namespace, played: Played, inputs: dict[str, Any], lacking: list[str], folder: Path
) -> dict[str, Any]:
    """Decide, write page and results into `folder`, and return the results."""
    from .evaluate import versions
    from .evaluation import MEASURES
    from .evaluation.report import render
    from .evaluation.summary import plain_table
    from .evaluation.tournament_decision import decide
    from .evaluation.tournament_words import conclude
    from .extras import how_to_install, missing

    decision = decide([c for c in played.contestants if c.step is not None])
    lines = conclude(decision, played.contestants, len(played.material.texts))
    lines += [f"{name} could not take part: {why}" for name, why in played.left_out.items()]
    lines += played.notes
    lines += lacking
    if missing(*(package for packages in MEASURES.values() for package in packages)):
        lines.append(f"words, voice and quality are measured with the eval extra: {how_to_install()}")
    chosen = decision.recommended
    marked = [
        {**r, "name": f"{r['name']} *" if chosen and r["name"] == chosen.name else r["name"]} for r in played.results
    ]
    record = {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "project": given.project,
        "recommended": chosen.step if chosen else None,
        "conclusion": lines,
        "table": plain_table(marked),
        "lost": decision.lost,
        "left_out": played.left_out,
        "settings": {"command": sys.argv[1:], **{k: v for k, v in inputs.items() if not isinstance(v, dict | list)}},
        "versions": versions(),
        "systems": played.results,
        "inputs": inputs,
    }
    notes = {chosen.name: "recommended"} if chosen else {}
    page = render(record, folder, given.players, f"Tournament: {given.project}", lines, notes)
    files.write_text(folder / REPORT, page)
    files.write_json(folder / RESULTS, record, allow_nan=False)
    return record


def tell(record: Mapping[str, Any], folder: Path) -> int:
    """Print table, conclusion and places; return the exit code."""
    lines = [record["table"], "", *map(str, record["conclusion"]), "", str(folder / REPORT), str(folder / RESULTS)]
    sys.stdout.write("\n".join(lines) + "\n")
    return FAILED if record["left_out"] else DONE


def main() -> int:
    """Parse, then hold the tournament."""
    given = make_parser().parse_args()
    allow_mps_fallback(given.device, given.force_mps)
    log.setup()
    errors.terminate_like_interrupt()
    try:
        return tournament(given)
    except WorkerLost as error:
        logger.error("failed: %s; run the same command again with fewer --workers", error)
        return FAILED


if __name__ == "__main__":
    errors.run(main)
