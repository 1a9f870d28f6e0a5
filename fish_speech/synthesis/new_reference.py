"""Make a reference voice of a recording: its codes in NAME.npy and the words spoken in it in NAME.txt.

The whole recording is encoded as it is. The words are those given, those in a file beside the recording, or, where
there are none, what a recogniser hears; which of them is said.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..datasets.sources import UnusableClip
from ..errors import UserError
from ..prepare.plain_text import clean, has_words
from ..prepare.transcripts import Transcripts
from .voices import MOST_CHARACTERS, encode_waveform, parse_codes, read_recording, write_reference

if TYPE_CHECKING:
    from ..models import Codec
    from ..prepare.options import Recognition
    from ..recognition import Recognizer

log = logging.getLogger(__name__)

SHORT_S, LONG_S = 3.0, 30.0  # outside, a voice is imitated badly, or the prompt leaves little room for speech


@dataclass(frozen=True)
class NewReference:
    """What was made."""

    path: Path  # of the codes; the words are in the .txt beside them
    text: str
    frames: int
    seconds: float
    source_of_text: str  # "given", the name of a file, or "heard by ..."


def check_target(target: Path) -> None:
    """Raise UserError unless `target` can hold codes; ask before a codec is loaded."""
    if target.suffix != ".npy" or not target.stem.strip(". "):
        raise UserError(f"cannot write {target}", "codes are .npy files", f"use {target.with_name('NAME.npy')}")
    for path in (target, target.with_suffix(".txt")):
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}", "it is a folder, or no plain file", "choose another name")


def create_reference(
    audio: Path,
    target: Path,
    text: str | None,
    codec: Codec,
    recognition: Recognition | None = None,
    overwrite: bool = False,
) -> NewReference:
    """Encode a recording, find its words, and write both: whole, or not at all.

    `recognition` None takes the best recogniser that is here. Raises UserError for a recording or words
    that cannot be used, and for an existing voice of other content unless `overwrite`.
    """
    check_target(target)
    waveform = read_recording(codec, audio)
    seconds = len(waveform) / codec.sample_rate
    if not SHORT_S <= seconds <= LONG_S:
        log.warning(
            "%s lasts %.1f s; a voice is imitated best from %g to %g s of clean speech. All of it is used",
            audio, seconds, SHORT_S, LONG_S,
        )  # fmt: skip
    words, source = _words(audio, text, waveform, codec.sample_rate, recognition)
    if source != "given":
        log.info("the words (%s): %s", source, words)
        log.info("if they are not what is said, the voice is imitated badly: give them with --prompt-text")
    codes = encode_waveform(codec, waveform)
    if not _is_there(target, codes, words, overwrite):
        write_reference(target, codes, words)
    return NewReference(target, words, codes.shape[1], seconds, source)


def check_words(audio: Path, text: str | None, recognition: Recognition | None = None) -> None:
    """Raise UserError where no words of the recording are given or beside it, and no recogniser can be had; or no recording."""
    if _known_words(audio, text, recognition) is None:
        _load_recognizer(audio, recognition)


def _words(
    audio: Path, text: str | None, waveform: np.ndarray, sample_rate: int, recognition: Recognition | None
) -> tuple[str, str]:
    """The words spoken in the recording, in one line, and where they come from."""
    known = _known_words(audio, text, recognition)
    return known if known is not None else _heard(audio, waveform, sample_rate, recognition)


def _known_words(audio: Path, text: str | None, recognition: Recognition | None) -> tuple[str, str] | None:
    """The words that are given, or in a file beside the recording; None if there are none."""
    if not audio.is_file():
        raise UserError(f"there is no recording {audio}", "the file does not exist", "check the path")
    if text is not None:
        return _checked(clean(text), "--prompt-text"), "given"
    beside = Transcripts(recognition.language if recognition else None).read(audio)
    if beside.text is not None and beside.path is not None:
        return _checked(beside.text, str(beside.path)), beside.path.name
    if beside.left_out is not None and not beside.left_out.startswith("no transcript"):
        raise UserError(
            f"the words beside {audio} cannot be used", beside.left_out, "correct the file, or add --prompt-text TEXT"
        )
    return None


def _heard(audio: Path, waveform: np.ndarray, sample_rate: int, recognition: Recognition | None) -> tuple[str, str]:
    """What a recogniser hears, and its name. Raises UserError where there is none, or where it hears nothing likely."""
    from ..recognition import resample, suspicious

    recognizer, language = _load_recognizer(audio, recognition)
    words = clean(recognizer(resample(waveform, sample_rate)))
    doubt = suspicious(words, len(waveform) / sample_rate, language)
    if doubt:
        raise UserError(
            f"the words spoken in {audio} were not understood", f"{recognizer.name}: {doubt}", "add --prompt-text TEXT"
        )
    return _checked(words, recognizer.name), f"heard by {recognizer.name}"


def _load_recognizer(audio: Path, recognition: Recognition | None) -> tuple[Recognizer, str | None]:
    """The recogniser, and the language it is to hear. Without a wish it is English if none here detects languages."""
    from ..prepare.options import Recognition

    asked = recognition or Recognition("auto")
    try:
        try:
            return asked.load(), asked.language
        except UserError:
            if asked.asr != "auto" or asked.language is not None:
                raise
            return replace(asked, language="en").load(), "en"
    except UserError as error:
        raise UserError(
            f"the words spoken in {audio} are not known",
            f"none are given or beside it, and {error.what}: {error.why}",
            f"add --prompt-text TEXT, or: {error.fix}",
        ) from error


def _checked(words: str, source: str) -> str:
    if not has_words(words) or len(words) > MOST_CHARACTERS:
        raise UserError(
            f"the words from {source} are no text of a recording",
            f"expected letters or digits, at most {MOST_CHARACTERS} characters",
            "give the words spoken in the recording: --prompt-text TEXT",
        )
    return words


def _is_there(target: Path, codes: np.ndarray, words: str, overwrite: bool) -> bool:
    """Whether just this voice is there already. Raises UserError if another one is, unless it may be overwritten."""
    beside = target.with_suffix(".txt")
    there = _text_of(beside) if beside.is_file() else None
    same_words = there == words
    if not target.is_file():
        if there is None or same_words or overwrite:
            return False
        raise UserError(
            f"{beside} holds other words", f"the reference's are: {words[:200]}", "remove it, or add --overwrite"
        )
    try:
        old = parse_codes(target)
        same_codes = np.array_equal(old, codes)
    except (UnusableClip, OSError):
        same_codes = False
    if same_codes and same_words:
        log.info("%s is there already, with the same codes and words", target)
        return True
    if overwrite:
        return False
    what = "words" if same_codes else "codes"
    raise UserError(
        f"there is another voice in {target}",
        f"it has other {what}; a voice is not overwritten unasked",
        "choose another name, or add --overwrite",
    )


def _text_of(path: Path) -> str | None:
    """The words in a .txt, in one line; of what is no text something that no words equal."""
    try:
        return clean(path.read_bytes()[: 1 << 20].decode("utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return "\0"
