"""Reference voices: codes of a recording and the words spoken in it, which a model imitates.

A merged folder may bring its own: `voice.json` names the file, its SHA-256 and the words.
"""

from __future__ import annotations

import io
import logging
import math
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..checkpoint import sha256
from ..codes import largest_of_rows, row_too_large, sizes_of_rows
from ..datasets.code_origin import whose_codes
from ..datasets.sources import UnusableClip, parse_npy_header
from ..errors import UserError
from ..files import atomic_path
from ..versions import VOICE_FILE, read_voice

if TYPE_CHECKING:
    from ..models import Codec

log = logging.getLogger(__name__)

REFERENCE_FILE = "reference.npy"  # in a merged folder; the words are in the .txt beside it
_MAX_FRAMES = 8192  # longer than any model's memory
_MAX_BYTES = 8 << 20  # of a reference file
MOST_CHARACTERS = 10_000  # of the words of a reference


@dataclass(frozen=True)
class Reference:
    """An example that opens the prompt."""

    text: str
    codes: np.ndarray  # (codebooks, frames) int


def read_codes(path: Path, codebooks: int, codebook_sizes: int | Sequence[int]) -> np.ndarray:
    """Read codes (codebooks, frames) from a .npy file; raise UserError for what is not codes of this model.

    `codebook_sizes` says how many codes there are: in all codebooks, or in each. Rows beyond the model's codebooks are
    dropped with a warning, as the released system does, unless a known model version has just as many.
    """
    fix = "make one with cli_tts.py --create-reference AUDIO OUT.npy --prompt-text TEXT --model-path THIS_MODEL"
    if not path.is_file():
        raise UserError(f"there is no reference {path}", "the file does not exist", fix)
    try:
        array = parse_codes(path)
    except (UnusableClip, OSError) as error:
        raise UserError(f"{path} cannot be read as codes", str(error), fix) from error
    whose = whose_codes(len(array)) if array.ndim == 2 and len(array) < codebooks else ""
    if (
        array.dtype.kind not in "iu"
        or array.ndim != 2
        or len(array) < codebooks
        or not 0 < array.shape[1] <= _MAX_FRAMES
    ):
        raise UserError(
            f"{path} does not hold codes of this model",
            f"it is {array.dtype} of shape {array.shape}{whose}; "
            f"expected whole numbers ({codebooks}, 1-{_MAX_FRAMES} frames)",
            fix,
        )
    if len(array) > codebooks and whose_codes(len(array)):
        why = f"they have {len(array)} codebooks{whose_codes(len(array))}, this model reads {codebooks}"
        raise UserError(f"{path} holds codes of another model version", why, fix)
    if len(array) > codebooks:
        log.warning("%s has %d codebooks, this model %d: the voice may be another one if it was made with another codec",
                    path, len(array), codebooks)  # fmt: skip
    codes = np.array(array[:codebooks], dtype=np.int64)
    sizes = sizes_of_rows(codebooks, codebook_sizes)
    row = row_too_large(largest_of_rows(codes), sizes)
    if codes.min() < 0 or row is not None:
        where = f" in codebook {row}" if row is not None and len(set(sizes)) > 1 else ""
        why = f"codes{where} must be 0-{sizes[row or 0] - 1}"
        raise UserError(f"{path} does not hold codes of this model", why, fix)
    return codes


def parse_codes(path: Path) -> np.ndarray:
    """Read the array of a .npy file of at most 8 MB as it is, (1, rows, frames) as (rows, frames).

    Raises UnusableClip for what is no whole .npy of plain numbers, OSError for what cannot be read.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UnusableClip("it is no regular file")
    if status.st_size > _MAX_BYTES:
        raise UnusableClip(f"it has {status.st_size} bytes; {_MAX_FRAMES} frames of codes have fewer")
    data = path.read_bytes()
    shape, order, dtype, start = parse_npy_header(data)  # not np.load: its own parser stumbles over odd headers
    if len(data) - start != math.prod(shape) * dtype.itemsize:
        raise UnusableClip(f"the .npy is torn: its header promises {shape}, the file has {len(data)} bytes")
    array = np.frombuffer(data, dtype, offset=start).reshape(shape, order=order)
    return array[0] if len(shape) == 3 and shape[0] == 1 else array


def encode_reference(codec: Codec, audio: Path) -> np.ndarray:
    """Encode a recording -> codes (codebooks, frames) int32. Raises UserError if it cannot be used."""
    return encode_waveform(codec, read_recording(codec, audio))


def read_recording(codec: Codec, audio: Path) -> np.ndarray:
    """Read a recording at the codec's rate -> float32 (samples,). Raises UserError if no reference can be made of it."""
    from ..audio import AudioError, read_audio

    what, fix = f"{audio} cannot be used as a reference", "give a clean recording of 5-30 s of speech"
    try:
        waveform, _ = read_audio(audio, codec.sample_rate, max_duration_s=math.floor(_MAX_FRAMES / codec.frame_rate))
    except AudioError as error:
        raise UserError(what, str(error), fix) from error
    if len(waveform) < codec.config.least_samples:
        raise UserError(what, f"it is shorter than {codec.config.least_samples / codec.sample_rate:.3f} s", fix)
    return waveform


def encode_waveform(codec: Codec, waveform: np.ndarray) -> np.ndarray:
    """Encode float32 (samples,) at the codec's rate -> codes (codebooks, frames) int32."""
    import torch

    codes = codec.encode_clips([torch.from_numpy(waveform).to(codec.device)])[0]
    return codes.cpu().numpy().astype(np.int32)


def write_reference(path: Path, codes: np.ndarray, text: str) -> None:
    """Write `path` (.npy) and the words beside it (.txt).

    Codes beside the words of another recording would be worse than none: whenever this is stopped, there are either
    both files of one voice, or no codes.
    """
    buffer = io.BytesIO()  # np.save to a file would report a full disk without its error number
    np.save(buffer, codes, allow_pickle=False)
    with atomic_path(path) as new_codes, atomic_path(path.with_suffix(".txt")) as new_words:  # the words come first
        _write_through(new_codes, buffer.getvalue())
        _write_through(new_words, (text.strip() + "\n").encode("utf-8"))
        path.unlink(missing_ok=True)


def _write_through(path: Path, data: bytes) -> None:
    """Write to disk, not only to the system's memory: what was there before is removed next."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


@dataclass(frozen=True)
class PackedReference:
    """The reference that a merged folder brings along."""

    codes: Path
    text: str
    used: bool  # whether the voice speaks with it unless told otherwise


def packed_reference(folder: Path) -> PackedReference | None:
    """The reference that voice.json in `folder` names; None if it names none, as in a base model.

    Raises UserError for one that is missing, damaged, or not the one it was packed with.
    """
    path, voice = folder / VOICE_FILE, read_voice(folder)
    record = voice.get("reference")
    if record is None:
        return None
    fix = "copy the whole folder again, merge again, or speak without it: --no-reference"
    name, text, expected = (_string(record, key) for key in ("file", "text", "sha256"))
    if Path(name).name != name or not name.endswith(".npy") or not 0 < len(text) <= MOST_CHARACTERS:
        raise UserError(f"{path} does not say its reference", "file or text is missing, or odd", fix)
    codes = folder / name
    if not codes.is_file():
        raise UserError(f"the reference {codes} is missing", f"{path} names it", fix)
    if codes.stat().st_size > _MAX_BYTES or sha256(codes) != expected:
        raise UserError(
            f"the reference {codes} is damaged or another one", f"it is not the file that {path} names", fix
        )
    words = codes.with_suffix(".txt")
    try:
        same = not words.is_file() or words.read_text(encoding="utf-8-sig").strip() == text.strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {words}", str(error), fix) from None
    if not same:
        raise UserError(f"{words} and {path} do not hold the same words", "one of them was changed", fix)
    return PackedReference(codes, text, voice.get("use_reference") is not False)


def _string(record: object, key: str) -> str:
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, str) else ""
