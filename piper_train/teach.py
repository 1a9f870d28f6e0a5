"""Let a Fish voice read a script into a data set that a small Piper voice is trained on.

  python -m piper_train.teach --teacher checkpoints/anna-merged --script texts.txt --output training_data/anna

The script has a text per line, or name|text in every line. Writes metadata.csv, wavs/ and teach.json, which counts what
was said and what was left out, with the reason. What is spoken is kept: the same command goes on where it stopped.
Exit code: 0 done; 1 lines could not be spoken; 2 wrong request, or nothing could be used; 130 interrupted."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fish_speech import arguments as flags
from fish_speech.errors import DONE, FAILED, INTERRUPTED, WRONG_REQUEST, UserError, run
from fish_speech.files import write_json, write_text
from fish_speech.log import setup
from fish_speech.pipeline import ROOT, Step, command_line, run_step
from fish_speech.prepare import flags as prepare_flags
from fish_speech.prepare.names import one_line
from fish_speech.speaking.batch_record import RECORD as BATCH_RECORD
from fish_speech.versions import CONFIG_FILE

from .finetuning.voice_record import write_teachers
from .teach_script import Line, Script, read_script

log = logging.getLogger("piper_train.teach")  # not __name__: that is __main__ when it is run

METADATA, WAVS, RECORD, BATCH = "metadata.csv", "wavs", "teach.json", "teach_lines.jsonl"
MAX_SECONDS = 20.0  # of a clip; a sentence that goes on for longer has most likely run wild
SILENT_PEAK = 0.003  # of full scale, -50 dBFS: no speech is so quiet
_NAMED = 5  # lines named for each reason

UNVERIFIED, NOT_SPOKEN, SILENT, TOO_LONG = "not verified", "not spoken", "silent", "too long"


@dataclass
class Taught:
    """What became of a script."""

    teacher: str
    script: str
    lines: int = 0  # that are not blank
    clips: int = 0
    seconds: float = 0.0
    left_out: list[tuple[str, str, str]] = field(default_factory=list)  # (which line, kind, why)

    def counts(self) -> dict[str, int]:
        """How many lines were left out for each kind of reason."""
        return dict(Counter(kind for _, kind, _ in self.left_out))


def speaking_step(options: argparse.Namespace) -> Step:
    """The process that reads the script aloud: cli_tts.py, which loads the model once."""
    words = [str(ROOT / "cli_tts.py"), "--batch", str(options.output / BATCH), "-o", str(options.output / WAVS)]
    words += ["--model-path", str(options.teacher), "--device", options.device, "--seed", str(options.seed)]
    words += ["--no-cache"]  # thousands of sentences that nobody asks for again
    if options.verify:
        words += ["--verify", "--attempts", str(options.attempts)]
        for flag, value in (
            ("--asr", options.asr),
            ("--whisper-model", options.whisper_model),
            ("--language", options.language),
        ):
            words += [flag, value] if value is not None else []
    return Step("cli_tts", words)


def teach(options: argparse.Namespace) -> int:
    """Read the script aloud, look at each clip, and write what can be trained on."""
    folder: Path = options.output
    check_teacher(options.teacher)
    script = read_script(options.script)
    refuse_other(folder)
    folder.mkdir(parents=True, exist_ok=True)
    begun = Taught(str(options.teacher), str(options.script), len(script.lines) + len(script.left_out))
    if not (folder / RECORD).is_file():
        write_json(folder / RECORD, asdict(begun))  # from now on the folder is known as ours
    lines = "".join(_batch_line(line) for line in script.lines)
    _forget_other_reading(folder, lines, str(options.teacher))
    write_text(folder / BATCH, lines)
    step = speaking_step(options)
    log.info("%d lines to read; %s", len(script.lines), command_line(step))
    code = run_step(step, None)
    if code not in (DONE, FAILED):
        log.error("reading aloud ended with exit code %d; the same command goes on where it stopped", code)
        return code if code in (WRONG_REQUEST, INTERRUPTED) else FAILED
    good = list(judged(script, folder / WAVS, begun, options.max_seconds))
    if not good:
        kinds = ", ".join(f"{count} {kind}" for kind, count in begun.counts().items())
        raise UserError(
            f"nothing of {options.script} can be used",
            f"{begun.lines} lines: {kinds}; the first: {' '.join(begun.left_out[0])}",
            "listen to what lies in " + str(folder / WAVS) + ", and try another teacher or script",
        )
    write_teachers(folder, options.teacher)
    write_text(folder / METADATA, "".join(f"{line.clip}|{line.text}\n" for line in good))
    write_json(folder / RECORD, {**asdict(begun), "left_out_counts": begun.counts()})
    _tell(begun, folder)
    return FAILED if begun.counts().get(NOT_SPOKEN) else DONE


def _forget_other_reading(folder: Path, lines: str, teacher: str) -> None:
    """Remove the metadata of another script or teacher: its clips are about to be spoken over."""
    try:
        same = (folder / BATCH).read_text(encoding="utf-8") == lines
        same = same and json.loads((folder / RECORD).read_text(encoding="utf-8"))["teacher"] == teacher
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        (folder / METADATA).unlink(missing_ok=True)


def check_teacher(teacher: Path) -> None:
    """Raise UserError if a folder is no Fish voice."""
    if not (teacher / CONFIG_FILE).is_file():
        raise UserError(
            f"--teacher {teacher} is not a voice",
            f"it has no {CONFIG_FILE}" if teacher.is_dir() else "there is no such folder",
            "give a merged Fish voice, checkpoints/NAME-merged; finetune_tts.py --project NAME --merge-weights makes one",
        )


def refuse_other(folder: Path) -> None:
    """Raise UserError for a folder with something in it that was not read from a script."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise UserError(
            f"{folder} holds something else",
            "what a voice reads gets a folder of its own",
            "choose another folder: --output, with finetune_tts.py --project",
        )


def _batch_line(line: Line) -> str:
    return json.dumps({"text": line.text, "output": line.clip}, ensure_ascii=False) + "\n"


def judged(script: Script, wavs: Path, taught: Taught, max_seconds: float) -> Iterator[Line]:
    """Yield the lines whose clips can be trained on; note the others in `taught`."""
    complaints = read_complaints(wavs / BATCH_RECORD)
    taught.left_out += [(where, "cannot be spoken", reason) for where, reason in script.left_out]
    for line in script.lines:
        kind, why, seconds = _judge(wavs / line.clip, complaints.get(line.clip), max_seconds)
        if kind is not None:
            taught.left_out.append((f"line {line.number}", kind, why))
            continue
        taught.clips += 1
        taught.seconds += seconds
        yield line


def _judge(clip: Path, complaint: str | None, max_seconds: float) -> tuple[str | None, str, float]:
    """What kind of fault a clip has, in words too; and its seconds."""
    import numpy as np
    import soundfile

    if not clip.is_file():
        return NOT_SPOKEN, "see the messages of cli_tts.py above", 0.0
    if complaint is not None:
        return UNVERIFIED, complaint, 0.0
    with soundfile.SoundFile(clip) as sound:
        seconds = sound.frames / sound.samplerate
        if seconds > max_seconds:
            return TOO_LONG, f"{seconds:.1f} s, more than {max_seconds:g} s", seconds
        samples = sound.read(dtype="float32")
    peak = float(np.abs(samples).max(initial=0.0))
    if peak < SILENT_PEAK:
        return SILENT, f"its peak is {peak:.5f} of full scale", seconds
    return None, "", seconds


def read_complaints(record: Path) -> dict[str, str]:
    """What the recogniser found wrong with the clips of a finished batch, by file name."""
    found: dict[str, str | None] = {}
    with record.open(encoding="utf-8", errors="replace") as file:
        for row in file:
            try:
                entry = json.loads(row)
                found[str(entry["output"])] = entry.get("complaint")  # the last line of a clip is the one that counts
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue  # torn when a run was killed
    return {name: str(reason) for name, reason in found.items() if reason is not None}


def _tell(taught: Taught, folder: Path) -> None:
    log.info("%d of %d lines are clips now, %.1f s", taught.clips, taught.lines, taught.seconds)
    for kind, count in taught.counts().items():
        which = [(where, why) for where, other, why in taught.left_out if other == kind]
        named = "; ".join(one_line(f"{where}: {why}")[:160] for where, why in which[:_NAMED])
        more = f"; ...; {folder / RECORD} lists all" if count > _NAMED else ""
        log.warning("%d left out, %s: %s%s", count, kind, named, more)
    sys.stdout.write(f"{folder / METADATA}\n")


def add_teaching(group: argparse._ActionsContainer) -> None:
    """Add how a voice reads and how that is checked; finetune_tts.py has the same flags."""
    group.add_argument("--teacher", type=Path, metavar="DIR", help="a Fish voice that reads: checkpoints/NAME-merged")
    group.add_argument("--script", type=Path, metavar="FILE", help="what it reads: a text per line, or name|text")
    group.add_argument("--verify", action="store_true",
                       help="a recogniser hears each clip; what it finds wrong is spoken anew, or left out")  # fmt: skip
    group.add_argument("--attempts", type=flags.positive_int, default=3, metavar="N",
                       help="how often a clip is spoken at most, with --verify (default: 3)")  # fmt: skip
    group.add_argument("--max-seconds", type=flags.positive_float, default=MAX_SECONDS, metavar="S",
                       help=f"longer clips of a teacher are left out (default: {MAX_SECONDS:g})")  # fmt: skip


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its help imports nothing heavy."""
    parser = flags.make_parser("python -m piper_train.teach", __doc__)
    add_teaching(parser)
    prepare_flags.add_recogniser(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the data set")
    flags.add_device(parser)
    flags.add_seed(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and check, then let the voice read."""
    argv = sys.argv[1:] if argv is None else argv
    options = make_parser().parse_args(argv)
    setup()
    check_flags(options, flags.given_flags(argv))
    return teach(options)


def check_flags(options: argparse.Namespace, given: set[str]) -> None:
    """Raise UserError for a teacher without a script or the reverse, and for flags of --verify without it."""
    for flag, value in (("--teacher", options.teacher), ("--script", options.script)):
        if value is None:
            other = "--script" if flag == "--teacher" else "--teacher"
            raise UserError(
                f"{flag} is missing",
                "a voice reads a script",
                f"give both: {flag} {'DIR' if other == '--script' else 'FILE'}",
            )
    idle = sorted(given & {"--attempts", "--asr", "--whisper-model", "--language"}) if not options.verify else []
    if idle:
        raise UserError(f"{idle[0]} has no effect without --verify", "nobody listens", "add --verify or leave it out")


if __name__ == "__main__":
    run(main)
