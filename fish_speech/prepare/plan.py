"""What is to be done with each recording: its clips' names, its settings, the recogniser it needs, and what is done already."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from ..audio import AudioError, duration_s
from ..errors import UserError
from ..recognition import choose_asr
from .clips import RecordingTask, is_whole, state_of
from .corrections import find_corrections, lab_of, our_text, settle_text
from .language import is_english
from .names import NameBook, safe_name, text_of
from .options import Options, Processing, Recognition
from .rate import characters_per_s
from .recording import taken_whole
from .rows import Key, Row
from .sources import Source, speaker_folders
from .transcripts import Transcript, Transcripts

log = logging.getLogger(__name__)

SEGMENT = re.compile(r"__\d{4,}$")  # what a segment's name has after its recording's stem


@dataclass(frozen=True)
class Job:
    """A recording with its transcript, and what is known of it from its header."""

    source: Source
    transcript: Transcript
    duration_s: float | None  # None: cannot be read; the worker will say why

    @property
    def key(self) -> Key:
        """What its rows go by."""
        return text_of(self.source.path), self.source.speaker


def read_jobs(
    sources: Iterable[Source], options: Options, known: Iterable[str] = (), noted: Iterable[Row] = ()
) -> list[Job]:
    """Find the transcript and the duration of each recording, and its speaker if metadata.csv says so.

    `known` are the speakers of the set; `noted` rows of earlier runs, whose durations hold for unchanged files.
    """
    transcripts = Transcripts(options.language)
    sources = list(sources)
    found = [transcripts.read(source.path) for source in sources]
    voices = {item.speaker for item in found if item.speaker} if options.speaker is None else set()
    folders = speaker_folders(sorted(voices), {*known, *(source.speaker for source in sources)})
    named = [
        replace(source, speaker=folders[item.speaker]) if item.speaker in folders else source
        for source, item in zip(sources, found)
    ]
    known_s = {(row["source"], row["source_bytes"], row["source_mtime_ns"]): row["source_s"] for row in noted}

    def seconds(source: Source) -> float | None:
        before = known_s.get((text_of(source.path), *(state_of(source.path) or (None, None))))
        with contextlib.suppress(AudioError):
            return before or duration_s(source.path)
        return None

    with ThreadPoolExecutor(8) as pool:  # ffprobe is a program: it takes its time to start
        return [Job(*job) for job in zip(named, found, pool.map(seconds, named))]


def make_task(job: Job, stem: str, output: Path, processing: Processing) -> RecordingTask:
    """Say what is to be done with a recording."""
    task = RecordingTask(
        job.source.path, job.source.speaker, output, stem, job.transcript, processing, "", job.source.url
    )
    if job.duration_s is None or taken_whole(processing, job.transcript, job.duration_s):
        heard = (processing.detector, processing.recognition) if processing.transcribe else None
        made_with = digest("whole", processing.normalize, heard)
    else:
        made_with = digest(replace(processing, dnsmos=False), job.transcript.text, job.transcript.pieces)
    return replace(task, made_with=made_with)


def digest(*what: object) -> str:
    """A short name of what decides a recording's clips: if it changes, they are made again."""
    return hashlib.sha256(repr(what).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def look_for_done(
    task: RecordingTask, rows: list[Row], finished: bool = True
) -> tuple[RecordingTask, list[Row] | None]:
    """Return the rows of a recording that needs no work; else None, and the task, which knows what is there already.

    Done means made from the source as it is now, with the same settings, and whole. Clips of a `finished` run whose .wav
    and .lab were both deleted, in a folder that is there, stay out; a stopped run may itself have deleted duplicates.
    """
    task = replace(task, corrections=find_corrections(task.root, rows))
    settings = (task.made_with, *(state_of(task.source) or (None, None)))
    if not rows or any((row["made_with"], row["source_bytes"], row["source_mtime_ns"]) != settings for row in rows):
        return task, None
    rows = [_without_deleted(task.root, row) for row in rows] if finished else rows
    kept = [row for row in rows if row["clip"] is not None]
    whole = [row for row in kept if is_whole(task.root, row)]
    scored = not task.processing.dnsmos or all(row["dnsmos"] for row in kept)
    if len(whole) < len(kept) or not scored:
        return replace(task, present=frozenset(row["clip"] for row in whole)), None
    return task, [row if row["clip"] is None else _with_current_text(task, row) for row in rows]


def _without_deleted(root: Path, row: Row) -> Row:
    if row["clip"] is None or not (root / row["clip"]).parent.is_dir():
        return row
    if (root / row["clip"]).exists() or lab_of(root, row["clip"]).exists():
        return row
    return row | {"clip": None, "left_out": "by hand: its .wav and .lab were deleted"}


def _with_current_text(task: RecordingTask, row: Row) -> Row:
    """Bring the text of a whole clip up to date: a recording's text may have changed, or somebody corrected the .lab."""
    taken_whole = SEGMENT.search(Path(row["clip"]).stem) is None
    ours = task.transcript.text if taken_whole and task.transcript.text is not None else our_text(row)
    assert ours is not None
    if row["written"] is not None or ours != row["text"]:
        heard = task.processing.recognition
        kind = task.transcript.kind or (heard.label if heard is not None else None)
        rate = round(characters_per_s(ours, row["duration_s"]), 2)
        row = row | {"text": ours, "transcript": kind, "confidence": None, "characters_per_s": rate}
    return settle_text(task.root, row, task.corrections, task.transcript)


def choose_recognition(options: Options, jobs: Sequence[Job]) -> Recognition | None:
    """Say which recogniser hears the recordings that need one; None if none does, or if it is not here and can be missed.

    Recordings without text cannot do without: UserError. A long recording with its text needs the times of its words,
    also without --auto-transcribe; and --auto-transcribe checks the texts that there are. For these, where there is no
    recogniser, a line says what is left undone. Nothing is loaded or fetched.
    """
    processing = options.processing
    necessary = processing.transcribe and any(job.transcript.text is None for job in jobs)
    long = [
        job.transcript.text
        for job in jobs
        if job.transcript.text is not None
        and not job.transcript.pieces
        and not taken_whole(processing, job.transcript, job.duration_s or 0.0)
    ]
    if not processing.transcribe and not long:
        if options.asr or options.whisper_model:
            log.warning("--asr and --whisper-model have no effect: no recording needs to be heard")
        return None
    download = necessary or options.whisper_model is not None
    texts = [job.transcript.text for job in jobs if job.transcript.text is not None] if processing.transcribe else long
    language = options.language or ("en" if not necessary and any(map(is_english, texts)) else None)
    try:
        asr = choose_asr(options.asr or ("whisper" if download else "auto"), options.whisper_model, language, download)
    except UserError as error:
        if necessary or options.asr or options.whisper_model:
            raise
        _tell_undone(error)
        return None
    if options.asr is None and not necessary:
        what = "texts are checked by" if processing.transcribe else "the words of long recordings get their times from"
        log.info("%s %s; --asr chooses another", what, asr)
    spoken = options.language or ("en" if asr == "pocketsphinx" else None)
    return Recognition(asr, options.whisper_model, spoken, options.device, download)


def can_hear(options: Options, tasks: Collection[RecordingTask]) -> bool:
    """Load the recogniser of `tasks` here, before any work, so that what is missing is fetched once and told early.

    False if it cannot be had and can be missed; else UserError. pocketsphinx, which needs no fetching, is left to the
    worker processes.
    """
    wanted = options.processing.recognition
    if wanted is None or wanted.asr == "pocketsphinx" or not tasks:
        return True
    try:
        wanted.load()
    except UserError as error:
        if options.asr or any(task.transcript.text is None for task in tasks):
            raise
        _tell_undone(error)
        return False
    return True


def _tell_undone(error: UserError) -> None:
    log.warning("%s\n  so texts are not checked, and long recordings cannot be cut by them", error)


def adopt_moved(jobs: Iterable[Job], *tables: dict[Key, list[Row]]) -> None:
    """Let recordings that were moved to another folder keep their rows, and so their clips.

    A recording is the moved one if the old is gone and has the same name, size, time of change and speaker. `tables`
    are changed in place.
    """
    here = {job.key for job in jobs}
    for table in tables:
        gone: dict[tuple[str, str, int, int], list[Key]] = {}
        for key, own in table.items():
            if key not in here and own[0]["source_bytes"] is not None and not exists(key[0]):
                name = Path(key[0]).name
                gone.setdefault((name, key[1], own[0]["source_bytes"], own[0]["source_mtime_ns"]), []).append(key)
        for job in jobs:
            like = (Path(job.key[0]).name, job.key[1], *(state_of(job.source.path) or (0, 0)))
            if job.key not in table and gone.get(like):
                own = table.pop(gone[like].pop(0))
                table[job.key] = [row | {"source": job.key[0]} for row in own]


def exists(source: str) -> bool:
    """Whether a recording is there; a name of any bytes may be too long once it is text."""
    try:
        return Path(source).exists()
    except OSError:
        return False


def stem_of(rows: Iterable[Row]) -> str | None:
    """The stem of a recording's clips, None if it has none."""
    clip = next((row["clip"] for row in rows if row["clip"] is not None), None)
    return None if clip is None else SEGMENT.sub("", clip[: -len(".wav")])


def plan_stems(output: Path, sources: Iterable[Source], owned: dict[Key, str]) -> dict[Key, str]:
    """Give every source the stem of its clips below `output`, no two the same and none that something else has.

    A source keeps the stem it has; files in the output that no recording owns are never overwritten.
    """
    books: dict[str, NameBook] = {}
    stems: dict[Key, str] = {}
    for source in sources:
        key = (text_of(source.path), source.speaker)
        if key in owned:
            stems[key] = owned[key]
            continue
        if source.speaker not in books:
            prefix = f"{source.speaker}/"
            taken = {stem[len(prefix) :] for stem in owned.values() if stem.startswith(prefix)}
            folder = output / source.speaker
            present = {SEGMENT.sub("", path.stem) for path in folder.iterdir()} if folder.is_dir() else set()
            books[source.speaker] = NameBook(taken | present)
        stem = books[source.speaker].take(safe_name(source.path.stem))
        stems[key] = f"{source.speaker}/{stem}"
    return stems
