"""What training data is made of: find clips (codes beside transcripts) and read each with suspicion.

A clip is a `.npy` of codes and a transcript of the same name; its speaker is the folder it lies in. A recording without
codes is a clip too, so that it is reported and not forgotten. Unfinished files and macOS's `._*` files are ignored, as
extract_vq does.
"""

from __future__ import annotations

import ast
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..audio import AUDIO_SUFFIXES
from ..errors import UserError
from ..files import TEMPORARY_PREFIX
from ..text.normalize import clean_text

LANGUAGES = frozenset(("zh", "jp", "ja", "en"))

LARGEST_CODES = 64 << 20  # bytes of a .npy file; ten minutes of speech have 1 MB
LARGEST_TRANSCRIPT = 1 << 20  # bytes
LARGEST_CODE = (1 << 16) - 1
MOST_CODEBOOKS = 64

_IGNORED = (TEMPORARY_PREFIX, "._")

NO_CODES = "no codes: there is no .npy beside the recording"
NO_TRANSCRIPT = "no transcript"
EMPTY_TRANSCRIPT = "the transcript is empty"


class UnusableClip(Exception):
    """Why a clip cannot be trained on, in a phrase."""


@dataclass(frozen=True)
class Clip:
    """Where one clip's codes and transcripts are."""

    name: str  # path below the input, without suffix; for people
    group: tuple[int | str, ...]  # input number and folder (or speaker): clips of equal group share records
    speaker: str
    source: str  # "folder" or "filelist"
    codes: Path
    transcripts: tuple[Path, ...] = ()  # one per text extension
    text: str | None = None  # of a file list, instead of transcripts

    def fingerprint(self) -> Iterator[str]:
        """Yield what a change of this clip would change: sizes and times of its files."""
        yield f"{self.name}|{self.speaker}|{self.text}"
        for path in (self.codes, *self.transcripts):
            try:
                status = path.stat()
                yield f"{path.suffix}|{status.st_size}|{status.st_mtime_ns}"
            except OSError:
                yield f"{path.suffix}|missing"


def printable(text: str) -> str:
    """Return `text` with bytes that are not UTF-8 (in old file names) spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def find_clips(inputs: Sequence[Path], extensions: Sequence[str]) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Return the clips of folders and file lists, in a fixed order, and (name, reason) of lines that give none."""
    clips: list[Clip] = []
    rejected: list[tuple[str, str]] = []
    for number, path in enumerate(inputs):
        if path.is_dir():
            clips += _clips_of_folder(number, path, extensions)
        elif path.is_file():
            found, bad = _clips_of_list(number, path)
            clips += found
            rejected += bad
        else:
            raise UserError(
                f"there is no data at {path}",
                "--input takes a folder of SPEAKER/clip.npy with clip.lab beside it, or a file list",
                "check the path; python prepare_dataset.py --input RECORDINGS --output FOLDER makes such a folder",
            )
    return clips, rejected


def _clips_of_folder(number: int, root: Path, extensions: Sequence[str]) -> list[Clip]:
    clips: list[Clip] = []
    for folder, names in _walk(root):
        codes = {name[: -len(".npy")] for name in names if name.endswith(".npy")}
        audio = {Path(name).stem for name in names if Path(name).suffix.lower() in AUDIO_SUFFIXES}
        relative = folder.relative_to(root)
        # The root may be "." or end in ".."; abspath, unlike resolve, keeps the name of a link.
        speaker = printable(Path(os.path.abspath(folder)).name)  # noqa: PTH100
        for stem in sorted(codes | audio, key=lambda stem: stem + ".npy"):
            path = folder / (stem + ".npy")
            transcripts = tuple(path.with_suffix(extension) for extension in extensions)
            name = printable((relative / stem).as_posix())
            clips.append(Clip(name, (number, *relative.parts), speaker, "folder", path, transcripts))
    return clips


def _walk(root: Path) -> list[tuple[Path, list[str]]]:
    """Return every folder below `root` with its file names, sorted, linked folders included but each only once."""

    def fail(error: OSError) -> None:
        raise UserError(
            f"cannot read the folder {error.filename}", str(error.strerror), "check its permissions"
        ) from error

    seen: set[str] = set()
    found: list[tuple[Path, list[str]]] = []
    for folder, folders, names in os.walk(root, followlinks=True, onerror=fail):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(folders)
        if real not in seen:
            found.append((Path(folder), [name for name in names if not name.startswith(_IGNORED)]))
        seen.add(real)
    return sorted(found, key=lambda item: item[0].relative_to(root).parts)


def _clips_of_list(number: int, path: Path) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Read `path|speaker|language|text` lines. Paths are relative to the current folder or to the list's."""
    clips: dict[Path, Clip] = {}
    rejected: list[tuple[str, str]] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a file list", "it is not UTF-8 text", "save it as UTF-8 text") from None
    except OSError as error:
        raise UserError(f"cannot read {path}", str(error.strerror), "check its permissions") from None
    for line_number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{printable(path.name)} line {line_number}"
        fields = line.split("|", 3)
        if len(fields) != 4 or not fields[0].strip() or not fields[1].strip() or "\0" in line:
            rejected.append((where, "not of the form path|speaker|language|text"))
            continue
        audio, speaker, language, text = (field.strip() for field in fields)
        if language.lower() not in LANGUAGES:
            raise UserError(
                f"{where} has the language {language!r}", "known are zh, jp (or ja) and en, in any case", "correct it"
            )
        if not Path(audio).stem.strip("."):
            rejected.append((where, "its path names no file"))
            continue
        codes = Path(audio).with_suffix(".npy")
        if not codes.exists() and (path.parent / codes).exists():
            codes = path.parent / codes
        if codes in clips:
            rejected.append((where, "the same clip a second time"))
        else:
            name = printable(Path(audio).with_suffix("").as_posix())
            clips[codes] = Clip(name, (number, speaker), printable(speaker), "filelist", codes, text=text)
    return sorted(clips.values(), key=lambda clip: (clip.group, clip.codes.parts)), rejected


_BRACES, _ANGLES, _SPACES = re.compile(r"\{.*?\}"), re.compile(r"<.*?>"), re.compile(r"\s+")


def clean_transcript(text: str) -> str:
    """Turn `{...}`, `<...>` and runs of white space into one space each; the ends are not stripped."""
    return _SPACES.sub(" ", _ANGLES.sub(" ", _BRACES.sub(" ", text)))


def read_texts(clip: Clip) -> list[str]:
    """Return the clip's cleaned transcripts. Raises UnusableClip."""
    texts = [clip.text] if clip.text is not None else [_read_transcript(path) for path in clip.transcripts]
    cleaned = [clean_transcript(text) for text in texts]
    for path, text in zip(clip.transcripts or (None,), cleaned):
        if not clean_text(text).strip():
            raise UnusableClip(f"{EMPTY_TRANSCRIPT}{f' ({path.suffix})' if path else ''}")
    return cleaned


def _read_transcript(path: Path) -> str:
    try:
        data = _read_small_file(path, LARGEST_TRANSCRIPT)
    except FileNotFoundError:
        raise UnusableClip(f"{NO_TRANSCRIPT} ({path.suffix})") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnusableClip(f"the transcript ({path.suffix}) is not UTF-8 text") from None


def _read_small_file(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file of at most `most` bytes. Raises FileNotFoundError and UnusableClip."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnusableClip(f"the {path.suffix} is no regular file")
        if status.st_size > most:
            raise UnusableClip(f"the {path.suffix} has {status.st_size} bytes, at most {most} make sense")
        with path.open("rb") as file:
            return file.read(most + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableClip(f"the {path.suffix} cannot be read: {error.strerror}") from None


def read_codes(path: Path) -> np.ndarray:
    """Return codes, (codebooks, frames) of the file's own integer type. Raises UnusableClip.

    The header is checked against the bytes that are there before anything of its size is made.
    """
    try:
        data = _read_small_file(path, LARGEST_CODES)
    except FileNotFoundError:
        raise UnusableClip(NO_CODES) from None
    shape, order, dtype, start = parse_npy_header(data)
    if dtype.kind not in "iu" or len(shape) != 2:
        values = f"{dtype}{' with NaN' if _holds_nan(data[start:], dtype) else ''}"
        raise UnusableClip(f"the .npy has {len(shape)} axes of {values}; codes are 2 axes of whole numbers")
    if not 1 <= shape[0] <= MOST_CODEBOOKS or shape[1] < 1:
        raise UnusableClip(
            f"the .npy has the shape {shape}; codes are (codebooks, frames), at most {MOST_CODEBOOKS} rows"
        )
    if len(data) - start != shape[0] * shape[1] * dtype.itemsize:
        raise UnusableClip(f"the .npy is torn: its header promises {shape}, the file has {len(data)} bytes")
    codes = np.frombuffer(data, dtype, offset=start).reshape(shape, order=order)
    if codes.min() < 0 or codes.max() > LARGEST_CODE:
        raise UnusableClip(f"the .npy has values from {codes.min()} to {codes.max()}; codes are 0 to {LARGEST_CODE}")
    return codes


def _holds_nan(values: bytes, dtype: np.dtype) -> bool:
    whole = values[: len(values) // dtype.itemsize * dtype.itemsize] if dtype.kind == "f" else b""
    return bool(whole) and bool(np.isnan(np.frombuffer(whole, dtype)).any())


_HEADER_KEYS = {"descr", "fortran_order", "shape"}
_PLAIN_TYPE = re.compile(r"[<>|=]?[a-zA-Z]\d{0,4}")


def parse_npy_header(data: bytes) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype, int]:
    """Return shape, memory order, type and start of the values of a .npy file (format 1 or 2). Raises UnusableClip."""
    wide = data[6:7] == b"\x02"
    prefix = 12 if wide else 10
    if data[:6] != b"\x93NUMPY" or data[6:7] not in (b"\x01", b"\x02") or len(data) < prefix:
        raise UnusableClip("the .npy is not a NumPy file, or is torn")
    end = prefix + int.from_bytes(data[8:prefix], "little")
    if end > min(len(data), 10_000):
        raise UnusableClip("the .npy is torn: it ends inside its header")
    try:
        header = ast.literal_eval(data[prefix:end].decode("latin-1").strip())
        shape, descr = header["shape"], header["descr"]
        plain = isinstance(descr, str) and _PLAIN_TYPE.fullmatch(descr)
        whole = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if set(header) != _HEADER_KEYS or not plain or not whole:
            raise ValueError
        return shape, "F" if header["fortran_order"] else "C", np.dtype(descr), end
    except (ValueError, TypeError, KeyError, SyntaxError, MemoryError, RecursionError):
        raise UnusableClip("the .npy has no valid header, or holds no plain numbers") from None
