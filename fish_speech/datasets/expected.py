"""Guess a data set before it is packed: as many clips, as long, with as long texts, for a plan that computes nothing.

Clips have their codes where these are extracted, else zeros of the length that the recording's header tells; recordings
that are not prepared yet are counted in pieces as long as preparation usually cuts them. No sound is read.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..audio import MAX_CLIP_S, AudioError, duration_s, find_audio
from ..errors import UserError
from ..text.normalize import clean_text
from .code_origin import whose_codes
from .semantic import Clips
from .sources import Clip, UnusableClip, find_clips, read_codes, read_texts

TEXTS = ".lab"  # transcripts of a prepared data set
RAW_TEXTS = ".txt"  # beside recordings that are not prepared yet
LONGEST_S = 30.0  # a longer recording is cut by preparation ...
PIECE_S = 10.0  # ... into clips of about this length
CHARACTERS_PER_S = 14  # of fluent speech
FEWEST_SECONDS = 0.1  # shorter is no clip
# For the length of these a program is started: of thousands that would take minutes.
_SLOW = frozenset((".m4a", ".m4b", ".wma", ".aac", ".ac3", ".amr", ".mka", ".webm", ".mp4", ".m4v", ".mkv", ".mov",
                   ".avi", ".3gp"))  # fmt: skip
_ASKED = 32  # files of such a format that are asked for their length; the others' follows from their size
_THREADS, _CHUNK = 8, 64  # files that a thread takes at once
_SAMPLE = "The quick words of a speaker who reads to us at an even pace, neither very fast nor slow, "


@dataclass
class _Found:
    """Clips as they are gathered."""

    codebooks: int
    speakers: list[str] = field(default_factory=list)
    texts: list[tuple[str, ...]] = field(default_factory=list)
    codes: array = field(default_factory=lambda: array("H"))
    starts: array = field(default_factory=lambda: array("q", [0]))
    unusable: list[tuple[str, str]] = field(default_factory=list)

    def add(self, speaker: str, texts: tuple[str, ...], codes: np.ndarray) -> None:
        self.speakers.append(speaker)
        self.texts.append(texts)
        self.codes.frombytes(np.ascontiguousarray(codes, dtype=np.uint16).tobytes())
        self.starts.append(len(self.codes))

    def clips(self) -> Clips:
        codes, starts = np.asarray(self.codes), np.asarray(self.starts)
        return Clips(self.speakers, self.texts, codes, starts, self.codebooks, self.unusable)


def expected_clips(folder: Path, codebooks: int, frame_rate: float) -> tuple[Clips, str]:
    """Return the clips that `folder` would be packed to, and how they were estimated, in a phrase.

    codebooks: rows of codes that the model reads; frame_rate: codec frames per second. A folder without any transcript
    of a prepared set is taken for raw recordings. Raises UserError where there is nothing to guess from.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "the data set is read from there", "check the path")
    try:
        audio = find_audio(folder)
    except AudioError as error:
        raise UserError(f"cannot search {folder}", str(error), "make the folder readable") from None
    found = _Found(codebooks)
    if next(folder.rglob(f"*{TEXTS}"), None) is not None:
        how = _prepared(found, folder, audio, frame_rate)
    else:
        how = _raw(found, folder, audio, frame_rate)
    if not found.speakers:
        why = "; ".join(f"{name}: {reason}" for name, reason in found.unusable[:3])
        raise UserError(
            f"{folder} holds nothing that could be trained on",
            why or "there is neither a recording nor a .npy file in it",
            f"python prepare_dataset.py --input RECORDINGS --output {folder}",
        )
    return found.clips(), how


def _prepared(found: _Found, folder: Path, audio: Sequence[Path], frame_rate: float) -> str:
    """Add the clips of a data set; return how."""
    audio_of = {path.with_suffix(".npy"): path for path in audio}
    clips, _ = find_clips([folder], [TEXTS])
    extracted: dict[Path, np.ndarray] = {}
    reasons: dict[Path, str] = {}  # why there are no codes
    for clip in clips:
        try:
            extracted[clip.codes] = _extracted(clip.codes, found.codebooks)
        except UnusableClip as reason:
            reasons[clip.codes] = str(reason)
    waiting = [codes for codes in reasons if codes in audio_of]  # extraction makes or mends these
    seconds = dict(zip(waiting, durations([audio_of[codes] for codes in waiting])))
    read = measured = 0
    for clip in clips:
        try:
            texts = _spellings(clip)
            if clip.codes in extracted:
                found.add(clip.speaker, texts, extracted[clip.codes])
                read += 1
            elif clip.codes in seconds:
                silent = _silent(audio_of[clip.codes], seconds[clip.codes], found.codebooks, frame_rate)
                found.add(clip.speaker, texts, silent)
                measured += 1
            else:
                raise UnusableClip(reasons[clip.codes])
        except UnusableClip as reason:
            found.unusable.append((clip.name, str(reason)))
    if not measured:
        return f"from the codes of {_many(read, 'clip')}, which are not packed yet"
    if not read:
        return f"from the lengths of {_many(measured, 'recording')}; codes are not extracted yet"
    return (
        f"from the codes of {_many(read, 'clip')} and the lengths of {_many(measured, 'recording')}, "
        "whose codes are not extracted yet"
    )


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _spellings(clip: Clip) -> tuple[str, ...]:
    return tuple(clean_text(text) for text in read_texts(clip))


def _extracted(path: Path, codebooks: int) -> np.ndarray:
    codes = read_codes(path)
    if len(codes) != codebooks:
        raise UnusableClip(f"the .npy has {len(codes)} codebooks{whose_codes(len(codes))} instead of {codebooks}")
    return codes.astype(np.uint16)


def _silent(path: Path, seconds: float | str, codebooks: int, frame_rate: float) -> np.ndarray:
    """Codes of a clip that is not encoded yet, (codebooks, frames) zeros. Raises UnusableClip if it cannot be."""
    if isinstance(seconds, str):
        raise UnusableClip(seconds)
    if not FEWEST_SECONDS <= seconds <= MAX_CLIP_S:
        raise UnusableClip(f"{path.name} has {seconds:.1f} s; a clip has {FEWEST_SECONDS} to {MAX_CLIP_S:g} s")
    return np.zeros((codebooks, math.ceil(seconds * frame_rate)), np.uint16)


def _raw(found: _Found, folder: Path, audio: Sequence[Path], frame_rate: float) -> str:
    """Add the pieces that recordings would be cut to; return how."""
    texted = cut = 0
    for path, seconds in zip(audio, durations(audio)):
        name = path.relative_to(folder).as_posix()
        if isinstance(seconds, str) or seconds < FEWEST_SECONDS:
            found.unusable.append((name, seconds if isinstance(seconds, str) else f"only {seconds:.2f} s"))
            continue
        pieces = 1 if seconds <= LONGEST_S else round(seconds / PIECE_S)
        text = _text_beside(path)
        texted, cut = texted + (text is not None), cut + (pieces > 1)
        codes = np.zeros((found.codebooks, math.ceil(seconds / pieces * frame_rate)), np.uint16)
        inside = path.relative_to(folder)
        speaker = inside.parts[0] if len(inside.parts) > 1 else folder.resolve().name
        for piece in _shares(text or placeholder(len(found.speakers), seconds), pieces):
            found.add(speaker, (piece,), codes)
    guessed = f", texts guessed at {CHARACTERS_PER_S} characters a second for {len(audio) - texted}"
    pieces_of = f", {cut} of them cut into pieces of about {PIECE_S:g} s" if cut else ""
    return (
        f"from the lengths of {_many(len(audio), 'recording')}, not prepared yet"
        f"{pieces_of}{guessed if texted < len(audio) else ''}"
    )


def placeholder(number: int, seconds: float) -> str:
    """Words that fill so many seconds, others for each `number`, so that no two clips count as copies."""
    length = max(1, round(seconds * CHARACTERS_PER_S))
    return f"{number} {_SAMPLE * (length // len(_SAMPLE) + 1)}"[:length].strip() or "a"


def _shares(text: str, pieces: int) -> Iterator[str]:
    """Divide the words of `text` evenly; a piece without any gets the first word."""
    words = text.split()
    for piece in range(pieces):
        part = words[piece * len(words) // pieces : (piece + 1) * len(words) // pieces]
        yield " ".join(part or words[:1]) + (f" {piece}" if pieces > 1 else "")


def _text_beside(path: Path) -> str | None:
    """The transcript beside a recording, cleaned; None if there is none that can be used."""
    clip = Clip(path.name, (), "", "folder", path, (path.with_suffix(RAW_TEXTS),))
    try:
        return " ".join(_spellings(clip)) or None
    except UnusableClip:
        return None


def durations(paths: Sequence[Path]) -> list[float | str]:
    """Seconds of each recording by its header, or why there are none.

    Of formats for which a program must be started only the first few are asked; the others' follow from their sizes.
    """
    slow: dict[str, list[Path]] = {}
    for path in paths:
        if path.suffix.lower() in _SLOW:
            slow.setdefault(path.suffix.lower(), []).append(path)
    by_size = {path for of_format in slow.values() for path in of_format[_ASKED:]}
    asked = [path for path in paths if path not in by_size]
    chunks = [asked[start : start + _CHUNK] for start in range(0, len(asked), _CHUNK)]
    found: dict[Path, float | str] = {}
    with ThreadPoolExecutor(_THREADS) as pool:
        for measured in pool.map(_measure_all, chunks):
            found.update(measured)
    for of_format in slow.values():
        known = [(found[path], path.stat().st_size) for path in of_format[:_ASKED] if isinstance(found[path], float)]
        total = sum(size for _, size in known)
        rate = sum(float(seconds) for seconds, _ in known) / total if total else 0.0  # seconds per byte
        for path in of_format[_ASKED:]:
            found[path] = rate * path.stat().st_size if rate else "no recording of this format could be read"
    return [found[path] for path in paths]


def _measure_all(paths: Sequence[Path]) -> list[tuple[Path, float | str]]:
    return [(path, _measure(path)) for path in paths]


def _measure(path: Path) -> float | str:
    try:
        return float(duration_s(path))
    except AudioError as error:
        return error.reason
