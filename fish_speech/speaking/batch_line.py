"""One line of a batch: a text, the output it becomes and how it is spoken, read from JSON that nobody has checked."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from ..errors import UserError
from .output_names import output_problem
from .texts import check_text

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class LineSettings:
    """How a line is spoken. A batch's defaults are those of the command line; a line may give its own."""

    seed: int = 42
    voice: str | None = None
    speed: float = 1.0  # factor
    pitch: float = 0.0  # semitones
    volume: float = 0.0  # dB
    temperature: float = 0.7
    top_p: float = 0.7
    repetition_penalty: float = 1.2


@dataclass(frozen=True)
class BatchLine:
    """A checked line: what to say, how, and into which file of the output folder (parts joined by /)."""

    number: int  # in the batch file, from 1
    text: str
    output: str
    settings: LineSettings = field(default_factory=LineSettings)


_SETTINGS = {entry.name: entry.type for entry in dataclasses.fields(LineSettings)}
_KEYS = ("text", "output", "id", *_SETTINGS)


def parse_line(line: bytes, number: int, defaults: LineSettings) -> BatchLine:
    """Read one line of JSON. Raises ValueError with what is wrong with it."""
    entry = _object_of(line)
    unknown = sorted(set(entry) - set(_KEYS))
    if unknown:
        raise ValueError(f"{unknown[0][:40]!r} is not one of {', '.join(_KEYS)}")
    text = entry.pop("text", None)
    if not isinstance(text, str):
        raise ValueError("text is missing" if text is None else "text is no string")
    try:
        check_text(text)
    except UserError as error:
        raise ValueError(f"{error.what}: {error.why}") from None
    output = _output_name(entry.pop("output", None), entry.pop("id", None), number)
    own = {key: _setting(key, value) for key, value in entry.items() if value is not None}
    settings = dataclasses.replace(defaults, **own)
    _check_settings(settings)
    return BatchLine(number, text, output, settings)


def _object_of(line: bytes) -> dict[str, Any]:
    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            raise ValueError("a key is given twice")
        return entry

    try:
        entry = json.loads(line.decode("utf-8"), object_pairs_hook=no_repeats)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("it is not JSON of this kind: too deeply nested") from None
    if not isinstance(entry, dict):
        raise ValueError('it is not an object like {"text": "Hello there."}')
    return entry


def _output_name(output: Any, name: Any, number: int) -> str:
    if output is not None and name is not None:
        raise ValueError("output and id are given: give one of them")
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    for key, value in (("output", output), ("id", name)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{key} is no string")
    chosen = output if output is not None else f"{number:04d}.wav" if name is None else f"{name}.wav"
    problem = "id is a name without /" if name is not None and "/" in name else output_problem(chosen)
    if problem is not None:
        raise ValueError(problem)
    return chosen


def _setting(key: str, value: Any) -> Any:
    """Check the type of a setting; what it may be is checked with the others."""
    kind = _SETTINGS[key]
    if kind == "float":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e9:  # NaN is not
            raise ValueError(f"{key} is not a number")
        return float(value)
    if kind == "int":
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_SEED:
            raise ValueError(f"{key} is not a whole number from 0 to {MAX_SEED}")
        return value
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is no name")
    return value


def _check_settings(settings: LineSettings) -> None:
    from ..synthesis.effects import Effects
    from ..synthesis.sampling import SamplingConfig

    SamplingConfig(settings.temperature, settings.top_p, settings.repetition_penalty)
    Effects(settings.speed, settings.pitch, settings.volume)
