"""Prepare a data set for training: rows, phonemes, sounds, limits; then the index and the voice's config.json.

What did not change since the last run is kept: sounds by the content of their recording, phonemes by their text. A row
that cannot be used is left out with its reason; only a data set of which nothing is left is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fish_speech.errors import UserError
from fish_speech.files import remove_leftovers, write_json
from piper_train.phonemes.clauses import clusters_of
from piper_train.phonemes.ids import PhonemeTable, default_table, ids_of, read_table
from piper_train.voice_config import VoiceConfig, read_config_file

from .entries import Facts, entry_path, silent
from .index import Index, IndexedClip, index_path, newest_index, remove_old_indexes
from .language import language_of
from .left_out import LeftOut
from .prepared import RECORD, Prepared
from .request import PrepareRequest
from .rows import Row, Rows, read_rows
from .sounds import Sound, Sounds
from .texts import phonemes_of_rows, unpack


def prepare(request: PrepareRequest) -> Prepared:
    """Prepare the data set and write the index, the config and the record. Raises UserError if nothing can be used.

    Safe to run at the same time in several processes, and to stop at any time.
    """
    table = _table(request)
    found = read_rows(request.csv_path, request.audio_dir, request.num_speakers, request.dataset_type)
    rows_in_all, left_out = len(found.rows) + found.left_out.total, found.left_out
    _make_cache(request.cache_dir)
    _refuse_foreign_config(request.config_path)
    remove_leftovers(request.cache_dir)
    before = newest_index(request.cache_dir)
    missing: Counter[str] = Counter()
    spoken, source, hints = _spoken(request, found, table, before, left_out, missing)
    sounds = Sounds(request, before)
    sounded = {row.number: sound for row, sound in sounds.of([item.row for item in spoken], left_out)}
    there = [_clip(item, sounded[item.row.number]) for item in spoken if item.row.number in sounded]
    clips = list(_within_limits(request, there, left_out))
    if not clips:
        raise UserError(
            f"nothing of {request.csv_path} can be trained on",
            "; ".join(left_out.lines()) or "it has no rows",
            "correct the rows named here, or check --data.audio_dir",
        )
    silence = sum(not sound.facts.speech for sound in sounded.values())
    if silence:
        hints.append(f"no speech was found in {silence} clips: their silence is not trimmed")
    config = _config(request, found, table)
    preparation = [*request.preparation, request.filter_length, request.hop_length]
    index = Index.of(clips, {"preparation": preparation, "csv_path": str(request.csv_path)})
    prepared = Prepared(
        index,
        config,
        rows_in_all,
        sum(clip.samples for clip in clips) / request.sample_rate,
        sounds.made,
        sounds.kept,
        left_out,
        missing,
        source,
        hints,
    )
    _write(request, prepared, before)
    return prepared


def _write(request: PrepareRequest, prepared: Prepared, before: Index | None) -> None:
    prepared.index.write(index_path(request.cache_dir, request.key()))
    write_json(request.config_path, prepared.config.to_mapping())
    paths = {"csv_path": str(request.csv_path), "config_path": str(request.config_path)}
    write_json(request.cache_dir / RECORD, {**paths, **prepared.to_mapping()})
    remove_old_indexes(request.cache_dir)
    _remove_superseded(request, prepared.index, before)


def _remove_superseded(request: PrepareRequest, index: Index, before: Index | None) -> None:
    """Remove the sounds of recordings that have changed, so that the cache does not grow with every edit."""
    if before is None:
        return
    now = {clip.recording: clip.content for clip in index}
    used = set(now.values())
    for clip in before:
        if now.get(clip.recording, clip.content) != clip.content and clip.content not in used:
            entry_path(request.cache_dir, clip.content, request.preparation).unlink(missing_ok=True)


def _make_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"{folder} cannot be made", "a file of that name is in the way", "choose another --data.cache_dir"
        ) from None


def _table(request: PrepareRequest) -> PhonemeTable:
    if request.phonemes_path is not None:
        return read_table(Path(request.phonemes_path), request.num_symbols)
    table = default_table()
    largest = max(max(ids) for ids in table.values())
    if largest >= request.num_symbols:
        raise UserError(
            f"num_symbols is {request.num_symbols}",
            f"Piper's table of phonemes has ids up to {largest}",
            "say --data.num_symbols 256, or give a table of your own with --data.phonemes_path",
        )
    return table


def _refuse_foreign_config(path: Path) -> None:
    """A file that holds no voice's config is not ours to overwrite."""
    if path.exists() and path.stat().st_size and "audio" not in read_config_file(path):
        raise UserError(
            f"will not overwrite {path}", "it is not the config.json of a voice", "choose another --data.config_path"
        )


def _config(request: PrepareRequest, found: Rows, table: PhonemeTable) -> VoiceConfig:
    return VoiceConfig(
        num_symbols=request.num_symbols,
        num_speakers=request.num_speakers,
        sample_rate=request.sample_rate,
        espeak_voice=request.espeak_voice,
        phoneme_id_map=dict(table),
        phoneme_type=request.phoneme_type or "espeak",
        speaker_id_map={name: number for number, name in enumerate(found.speakers)},
        hop_length=request.hop_length,
        vowel_clusters=_clusters(request),
        quality=request.quality,
        dataset=request.voice_name or None,
        language=language_of(request.espeak_voice),
    )


def _clusters(request: PrepareRequest) -> tuple[tuple[str, ...], ...]:
    try:
        return tuple(sorted(clusters_of(request.vowel_clusters)))
    except ValueError as error:
        raise UserError(
            "--data.vowel_clusters cannot be read", str(error), 'write it like [["a", "ɪ"], ["a", "ʊ"]]'
        ) from None


class _Spoken(NamedTuple):
    """A row with what is said in it."""

    row: Row
    speaker: int
    text_key: bytes
    phonemes: str
    ids: tuple[int, ...]


def _spoken(
    request: PrepareRequest,
    found: Rows,
    table: PhonemeTable,
    before: Index | None,
    left_out: LeftOut,
    missing: Counter[str],
) -> tuple[list[_Spoken], str, list[str]]:
    """The rows with their ids, what made the phonemes, and hints."""
    hints, source = list(found.hints), "ids of the data set"
    made: dict[str, tuple[bytes, str]] = {}
    if request.dataset_type == "text" and found.rows:
        known = {clip.text_key: clip.phonemes for clip in before or ()}
        made, source, exact = phonemes_of_rows(
            found.rows,
            known,
            request.phoneme_type or "espeak",
            request.espeak_voice,
            _clusters(request),
            request.phoneme_source,
        )
        if not exact:
            hints.append(
                f"phonemes are made by {source}, which differs a little from what the Piper client uses: "
                "pip install piper-tts gives the same ones"
            )
    speakers = {name: number for number, name in enumerate(found.speakers)}
    spoken = []
    for row in found.rows:
        key, phonemes = made.get(row.text, (bytes(16), "")) if row.ids is None else (bytes(16), "")
        sentences = unpack(phonemes)
        ids = row.ids if row.ids is not None else tuple(ids_of(sentences, table, missing))
        if row.ids is not None and max(row.ids) >= request.num_symbols:
            left_out.add("a phoneme id that is not below num_symbols", row.where, f"{max(row.ids)}")
        elif row.ids is None and not any(phoneme in table for sentence in sentences for phoneme in sentence):
            left_out.add("nothing in its text is spoken", row.where)
        elif request.max_phoneme_ids is not None and len(ids) > request.max_phoneme_ids:
            left_out.add(f"more than {request.max_phoneme_ids} phoneme ids", row.where, f"{len(ids)}")
        else:
            speaker = -1 if row.speaker is None else speakers[row.speaker]
            spoken.append(_Spoken(row, speaker, key, phonemes, ids))
    return spoken, source, hints


def _clip(item: _Spoken, sound: Sound) -> tuple[IndexedClip, Facts]:
    row = item.row
    clip = IndexedClip(
        row.number,
        row.name,
        str(row.audio),
        sound.signature,
        sound.content,
        sound.facts.samples,
        item.speaker,
        row.text,
        item.text_key,
        item.phonemes,
        item.ids,
    )
    return clip, sound.facts


def _within_limits(
    request: PrepareRequest, clips: Sequence[tuple[IndexedClip, Facts]], left_out: LeftOut
) -> Iterator[IndexedClip]:
    """Leave out what is silent, too short, too long, or there twice."""
    first: dict[bytes, str] = {}
    for clip, facts in clips:
        seconds, frames = clip.samples / request.sample_rate, clip.samples // request.hop_length
        where = f"{clip.name} (row {clip.number})"
        if silent(facts):
            left_out.add("silent: no sample above -60 dBFS", where)
        elif seconds < request.shortest_s:
            left_out.add(f"shorter than {request.shortest_s:.2f} s without its silence", where, f"{seconds:.2f} s")
        elif seconds > request.max_seconds:
            left_out.add(f"longer than {request.max_seconds:g} s (--data.max_seconds)", where, f"{seconds:.1f} s")
        elif frames < len(clip.ids):
            left_out.add("too short for its text", where, f"{frames} frames for {len(clip.ids)} phoneme ids")
        elif first.setdefault(clip.content, where) != where:
            left_out.add("the same sound as another recording", where, first[clip.content])
        else:
            yield clip
