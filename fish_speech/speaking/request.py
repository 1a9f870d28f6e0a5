"""Check a request of cli_tts.py before anything is loaded: what it asks for, and which of its flags would do nothing."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from ..errors import UserError
from .options import check_seed
from .output_names import SUFFIXES

Task = Literal["list voices", "cache info", "clear cache", "create reference", "batch", "speak"]

_MODEL = {"--model-version", "--model-path", "--codec", "--device", "--force-mps", "--offline"}
_LISTENING = {"--asr", "--whisper-model", "--language"}
_REFERENCE = {"--voice", "--voices-dir", "--prompt-tokens", "--prompt-text", "--prompt-tokens-file", "--reference-audio",
              "--no-reference"}  # fmt: skip
# What a task can use beside its own flag; speaking can use all that is left.
_WITH: dict[Task, Collection[str]] = {
    "list voices": {"--list-voices", "--voices-dir"},
    "cache info": {"--cache-info"},
    "clear cache": {"--clear-cache"},
    "create reference": {"--create-reference", "--prompt-text", "--overwrite", *_MODEL, *_LISTENING},
}
_NOT_IN_BATCH = {"--text-file", "--play", "--stream", "--format", "--num-samples"}
_OF_VERIFYING = ("--attempts", "--asr", "--whisper-model", "--language")


def task_of(options: argparse.Namespace) -> Task:
    """What is asked for; raises UserError for two things at once."""
    asked: list[tuple[Task, str]] = []
    if options.list_voices:
        asked.append(("list voices", "--list-voices"))
    if options.cache_info:
        asked.append(("cache info", "--cache-info"))
    if options.clear_cache:
        asked.append(("clear cache", "--clear-cache"))
    if options.create_reference:
        asked.append(("create reference", "--create-reference"))
    if options.batch:
        asked.append(("batch", "--batch"))
    if len(asked) > 1:
        flags = " and ".join(flag for _, flag in asked)
        raise UserError(f"{flags} are given", "each is a task of its own", "give them one after another")
    return asked[0][0] if asked else "speak"


def check(task: Task, options: argparse.Namespace, given: Collection[str]) -> None:
    """Raise UserError for a flag that has no effect in this combination."""
    if options.output is not None:
        given = {*given, "--output"}  # also as -o
    useful = _WITH.get(task)
    if useful is not None:
        idle = sorted(set(given) - set(useful)) + (["the text"] if options.text else [])
        if idle:
            raise _no_effect(idle[0], f"--{task.replace(' ', '-')} needs none of it")
        return
    check_seed(options.seed + options.num_samples - 1)
    if "--overwrite" in given and task != "batch":
        raise _no_effect("--overwrite", "it is for --create-reference and --batch")
    if not options.verify:
        idle = [flag for flag in _OF_VERIFYING if flag in given]
        if idle:
            raise _no_effect(idle[0], "nothing listens without --verify")
    if "--voices-dir" in given and not options.voice and task != "batch":
        raise _no_effect("--voices-dir", "no --voice is named")
    if options.no_reference and set(given) & (_REFERENCE - {"--no-reference", "--voices-dir"}):
        raise _no_effect("--no-reference", "another reference is named")
    if task == "batch":
        idle = sorted(_NOT_IN_BATCH.intersection(given)) + (["the text"] if options.text else [])
        if idle:
            raise _no_effect(idle[0], "a batch writes one file per line of its own text")
        _check_batch_folder(options.output)
    elif "--format" in given and options.output is None:
        raise _no_effect("--format", "it is for -o")
    elif options.play and options.stream:
        raise _no_effect("--play", "--stream plays already")


def _check_batch_folder(output: Path | None) -> None:
    if output is not None and (str(output) == "-" or output.suffix.lower() in SUFFIXES) and not output.is_dir():
        raise UserError(f"a batch cannot be written to {output}", "each line becomes a file of its own in a folder",
                        "use -o FOLDER")  # fmt: skip


def _no_effect(flag: str, why: str) -> UserError:
    return UserError(f"{flag} has no effect here", why, f"drop {flag}")
