"""One recording becomes clips: find the speech, learn the words' times, plan the cuts, cut, and explain every segment.

This is the work of one process. It reads a recording as a stream two or three times, so hours of it take little memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from ..audio import MAX_CLIP_S, AudioError, AudioInfo, audio_info, read_audio, stream_audio
from ..recognition import join_words, suspicious
from ..timeline import Piece, Span
from .alignment import align
from .biased_model import expecting
from .clip_text import clip_text, recognised_text
from .clips import METER_BLOCK_S, RecordingTask, clip_name, finish_clip, new_row
from .cutting import cut, read_ahead
from .hearing import hear
from .language import is_english
from .options import Processing
from .rows import Row
from .segments import plan_segments, windows
from .speech import find_speech
from .transcripts import Transcript

DETECTOR_RATE = 16000  # Hz; of what finds speech
# Confidence below which a short recording's text is taken for that of another one, if it has as many words: a recogniser
# misses short prompts. pocketsphinx on 47 of Allison's clips: the lowest of true texts is 0.45, 80 % of others are below.
MISMATCH, MISMATCH_WORDS = 0.35, 5
NO_TIMES = "a recording is cut by the times of its words; add --auto-transcribe to have them recognised"


_GOES_ON_S = 0.1  # speech that ends nearer to where reading stopped may go on after it


class Found(NamedTuple):
    """A segment, and what is said in it."""

    span: Span
    text: str | None = None
    confidence: float | None = None
    left_out: str | None = None


def prepare_recording(task: RecordingTask) -> list[Row]:
    """Write the clips of one recording and return a row for each segment that was found, sorted by time.

    What cannot be used gives a row with the reason; a recording that cannot be read gives one row. Raises OSError if the
    output cannot be written, UserError if the recogniser cannot be had.
    """
    known: Row = {}
    try:
        info = audio_info(task.source)
        known = {"sample_rate": info.sample_rate, "source_s": round(info.duration_s, 6)}
        if task.transcript.text is None and not task.processing.transcribe:
            return [new_row(task, 0.0, info.duration_s, left_out=task.transcript.left_out, **known)]
        make = _whole if taken_whole(task.processing, task.transcript, info.duration_s) else _split
        rows, duration = make(task, info)
    except AudioError as error:
        return [new_row(task, 0.0, known.get("source_s"), left_out=error.reason, **known)]
    known |= {"source_s": round(duration, 6), "made_with": task.made_with}
    return [row | known for row in rows]


def taken_whole(processing: Processing, transcript: Transcript, duration_s: float) -> bool:
    """Whether a recording is one clip as it is: nothing may be cut, or it is short enough and its text is known."""
    limit = processing.max_duration_s
    short = transcript.text is not None and duration_s <= processing.limits.max_s
    return not processing.split or (short and (limit is None or duration_s <= limit))


def _whole(task: RecordingTask, info: AudioInfo) -> tuple[list[Row], float]:
    limit = task.processing.max_duration_s
    if limit is not None and info.duration_s > limit:
        reason = f"longer than --max-duration: {info.duration_s:.1f} s, and --no-split forbids to cut it"
        return [new_row(task, 0.0, info.duration_s, left_out=reason)], info.duration_s
    waveform, sample_rate = read_audio(task.source, max_duration_s=MAX_CLIP_S)
    duration = len(waveform) / sample_rate  # a header may be wrong
    found, speech = Found(Span(0.0, duration), task.transcript.text), None
    if task.processing.transcribe and task.processing.recognition is not None:
        speech, _ = _listen(task)
        found = _check(task, speech, duration)
    row = new_row(task, *found.span, text=found.text, confidence=found.confidence, left_out=found.left_out)
    if found.left_out is not None:
        return [row], duration
    return [finish_clip(task, row | {"clip": clip_name(task.stem)}, waveform, sample_rate, speech)], duration


def _check(task: RecordingTask, speech: Sequence[Span], duration: float) -> Found:
    """What is said in a recording taken whole: the text it came with, checked, or what is recognised."""
    whole, given = Span(0.0, duration), task.transcript.text
    wanted = task.processing.recognition
    if given is not None and wanted is not None and wanted.asr == "pocketsphinx" and not is_english(given):
        return Found(whole, given)  # nobody here can check it
    if not speech:
        return Found(whole, given, left_out=f"no speech: {duration:.1f} s without any")
    said = _recognised(task, speech, duration)
    text, confidence, reason = said.text(whole)
    confidence = round(confidence, 3)
    if given is None:
        return Found(whole, text or None, confidence, reason)
    if len(said.pieces) >= MISMATCH_WORDS and confidence < MISMATCH:
        reason = f"another text: of the words given, {confidence:.0%} are heard in the recording"
        return Found(whole, given, confidence, reason)
    return Found(whole, given, confidence)


def _split(task: RecordingTask, info: AudioInfo) -> tuple[list[Row], float]:
    limit = task.processing.max_duration_s
    speech, duration = _listen(task)
    rows, total = [], duration
    if limit is not None and info.duration_s > limit + 0.1:
        total = info.duration_s
        speech, duration = _ending_in_a_pause(speech, duration, task.transcript.pieces)
        rows = [new_row(task, duration, total, left_out=f"beyond --max-duration: after {limit / 60:g} min")]
    if speech:
        found = _find_segments(task, speech, duration)
        rows = [*_cut(task, found, speech, duration, info.sample_rate), *rows]
    else:
        rows = [new_row(task, 0.0, duration, left_out=f"no speech: {duration:.1f} s without any"), *rows]
    return rows, total


def _ending_in_a_pause(speech: list[Span], duration: float, pieces: Sequence[Piece]) -> tuple[list[Span], float]:
    """Let what is used of a recording end before the speech that goes on beyond its end, and before a subtitle that does."""
    end = duration
    while speech and (
        speech[-1].end_s > duration - _GOES_ON_S
        or any(piece.start_s < end - _GOES_ON_S and piece.end_s > end + _GOES_ON_S for piece in pieces)
    ):
        last = speech[-1]
        speech = speech[:-1]
        end = (speech[-1].end_s + last.start_s) / 2 if speech else last.start_s
        duration = end
    return speech, end


def _listen(task: RecordingTask) -> tuple[list[Span], float]:
    """Return where speech is, and how long the recording is as far as it is used."""
    samples = 0

    def counted(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        nonlocal samples
        for block in blocks:
            samples += len(block)
            yield block

    with stream_audio(task.source, DETECTOR_RATE, **_limit(task)) as blocks:
        speech = find_speech(counted(read_ahead(blocks) if task.threads > 1 else blocks), task.processing.detector)
    if not samples:
        raise AudioError(task.source, "no samples: the file has a header but no sound")
    return speech, samples / DETECTOR_RATE


def _limit(task: RecordingTask) -> dict[str, float]:
    seconds = task.processing.max_duration_s
    return {} if seconds is None else {"max_duration_s": seconds}


class _Said(NamedTuple):
    """What is said in a recording."""

    pieces: Sequence[Piece]  # of the given text, with times, or of what was recognised
    heard: Sequence[Piece] = ()  # what the recogniser gave, where the text is given
    doubts: Sequence[tuple[Span, str]] = ()  # where what it gave is not to be trusted, and why
    recognised: bool = False  # nobody gave a text

    def text(self, span: Span) -> tuple[str, float, str | None]:
        """The text spoken within `span`, how sure it is (0-1), and why to leave it out, or None."""
        if not self.recognised:
            return clip_text(self.pieces, *span, self.heard)
        text, confidence, reason = recognised_text(self.pieces, *span)
        return text, confidence, (reason and self.doubt(span)) or reason

    def doubt(self, span: Span) -> str | None:
        """The first reason not to trust what was recognised within `span`."""
        return next((why for at, why in self.doubts if at.start_s < span.end_s and span.start_s < at.end_s), None)


def _find_segments(task: RecordingTask, speech: Sequence[Span], duration: float) -> list[Found]:
    """Plan the cuts and give each segment its text."""
    said = _Said(task.transcript.pieces) if task.transcript.pieces else _recognised(task, speech, duration, True)
    found = []
    for segment in plan_segments(speech, duration, task.processing.limits, said.pieces):
        span = Span(segment.start_s, segment.end_s)
        text, confidence, reason = said.text(span)
        found.append(Found(span, text or None, round(confidence, 3) if text else None, segment.left_out or reason))
    return found


def _recognised(task: RecordingTask, speech: Sequence[Span], duration: float, expect: bool = False) -> _Said:
    """Return the words with their times: those of the given text if there is one, else what is recognised.

    `expect`: the recogniser may expect the given text, which is right for times but not for checking it.
    """
    wanted = task.processing.recognition
    if wanted is None:
        raise AudioError(task.source, f"text without times: {NO_TIMES}")
    given = task.transcript.text
    if given is not None and wanted.asr == "pocketsphinx" and not is_english(given):
        raise AudioError(task.source, f"text without times: pocketsphinx hears English only, and it is not; {NO_TIMES}")
    stretches = windows(speech, duration, max_silence_s=2.0)
    recognizer = wanted.load() if given is None or not expect else expecting(given, wanted)
    heard, language = hear(task.source, stretches, recognizer, task.root, wanted.language)
    if given is not None:  # the text says what is to be believed
        words = [word for window in heard for word in window]
        return _Said(align(given, words, speech, language), words)
    trusted: list[Piece] = []
    doubts = []
    for window, found in zip(stretches, heard):
        sure = sum(word.confidence for word in found) / max(1, len(found))
        doubt = suspicious(join_words(found), window.duration_s, language, sure)
        if doubt:
            doubts.append((window, f"not to be trusted: {doubt}"))
        else:
            trusted += found
    return _Said(trusted, (), doubts, True)


def _cut(
    task: RecordingTask, found: Sequence[Found], speech: Sequence[Span], duration: float, sample_rate: int
) -> list[Row]:
    """Write the clips, in one pass through the recording; `task.threads` measure and write side by side."""
    rows: list[Row] = []
    kept = [item.span for item in found if item.left_out is None]
    finished: dict[int, Future[Row]] = {}
    short: list[tuple[int, np.ndarray, list[Span]]] = []  # clips that take the recording's gain: row, samples, speech
    with (
        stream_audio(task.source, max_duration_s=duration + 1.0) as blocks,
        ThreadPoolExecutor(task.threads) as pool,
    ):
        sound = cut(blocks, sample_rate, kept)
        number, voiced = 0, _Within(speech)
        for item in found:
            row = new_row(task, *item.span, text=item.text, confidence=item.confidence, left_out=item.left_out)
            if item.left_out is None:
                number += 1
                row["clip"], samples = clip_name(task.stem, number), next(sound)
                spans = voiced.of(item.span)
                if len(samples) < METER_BLOCK_S * sample_rate:
                    short.append((len(rows), samples, spans))
                else:
                    finished[len(rows)] = pool.submit(finish_clip, task, row, samples, sample_rate, spans)
            rows.append(row)
            _collect(finished, 2 * task.threads, rows)
        _collect(finished, 0, rows)
    loud = [(row["duration_s"], row["lufs"] - row["gain_db"]) for row in rows if row["lufs"] is not None]
    level = _mean_level(loud)  # of the clips that the meter can measure
    for index, samples, spans in short:
        rows[index] = finish_clip(task, rows[index], samples, sample_rate, spans, level)
    return rows


def _collect(finished: dict[int, Future[Row]], left: int, rows: list[Row]) -> None:
    """Put the oldest results into `rows` until no more than `left` are under way: few clips are in memory at once."""
    while len(finished) > left:
        index = next(iter(finished))
        rows[index] = finished.pop(index).result()


def _mean_level(loud: Sequence[tuple[float, float]]) -> float | None:
    """The loudness of all clips together: the mean of their powers, weighted by duration."""
    if not loud:
        return None
    power = sum(seconds * 10 ** (lufs / 10) for seconds, lufs in loud) / sum(seconds for seconds, _ in loud)
    return 10 * float(np.log10(power))


class _Within:
    """Gives the speech inside segments that are asked for in order, in seconds of the segment."""

    def __init__(self, speech: Sequence[Span]):
        self._speech, self._next = speech, 0

    def of(self, segment: Span) -> list[Span]:
        while self._next < len(self._speech) and self._speech[self._next].end_s <= segment.start_s:
            self._next += 1
        inside, index = [], self._next
        while index < len(self._speech) and self._speech[index].start_s < segment.end_s:
            start, end = self._speech[index]
            inside.append(Span(max(0.0, start - segment.start_s), min(end, segment.end_s) - segment.start_s))
            index += 1
        return inside
