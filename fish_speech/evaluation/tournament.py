"""The tournament: the base and each checkpoint speak the same texts with the same seeds, and are measured alike.

Each contestant is loaded as it will be used, its adapters merged, so that what is heard is what merging gives.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..audio import MAX_CLIP_S, AudioError, find_audio, read_audio
from ..checkpoint import CheckpointFile
from ..errors import UserError
from ..versions import config_of_codec
from .measure import MAX_REFERENCES, Listening, evaluate
from .similarity import SpeakerEncoder
from .systems import Clip, System, copy_sound, find_recordings, speak_texts
from .tournament_decision import LOSS, SIMILARITY, SPEECH, WER, Contestant, Costs
from .tournament_material import Material, choose_material, held_out_data, held_out_losses
from .tournament_run import Run

if TYPE_CHECKING:
    from ..datasets.datamodule import SemanticDataModule
    from ..models import DualARConfig
    from ..reference_clip import PackReference
    from ..synthesis.sampling import SamplingConfig
    from ..synthesis.voices import Reference

logger = logging.getLogger(__name__)

BASE, RECORDINGS = "base", "recordings"  # names of the systems that are no checkpoints
_PROMPT_SHARE = 3  # a reference may fill this part of the model's memory: the answer needs room too


@dataclass(frozen=True)
class Entry:
    """A system that takes part before it has spoken."""

    name: str
    step: int | None
    checkpoint: CheckpointFile | None  # None: the base


@dataclass
class Played:
    """What a tournament gave."""

    results: list[dict[str, Any]]  # name, summary and clips of each system, as results.json has them
    contestants: list[Contestant]  # those of them that are models, the base first if it took part
    left_out: dict[str, str] = field(default_factory=dict)  # name of a checkpoint -> why it cannot take part
    notes: list[str] = field(default_factory=list)
    material: Material = field(default_factory=lambda: Material([]))


def play(
    run: Run,
    entries: Sequence[Entry],
    output: Path,
    listening: Listening,
    sampling: SamplingConfig,
    *,
    device: str = "cpu",
    seed: int = 42,
    count: int = 8,
    texts: Sequence[str] = (),
    with_reference: bool = True,
    workers: int = 1,
) -> Played:
    """Let all entries speak into `output`/audio, measure them, and return what came out.

    A checkpoint that does not load is left out with its reason; the base must load. Raises UserError if none is left.
    """
    from ..models import read_config
    from ..synthesis.voices import Reference
    from ..text import Tokenizer
    from ..versions import TOKENIZER_FILE

    played = Played([], [])
    config = read_config(run.base)
    data = held_out_data(run.shards, run.settings, config, Tokenizer(run.base / TOKENIZER_FILE), played.notes)
    chosen = reference_of(run, config, played.notes) if with_reference else None
    reference = Reference(chosen.text, chosen.codes) if chosen else None
    said = chosen.text if chosen else None
    material = choose_material(data, count, listening.language, texts, run.data, said)
    played.notes += material.notes
    played.material = material
    spoken, losses = speak_all(run, entries, material, reference, output, sampling, device, seed, played.left_out)
    systems = [*spoken, *real_recordings(run, material, output)]
    voice = None
    if "similarity" in listening.measures:
        voice = voice_folder(run.data, data, chosen.speaker if chosen else None)
        if voice is None or not has_voice(voice):
            voice, listening = None, listening.without("similarity")
            played.notes.append("similarity is not measured: the data set has no recordings with a voice")
    played.results = evaluate(systems, listening, voice, workers)
    steps = {entry.name: entry.step for entry in entries}
    for system, result in zip(systems, played.results):
        result["step"] = steps.get(system.name)
        for row in result["clips"]:
            sound = f"audio/{folder_of(system.name)}/{row['name']}.wav"
            row["audio"] = sound if (output / sound).is_file() else None
        if losses.get(system.name):
            result["held_out_losses"] = losses[system.name]
            result["summary"]["held_out_loss"] = Costs.of(losses[system.name]).mean
    models = [result for result in played.results if result["name"] in steps]
    played.contestants = [Contestant(r["name"], steps[r["name"]], costs_of(r)) for r in models]
    return played


def speak_all(
    run: Run,
    entries: Sequence[Entry],
    material: Material,
    reference: Reference | None,
    output: Path,
    sampling: SamplingConfig,
    device: str,
    seed: int,
    left_out: dict[str, str],
) -> tuple[list[System], dict[str, list[float | None]]]:
    """Speak with each entry; return the systems and, by name, the losses of held-out clips. Says how long it takes."""
    from ..models import codec_config
    from ..synthesis.length_limit import longest_seconds
    from ..synthesis.loading import load_speaker

    codec_shape = codec_config(config_of_codec(run.codec))
    longest = sum(map(longest_seconds, material.texts))
    logger.info(
        "systems: %d, sentences for each: %d, at most %.0f s of speech; the first tells how long it takes",
        len(entries), len(material.texts), longest,
    )  # fmt: skip
    systems: list[System] = []
    losses: dict[str, list[float | None]] = {}
    references = [reference] if reference is not None else []
    for number, entry in enumerate(entries, 1):
        began = time.monotonic()
        path = entry.checkpoint.path if entry.checkpoint else None
        try:
            speaker = load_speaker(run.base, run.codec, codec_shape, path, device)
        except UserError as error:
            if path is None:
                raise
            left_out[entry.name] = error.why
            logger.warning("%s cannot take part: %s", entry.name, error.why)
            continue
        if material.data is not None:
            losses[entry.name] = held_out_losses(speaker.model, material.data)
        folder = output / "audio" / folder_of(entry.name)
        system = speak_texts(entry.name, path or run.base, speaker, material.texts, folder, sampling, seed, references)
        systems.append(system)
        del speaker
        took = time.monotonic() - began
        more = f"; about {took * (len(entries) - number):.0f} s more" if number < len(entries) else ""
        logger.info("%s has spoken: %.0f s%s", entry.name, took, more)
    if not any(system.name in {entry.name for entry in entries if entry.step is not None} for system in systems):
        raise UserError(
            "no checkpoint can take part",
            "; ".join(f"{name}: {why}" for name, why in left_out.items()),
            "train again, or put whole checkpoints back",
        )
    return systems, losses


def folder_of(name: str) -> str:
    """The folder of a system's sounds."""
    return name.replace(" ", "_")


def real_recordings(run: Run, material: Material, output: Path) -> list[System]:
    """The recordings of the held-out texts, as a system to compare with; none if they are not there."""
    if not material.recordings or run.data is None:
        return []
    clips = [Clip(f"{n + 1:04d}", material.texts[n], path) for n, path in material.recordings.items()]
    system = System(RECORDINGS, "recordings", run.data, clips)
    copy_sound(system, output / "audio" / RECORDINGS)
    return [system]


def reference_of(run: Run, config: DualARConfig, notes: list[str]) -> PackReference | None:
    """The example that the merged voice will have in its prompt; None if the data set has none that fits."""
    from ..models import codec_config, make_codec_config
    from ..reference_clip import choose_reference

    if run.data is None:
        notes.append("no reference in the prompt: the data set is not there")
        return None
    frame_rate = make_codec_config(codec_config(config_of_codec(run.codec)), run.codec).frame_rate
    found = choose_reference(run.data, config.num_codebooks, config.codebook_sizes, frame_rate)
    if found is None or found.codes.shape[1] > config.max_seq_len // _PROMPT_SHARE:
        notes.append("no reference in the prompt: no clip of the data set fits")
        return None
    notes.append(f"the prompt has {found.source!a} as its reference, as the merged voice will have")
    return found


def voice_folder(folder: Path | None, data: SemanticDataModule | None, speaker: str | None) -> Path | None:
    """The recordings of the voice that is aimed at: of several speakers that of the reference, else the most frequent."""
    if folder is None:
        return None
    if speaker is None and data is not None and data.dataset is not None:
        speaker = Counter(data.dataset.clips.speakers).most_common(1)[0][0]
    own = speaker is not None and Path(speaker).name == speaker and (folder / speaker).is_dir()
    try:
        return next((path for path in ([folder / str(speaker)] if own else []) + [folder] if find_audio(path)), None)
    except AudioError:
        return None


def has_voice(folder: Path) -> bool:
    """Whether any of the recordings that stand for the voice holds one; stops at the first."""
    encoder, paths = SpeakerEncoder(), find_recordings(folder)
    for path in paths[:: max(1, -(-len(paths) // MAX_REFERENCES))]:
        try:
            samples, rate = read_audio(path, max_duration_s=MAX_CLIP_S)
        except AudioError:
            continue
        if len(samples) and encoder.embed(samples, rate) is not None:
            return True
    return False


def costs_of(result: Mapping[str, Any]) -> dict[str, Costs]:
    """A system's costs by measure, text by text, from its rows."""
    rows = result["clips"]
    costs = {SPEECH: Costs.of([float(not _is_spoken(row)) for row in rows])}
    errors = [row.get("word_errors") for row in rows]
    if all(errors):
        edits = [e["substitutions"] + e["deletions"] + e["insertions"] for e in errors]
        costs[WER] = Costs.of(edits, [e["length"] for e in errors])
    if any(row.get("similarity") is not None for row in rows):
        costs[SIMILARITY] = Costs.of([None if row.get("similarity") is None else -row["similarity"] for row in rows])
    if result.get("held_out_losses"):
        costs[LOSS] = Costs.of(result["held_out_losses"])
    return costs


def _is_spoken(row: Mapping[str, Any]) -> bool:
    """Whether a sentence was said, with a voice, and ended by the model itself."""
    said = row.get("failure") is None and row.get("speech_s", 0) > 0 and not row.get("voiceless", False)
    return said and bool(row.get("ends_by_itself", True))
