"""Prepare a data set: plan the names, convert what is not done, and write down what became of every recording."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import DONE, FAILED, UserError
from ..files import TEMPORARY_PREFIX
from ..log import progress
from ..workers import WorkerLost, run_tasks
from .clips import SAMPLE_RATE, TARGET_LUFS, TRUE_PEAK_DBTP, ClipTask, Row, done_row, make_clip
from .manifest import MANIFEST, SUMMARY, Journal, Key, key_of, read_manifest, summarize, write_manifest
from .names import NameBook, one_line, safe_name, text_of
from .sources import Source, find_sources
from .transcripts import Transcripts

log = logging.getLogger(__name__)

_SHOWN = 20  # left-out recordings listed on the terminal; the manifest has them all


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    inputs: tuple[str, ...]
    output: Path
    speaker: str | None = None
    normalize: bool = True
    workers: int = 1

    def as_dict(self) -> dict[str, object]:
        """The part that changes what a clip sounds like or where it lies; stored in the summary."""
        return {
            "normalize": self.normalize,
            "target_lufs": TARGET_LUFS if self.normalize else None,
            "true_peak_dbtp": TRUE_PEAK_DBTP if self.normalize else None,
            "sample_rate": SAMPLE_RATE,
            "speaker": None if self.speaker is None else one_line(self.speaker),
        }


def prepare(options: Options) -> int:
    """Prepare the inputs into the output folder and return the exit code: 0, or 1 if anything was left out.

    Raises UserError if no recording could be used at all.
    """
    started = time.monotonic()
    if options.output.exists() and not options.output.is_dir():
        raise UserError(f"--output {options.output} is a file", "the data set is a folder", "choose another --output")
    manifest = read_manifest(options.output)
    known = {row["speaker"] for row in manifest.values() if row["clip"] is not None}
    sources = find_sources(options.inputs, options.output, options.speaker, known)
    with Journal(options.output) as journal:
        manifest = read_manifest(options.output)  # again, now that no other run can change it
        _remove_leftovers(options.output)
        try:
            rows = _convert(options, sources, manifest, journal)
        except WorkerLost as error:
            log.error("failed: %s; run the same command again with fewer --workers to continue", error)
            return FAILED
        failures = {key: row["left_out"] for key, row in rows.items() if row["left_out"] is not None}
        kept_before = {key for key in failures if _is_there(options.output, manifest.get(key))}
        everything = manifest | {key: row for key, row in rows.items() if key not in kept_before}
        final = [_without_lost_clip(options.output, row) for row in everything.values()]
        _remove_leftovers(options.output)  # once more: workers of a killed run live a moment longer than it
        write_manifest(options.output, final, options.as_dict())
        journal.finish()
    _report(failures, kept_before)
    done = [row for row in rows.values() if row["clip"] is not None]
    if not done and not kept_before:
        reasons = [f"{one_line(Path(source).name)}: {reason}" for (source, _), reason in failures.items()]
        more = f"; and {len(reasons) - 5} more, see manifest.jsonl" if len(reasons) > 5 else ""
        raise UserError(
            f"none of {len(sources)} recordings can be used",
            "; ".join(reasons[:5]) + more,
            "give each recording its transcript, as .txt or .lab of the same name beside it, and check the files",
        )
    gone = [row for key, row in manifest.items() if key not in rows and not Path(row["source"]).exists()]
    if gone:
        log.info("%d recordings of earlier runs are no longer there; their clips stay in the set", len(gone))
    total = summarize(final, {})
    sys.stdout.write(
        f"{options.output}: {total['total_files']} clips, {total['total_duration_minutes']:.1f} min, "
        f"speakers: {', '.join(total['speakers'])}; this run: {len(done)} of {len(sources)} "
        f"recordings, {len(failures)} left out, {time.monotonic() - started:.1f} s\n"
    )
    return FAILED if failures else DONE


def _convert(options: Options, sources: list[Source], manifest: dict[Key, Row], journal: Journal) -> dict[Key, Row]:
    """Return a row for every source, making the clips that are not done."""
    noted = {key: row for key, row in manifest.items() if key not in journal.doubtful} | journal.rows
    owned = {key: row["clip"] for key, row in (manifest | noted).items() if row["clip"] is not None} | journal.names
    names = plan_names(options.output, sources, owned)
    transcripts = Transcripts()
    rows: dict[Key, Row] = {}
    tasks: dict[Key, ClipTask] = {}
    for source in sources:
        key = (text_of(source.path), source.speaker)
        text, left_out, transcript = transcripts.read(source.path)
        task = ClipTask(source.path, source.speaker, text, left_out, options.output, names[key], options.normalize)
        row = done_row(task, noted.get(key), transcript)
        if row is None:
            tasks[key] = task
        else:
            rows[key] = row
    if rows:
        log.info("%d of %d recordings are done already; delete a clip to have it made again", len(rows), len(sources))
    journal.plan(names, set(tasks))
    made = run_tasks(make_clip, list(tasks.values()), min(options.workers, len(tasks)))
    for row in progress(made, "prepare", total=len(tasks), unit="clip") if tasks else ():
        journal.done(row)
        rows[key_of(row)] = row
    return rows


def plan_names(output: Path, sources: Iterable[Source], owned: dict[Key, str]) -> dict[Key, str]:
    """Give every source its clip's path below `output`, no two the same and none that something else has.

    A source keeps the name it has; files in the output that no recording owns are never overwritten.
    """
    books: dict[str, NameBook] = {}
    names: dict[Key, str] = {}
    for source in sources:
        key = (text_of(source.path), source.speaker)
        if key in owned:
            names[key] = owned[key]
            continue
        if source.speaker not in books:
            prefix = f"{source.speaker}/"
            taken = {clip[len(prefix) : -len(".wav")] for clip in owned.values() if clip.startswith(prefix)}
            folder = output / source.speaker
            present = {path.stem for path in folder.iterdir()} if folder.is_dir() else set()
            books[source.speaker] = NameBook(taken | present)
        stem = books[source.speaker].take(safe_name(source.path.stem))
        names[key] = f"{source.speaker}/{stem}.wav"
    return names


def _remove_leftovers(output: Path) -> None:
    """Delete what killed runs left half-written. The journal's lock says that no other run is writing here now, so,
    unlike files.remove_leftovers, this need not guess which processes still live; codes (.npy) are not ours.
    """
    for path in output.rglob(f"{TEMPORARY_PREFIX}*"):
        if path.suffix in (".wav", ".lab") or path.name.endswith((MANIFEST, SUMMARY)):
            with contextlib.suppress(OSError):  # Windows: a dying worker may still hold it
                path.unlink()


def _is_there(output: Path, row: Row | None) -> bool:
    return row is not None and row["clip"] is not None and (output / row["clip"]).exists()


def _without_lost_clip(output: Path, row: Row) -> Row:
    if row["clip"] is None or _is_there(output, row):
        return row
    return row | {"clip": None, "left_out": "clip deleted: it was made, and is no longer in the set"}


def _report(failures: dict[Key, str], kept_before: set[Key]) -> None:
    for key in sorted(failures)[:_SHOWN]:
        note = " (the clip from an earlier run stays)" if key in kept_before else ""
        log.warning("left out: %s: %s%s", one_line(key[0]), one_line(failures[key]), note)
    if len(failures) > _SHOWN:
        log.warning("left out: %d more, see manifest.jsonl", len(failures) - _SHOWN)
