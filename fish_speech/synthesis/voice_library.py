"""Voices by name: NAME.npy and NAME.txt in a folder, as cli_tts.py --create-reference writes them. Needs no torch.

A name is one plain file name, found as it is spelled: nothing leads out of the folder, and no other voice stands in.
"""

from __future__ import annotations

import difflib
import ntpath
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ..audio import AUDIO_SUFFIXES
from ..datasets.sources import UnusableClip
from ..errors import UserError
from ..files import TEMPORARY_PREFIX
from ..prepare.names import one_line
from ..prepare.plain_text import Unusable, clean, has_words, lines_of, read_text
from .voices import MOST_CHARACTERS, parse_codes

_CREATE = "python cli_tts.py --create-reference AUDIO {codes}"
_IGNORED = (".", TEMPORARY_PREFIX)  # hidden files, macOS's ._* among them, and unfinished ones
_MOST_LISTED = 20  # names in a message
_MOST_WORD_BYTES = 1 << 20
_MOST_REFERENCES = 64  # of a list; a prompt has room for fewer
_ODD = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f]')


@dataclass(frozen=True)
class Voice:
    """A voice that can be imitated, if its codes fit the model."""

    name: str
    codes: Path
    text: str  # the words spoken in it


@dataclass(frozen=True)
class ListedVoice:
    """What a folder holds under a name."""

    name: str
    frames: int | None = None
    seconds: float | None = None
    text: str | None = None
    problem: str | None = None  # why it cannot be used, in a line


def list_voices(folder: Path, frame_rate: float | None = None) -> list[ListedVoice]:
    """Return what is in `folder`, by name, unusable voices with the reason; an absent folder holds none.

    Seconds are told with the codec's `frame_rate` in frames/s: codes do not say it. Raises UserError if the folder
    cannot be read.
    """
    return [_look_at(Path(folder), name, frame_rate) for name in _names(Path(folder), with_recordings=True)]


def find_voice(folder: Path, name: str) -> Voice:
    """Return the voice called `name`, in this letter case. Raises UserError, and never takes another one."""
    folder = Path(folder)
    _check_name(name)
    names = _names(folder)
    found = name if name in names else next((n for n in names if _composed(n) == _composed(name)), None)
    if found is None:
        raise _unknown(folder, name, names)
    try:
        _count_frames(folder, found)
        return Voice(found, folder / f"{found}.npy", _words(folder, f"{found}.txt"))
    except UnusableClip as error:
        codes = folder / f"{one_line(found)}.npy"
        raise UserError(
            f"the voice {_shown(found)} cannot be used", str(error), f"make it anew: {_CREATE.format(codes=codes)}"
        ) from None


def read_reference_list(path: Path) -> list[tuple[Path, str]]:
    """Read a list of references, codes and words, one `codes.npy` a line, then a tab or | and the words spoken in it.

    Without words those in the .txt beside the codes count. Paths are relative to the list's folder, or, where they lead
    nowhere from there, to the current one. Raises UserError that names every bad line.
    """
    fix = 'write one reference a line: codes.npy, a tab or "|", and the words spoken in it'
    if not path.is_file():
        raise UserError(f"there is no list of references {path}", "the file does not exist", fix)
    try:
        lines = lines_of(read_text(path, _MOST_WORD_BYTES))
    except Unusable as error:
        raise UserError(f"cannot read the list of references {path}", str(error), "save it as UTF-8 text") from None
    found, problems = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(_reference_of(line, path.parent))
            except UnusableClip as error:
                problems.append(f"line {number}: {error}")
    if problems:
        raise UserError(f"{len(problems)} lines of {path} are no references", _some(problems), fix)
    if not 0 < len(found) <= _MOST_REFERENCES:
        raise UserError(f"{path} lists {len(found)} references", f"expected 1 to {_MOST_REFERENCES}", fix)
    return found


def _reference_of(line: str, folder: Path) -> tuple[Path, str]:
    """Codes and words of one line. Raises UnusableClip."""
    name, _, text = (part.strip() for part in re.split(r"([\t|])", line + "\t", maxsplit=1))
    if not name.endswith(".npy") or "\0" in name:
        raise UnusableClip(f"{_shown(name)} names no .npy of codes")
    candidates = (folder / name, Path(name))
    try:
        codes = next((path for path in candidates if path.is_file()), None)
    except OSError:  # a name too long for any file
        codes = None
    if codes is None:
        raise UnusableClip(f"there is no file {_shown(name)}")
    words = clean(text.rstrip("\t"))
    return codes, _checked_words(words, "the text") if words else words_beside(codes)


def words_beside(codes: Path) -> str:
    """The words in the .txt beside codes, in one line. Raises UnusableClip."""
    return _words(codes.parent, f"{codes.stem}.txt", within=False)


def _names(folder: Path, with_recordings: bool = False) -> list[str]:
    """The names of codes in a folder, sorted; with those of recordings, which may have been meant for a voice."""
    suffixes = {".npy", *(AUDIO_SUFFIXES if with_recordings else ())}
    try:
        files = [path for path in folder.iterdir() if not path.name.startswith(_IGNORED)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"cannot read the voices in {folder}",
            error.strerror or str(error),
            "name a folder of NAME.npy and NAME.txt",
        ) from None
    return sorted(
        {path.stem for path in files if (path.suffix if path.suffix == ".npy" else path.suffix.lower()) in suffixes}
    )


def _look_at(folder: Path, name: str, frame_rate: float | None) -> ListedVoice:
    if not (folder / f"{name}.npy").exists() and not (folder / f"{name}.npy").is_symlink():
        return ListedVoice(name, problem="a recording without codes: make them with --create-reference")
    frames = text = None
    problems = []
    try:
        _check_name(name)
    except UserError as error:
        problems.append(error.why)
    try:
        frames = _count_frames(folder, name)
    except UnusableClip as error:
        problems.append(str(error))
    try:
        text = _words(folder, f"{name}.txt")
    except UnusableClip as error:
        problems.append(str(error))
    seconds = frames / frame_rate if frames is not None and frame_rate else None
    return ListedVoice(name, frames, seconds, text, "; ".join(problems) or None)


def _count_frames(folder: Path, name: str) -> int:
    """Read the codes, look whether any model could take them, and count frames. Raises UnusableClip."""
    path = _inside(folder, f"{name}.npy")
    try:
        codes = parse_codes(path)
    except OSError as error:
        raise UnusableClip(f"its codes cannot be read: {error.strerror or error}") from None
    if codes.dtype.kind not in "iu" or codes.ndim != 2 or not codes.size:
        raise UnusableClip(f"its .npy is {codes.dtype} of shape {codes.shape}, no codes")
    if codes.min() < 0:
        raise UnusableClip("it has codes below 0")
    return codes.shape[1]


def _words(folder: Path, name: str, within: bool = True) -> str:
    """The words in a .txt, in one line. Raises UnusableClip."""
    path = _inside(folder, name) if within else folder / name
    if not path.is_file():
        raise UnusableClip(f"it has no words: {one_line(name)} is missing")
    try:
        return _checked_words(clean(read_text(path, _MOST_WORD_BYTES)), one_line(name))
    except Unusable as error:
        raise UnusableClip(str(error).replace("unreadable transcript", "its words cannot be read")) from None


def _checked_words(words: str, where: str) -> str:
    if not has_words(words):
        raise UnusableClip(f"it has no words: {where} holds none")
    if len(words) > MOST_CHARACTERS:
        raise UnusableClip(f"{where} has {len(words)} characters, at most {MOST_CHARACTERS} make sense")
    return words


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder. Raises UnusableClip for a link that leads out of it, or in a circle."""
    path = folder / name
    try:
        if path.resolve().is_relative_to(folder.resolve()):
            return path
    except (OSError, RuntimeError):
        pass
    raise UnusableClip(f"{one_line(name)} is a link out of the folder")


def _check_name(name: str) -> None:
    """Raise UserError for what is no plain file name on every system."""
    why = None
    if not name.strip(". "):
        why = "it is empty, or only dots"
    elif _ODD.search(name):
        why = 'a name has no path, drive or control characters in it, and none of " * < > ? |'
    elif name.startswith(_IGNORED):
        why = "files that start with a dot are hidden"
    elif name != name.rstrip(". ") or name != name.lstrip():
        why = "it starts with a space, or ends in a dot or space, which Windows drops"
    elif _is_reserved(name):
        why = "Windows keeps this name for a device"
    elif any(map(_is_surrogate, name)):
        why = "it is not Unicode text"
    if why:
        raise UserError(f"{_shown(name)} is no name of a voice", why, "python cli_tts.py --list-voices shows the names")


def _is_surrogate(character: str) -> bool:
    return unicodedata.category(character) == "Cs"


def _is_reserved(name: str) -> bool:
    if sys.version_info >= (3, 13):
        return ntpath.isreserved(name)
    return PureWindowsPath(name).is_reserved()


def _unknown(folder: Path, name: str, names: Sequence[str]) -> UserError:
    folded = {n.casefold(): n for n in names}
    near = [folded[n] for n in difflib.get_close_matches(name.casefold()[:100], list(folded), n=1)]
    fix = f"did you mean --voice {_shown(near[0])}?" if near else "python cli_tts.py --list-voices shows all"
    if not names:
        fix = f"make one: {_CREATE.format(codes=folder / 'NAME.npy')}"
    there = f"{folder} has: {_some(list(map(one_line, names)), ', ')}" if names else f"{folder} has no voices"
    return UserError(f"there is no voice {_shown(name)}", there, fix)


def _some(items: list[str], separator: str = "; ") -> str:
    more = f" and {len(items) - _MOST_LISTED} more" if len(items) > _MOST_LISTED else ""
    return separator.join(items[:_MOST_LISTED]) + more


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS hands out names in another form than people type


def _shown(name: str) -> str:
    return repr(one_line(name[:60]) + ("..." if len(name) > 60 else ""))
