"""A voice's config.json: what the Piper client must know to speak with it.

Training writes it, a checkpoint carries it, the export lays it beside the .onnx. Published voices have the same keys;
the phoneme table of a voice is always the one in its own config, never the default one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fish_speech.errors import UserError
from piper_train.phonemes.clauses import clusters_of
from piper_train.phonemes.ids import table_of

LARGEST_CONFIG = 2 << 20  # bytes; published ones have 5 to 20 thousand, one with 904 speakers included
PHONEME_TYPES = ("espeak", "text", "pinyin", "hebrew", "japanese", "thai")  # what the Piper client speaks
_REQUIRED = ("num_symbols", "num_speakers", "audio.sample_rate", "espeak.voice", "phoneme_id_map")


@dataclass(frozen=True)
class VoiceConfig:
    """What config.json says; the first five are required there, the others have the client's defaults."""

    num_symbols: int  # rows of the phoneme embedding
    num_speakers: int
    sample_rate: int  # Hz
    espeak_voice: str  # language of the phonemes
    phoneme_id_map: Mapping[str, tuple[int, ...]]  # every id is below num_symbols
    phoneme_type: str = "espeak"
    speaker_id_map: Mapping[str, int] = field(default_factory=dict)  # {} in a voice of one speaker
    default_speaker_id: int = 0
    noise_scale: float = 0.667
    length_scale: float = 1.0
    noise_w: float = 0.8
    hop_length: int = 256  # samples per frame
    vowel_clusters: tuple[tuple[str, ...], ...] = ()  # phonemes that are one symbol together
    quality: str | None = None  # x-low, low, medium, high
    dataset: str | None = None  # name of what it was trained on
    language: Mapping[str, str] = field(default_factory=dict)  # code (en_US), family (en), region (US), ...
    piper_version: str = "1.5.0"  # of the format

    def __post_init__(self):
        if self.num_symbols < 1 or self.num_speakers < 1 or self.sample_rate < 1 or self.hop_length < 1:
            raise ValueError("num_symbols, num_speakers, audio.sample_rate and hop_length are at least 1")
        if not self.phoneme_id_map:
            raise ValueError("phoneme_id_map is empty")
        largest = max(max(ids, default=0) for ids in self.phoneme_id_map.values())
        if largest >= self.num_symbols:
            raise ValueError(f"phoneme_id_map has the id {largest}, but num_symbols is {self.num_symbols}")
        for name, number in {**self.speaker_id_map, "default_speaker_id": self.default_speaker_id}.items():
            if not 0 <= number < self.num_speakers:
                raise ValueError(f"{name!r} has the speaker id {number}, but num_speakers is {self.num_speakers}")
        for name in ("noise_scale", "length_scale", "noise_w"):
            if not math.isfinite(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"inference.{name} is {getattr(self, name)}; it is a number of at least 0")

    @classmethod
    def from_file(cls, path: Path) -> VoiceConfig:
        """Read a config.json. Raises UserError if it is not there, not JSON, or not the config of a voice."""
        return cls.from_mapping(read_config_file(path), str(path))

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], source: str = "config.json") -> VoiceConfig:
        """Take what is known of `mapping`; other keys are ignored. Raises UserError that names `source`."""
        try:
            config = cls._parsed(mapping)
            json.dumps(config.to_mapping(), ensure_ascii=False).encode()  # halves of characters could not be written
            return config
        except (ValueError, TypeError, OverflowError) as error:
            raise UserError(
                f"{source} is not the config of a Piper voice",
                str(error),
                "use the config.json that training wrote, or the .onnx.json of a published voice",
            ) from None

    @classmethod
    def _parsed(cls, mapping: Mapping[str, Any]) -> VoiceConfig:
        if not isinstance(mapping, Mapping):
            raise ValueError("it is not a JSON object")
        absent = [name for name in _REQUIRED if _at(mapping, name) is None]
        if absent:
            raise ValueError(f"it has no {', '.join(absent)}")
        inference, language = _object(mapping, "inference"), _object(mapping, "language")
        given = {
            "phoneme_type": mapping.get("phoneme_type"),
            "default_speaker_id": _optional(_whole, mapping, "default_speaker_id"),
            "hop_length": _optional(_whole, mapping, "hop_length"),
            "espeak_voice": _at(mapping, "espeak.voice"),
            "quality": _at(mapping, "audio.quality"),
            "dataset": mapping.get("dataset"),
            "piper_version": mapping.get("piper_version"),
            **{name: _optional(_number, inference, name) for name in ("noise_scale", "length_scale", "noise_w")},
        }
        for name in ("phoneme_type", "espeak_voice", "quality", "dataset", "piper_version"):
            if given[name] is not None and not isinstance(given[name], str):
                raise ValueError(f"{name} is not text")
        return cls(
            num_symbols=_whole("num_symbols", mapping["num_symbols"]),
            num_speakers=_whole("num_speakers", mapping["num_speakers"]),
            sample_rate=_whole("audio.sample_rate", _at(mapping, "audio.sample_rate")),
            phoneme_id_map=_table(mapping["phoneme_id_map"], _whole("num_symbols", mapping["num_symbols"])),
            speaker_id_map={
                str(name): _whole("speaker_id_map", number)
                for name, number in _object(mapping, "speaker_id_map").items()
            },
            vowel_clusters=tuple(sorted(clusters_of(mapping.get("vowel_clusters")))),
            language={str(key): str(value) for key, value in language.items()},
            **{name: value for name, value in given.items() if value is not None},
        )

    def to_mapping(self) -> dict[str, Any]:
        """Return it as the object of config.json; what nobody knows is left out."""
        mapping: dict[str, Any] = {
            "audio": {"sample_rate": self.sample_rate, **({"quality": self.quality} if self.quality else {})},
            "espeak": {"voice": self.espeak_voice},
            **({"language": dict(self.language)} if self.language else {}),
            **({"dataset": self.dataset} if self.dataset else {}),
            "inference": {
                "noise_scale": self.noise_scale,
                "length_scale": self.length_scale,
                "noise_w": self.noise_w,
            },
            "phoneme_type": self.phoneme_type,
            "phoneme_map": {},
            "phoneme_id_map": {phoneme: list(ids) for phoneme, ids in self.phoneme_id_map.items()},
            "num_symbols": self.num_symbols,
            "num_speakers": self.num_speakers,
            "speaker_id_map": dict(self.speaker_id_map),
            "default_speaker_id": self.default_speaker_id,
            "hop_length": self.hop_length,
            "piper_version": self.piper_version,
        }
        if self.vowel_clusters:
            mapping["vowel_clusters"] = [list(cluster) for cluster in self.vowel_clusters]
        return mapping


def read_config_file(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of at most LARGEST_CONFIG bytes. Raises UserError."""
    fix = "give the config.json of a Piper voice"
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST_CONFIG + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}", str(error.strerror), fix) from None
    if len(data) > LARGEST_CONFIG:
        raise UserError(f"cannot read {path}", f"it has more than {LARGEST_CONFIG} bytes", fix)
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"cannot read {path}", f"it is not JSON in UTF-8: {error}", fix) from None
    if not isinstance(value, dict):
        raise UserError(f"cannot read {path}", "it is not a JSON object", fix)
    return value


def _table(value: Any, num_symbols: int) -> dict[str, tuple[int, ...]]:
    try:
        return dict(table_of(value, num_symbols))
    except ValueError as error:
        raise ValueError(f"phoneme_id_map: {error}") from None


def _at(mapping: Mapping[str, Any], name: str) -> Any:
    value: Any = mapping
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _object(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = mapping.get(name) or {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is not an object")
    return value


def _optional(check: Any, mapping: Mapping[str, Any], name: str) -> Any:
    return None if mapping.get(name) is None else check(name, mapping[name])


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise ValueError(f"{name} is {value!r}; it is a whole number of at least 0")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}; it is a number")
    return float(value)
