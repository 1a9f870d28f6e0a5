"""Measure clips in worker processes, each of which loads a recogniser and the other models once, and sum up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .. import log
from ..audio import MAX_CLIP_S, AudioError, measure_lufs, read_audio
from ..errors import UserError
from ..extras import missing, require
from ..recognition import choose_asr, transcribe
from ..workers import run_tasks
from .intelligibility import character_errors, word_errors
from .normalize import comparable_words
from .quality import dnsmos
from .similarity import SpeakerEncoder, mean_embedding, similarity
from .summary import summarise
from .systems import Clip, System, find_recordings
from .timing import measure_timing, speaking_rate

# Timing and loudness need nothing optional and are always measured.
MEASURES = {
    "intelligibility": ("jiwer", "num2words"),
    "similarity": ("resemblyzer", "webrtcvad"),
    "quality": ("speechmos", "onnxruntime"),
}
MAX_REFERENCES = 200  # recordings of the target speaker that are listened to; the mean does not move beyond

Values = dict[str, Any]
Key = tuple[Path, str | None]  # a sound and what should be said in it


@dataclass(frozen=True)
class Listening:
    """How clips are listened to."""

    measures: frozenset[str] = frozenset(MEASURES)
    asr: str = "auto"  # pocketsphinx or whisper once `plan_listening` has chosen
    whisper_model: str | None = None
    language: str = "en"

    def without(self, measure: str) -> Listening:
        """The same, less one measure."""
        return replace(self, measures=self.measures - {measure})


_ONLY_VOICE = Listening(frozenset({"similarity"}))


@dataclass(frozen=True)
class Task:
    """A sound for a worker."""

    sound: Path
    text: str | None
    listening: Listening
    one_thread: bool


def plan_listening(
    wanted: Sequence[str] | None, asr: str = "auto", whisper_model: str | None = None, language: str = "en"
) -> tuple[Listening, list[str]]:
    """Settle what can be measured; also return a line for each measure that is left out for want of a package.

    `wanted` None asks for whatever can be had; a measure that is named must be possible, else UserError.
    """
    chosen, left_out = set(), []
    for measure, packages in MEASURES.items():
        if wanted is not None and measure not in wanted:
            continue
        lacking = missing(*packages)
        if wanted is None and lacking:
            left_out.append(f"{measure} is not measured: no package {' and '.join(lacking)}")
            continue
        for package in lacking:
            require(package, measure)  # says how to get it
        chosen.add(measure)
    if "intelligibility" in chosen:
        try:
            asr = choose_asr(asr, whisper_model, language)
        except UserError as error:
            if wanted is not None or asr != "auto" or whisper_model:
                raise
            chosen.remove("intelligibility")
            left_out.append(f"intelligibility is not measured: {error.what}")
    elif asr != "auto" or whisper_model:
        raise UserError(
            "--asr and --whisper-model have no effect", "intelligibility is not measured", "add it to --measures"
        )
    return Listening(frozenset(chosen), asr, whisper_model, language), left_out


def measure_sound(task: Task) -> tuple[Key, Values | str]:
    """Measure one sound; values hold its voice under "embedding". A sound that cannot be read gives the reason."""
    listening, key = task.listening, (task.sound, task.text)
    try:
        samples, rate = read_audio(task.sound, max_duration_s=MAX_CLIP_S)
    except AudioError as error:
        return key, error.reason
    if not len(samples):
        return key, "it holds no samples"
    timing = measure_timing(samples, rate)
    values: Values = {**asdict(timing), "speech_s": timing.speech_s, "lufs": measure_lufs(samples, rate)}
    if "intelligibility" in listening.measures and task.text is not None:
        heard = transcribe(samples, rate, listening.asr, listening.whisper_model, listening.language)
        values |= compare(task.text, heard, listening.language)
        values |= speaking_rate(task.text, timing.speech_s, listening.language) or {}
    if "similarity" in listening.measures:
        values["embedding"] = _encoder(task.one_thread).embed(samples, rate)
    if "quality" in listening.measures:
        values["dnsmos"] = dnsmos(samples, rate)
    return key, values


def compare(text: str, heard: str, language: str) -> Values:
    """Error counts and rates of what was heard, with both texts in the form that was compared."""
    words, characters = word_errors(text, heard, language), character_errors(text, heard, language)
    return {
        "expected": " ".join(comparable_words(text, language)),
        "heard": " ".join(comparable_words(heard, language)),
        "word_errors": asdict(words),
        "wer": words.rate,
        "character_errors": asdict(characters),
        "cer": characters.rate,
    }


@cache
def _encoder(one_thread: bool) -> SpeakerEncoder:
    if one_thread:
        import torch

        torch.set_num_threads(1)  # the other cores have workers of their own
    return SpeakerEncoder()


class TargetVoice:
    """The speaker that clips are compared with: embeddings of recordings, by their paths."""

    def __init__(self, embeddings: Mapping[Path, np.ndarray]):
        if not embeddings:
            raise UserError(
                "the recordings of the target speaker hold no voice", "none has usable speech", "check --speaker"
            )
        self._embeddings = dict(embeddings)

    def score(self, embedding: np.ndarray, sound: Path | None = None) -> float:
        """Cosine to the mean of the recordings, less `sound`: what was made of it, or it itself, would be flattered."""
        others = [e for path, e in self._embeddings.items() if path != sound]
        return similarity(embedding, mean_embedding(others or list(self._embeddings.values())))


def evaluate(
    systems: Sequence[System], listening: Listening, speaker: Path | None = None, workers: int = 1
) -> list[dict[str, Any]]:
    """Measure every clip of `systems` and the voice of the recordings in `speaker`; return name, summary and clips of each.

    A clip that failed keeps its row, with the reason, and counts in no mean. A clip in which the model said nothing
    counts: all its words are missing.
    """
    sounds: dict[Key, Listening] = {}
    for clip in (clip for system in systems for clip in system.clips):
        if clip.sound is not None and clip.failure is None:
            sounds[clip.sound, clip.text] = listening
            if clip.source is not None:
                sounds[clip.source, clip.text] = listening
    references: list[Path] = []
    if speaker is not None and "similarity" in listening.measures:
        references = _references(speaker)
        known = {sound for sound, _ in sounds}
        sounds |= {(path, None): _ONLY_VOICE for path in references if path not in known}
    found = _measure_all(sounds, workers)
    embeddings = {path: v["embedding"] for (path, _), v in found.items() if isinstance(v, dict) and "embedding" in v}
    heard = {path: embeddings[path] for path in references if embeddings.get(path) is not None}
    voice = TargetVoice(heard) if references else None
    results = []
    for system in systems:
        rows = [_row(clip, found, voice, listening) for clip in system.clips]
        head = {"name": system.name, "kind": system.kind, "source": str(system.source), **system.record}
        results.append({**head, "summary": summarise(rows), "clips": rows})
    return results


def evaluate_recordings(
    items: Iterable[tuple[Path | str, str | None]],
    speaker: Path | None = None,
    *,
    measures: Sequence[str] | None = None,
    asr: str = "auto",
    language: str = "en",
    workers: int = 1,
) -> dict[str, Any]:
    """Measure recordings given as (audio file, text) and return the summary, with each clip's values in `per_clip`.

    With `speaker`, a folder of recordings, similarity to that speaker is measured too. Without `measures`, those whose
    packages are missing are left out.
    """
    clips = [Clip(Path(path).stem, text, Path(path).resolve()) for path, text in items]
    listening, _ = plan_listening(measures, asr, None, language)
    if speaker is None:
        listening = listening.without("similarity")
    result = evaluate([System("recordings", "recordings", Path(), clips)], listening, speaker, workers)[0]
    return {**result["summary"], "per_clip": result["clips"]}


def _measure_all(sounds: Mapping[Key, Listening], workers: int) -> dict[Key, Values | str]:
    workers = min(workers, len(sounds), os.cpu_count() or 1)
    tasks = [Task(path, text, listening, workers > 1) for (path, text), listening in sounds.items()]
    return dict(log.progress(run_tasks(measure_sound, tasks, workers), "listen", total=len(tasks), unit="clip"))


def _references(folder: Path) -> list[Path]:
    """Recordings of the target speaker, at most MAX_REFERENCES of them, spread evenly over the folder."""
    recordings = find_recordings(folder)
    step = max(1, -(-len(recordings) // MAX_REFERENCES))
    return recordings[::step]


def _row(
    clip: Clip,
    found: Mapping[Key, Values | str],
    voice: TargetVoice | None,
    listening: Listening,
) -> Values:
    row: Values = {"name": clip.name, "text": clip.text, "failure": clip.failure, **clip.known}
    if clip.failure is not None:
        return row
    if clip.sound is None:
        nothing = {"note": "the model said nothing"}
        compared = clip.text is not None and "intelligibility" in listening.measures
        return row | nothing | (compare(clip.text or "", "", listening.language) if compared else {})
    values = found[clip.sound, clip.text]
    if isinstance(values, str):
        return row | {"failure": values}
    row |= {name: value for name, value in values.items() if name != "embedding"}
    embedding = values.get("embedding")
    if "similarity" in listening.measures:
        row["voiceless"] = embedding is None
    if embedding is not None and voice is not None:
        row["similarity"] = voice.score(embedding, clip.source or clip.sound)
    source = found.get((clip.source, clip.text)) if clip.source is not None else None
    if isinstance(source, dict):
        if "word_errors" in source:
            row["original_word_errors"] = source["word_errors"]
        if embedding is not None and source.get("embedding") is not None:
            row["similarity_to_original"] = similarity(embedding, source["embedding"])
    return row
