"""Prepare a data set: plan the names, convert what is not done, and write down what became of every recording."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DONE, FAILED, UserError
from ..files import TEMPORARY_PREFIX, write_text
from ..log import progress
from ..workers import WorkerLost, run_tasks
from .clips import RecordingTask
from .corrections import save_corrections, tell_lost_corrections
from .download import Download, download, is_url
from .duplicates import leave_out_duplicates
from .fingerprint import same_recording
from .manifest import MANIFEST, SUMMARY, Journal, by_recording, category, read_manifest, write_manifest
from .names import one_line, safe_name, text_of
from .options import Options, Recognition
from .plan import (
    SEGMENT,
    Job,
    adopt_moved,
    can_hear,
    choose_recognition,
    exists,
    look_for_done,
    make_task,
    plan_stems,
    read_jobs,
    stem_of,
)
from .recording import prepare_recording
from .report import render
from .rows import Key, Row, blank_row
from .sources import Source, find_sources
from .speaker_check import check_speakers

log = logging.getLogger(__name__)

REPORT = "report.html"
FIX = (
    "give each recording its transcript, as .txt or .lab of the same name beside it, or add --auto-transcribe; "
    "and check the files"
)
_SHOWN = 20  # left-out recordings listed on the terminal; the manifest has them all
_OWN_SUFFIXES = (".wav", ".lab", ".npy")  # of a clip and its codes


class Outcome(NamedTuple):
    """What a run has come to."""

    rows: dict[Key, list[Row]]  # of this run's recordings
    failures: dict[Key, str]  # recordings of which nothing is used, with the first reason
    kept_before: set[Key]  # of these, the ones whose clips of an earlier run stay
    summary: dict[str, Any]


def prepare(options: Options) -> int:
    """Prepare the inputs into the output folder and return the exit code: 0, or 1 if a recording could not be used.

    Raises UserError if no recording could be used at all.
    """
    started = time.monotonic()
    _check_output(options.output)
    known = {speaker for _, speaker in read_manifest(options.output)}
    fetched = fetch(options)
    local = [text for text in options.inputs if not is_url(text)]
    sources = find_sources(local, options.output, options.speaker, known, fetched)
    with Journal(options.output) as journal:
        before = read_manifest(options.output)  # again, now that no other run can change it
        _remove_leftovers(options.output)
        try:
            options, rows = _convert(options, sources, before, journal)
        except WorkerLost as error:
            log.error("failed: %s; run the same command again with fewer --workers to continue", error)
            return FAILED
        finally:
            _remove_leftovers(options.output)  # of workers that were ended, and of a killed run's, which outlive it
        outcome = _settle(options, before, rows | _not_fetched(fetched, options.speaker), journal)
    _tell(options.output, before, outcome, time.monotonic() - started)
    return FAILED if outcome.failures else DONE


def _check_output(output: Path) -> None:
    try:
        taken = output.exists() and not output.is_dir()
    except OSError as error:  # a name that is too long, say
        reason = error.strerror or str(error)
        raise UserError(f"--output {output} cannot be used", reason, "choose another --output") from None
    if taken:
        raise UserError(f"--output {output} is a file", "the data set is a folder", "choose another --output")


def _settle(options: Options, before: dict[Key, list[Row]], rows: dict[Key, list[Row]], journal: Journal) -> Outcome:
    """Look at all clips together, write down what became of everything, and remove what is no more."""
    output = options.output
    failures = {key: own[0]["left_out"] for key, own in rows.items() if not any(map(_is_used, own))}
    kept_before = {key for key in failures if any(_is_there(output, row) for row in before.get(key, ()))}
    everything = earlier(before, journal) | {key: own for key, own in rows.items() if key not in kept_before}
    final = [_without_lost_clip(output, row) for own in everything.values() for row in own]
    final = leave_out_duplicates(final, {row["clip"] for own in before.values() for row in own})
    if options.check_speaker:
        final = check_speakers(final, output, options.workers or os.cpu_count() or 1)
    summary = write_manifest(output, final, options.as_dict())
    _remove_stale(output, final, before, journal)
    if options.report or (output / REPORT).exists():  # one that is there must not tell of another set
        _write_report(output, final, summary)
    journal.finish()
    settled = by_recording(final)
    return Outcome({key: settled[key] for key in rows if key in settled}, failures, kept_before, summary)


def earlier(before: dict[Key, list[Row]], journal: Journal) -> dict[Key, list[Row]]:
    """What earlier runs did, finished or not. Rows of recordings that one was at work on when it was stopped may not be
    true of the clips any more: the next run that has the recording makes it anew.
    """
    unsure = {key: [row | {"made_with": None} for row in own] for key, own in before.items() if key in journal.doubtful}
    return before | unsure | journal.rows


def _tell(output: Path, before: dict[Key, list[Row]], outcome: Outcome, seconds: float) -> None:
    """Say what there is now and what was left out. Raises UserError if nothing of this run can be used."""
    rows, failures, summary = outcome.rows, outcome.failures, outcome.summary
    _report(failures, outcome.kept_before)
    made = len(rows) - len(failures)
    if not made and not outcome.kept_before:
        reasons = [f"{one_line(Path(source).name)}: {reason}" for (source, _), reason in failures.items()]
        more = f"; and {len(reasons) - 5} more, see manifest.jsonl" if len(reasons) > 5 else ""
        textless = any("transcript" in reason or reason.startswith("text ") for reason in failures.values())
        fix = FIX if textless else "see what the reasons say, mend it, and run the same command again"
        raise UserError(f"none of {len(rows)} recordings can be used", "; ".join(reasons[:5]) + more, fix)
    gone = [key for key in before if key not in rows and not exists(key[0]) and not is_url(key[0])]
    if gone:
        log.info("%d recordings of earlier runs are no longer there; their clips stay in the set", len(gone))
    _tell_segments(rows.values())
    sys.stdout.write(
        f"{one_line(str(output))}: {summary['total_files']} clips, {summary['total_duration_minutes']:.1f} min, "
        f"speakers: {', '.join(summary['speakers'])}; this run: {made} of {len(rows)} "
        f"recordings, {len(failures)} left out, {seconds:.1f} s\n"
    )


def _convert(
    options: Options, sources: list[Source], before: dict[Key, list[Row]], journal: Journal
) -> tuple[Options, dict[Key, list[Row]]]:
    """Return the rows of every source, making the clips that are not done; and the request with the recogniser chosen."""
    noted = earlier(before, journal)
    rows_before = [row for own in noted.values() for row in own]
    jobs = read_jobs(sources, options, {speaker for _, speaker in before}, rows_before)
    adopt_moved(jobs, noted, before)
    _tell_other_speakers(jobs, noted)
    owned = {key: stem for key, own in noted.items() if (stem := stem_of(own))} | journal.stems
    stems = plan_stems(options.output, [job.source for job in jobs], owned)
    options = _with_recognition(options, choose_recognition(options, jobs))
    rows, tasks = _divide(options, jobs, stems, noted, journal)
    if not can_hear(options, tasks.values()):
        options = _with_recognition(options, None)
        rows, tasks = _divide(options, jobs, stems, noted, journal)
    if rows:
        log.info("%d of %d recordings are done already; delete a clip to have it made again", len(rows), len(sources))
    journal.plan(stems, set(tasks))
    corrected = {key: task.corrections for key, task in tasks.items() if task.corrections}
    save_corrections(options.output, corrected)
    _make(options, jobs, tasks, rows, journal)
    again = {
        job.key: make_task(job, stems[job.key], options.output, options.processing)
        for job in _not_duplicates(options.output, jobs, rows)
    }
    if again:
        journal.plan(stems, set(again))
        _make(options, jobs, again, rows, journal)
    tell_lost_corrections(options.output, corrected, rows)
    return options, rows


def _make(
    options: Options, jobs: Iterable[Job], tasks: dict[Key, RecordingTask], rows: dict[Key, list[Row]], journal: Journal
) -> None:
    """Do the tasks and note what comes of them."""
    lengths = {job.key: math.ceil(job.duration_s or 0.0) for job in jobs}
    made = _run(options, list(tasks.values()))
    if tasks:
        total = sum(lengths[key] for key in tasks)
        made = progress(made, "prepare", total=total, unit="s of sound", size=lambda own: lengths[own[0]])
    for key, own in made:
        journal.done(key, own)
        rows[key] = own


def _not_duplicates(output: Path, jobs: Iterable[Job], rows: dict[Key, list[Row]]) -> Iterator[Job]:
    """Recordings that were left out as duplicates of clips that are no more, or sound otherwise now."""
    sounds = {row["clip"]: row["fingerprint"] for own in rows.values() for row in own if row["clip"] is not None}
    for job in jobs:
        for row in rows.get(job.key, ()):
            first = row["duplicate_of"]
            gone = first is not None and first not in sounds and not (output / first).exists()
            if gone or (first in sounds and not same_recording(sounds[first], row["fingerprint"])):
                yield job
                break


def _with_recognition(options: Options, recognition: Recognition | None) -> Options:
    return replace(options, processing=replace(options.processing, recognition=recognition))


def _divide(
    options: Options, jobs: Iterable[Job], stems: dict[Key, str], noted: dict[Key, list[Row]], journal: Journal
) -> tuple[dict[Key, list[Row]], dict[Key, RecordingTask]]:
    """Return the rows of recordings that are done, and the tasks of the others."""
    rows: dict[Key, list[Row]] = {}
    tasks: dict[Key, RecordingTask] = {}
    for job in jobs:
        task = make_task(job, stems[job.key], options.output, options.processing)
        task, done = look_for_done(task, noted.get(job.key, []), job.key not in journal.rows)
        if done is None:
            tasks[job.key] = task
        else:
            rows[job.key] = done
    return rows, tasks


def _run(options: Options, tasks: list[RecordingTask]) -> Iterator[tuple[Key, list[Row]]]:
    if options.ray:
        from ..ray_runner import run_on_ray

        yield from run_on_ray(prepare_one, tasks)
        return
    workers = options.workers
    if workers is None:
        recognition = options.processing.recognition
        neural = recognition is not None and recognition.asr != "pocketsphinx"
        workers = 1 if neural else os.cpu_count() or 1
    processes = min(workers, len(tasks))
    threads = max(1, workers // max(1, processes))  # few long recordings: their clips side by side
    yield from run_tasks(prepare_one, [replace(task, threads=threads) for task in tasks], processes)


def prepare_one(task: RecordingTask) -> tuple[Key, list[Row]]:
    """`prepare_recording`, with the recording's name: results come in any order."""
    return (text_of(task.source), task.speaker), prepare_recording(task)


def _remove_stale(output: Path, rows: Iterable[Row], before: dict[Key, list[Row]], journal: Journal) -> None:
    """Delete clips that the tool made and no row has any more: cut otherwise now, duplicates, left by a stopped run."""
    wanted = {row["clip"] for row in rows}
    listed = {row["clip"] for own in (*before.values(), *journal.rows.values()) for row in own}
    begun = {journal.stems[key] for key in journal.begun}  # their clips may be in no list
    for folder in sorted({stem.rpartition("/")[0] for stem in journal.stems.values()}):
        for path in sorted((output / folder).iterdir()) if (output / folder).is_dir() else ():
            clip = f"{folder}/{path.stem}.wav"
            ours = clip in listed or SEGMENT.sub("", clip.removesuffix(".wav")) in begun
            if ours and clip not in wanted and path.suffix in _OWN_SUFFIXES:
                path.unlink(missing_ok=True)


def _write_report(output: Path, rows: list[Row], summary: dict[str, Any]) -> None:
    created = time.strftime("%Y-%m-%d %H:%M")
    versions = {name: metadata.version(name) for name in ("silero-vad", "pyloudnorm", "soxr", "soundfile")}
    write_text(output / REPORT, render(rows, summary, output, created=created, versions=versions))
    log.info("report: %s", output / REPORT)


def fetch(options: Options) -> list[Download]:
    """Download what the request names by address, into a folder beside the output, where a second run finds it."""
    urls = [text for text in options.inputs if is_url(text)]
    folder = options.output.with_name(f"{options.output.name}-downloads")
    return [found for url in urls for found in download(url, folder)]


def _not_fetched(fetched: Iterable[Download], speaker: str | None) -> dict[Key, list[Row]]:
    """A row for each address that gave no recording."""
    rows = {}
    for item in fetched:
        if item.failed is not None:
            key = one_line(item.url), safe_name(speaker or item.uploader or "", fallback="speaker")
            rows[key] = [blank_row() | {"source": key[0], "speaker": key[1], "left_out": item.failed, "url": key[0]}]
    return rows


def _remove_leftovers(output: Path) -> None:
    """Delete what killed runs left half-written. The journal's lock says that no other run is writing here now, so,
    unlike files.remove_leftovers, this need not guess which processes still live; codes (.npy) are not ours.
    """
    for path in output.rglob(f"{TEMPORARY_PREFIX}*"):
        if path.suffix in (".wav", ".lab") or path.name.endswith((MANIFEST, SUMMARY, REPORT)):
            with contextlib.suppress(OSError):  # Windows: a dying worker may still hold it
                path.unlink()


def _tell_other_speakers(jobs: Iterable[Job], noted: dict[Key, list[Row]]) -> None:
    """Warn of recordings that the set has under another speaker's name as well."""
    others: dict[str, set[str]] = {}
    for (source, speaker), own in noted.items():
        if any(row["clip"] is not None for row in own):
            others.setdefault(source, set()).add(speaker)
    twice = {name for job in jobs for name in others.get(job.key[0], set()) - {job.key[1]}}
    if twice:
        log.warning(
            "the set has some of these recordings under %s as well; delete what is wrong", ", ".join(sorted(twice))
        )


def _is_used(row: Row) -> bool:
    return row["clip"] is not None or row["duplicate_of"] is not None


def _is_there(output: Path, row: Row) -> bool:
    return row["clip"] is not None and (output / row["clip"]).exists()


def _without_lost_clip(output: Path, row: Row) -> Row:
    if row["clip"] is None or _is_there(output, row):
        return row
    gone = {"clip": None, "left_out": "clip deleted: it was made, and is no longer in the set", "made_with": None}
    return row | gone


def _report(failures: dict[Key, str], kept_before: set[Key]) -> None:
    for key in sorted(failures)[:_SHOWN]:
        note = " (the clip from an earlier run stays)" if key in kept_before else ""
        log.warning("left out: %s: %s%s", one_line(key[0]), one_line(failures[key]), note)
    if len(failures) > _SHOWN:
        log.warning("left out: %d more, see manifest.jsonl", len(failures) - _SHOWN)


def _tell_segments(rows: Iterable[list[Row]]) -> None:
    """Say what was left out of recordings that are used."""
    reasons: dict[str, list[float]] = {}
    for own in rows:
        if any(map(_is_used, own)):
            for row in own:
                if row["clip"] is None:
                    reasons.setdefault(category(row), []).append(row["end_s"] - row["start_s"])
    for reason, seconds in sorted(reasons.items()):
        log.info("left out: %s: %d segments, %.1f s", reason, len(seconds), sum(seconds))
