"""Read checkpoints of Piper voices: ours, upstream's, and the published ones of the old trainer.

Nothing in a checkpoint runs code: it is read by torch's weights-only unpickler. The published ones also hold pathlib
paths of the machine they were made on; these, and nothing else, are let in, as plain text.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fish_speech.checkpoint import read_file, state_dict_of
from fish_speech.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from .models.config import VitsConfig

RECORD = "piper_train"  # key of what a checkpoint of ours says of its run
VOICE_CONFIG = "voice_config"  # key of the voice's config.json
_PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
_PATH_MODULES = ("pathlib", "pathlib._local")  # Python 3.13 pickles them with the second name
_GENERATOR = "model_g."
_DEEPEST = 20  # lists and dicts in each other that are read


@dataclass(frozen=True)
class PiperCheckpoint:
    """What a training checkpoint holds; its tensors stay memory-mapped."""

    path: Path
    state_dict: Mapping[str, Tensor]  # names start with model_g., model_d., model_mrd.
    hyper_parameters: Mapping[str, Any] = field(default_factory=dict)  # plain values; {} where there are none
    epoch: int = 0
    global_step: int = 0
    voice_config: dict[str, Any] | None = None  # the voice's config.json; ours alone carry it
    record: Mapping[str, Any] | None = None  # of a run of ours, plain values; None: another trainer made it

    @property
    def is_own(self) -> bool:
        """Whether this toolkit made it, so that training can go on exactly."""
        return self.record is not None

    @property
    def epochs_done(self) -> int:
        """Whole epochs that a run of ours has trained; 0 for others, whose count means nothing here."""
        return _count(self.record.get("epochs_done")) if self.record else 0

    @property
    def knows_sample_rate(self) -> bool:
        """Whether it says at which rate its voice speaks; its weights do not."""
        return "sample_rate" in self.hyper_parameters or "audio" in (self.voice_config or {})

    def generator(self) -> dict[str, Tensor]:
        """The generator's tensors, without the prefix model_g."""
        return {
            name.removeprefix(_GENERATOR): tensor
            for name, tensor in self.state_dict.items()
            if name.startswith(_GENERATOR)
        }

    def model_config(self) -> VitsConfig:
        """The architecture: sizes from the tensors' shapes, the rest from the hyperparameters.

        Raises UserError if these are not the weights of a Piper voice.
        """
        from .models.config import VitsConfig
        from .models.shapes import config_from_state_dict

        known = {f.name for f in fields(VitsConfig)}
        stated = {name: v for name, v in self.hyper_parameters.items() if name in known and v is not None}
        audio = (self.voice_config or {}).get("audio")
        if isinstance(audio, Mapping):
            stated.setdefault("sample_rate", audio.get("sample_rate"))
        try:
            return config_from_state_dict(self.state_dict, **stated)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"{self.path} is not a checkpoint of a Piper voice",
                str(error) or type(error).__name__,
                "give a .ckpt of python -m piper_train, of Piper's own training, or of rhasspy/piper-checkpoints",
            ) from None


def read_checkpoint(path: Path) -> PiperCheckpoint:
    """Read a checkpoint. Raises UserError for one that is missing, torn, of another kind, or that would run code."""
    import torch

    path = Path(path)
    with torch.serialization.safe_globals(_stand_ins()):
        content = read_file(path)
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise _not_ours(path, "it has no state_dict")
    state = state_dict_of(content["state_dict"], path)
    if not any(name.startswith(_GENERATOR) for name in state):
        raise _not_ours(path, f"its weights have other names: {', '.join(list(state)[:3])}")
    given, record, voice = (content.get(name) for name in ("hyper_parameters", RECORD, VOICE_CONFIG))
    return PiperCheckpoint(
        path,
        state,
        plain(given) if isinstance(given, Mapping) else {},
        _count(content.get("epoch")),
        _count(content.get("global_step")),
        plain(voice) if isinstance(voice, Mapping) else None,
        plain(record) if isinstance(record, Mapping) else None,
    )


def _not_ours(path: Path, why: str) -> UserError:
    return UserError(
        f"{path} is not a checkpoint of a Piper voice",
        why,
        "give a .ckpt that training wrote; an .onnx voice cannot be trained on",
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def plain(value: Any, depth: int = _DEEPEST) -> Any:
    """`value` of only None, bool, int, float, str, lists and dicts of them; anything else becomes its text.

    depth: of lists and dicts in each other; what lies deeper is left out
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if not isinstance(value, Mapping | list | tuple | set | frozenset):
        return str(value)[:1000]
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {str(name): plain(part, depth - 1) for name, part in value.items()}
    return [plain(part, depth - 1) for part in value]


def _joined(separator: str, *parts: Any) -> str:
    """What a pickled path becomes: its text."""
    return separator.join(str(part) for part in parts).replace(separator * 2, separator)


@functools.cache
def _stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Functions that torch's unpickler takes for pathlib's classes; they make text, on every system."""
    made: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = []
    for module in _PATH_MODULES:
        for name in _PATHS:

            def stand_in(*parts: Any, _separator: str = "\\" if "Windows" in name else "/") -> str:
                return _joined(_separator, *parts)

            stand_in.__module__, stand_in.__name__, stand_in.__qualname__ = module, name, name
            made.append(stand_in)
    return made
