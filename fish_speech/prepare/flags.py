"""The flags that say how recordings become clips, for every script that prepares. Imports nothing heavy."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from .. import arguments

WHISPER_MODELS = "tiny, base, small, medium, large, turbo"

# What another script hands on to prepare_dataset.py.
VALUES = (
    "--speaker", "--max-duration", "--segment-duration", "--min-segment-len", "--min-silence-len", "--silence-thresh",
    "--asr", "--whisper-model", "--language",
)  # fmt: skip
SWITCHES = (
    "--normalize", "--no-normalize", "--split-long", "--no-split", "--use-silence-detection", "--auto-transcribe",
    "--report", "--check-speaker", "--dnsmos",
)  # fmt: skip


def add_recordings(group: argparse._ActionsContainer) -> None:
    """Add the flags that say whose voice it is and how much of each recording is used."""
    group.add_argument("--speaker", help="one speaker for all inputs (default: the recordings' folder)")
    group.add_argument(
        "--max-duration",
        type=arguments.positive_float,
        metavar="MIN",
        help="use the first MIN minutes of each recording (default: all)",
    )


def add_clips(group: argparse._ActionsContainer) -> None:
    """Add the flags that say how recordings are cut and how loud clips are."""
    group.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="bring every clip to -23 LUFS with true peaks below -1 dBTP (default: yes)",
    )
    split = group.add_mutually_exclusive_group()
    split.add_argument("--split-long", action="store_true", default=True, help="cut long recordings (default)")
    split.add_argument("--no-split", dest="split_long", action="store_false", help="one clip per recording")
    group.add_argument(
        "--segment-duration",
        type=arguments.positive_float,
        metavar="S",
        help="seconds that clips of long recordings come near to (default: 10)",
    )
    group.add_argument(
        "--min-segment-len",
        type=arguments.positive_float,
        metavar="S",
        help="no clip that is cut is shorter (default: 1)",
    )
    group.add_argument(
        "--use-silence-detection", action="store_true", help="find pauses by level instead of by silero-vad"
    )
    group.add_argument(
        "--min-silence-len", type=arguments.positive_int, metavar="MS", help="of a pause by level (default: 500)"
    )
    group.add_argument(
        "--silence-thresh", type=float, metavar="DB", help="level below which is silence, dBFS (default: -40)"
    )


def add_texts(group: argparse._ActionsContainer) -> None:
    """Add the flags of speech recognition."""
    group.add_argument(
        "--auto-transcribe",
        action="store_true",
        help="recognise recordings that have no text, and check the texts of those that have",
    )
    add_recogniser(group)


def add_recogniser(group: argparse._ActionsContainer) -> None:
    """Add which recogniser writes down what is said."""
    group.add_argument(
        "--asr",
        choices=("whisper", "faster-whisper", "pocketsphinx"),
        help="recogniser (default: whisper; to check texts, whisper if it is here, else pocketsphinx)",
    )
    group.add_argument(
        "--whisper-model", metavar="NAME", help=f"{WHISPER_MODELS}, or the path of a model (default: small)"
    )
    group.add_argument("--language", help="of the speech, as en or de (default: as the recogniser hears)")


def add_checks(group: argparse._ActionsContainer) -> None:
    """Add the flags of the costly measures and the report."""
    group.add_argument("--report", action="store_true", help="write report.html: every second, the worst clips first")
    group.add_argument(
        "--check-speaker", action="store_true", help="mark clips that sound like another speaker (extra eval)"
    )
    group.add_argument("--dnsmos", action="store_true", help="score the sound quality of each clip (extra eval)")


def add_preparation(group: argparse._ActionsContainer) -> None:
    """Add all of these, for a script that prepares before it does something else."""
    for add in (add_recordings, add_clips, add_texts, add_checks):
        add(group)


def without_effect(given: argparse.Namespace) -> str | None:
    """Say which of these flags does nothing beside the others, in a phrase; None if each has its effect."""
    levels = [flag for flag in ("--min-silence-len", "--silence-thresh") if value_of(given, flag) is not None]
    lengths = [flag for flag in ("--segment-duration", "--min-segment-len") if value_of(given, flag) is not None]
    if levels and not given.use_silence_detection:
        return f"{levels[0]} has no effect without --use-silence-detection"
    if not given.split_long and (lengths or given.use_silence_detection):
        return f"{[*lengths, '--use-silence-detection'][0]} has no effect with --no-split"
    if given.whisper_model and given.asr == "pocketsphinx":
        return "--whisper-model has no effect with --asr pocketsphinx"
    return None


def value_of(given: argparse.Namespace, flag: str) -> object:
    """The value of a flag."""
    return getattr(given, flag.lstrip("-").replace("-", "_"))


def handed_on(options: argparse.Namespace, given: Collection[str]) -> list[str]:
    """The words for prepare_dataset.py that repeat what was `given` of these flags."""
    values = [f"{flag}={value_of(options, flag)}" for flag in VALUES if flag in given]
    return [*values, *(flag for flag in SWITCHES if flag in given)]
