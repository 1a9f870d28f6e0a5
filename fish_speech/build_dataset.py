"""Stage: pack transcripts and codes into shards that training reads.

Reads DATA/SPEAKER/clip.npy with clip.lab beside it, writes OUT/00000000.protos, ... and OUT/index.json. Equal input
gives equal bytes, whatever the number of workers.

A clip that cannot be trained on is left out and named with the reason; so is, beside the packed ones, what is odd.
Exit code: 0 all packed; 1 some clips were left out; 2 wrong request, or no clip can be used.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from . import errors, log
from .arguments import make_parser, positive_float, positive_int
from .left_out import add_max_left_out, exit_code
from .versions import CODEC_RECORD

if TYPE_CHECKING:
    from .clip_checks import CodecFacts
    from .datasets.sources import Clip
    from .datasets.workers import Packed

T = TypeVar("T")
logger = logging.getLogger("fish_speech.build_dataset")  # not __name__: that is __main__ when the stage runs

TEXT_EXTENSION = ".lab"
SHARD_SIZE = 10.0  # MB
MOST_WORKERS = 16
LARGEST_RECORD = 8 << 20  # bytes of clips after which a speaker's next record is started
_FACTS = ("clips", "frames", "codebooks", "speakers", "left_out", "suspicious")  # of a Report, kept in the index
MOST_CODEBOOKS = 64  # of a record: it may have come from anywhere
LISTED = 20  # left-out clips named on the terminal; the index has all


@dataclass
class Report:
    """What the shards hold and what was left out."""

    clips: int = 0
    frames: int = 0
    codebooks: int = 0
    speakers: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)  # name, reason
    suspicious: list[tuple[str, str]] = field(default_factory=list)  # packed clips that look odd: name, what is odd
    shards: int = 0
    was_current: bool = False  # nothing was done


def is_current(
    inputs: Path | Sequence[Path],
    output: Path,
    text_extensions: Sequence[str] | None = None,
    shard_size: float | None = None,
) -> bool:
    """Tell whether `output` holds whole shards made from `inputs` as they are now, with these settings if given."""
    return _current_index(_paths(inputs), Path(output), text_extensions, shard_size) is not None


def _current_index(
    inputs: list[Path], output: Path, text_extensions: Sequence[str] | None, shard_size: float | None
) -> dict[str, Any] | None:
    from .datasets.shards import problem_of, read_index
    from .datasets.sources import find_clips

    index = read_index(output)
    if index is None or not index.keys() >= {"input", "settings", *_FACTS} or problem_of(output, index, hashes=True):
        return None
    settings = index["settings"]
    if text_extensions is not None and list(text_extensions) != settings["text_extensions"]:
        return None
    if shard_size is not None and shard_size != settings["shard_size_mb"]:
        return None
    made_from = fingerprint(*find_clips(inputs, settings["text_extensions"]), codec_of(inputs))
    return index if index["input"] == made_from else None


def build(
    inputs: Path | Sequence[Path],
    output: Path,
    text_extensions: Sequence[str] = (TEXT_EXTENSION,),
    shard_size: float = SHARD_SIZE,
    num_workers: int = 1,
    force: bool = False,
) -> Report:
    """Pack `inputs` into shards in `output`; shard_size is in MB. Does nothing if `output` is current, unless forced.

    Clips that cannot be trained on are left out and listed in the report. Raises UserError if none is usable.
    """
    from .clip_checks import FRAME_RATE, codebooks_of, judge, look_at
    from .datasets.shards import ShardWriter
    from .datasets.sources import find_clips
    from .datasets.workers import CHUNK, pack_clip, worker_pool

    inputs, output = _paths(inputs), Path(output)
    index = None if force else _current_index(inputs, output, text_extensions, shard_size)
    if index is not None:
        facts = {name: index[name] for name in _FACTS}
        facts |= {name: [(clip, why) for clip, why in index[name]] for name in ("left_out", "suspicious")}
        return Report(**facts, shards=len(index["shards"]), was_current=True)
    clips, rejected = find_clips(inputs, text_extensions)
    codec = codec_of(inputs)
    made_from = fingerprint(clips, rejected, codec)  # taken first: what changes while we read makes the result stale
    _make_folder(output)
    writer = ShardWriter(output, int(shard_size * 1024 * 1024))
    report = Report(left_out=list(rejected))
    try:
        with worker_pool(min(num_workers, -(-len(clips) // CHUNK))) as run:
            found = list(run(partial(look_at, codec.frame_rate or FRAME_RATE), clips))
            verdicts = judge([clip.speaker for clip in clips], found, codec)
            report.codebooks = codebooks_of(found, codec)
            report.suspicious = [(clip.name, verdict.odd) for clip, verdict in zip(clips, verdicts) if verdict.odd]
            judged = [(clip, verdict.left_out) for clip, verdict in zip(clips, verdicts)]
            packed = run(partial(pack_clip, report.codebooks), judged)
            for record in _records(log.progress(packed, "packing", len(clips), "clip"), report):
                writer.write(record)
        if not report.clips:
            raise _nothing_usable(inputs, report)
        report.shards = len(writer.shards)
        writer.publish(
            {
                "input": made_from,
                "settings": {"text_extensions": list(text_extensions), "shard_size_mb": shard_size},
                **{name: getattr(report, name) for name in _FACTS},
                "frame_rate": codec.frame_rate,
            }
        )
    except BaseException:
        writer.discard()
        raise
    return report


def codec_of(inputs: Iterable[Path]) -> CodecFacts:
    """What extraction noted in the data folders of the codec; None for what it did not, or where they differ."""
    from .clip_checks import CodecFacts

    records = []
    for path in inputs:
        try:
            record = json.loads((path / CODEC_RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            record = None
        records.append(record if isinstance(record, dict) else {})
    rate = _common([_number(record.get("frame_rate")) for record in records])
    size = _common([_number(record.get("codebook_size")) for record in records])
    sizes = _common([_sizes(record.get("codebook_sizes")) for record in records])
    return CodecFacts(rate, None if size is None else int(size), sizes)


def _common(values: list[T]) -> T | None:
    """What all have in common; None where they differ."""
    return values[0] if values and all(value == values[0] for value in values) else None


def _sizes(value: Any) -> tuple[int, ...] | None:
    """A list of codebook sizes, None for anything else."""
    numbers = [_number(size) for size in value] if isinstance(value, list) and 0 < len(value) <= MOST_CODEBOOKS else []
    return tuple(int(size) for size in numbers if size is not None) if numbers and None not in numbers else None


def _number(value: Any) -> float | None:
    """A positive number as it is, None for anything else: the file may have come from anywhere."""
    whole = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if whole and math.isfinite(value) and 0 < value < 1e6 else None


def fingerprint(clips: Iterable[Clip], rejected: Iterable[tuple[str, str]], codec: CodecFacts) -> str:
    """Return a digest of the names, sizes and times of all input files; it changes when the input does."""
    digest = hashlib.sha256()
    lines = (line for clip in clips for line in clip.fingerprint())
    facts = [*codec[:2], *([codec.codebook_sizes] if codec.codebook_sizes else [])]
    for line in itertools.chain(lines, map(repr, rejected), map(repr, facts)):
        digest.update(line.encode("utf-8", "backslashreplace") + b"\n")
    return digest.hexdigest()


def _records(packed: Iterable[Packed], report: Report) -> Iterator[bytes]:
    """Join packed clips of one group to serialised records of bounded size; count what came and what did not."""
    from .datasets.protos import record_head

    speakers = set()
    for _, group in itertools.groupby(packed, key=lambda one: one.clip.group):
        pieces: list[bytes] = []
        head, size = b"", 0
        for one in group:
            if one.reason is not None:
                report.left_out.append((one.clip.name, one.reason))
                continue
            if size > LARGEST_RECORD:
                yield head + b"".join(pieces)
                pieces, size = [], 0
            head = record_head(one.clip.source, one.clip.speaker)
            pieces.append(one.piece)
            size += len(one.piece)
            speakers.add(one.clip.speaker)
            report.clips += 1
            report.frames += one.frames
        if pieces:
            yield head + b"".join(pieces)
    report.speakers = len(speakers)


def _paths(inputs: Path | Sequence[Path]) -> list[Path]:
    return [Path(inputs)] if isinstance(inputs, str | os.PathLike) else [Path(path) for path in inputs]


def _make_folder(output: Path) -> None:
    from .files import remove_leftovers

    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if errors.disk_full(error):
            raise
        raise errors.UserError(
            f"cannot make the folder {output}", str(error.strerror), "choose another --output"
        ) from None
    if not os.access(output, os.W_OK):
        raise errors.UserError(f"cannot write to {output}", "permission denied", "choose another --output")
    remove_leftovers(output)


def _nothing_usable(inputs: Sequence[Path], report: Report) -> errors.UserError:
    from .datasets.sources import NO_CODES, NO_TRANSCRIPT

    where = ", ".join(map(str, inputs))
    if not report.left_out:
        why = "there is neither a recording nor a .npy file in it"
        fix = f"python prepare_dataset.py --input RECORDINGS --output {where}"
        return errors.UserError(f"{where} holds no clips", why, fix)
    (reason, count), *_ = Counter(reason for _, reason in report.left_out).most_common(1)
    fix = "correct what is listed and run the same command again"
    if reason == NO_CODES:
        fix = f"python -m fish_speech.extract_vq {where}"
    elif reason.startswith(NO_TRANSCRIPT):
        fix = "write a .lab file beside each recording, or run prepare_dataset.py with --auto-transcribe"
    first = report.left_out[0]
    return errors.UserError(
        f"none of the {len(report.left_out)} clips in {where} can be packed",
        f"{count} times: {reason}; first: {first[0]}: {first[1]}",
        fix,
    )


def parse_arguments(argv: Sequence[str] | None) -> Any:
    """Parse the command line."""
    parser = make_parser("python -m fish_speech.build_dataset", __doc__ or "")
    parser.add_argument(
        "--input",
        type=Path,
        action="append",
        required=True,
        help="folder of SPEAKER/clip.npy with transcripts beside, or a list of path|speaker|language|text lines; "
        "may be given several times",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the shards, results/PROJECT/protos say")
    parser.add_argument(
        "--text-extension",
        action="append",
        help=f"suffix of transcripts; several mean several spellings of each clip (default: {TEXT_EXTENSION})",
    )
    workers = min(MOST_WORKERS, os.cpu_count() or 1)
    parser.add_argument(
        "--num-workers", type=positive_int, default=workers, help=f"processes that read (default here: {workers})"
    )
    parser.add_argument(
        "--shard-size", type=positive_float, default=SHARD_SIZE, help=f"MB per shard (default: {SHARD_SIZE:g})"
    )
    parser.add_argument("--force", action="store_true", help="pack again even if nothing has changed")
    add_max_left_out(parser)
    arguments = parser.parse_args(argv)
    extensions = [text if text.startswith(".") else f".{text}" for text in arguments.text_extension or [TEXT_EXTENSION]]
    for extension in extensions:
        if extension.strip(".") == "" or "/" in extension or "\\" in extension or extension == ".npy":
            parser.error(f"argument --text-extension: {extension!r} is no suffix of a transcript")
    arguments.text_extension = extensions
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage; return the exit code."""
    arguments = parse_arguments(argv)
    log.setup()
    report = build(
        arguments.input,
        arguments.output,
        arguments.text_extension,
        arguments.shard_size,
        arguments.num_workers,
        arguments.force,
    )
    for what, found in (("left out", report.left_out), ("packed, but odd", report.suspicious)):
        for name, reason in found[:LISTED]:
            logger.warning("%s: %s: %s", what, name, reason)
        if len(found) > LISTED:
            logger.warning("%s: and %d more; index.json in %s lists all", what, len(found) - LISTED, arguments.output)
    if report.was_current:
        logger.info("nothing has changed since these shards were packed; --force packs again")
    made = f"{report.clips} clips ({report.frames} frames, {report.codebooks} codebooks) of {report.speakers} speakers"
    left = f"; {len(report.left_out)} left out" if report.left_out else ""
    left += f"; {len(report.suspicious)} look odd" if report.suspicious else ""
    sys.stdout.write(f"{arguments.output}: {report.shards} shards, {made}{left}\n")
    return exit_code(len(report.left_out), report.clips + len(report.left_out), arguments.max_left_out)


def _run() -> None:
    errors.terminate_like_interrupt()
    errors.run(main)


if __name__ == "__main__":
    _run()
