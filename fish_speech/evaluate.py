"""Stage: measure checkpoints, recordings and codecs side by side; write results.json, report.html and the sounds."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import logging
import os
import platform
import re
import sys
from dataclasses import asdict, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, arguments, errors, files, log
from .device import allow_mps_fallback, choose_device
from .errors import DONE, FAILED, UserError
from .workers import WorkerLost

if TYPE_CHECKING:
    from .evaluation.systems import System
    from .synthesis.sampling import SamplingConfig

logger = logging.getLogger("fish_speech.evaluate")  # not __name__: that is __main__ when the stage runs

DESCRIPTION = """Measure how well checkpoints, recordings and codecs speak, side by side.

  python -m fish_speech.evaluate --checkpoint tuned=checkpoints/my_voice-merged --texts texts.txt \\
      --recordings real=training_data/my_voice --speaker training_data/my_voice
  python -m fish_speech.evaluate --codec ours=checkpoints/minnow/codec.pth --clips samples/allison

Writes results.json, report.html (one file, with players and plots) and audio/NAME/*.wav, and prints a table.
Exit code: 0 all done; 1 some clips could not be measured, each with its reason; 2 wrong request."""

RESULTS, REPORT, AUDIO = "results.json", "report.html", "audio"
MARK = ".evaluation"  # in each folder of sounds that an evaluation wrote: only such are replaced
ORIGINALS = "originals"  # the system that a codec's clips make up
MEASURES = ("intelligibility", "similarity", "quality")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # becomes a folder
_PACKAGES = (
    "torch",
    "numpy",
    "jiwer",
    "num2words",
    "pocketsphinx",
    "openai-whisper",
    "Resemblyzer",
    "speechmos",
    "onnxruntime",
)
_MAX_TEXT_BYTES = 1 << 20
_SHOWN = 20  # failures listed on the terminal


def named_path(text: str) -> tuple[str, Path]:
    """Parse NAME=PATH."""
    name, equals, path = text.partition("=")
    if not equals or not path or not _NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH with a name of letters, digits and . _ -")
    return name, Path(path)


def measure_names(text: str) -> list[str]:
    """Parse a list of measures."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in MEASURES]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"unknown measures {', '.join(unknown) or '(none)'}; known: {', '.join(MEASURES)}"
        )
    return names


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this stage; its help imports nothing heavy."""
    parser = arguments.make_parser("python -m fish_speech.evaluate", DESCRIPTION)
    add = parser.add_argument_group("what is measured (each may be given several times)").add_argument
    systems: dict[str, Any] = {"type": named_path, "action": "append", "default": []}
    add("--checkpoint", metavar="NAME=FOLDER", help="a base or merged model folder, which speaks --texts", **systems)
    add("--recordings", metavar="NAME=FOLDER", help="recordings with .lab or .txt transcripts", **systems)
    add("--codec", metavar="NAME=WEIGHTS", help="codec weights, through which --clips go and come back", **systems)
    add = parser.add_argument_group("material").add_argument
    add("--texts", type=Path, metavar="FILE", help="sentences for the checkpoints, one per line, UTF-8")
    add("--clips", type=Path, metavar="FOLDER", help="recordings with transcripts for the codecs")
    add("--speaker", type=Path, metavar="FOLDER", help="recordings of the voice that is aimed at, for similarity")
    add("--limit", type=arguments.positive_int, metavar="N", help="only the first N texts and recordings")
    speech = parser.add_argument_group("how checkpoints speak")
    add = speech.add_argument
    add("--prompt-tokens", type=Path, action="append", default=[], metavar="NPY",
        help="codes of a recording to imitate, its words in the .txt beside it; repeatable "
        "(default: what a merged folder brings along, as cli_tts.py uses it)")  # fmt: skip
    add("--no-reference", action="store_true", help="do not use the reference that a merged folder brings along")
    default = partial(arguments.version_default, "sampling")
    add("--temperature", type=float, help=f"0-2; 0 takes the likeliest ({default('temperature')})")
    add("--top-p", type=float, help=f"share of probability kept ({default('top_p')})")
    arguments.add_seed(speech)
    arguments.add_device(speech)
    arguments.add_force_mps(speech)
    listening = parser.add_argument_group("how they are listened to")
    add = listening.add_argument
    add("--measures", type=measure_names, metavar="LIST",
        help=f"some of {','.join(MEASURES)}, all of which must be possible (default: those that are); "
        "timing and loudness always")  # fmt: skip
    add("--asr", choices=("auto", "pocketsphinx", "whisper"), default="auto",
        help="recogniser; auto is whisper if its weights are here, else pocketsphinx (default: auto)")  # fmt: skip
    add("--whisper-model", metavar="NAME|PATH", help="whisper weights, never downloaded (default: the best found)")
    add("--language", default="en", help="of the texts; pocketsphinx knows en only (default: en)")
    add(
        "--workers",
        type=arguments.positive_int,
        default=os.cpu_count() or 1,
        help="processes that listen (default: one per core)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output", type=Path, default=Path("output/evaluation"), metavar="DIR",
                        help="folder to write (default: output/evaluation)")  # fmt: skip
    output.add_argument("--players", type=arguments.non_negative_int, default=20, metavar="N",
                        help="clips of each system that can be played in the report (default: 20)")  # fmt: skip
    output.add_argument("--force", action="store_true", help="replace an earlier evaluation in --output")
    return parser


def check_request(given: argparse.Namespace) -> None:
    """Raise UserError with every problem of the request that can be seen before any work."""
    problems = []
    names = system_names(given)
    if not names:
        problems.append("nothing to measure: give --checkpoint, --recordings or --codec")
    twice = sorted({name for name in names if [n.lower() for n in names].count(name.lower()) > 1})
    if twice:
        problems.append(f"every system needs a name of its own: {', '.join(twice)}")
    for flag, value, needed in (("--texts", given.texts, "checkpoint"), ("--clips", given.clips, "codec")):
        if getattr(given, needed) and value is None:
            problems.append(f"--{needed} needs {flag}")
        if not getattr(given, needed) and value is not None:
            problems.append(f"{flag} has no effect without --{needed}")
    speech = {"--prompt-tokens": given.prompt_tokens, "--temperature": given.temperature, "--top-p": given.top_p}
    speech["--no-reference"] = given.no_reference or None
    if not given.checkpoint:
        problems += [
            f"{flag} has no effect without --checkpoint" for flag, value in speech.items() if value not in (None, [])
        ]
    if given.no_reference and given.prompt_tokens:
        problems.append("--no-reference has no effect with --prompt-tokens, which replace what a folder brings along")
    similar = given.measures is None or "similarity" in given.measures
    if given.speaker is not None and not similar:
        problems.append("--speaker has no effect: similarity is not among --measures")
    if given.measures and "similarity" in given.measures and given.speaker is None and not given.codec:
        problems.append("similarity needs --speaker, the voice that is aimed at")
    folders = [path for _, path in (*given.checkpoint, *given.recordings)]
    folders += [path for path in (given.clips, given.speaker) if path is not None]
    problems += [f"there is no folder {path}" for path in dict.fromkeys(folders) if not path.is_dir()]
    wanted = [path for _, path in given.codec] + ([given.texts] if given.texts else []) + given.prompt_tokens
    problems += [f"there is no file {path}" for path in dict.fromkeys(wanted) if not path.is_file()]
    replaced = (given.output / AUDIO).resolve()
    problems += [
        f"{path} lies in {given.output / AUDIO}, which is written anew"
        for path in dict.fromkeys((*folders, *wanted))
        if path.resolve().is_relative_to(replaced)
    ]
    foreign = [path for path in (given.output / AUDIO / name for name in dict.fromkeys(names)) if _is_foreign(path)]
    problems += [f"{folder} has files that no evaluation wrote: move them away" for folder in foreign]
    unwritable = [ascii(str(path)) for path in (*folders, *wanted, given.output) if not _is_utf8(str(path))]
    problems += [f"{name} cannot be named in a report: it is not UTF-8" for name in dict.fromkeys(unwritable)]
    if problems:
        raise UserError(
            "this cannot be evaluated", "; ".join(problems), "see python -m fish_speech.evaluate --help for what fits"
        )
    if (given.output / RESULTS).exists() and not given.force:
        raise UserError(
            f"{given.output} already holds an evaluation",
            f"its {RESULTS} would be overwritten",
            "give another --output, or --force to replace it",
        )


def system_names(given: argparse.Namespace) -> list[str]:
    """Names of all systems of a request; each gets a folder of sounds."""
    names = [name for name, _ in (*given.checkpoint, *given.recordings, *given.codec)]
    return names + ([ORIGINALS] if given.codec else [])


def _is_foreign(folder: Path) -> bool:
    if not folder.is_dir():
        return folder.exists()
    whole = (path for path in folder.iterdir() if not path.name.startswith(files.TEMPORARY_PREFIX))
    return not (folder / MARK).exists() and any(whole)


def make_folders(output: Path, names: list[str]) -> None:
    """Make an empty folder of sounds for each system: what an earlier evaluation left must not be taken for this one's."""
    audio = output / AUDIO
    (output / RESULTS).unlink(missing_ok=True)  # first: without it nothing here counts as whole
    for mark in sorted(audio.glob(f"*/{MARK}")):
        for sound in mark.parent.glob("*.wav"):
            sound.unlink()
        mark.unlink()
        with contextlib.suppress(OSError):  # something of the user's is in it
            mark.parent.rmdir()
    for name in names:
        files.write_text(audio / name / MARK, "fish_speech.evaluate writes the sounds here and replaces them.\n")


def _is_utf8(text: str) -> bool:
    return text == text.encode("utf-8", "replace").decode("utf-8")


def read_texts(path: Path, limit: int | None) -> list[str]:
    """Read the sentences, one per line; empty lines do not count."""
    from .text import split_text

    try:
        if path.stat().st_size > _MAX_TEXT_BYTES:
            raise UserError(f"{path} is too long", "a list of texts may have 1 MB", "split it")
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the texts in {path}", str(error), "give a UTF-8 text file") from None
    texts = [line for line in lines if line]
    if not texts:
        raise UserError(f"there are no texts in {path}", "all of its lines are empty", "write one sentence per line")
    for text in texts[:limit]:
        if not split_text(text, _MAX_TEXT_BYTES):
            raise UserError(
                f"{path} has a line with nothing to say: {text!r}", "it has no letters or digits", "remove it"
            )
    return texts[:limit]


def make_sounds(given: argparse.Namespace, texts: list[str]) -> list[System]:
    """Let checkpoints speak and codecs reconstruct, copy recordings: WAV files in audio/NAME of the output folder."""
    from .checkpoint import sha256
    from .evaluation import systems as kinds

    audio, made = given.output / AUDIO, []
    device = "cpu"
    if given.checkpoint or given.codec:
        choice = choose_device(given.device, "synthesis", given.force_mps)
        device = choice.device
        logger.info("%s", choice)
    if given.checkpoint:
        for name, folder in given.checkpoint:
            sampling = sampling_config(given, folder)
            speaker = kinds.load_voice(folder, device)
            reference = kinds.packed_prompt(folder) if uses_packed(given) else None
            prompts = kinds.read_prompts(given.prompt_tokens, speaker, reference)
            made.append(kinds.speak_texts(name, folder, speaker, texts, audio / name, sampling, given.seed, prompts))
            made[-1].record = {"codec": str(kinds.codec_beside(folder)), "model_sha256": kinds.model_hash(folder)}
            if reference is not None:
                logger.info("%s speaks with its reference %s; --no-reference does without", name, reference.codes)
                made[-1].record["reference"] = str(reference.codes)
            del speaker
    originals = kinds.read_recordings(ORIGINALS, given.clips, given.limit) if given.codec else None
    for name, weights in given.codec:
        assert originals is not None
        made.append(kinds.reconstruct(name, weights, originals, audio / name, device))
        made[-1].record = {"codec_sha256": sha256(weights)}
    recordings = [kinds.read_recordings(name, folder, given.limit) for name, folder in given.recordings]
    for system in [*([originals] if originals else []), *recordings]:
        kinds.copy_sound(system, audio / system.name)
        made.append(system)
    return made


def uses_packed(given: argparse.Namespace) -> bool:
    """Whether checkpoints speak with the references that their folders bring along."""
    return not given.no_reference and not given.prompt_tokens


def sampling_config(given: argparse.Namespace, folder: Path) -> SamplingConfig:
    """How tokens are drawn from a model folder: as the flags say, else as its version does.

    Raises UserError for values that make no sense.
    """
    from .evaluation.systems import usual_sampling

    said = {"temperature": given.temperature, "top_p": given.top_p}
    try:
        return replace(usual_sampling(folder), **{name: value for name, value in said.items() if value is not None})
    except ValueError as error:
        raise UserError("the sampling settings do not make sense", str(error), "correct the flag") from error


def versions() -> dict[str, str]:
    """Versions of all that the figures depend on."""
    found = {"toolkit": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def evaluate(given: argparse.Namespace) -> int:
    """Run the stage and return its exit code."""
    check_request(given)
    texts = read_texts(given.texts, given.limit) if given.texts else []
    from . import evaluation
    from .evaluation.report import render
    from .evaluation.summary import plain_table
    from .evaluation.systems import codec_beside, packed_prompt

    wanted = given.measures
    listening, left_out = evaluation.plan_listening(wanted, given.asr, given.whisper_model, given.language)
    if given.speaker is not None and "similarity" not in listening.measures:
        evaluation.plan_listening(["similarity"])  # asked for by --speaker: says what is missing
    if given.speaker is None and not given.codec:
        listening = listening.without("similarity")
        left_out.append("similarity is not measured: no --speaker")
    for line in left_out:
        logger.info("%s", line)
    for _, folder in given.checkpoint:
        codec_beside(folder)  # what is missing or damaged is said before anything is loaded
        sampling_config(given, folder)
        if uses_packed(given):
            packed_prompt(folder)
    files.remove_leftovers(given.output)
    make_folders(given.output, system_names(given))
    systems = make_sounds(given, texts)
    try:
        results = evaluation.evaluate(systems, listening, given.speaker, given.workers)
    except WorkerLost as error:
        logger.error("failed: %s; run the same command again with fewer --workers", error)
        return FAILED
    for result in results:
        for row in result["clips"]:
            audio = f"{AUDIO}/{result['name']}/{row['name']}.wav"
            row["audio"] = audio if (given.output / audio).is_file() else None
    report = {
        "format": 1,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "settings": settings(given, listening),
        "versions": versions(),
        "systems": results,
    }
    files.write_text(given.output / REPORT, render(report, given.output, given.players))
    files.write_json(given.output / RESULTS, report, allow_nan=False)  # last: with it the evaluation is whole
    failures = [(r["name"], row["name"], row["failure"]) for r in results for row in r["clips"] if row["failure"]]
    for failure in failures[:_SHOWN]:
        logger.warning("failed: %s/%s: %s", *failure)
    if len(failures) > _SHOWN:
        logger.warning("failed: %d more", len(failures) - _SHOWN)
    sys.stdout.write(f"{plain_table(results)}\n\n{given.output / REPORT}\n{given.output / RESULTS}\n")
    return FAILED if failures else DONE


def settings(given: argparse.Namespace, listening: Any) -> dict[str, Any]:
    """What the figures depend on besides the systems themselves, for results.json."""
    spoken = {}
    if given.checkpoint:
        spoken = {
            "texts": str(given.texts),
            "seed": given.seed,
            "sampling": {name: asdict(sampling_config(given, folder)) for name, folder in given.checkpoint},
            "prompt_tokens": [str(path) for path in given.prompt_tokens],
        }
    return {
        "command": sys.argv[1:],
        "measures": sorted(listening.measures),
        "asr": listening.asr if "intelligibility" in listening.measures else None,
        "whisper_model": listening.whisper_model,
        "language": listening.language,
        "speaker": str(given.speaker) if given.speaker else None,
        "clips": str(given.clips) if given.clips else None,
        "limit": given.limit,
        **spoken,
    }


def main() -> int:
    """Parse, then evaluate."""
    given = make_parser().parse_args()
    allow_mps_fallback(given.device, given.force_mps)
    log.setup()
    errors.terminate_like_interrupt()
    return evaluate(given)


if __name__ == "__main__":
    errors.run(main)
