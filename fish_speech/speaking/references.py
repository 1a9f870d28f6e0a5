"""Which voice is imitated: chosen before anything is loaded, read when the model is there to check it against."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..prepare.plain_text import has_words

if TYPE_CHECKING:
    from ..synthesis.speak import Speaker
    from ..synthesis.voices import PackedReference, Reference

log = logging.getLogger(__name__)

VOICES_FOLDER = Path("voices")


@dataclass(frozen=True)
class ReferenceChoice:
    """What the flags say about the voice to imitate; nothing said: the one that the model folder brings, if any."""

    prompt_tokens: tuple[Path, ...] = ()
    prompt_text: tuple[str, ...] = ()
    tokens_file: Path | None = None  # lists codes with their words
    audio: Path | None = None
    voice: str | None = None
    voices_folder: Path = VOICES_FOLDER
    own: bool = True  # whether the model folder's own may be used

    @property
    def is_named(self) -> bool:
        """Whether a reference is named."""
        return bool(self.prompt_tokens or self.tokens_file or self.audio or self.voice is not None)


@dataclass(frozen=True)
class ReferenceFiles:
    """Where the references are, each with its words."""

    codes: tuple[tuple[Path, str], ...] = ()
    audio: tuple[Path, str] | None = None

    def digest(self) -> list[str]:
        """What tells these references from others: hashes of the files, and the words."""
        from ..checkpoint import sha256

        pairs = [*self.codes, *([self.audio] if self.audio else [])]
        return [part for path, text in pairs for part in (sha256(path), text)]


def find_references(choice: ReferenceChoice, folder: Path | None = None) -> ReferenceFiles:
    """Find files and words of the references, without loading a model; what is missing is an error, never another voice.

    The model's `folder` is asked only where no reference is named.
    """
    if choice.voice is not None:
        if choice.prompt_tokens or choice.prompt_text or choice.tokens_file or choice.audio:
            raise UserError(
                "--voice and --prompt-* or --reference-audio are given",
                "a voice brings its own codes and words",
                "give one of them",
            )
        return ReferenceFiles((_voice(choice),))
    if not choice.is_named:
        packed = _own_reference(choice, folder)
        if choice.prompt_text:
            raise UserError("--prompt-text has no effect", "there is no reference whose words it could be",
                            "add --prompt-tokens or --reference-audio")  # fmt: skip
        return ReferenceFiles() if packed is None else ReferenceFiles(((packed.codes, packed.text),))
    texts = [*choice.prompt_text, *(_words_beside(path) for path in choice.prompt_tokens[len(choice.prompt_text) :])]
    words = [text for text in texts if text is not None]
    count = len(choice.prompt_tokens) + (choice.audio is not None)
    if not all(map(has_words, words)):
        raise UserError("a reference has no words", "its text has no letters or digits", "give the words spoken in it")
    if len(words) != count:
        raise UserError(
            f"{count} references and {len(words)} texts are given",
            "each reference needs the words spoken in it",
            "give one --prompt-text per --prompt-tokens or --reference-audio",
        )
    for path in (*choice.prompt_tokens, *([choice.audio] if choice.audio else [])):
        if not path.is_file():
            raise UserError(f"there is no reference {path}", "the file does not exist",
                            "check the path, or make one: cli_tts.py --create-reference AUDIO OUT.npy")  # fmt: skip
    pairs = (*_listed(choice.tokens_file), *zip(choice.prompt_tokens, words, strict=False))
    return ReferenceFiles(pairs, (choice.audio, words[-1]) if choice.audio else None)


def read_references(files: ReferenceFiles, speaker: Speaker) -> list[Reference]:
    """Read codes, or encode the recording, for this model."""
    from ..synthesis.voices import Reference, encode_reference, read_codes

    config = speaker.model.config
    found = [
        Reference(text, read_codes(path, config.num_codebooks, config.codebook_sizes)) for path, text in files.codes
    ]
    if files.audio:
        path, text = files.audio
        found.append(Reference(text, encode_reference(speaker.codec, path)))
    return found


def _voice(choice: ReferenceChoice) -> tuple[Path, str]:
    from ..synthesis.voice_library import find_voice

    assert choice.voice is not None
    voice = find_voice(choice.voices_folder, choice.voice)
    return voice.codes, voice.text


def _listed(file: Path | None) -> Sequence[tuple[Path, str]]:
    """The references that --prompt-tokens-file lists."""
    if file is None:
        return ()
    from ..synthesis.voice_library import read_reference_list

    return read_reference_list(file)


def _own_reference(choice: ReferenceChoice, folder: Path | None) -> PackedReference | None:
    """The reference that the model folder brings along; None if it has none or speaks without."""
    if not choice.own or folder is None:
        return None
    from ..synthesis.voices import packed_reference

    packed = packed_reference(folder)
    if packed is not None and not packed.used:
        log.info("%s speaks without its reference; --prompt-tokens %s uses it", folder, packed.codes)
        return None
    if packed is not None:
        log.info("reference: %s (another one: --prompt-tokens; none: --no-reference)", packed.codes)
    return packed


def _words_beside(codes: Path) -> str | None:
    """The words in the .txt beside codes, as --create-reference writes it; None if there is none."""
    beside = codes.with_suffix(".txt")
    if not beside.is_file():
        return None
    from ..datasets.sources import UnusableClip
    from ..synthesis.voice_library import words_beside

    try:
        return words_beside(codes)
    except UnusableClip as error:
        raise UserError(f"cannot read {beside}", str(error), "save it as UTF-8 text, or give --prompt-text") from None
