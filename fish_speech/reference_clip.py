"""The clip of a data set that a voice is best recognised by: the example which opens the prompts of its voice pack.

Candidates last 3-10 s, have nothing against them in the manifest and a text that fits their length; up to 40 of them, drawn
the same way each time, are compared by ear: the one nearest to their mean voice is taken. Only these are ever decoded, and
only some 200 transcripts are read, so that a set of 20,000 clips takes seconds more than a small one.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any

import numpy as np

from .audio import AUDIO_SUFFIXES, AudioError, read_audio
from .codes import largest_of_rows, row_too_large, sizes_of_rows
from .datasets.code_origin import whose_codes
from .datasets.sources import Clip, UnusableClip, find_clips, read_codes, read_texts
from .errors import UserError
from .extras import how_to_install, missing
from .prepare.findings import Judge, badness, figure
from .prepare.manifest import MANIFEST, read_manifest
from .prepare.rate import characters_per_s, implausible_rate

SHORTEST_S, LONGEST_S = 3.0, 10.0  # of a good reference; a set without such clips gives what is nearest
TOO_LONG_S = 30.0  # never taken: the prompt would leave no room for the answer
_EXTENSION = ".lab"
_READ = 200  # clips whose text and codes are read
_TRIED = 1000  # of which that many may be unusable, before the set is given up
_HEARD = 40  # clips that are listened to
_MOST_CHARACTERS = 2000  # of a clip of 30 s
_LARGEST_MANIFEST = 1 << 28  # bytes
_HEADER = 128  # bytes of a .npy before its codes
_LENGTH_KINDS = {"short", "long"}  # of a clip's problems: the window above knows better
_PACKAGES = ("resemblyzer", "webrtcvad")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PackReference:
    """A clip to imitate, and why this one."""

    text: str
    codes: np.ndarray  # (codebooks, frames) int32
    source: str  # the clip's path below its data folder, or the name of the file that was given
    speaker: str | None
    seconds: float
    why: str
    similarity: float | None = None  # to the mean voice of the candidates, 0-1
    snr_db: float | None = None


@dataclass
class _Candidate:
    """A clip, what its files' sizes and the manifest say of it, and, once it is read, its text and codes."""

    clip: Clip
    row: dict[str, Any]  # of the manifest, or empty
    seconds: float  # by the size of its codes until they are read
    text: str = ""
    codes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int32))

    @property
    def off_s(self) -> float:
        """Seconds by which it misses the window of good lengths."""
        return max(SHORTEST_S - self.seconds, self.seconds - LONGEST_S, 0.0)


def can_compare() -> bool:
    """Whether voices can be compared by ear here."""
    return not missing(*_PACKAGES)


def choose_reference(
    data: Path,
    codebooks: int,
    codebook_sizes: int | Sequence[int],
    frame_rate: float,
    speaker: str | None = None,
    clips: Sequence[Clip] | None = None,
) -> PackReference | None:
    """The best clip of a data folder, None if none can be used; a line of the log says which, or why not.

    `codebook_sizes` says how many codes there are: in all codebooks, or in each. `clips` are those of the folder if they
    are known already. Without `speaker` it is the one with the most seconds.
    Raises UserError for a folder that cannot be searched, and for a speaker who is not there.
    """
    clips = find_clips([data], [_EXTENSION])[0] if clips is None else clips
    found = _survey(clips, _rows(data), codebooks, frame_rate)
    if not found:
        log.warning("no reference: %s has no clips with codes", data)
        return None
    chosen = _of_one_speaker(found, speaker, data)
    read, reasons = _read(_in_order(chosen), sizes_of_rows(codebooks, codebook_sizes), frame_rate)
    if not read:
        log.warning("no reference: no clip in %s can be used (%s)", data, "; ".join(sorted(reasons)[:3]))
        return None
    candidates = _best_group(read)
    best, similarity, why = _nearest(candidates) or _cleanest(candidates)
    return PackReference(
        best.text,
        best.codes,
        best.clip.name,
        best.clip.speaker,
        round(best.seconds, 3),
        why,
        similarity,
        figure(best.row, "snr_db"),
    )


def _rows(data: Path) -> dict[str, dict[str, Any]]:
    """The manifest's rows by clip, without suffix; none where it is missing or cannot be read."""
    path = data / MANIFEST
    try:
        if path.exists() and path.stat().st_size > _LARGEST_MANIFEST:
            raise UserError(f"{path} is not read", "it is larger than any manifest", "")
        rows = itertools.chain.from_iterable(read_manifest(data).values())
        return {PurePosixPath(row["clip"]).with_suffix("").as_posix(): row for row in rows if _is_path(row["clip"])}
    except (UserError, OSError) as error:
        reason = error.what if isinstance(error, UserError) else str(error)
        log.warning("the reference is chosen without the manifest: %s", reason)
        return {}


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and bool(PurePosixPath(value).name)


def _survey(
    clips: Iterable[Clip], rows: dict[str, dict[str, Any]], codebooks: int, frame_rate: float
) -> list[_Candidate]:
    """The clips that have codes and are not too long. Opens none: the size tells the length."""
    found = []
    for clip in clips:
        try:
            size = clip.codes.stat().st_size
        except OSError:
            continue
        seconds = (size - _HEADER) / (4 * codebooks * frame_rate)
        if 0 < seconds <= TOO_LONG_S:
            found.append(_Candidate(clip, rows.get(clip.name, {}), seconds))
    return found


def _of_one_speaker(found: list[_Candidate], asked: str | None, data: Path) -> list[_Candidate]:
    seconds: dict[str, float] = defaultdict(float)
    for candidate in found:
        seconds[candidate.clip.speaker] += candidate.seconds
    names = sorted(seconds, key=lambda name: (-seconds[name], name))
    if asked is not None and asked not in seconds:
        raise UserError(
            f"{data} has no speaker {asked}", f"speakers there: {', '.join(names[:10])}", "choose one of them"
        )
    speaker = asked or names[0]
    if len(names) > 1:
        why = "as asked" if asked else f"who has the most speech, {seconds[speaker] / 60:.1f} min"
        log.info("%d speakers: the reference is of %s, %s", len(names), speaker, why)
    return [candidate for candidate in found if candidate.clip.speaker == speaker]


def _in_order(candidates: list[_Candidate]) -> list[_Candidate]:
    """The likeliest first: nothing against them, a good length; equals in an order drawn once and for all."""
    judge = Judge([candidate.row for candidate in candidates])
    mixed = sorted(candidates, key=lambda candidate: candidate.clip.name)
    random.Random(0).shuffle(mixed)
    return sorted(mixed, key=lambda c: (bool(c.row) and _badness(judge, c.row) > 0, c.off_s))


def _badness(judge: Judge, row: dict[str, Any]) -> float:
    return badness([problem for problem in judge.problems(row) if problem.kind not in _LENGTH_KINDS])


def _read(candidates: list[_Candidate], sizes: tuple[int, ...], frame_rate: float) -> tuple[list[_Candidate], set[str]]:
    """Read text and codes of the first that can be used; also return why others cannot. Copies count once."""
    read: list[_Candidate] = []
    reasons: set[str] = set()
    seen: set[bytes] = set()
    for candidate in candidates[:_TRIED]:
        if len(read) == _READ:
            break
        try:
            text = read_texts(candidate.clip)[0].strip()
            codes = read_codes(candidate.clip.codes)
        except UnusableClip as error:
            reasons.add(str(error))
            continue
        if len(text) > _MOST_CHARACTERS:
            reasons.add("the transcript is too long")
            continue
        rows, codebooks = len(codes), len(sizes)
        if rows < codebooks or (rows > codebooks and whose_codes(rows)):
            reasons.add(f"{rows} codebooks{whose_codes(rows)} instead of {codebooks}")
            continue
        if row_too_large(largest_of_rows(codes), sizes) is not None:
            reasons.add("codes of another codec")
            continue
        codes = np.ascontiguousarray(codes[:codebooks], dtype=np.int32)
        candidate.text, candidate.codes, candidate.seconds = text, codes, codes.shape[1] / frame_rate
        if candidate.seconds <= TOO_LONG_S and codes.tobytes() not in seen:
            seen.add(codes.tobytes())
            read.append(candidate)
    return read, reasons


def _best_group(read: list[_Candidate]) -> list[_Candidate]:
    """Those worth listening to: faultless ones of a good length, else faultless ones, else the least bad."""
    rows = [
        {
            **candidate.row,
            "speaker": candidate.clip.speaker,
            "text": candidate.text,
            "duration_s": candidate.seconds,
            "characters_per_s": characters_per_s(candidate.text, candidate.seconds),
        }
        for candidate in read
    ]
    judge = Judge(rows)
    faults = [
        _badness(judge, row) + 5 * (implausible_rate(candidate.text, candidate.seconds) is not None)
        for row, candidate in zip(rows, read)
    ]
    graded = sorted(zip(faults, read), key=lambda item: (item[0], item[1].off_s))
    least = graded[0][0]
    equals = [candidate for fault, candidate in graded if fault == least]
    fitting = [candidate for candidate in equals if not candidate.off_s]
    return (fitting or equals)[:_HEARD]


def _nearest(candidates: list[_Candidate]) -> tuple[_Candidate, float | None, str] | None:
    """The candidate nearest to the mean voice of all; None if fewer than two of them can be listened to."""
    if len(candidates) < 2:
        return None
    if not can_compare():
        log.info("the reference is not chosen by similarity: for that, %s", how_to_install())
        return None
    from .evaluation.similarity import SpeakerEncoder, mean_embedding, similarity

    encoder, heard = SpeakerEncoder(), []
    for candidate in candidates:
        path = sound_of(candidate.clip.codes)
        if path is None:
            continue
        try:
            voice = encoder.embed(*read_audio(path, max_duration_s=2 * TOO_LONG_S))
        except AudioError as error:
            log.debug("%s", error)
            continue
        if voice is not None:
            heard.append((candidate, voice))
    if len(heard) < 2:
        return None
    mean = mean_embedding([voice for _, voice in heard])
    scores = [round(similarity(voice, mean), 4) for _, voice in heard]
    best = max(range(len(heard)), key=lambda index: scores[index])  # of equals the first
    return heard[best][0], scores[best], f"nearest to the mean voice of {len(heard)} clips"


def _cleanest(candidates: list[_Candidate]) -> tuple[_Candidate, None, str]:
    """The candidate with the highest SNR; of equals, or where none is known, the one of middle length."""
    middle = median(candidate.seconds for candidate in candidates)

    def rank(candidate: _Candidate) -> tuple[float, float, str]:
        snr = figure(candidate.row, "snr_db")
        return -snr if snr is not None else 1e3, abs(candidate.seconds - middle), candidate.clip.name

    best = min(candidates, key=rank)
    known = figure(best.row, "snr_db") is not None
    what = "highest SNR" if known else "middle length"
    return best, None, f"{what} of {len(candidates)} clips"


def sound_of(codes: Path) -> Path | None:
    """The recording beside a clip's codes."""
    suffixes = (form for suffix in sorted(AUDIO_SUFFIXES) for form in (suffix, suffix.upper()))
    return next((path for suffix in suffixes if (path := codes.with_suffix(suffix)).is_file()), None)
