"""Find, check, read, write and list weights. Nothing in a weights file can run code, and nothing loads by halves.

Files are read with torch's `weights_only` unpickler (or safetensors), memory-mapped, and matched strictly: names and
shapes must be exactly the model's, and the message lists what is not.
"""

from __future__ import annotations

import errno
import hashlib
import pickle
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .errors import UserError
from .files import atomic_path
from .weight_origin import origin_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHECKPOINT_PATTERN = "step_*.ckpt"
MODEL_PREFIX = "model."  # of names in training checkpoints
_SHOWN = 8  # names listed in a message


def read_file(path: Path) -> Any:
    """Read a .pth, .ckpt or .safetensors file; tensors stay memory-mapped where the format allows.

    Raises UserError for a file that is missing, torn, of another format, or that would run code when unpickled.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no weights file {path}", _why_missing(path), "check the path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is refused",
            f"it holds more than tensors and plain values, so reading it could run code ({_first_line(error)})",
            "get the weights from a source you trust, as a plain state dict or safetensors",
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, OSError, AttributeError, TypeError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # that is what a torn zip gives
            raise
        raise UserError(
            f"{path} cannot be read as weights",
            f"the file is torn or not a torch file ({_first_line(error)})",
            "download or save it again; compare its size and hash with the source",
        ) from error


def run_record(content: Any) -> Mapping[str, Any]:
    """What the content of a training checkpoint says of its run; nothing if another tool made it."""
    record = content.get("fish_speech") if isinstance(content, Mapping) else None
    return record if isinstance(record, Mapping) else {}


def record_of(path: Path) -> Mapping[str, Any]:
    """The `run_record` of a file. Raises UserError as `read_file`."""
    return run_record(read_file(path))


def _why_missing(path: Path) -> str:
    if path.is_dir():
        return "it is a folder"
    return "the folder has no such file" if path.parent.is_dir() else f"there is no folder {path.parent}"


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path} cannot be read as weights", str(error), "download or save it again") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a weights file: its `state_dict` entry if it has one, without the prefix `model.`."""
    content = read_file(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    return state_dict_of(content, path)


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    """Check that `content` is a mapping of names to honest tensors and take the prefix `model.` off the names."""
    import torch

    def is_honest(tensor: Any) -> bool:  # an expanded view of one number would fill the memory when copied
        return isinstance(tensor, torch.Tensor) and (
            tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
        )

    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds no weights", "expected a mapping of names to tensors", "check the file")
    wrong = [str(name) for name, tensor in content.items() if not isinstance(name, str) or not is_honest(tensor)]
    if wrong:
        raise UserError(
            f"{path} holds more than weights",
            f"these entries are not whole tensors: {_listed(wrong)}",
            "check the file",
        )
    if any(name.startswith(MODEL_PREFIX) for name in content):
        kept = {name: tensor for name, tensor in content.items() if name.startswith(MODEL_PREFIX)}
        return {name.removeprefix(MODEL_PREFIX): tensor for name, tensor in kept.items()}
    return dict(content)


def check_names(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Raise UserError unless `found` has exactly the `expected` names and shapes; list every kind of difference.

    Weights of another model version, or of a codec in place of a model, are called by their name.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    misshapen = [
        f"{name} is {tuple(found[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    problems = [
        f"{len(names)} {kind}: {_listed(names)}"
        for kind, names in (("missing", missing), ("unknown", extra), ("of another shape", misshapen))
        if names
    ]
    if problems:
        raise UserError(
            f"{path} does not fit {what}",
            "; ".join([*_other_origin(expected, found), *problems]),
            "use the weights and the config of the same model version; nothing was loaded",
        )


def _other_origin(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> list[str]:
    """In a sentence, whose weights were found where others are expected; nothing if that cannot be told."""
    wanted, given = origin_of(expected), origin_of({name: tuple(tensor.shape) for name, tensor in found.items()})
    if given is None or (wanted is not None and (wanted.part, wanted.family) == (given.part, given.family)):
        return []
    instead = f", where {wanted} is expected" if wanted else ""
    return [f"these weights are those of {given}, as {given.mark} show{instead}"]


def check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise UserError if any tensor holds NaN or infinity: all that is computed with it would be noise."""
    import torch

    # The ends of the range carry NaN; ten times faster than isfinite, and without a mask as large as the tensor.
    floating = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel()}
    wrong = [name for name, tensor in floating.items() if not torch.stack(torch.aminmax(tensor)).isfinite().all()]
    if wrong:
        raise UserError(
            f"{path} holds NaN or infinity",
            f"{len(wrong)} weights: {_listed(wrong)}",
            "take an earlier checkpoint, or download the file again",
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def save_state_dict(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as a plain state dict, atomically."""
    save_torch(path, dict(tensors))


def save_torch(path: Path, value: Any) -> None:
    """`torch.save` under a temporary name, then rename; a full disk raises OSError ENOSPC and leaves the old file."""
    import torch

    with atomic_path(path) as temporary, temporary.open("wb", buffering=0) as file:
        writer = _WholeWriter(file)
        try:
            torch.save(value, cast("Any", writer))
        except RuntimeError:
            if writer.error is not None:  # torch hides the system's error behind its own
                raise writer.error from None
            raise


class _WholeWriter:
    """A binary file for torch.save that writes all bytes of each call and remembers the system's error."""

    def __init__(self, file: Any):
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(view):
                done += self.file.write(view[done:])
        except OSError as error:
            self.error = error
            raise
        return done

    def flush(self) -> None:
        self.file.flush()


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's content, read in blocks."""
    with Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class CheckpointFile:
    """A training checkpoint on disk."""

    path: Path
    step: int
    size: int  # bytes
    modified: float  # seconds since the epoch

    def __str__(self) -> str:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.modified))
        return f"{self.path.name} ({self.size / 1e6:.1f} MB, {when})"


def list_checkpoints(folder: Path) -> list[CheckpointFile]:
    """Return the checkpoints `step_N.ckpt` in `folder`, by step; an absent folder has none."""
    found = []
    for path in Path(folder).glob(CHECKPOINT_PATTERN):
        match = re.fullmatch(r"step_(\d{1,12})", path.stem)
        if match and path.is_file():
            stat = path.stat()
            found.append(CheckpointFile(path, int(match.group(1)), stat.st_size, stat.st_mtime))
    return sorted(found, key=lambda checkpoint: (checkpoint.step, checkpoint.path.name))


def newest_of(path: Path) -> Path:
    """A checkpoint file as it is; of a folder its newest step. Raises UserError for a folder without any."""
    if not path.is_dir():
        return path
    found = list_checkpoints(path)
    if not found:
        raise UserError(f"{path} has no checkpoints", "expected files like step_000000100.ckpt", "check the path")
    return found[-1].path


def checkpoint_dir(project: str) -> Path:
    """Where a project's checkpoints lie."""
    return Path("results") / project / "checkpoints"


def as_float(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return floating-point `tensor` as `dtype`; other tensors as they are."""
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
