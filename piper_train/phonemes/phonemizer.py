"""The door to phonemes: open a phonemizer for a language, get sentences of phonemes, close it.

    with open_phonemizer("espeak", "ru") as phonemizer:
        phonemizer.sentences("Привет, мир!")  # [["p", "r", "ʲ", "i", ...]]

espeak-ng is GPL and never loaded here: a worker process asks piper-tts's copy of it, which gives exactly what the
Piper client will speak; without piper-tts the espeak-ng program is asked, which gives nearly that.
"""

from __future__ import annotations

import logging
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Literal, Protocol

from fish_speech.errors import UserError
from fish_speech.extras import how_to_install

from .clauses import Clause, Clusters, Sentences, clusters_of, join_raw, sentences_of, split_raw
from .espeak_program import ProgramMissing, ProgramSource
from .piper_source import PiperSource, SourceMissing
from .voices import check_voice_name

log = logging.getLogger(__name__)

Source = Literal["auto", "piper", "espeak-ng"]
SOURCES: tuple[Source, ...] = ("auto", "piper", "espeak-ng")
PHONEME_TYPES = ("espeak", "text")
_NEEDS_MORE = ("pinyin", "hebrew", "japanese", "thai")  # the client's, each with a library of its own
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_BATCH_TEXTS = 128
_BATCH_CHARACTERS = 50_000


class _ClauseSource(Protocol):
    name: str
    exact: bool

    def clauses(self, texts: Sequence[str]) -> list[list[Clause]]: ...

    def close(self) -> None: ...


class Phonemizer:
    """Makes phonemes of texts. May be shared by threads; close it, or use it in a `with`.

    `source` says what makes the phonemes, `exact` whether they are those that the Piper client makes.
    """

    def __init__(self, source: _ClauseSource | None, clusters: Clusters = frozenset()):
        self._clauses = source
        self._clusters = clusters
        self._lock = threading.Lock()
        self.source = source.name if source else "text"
        self.exact = source.exact if source else True

    def sentences(self, text: str) -> Sentences:
        """Return the sentences of a text, each a list of phonemes. A text without words gives one empty sentence."""
        return next(self.many([text]))

    def many(self, texts: Iterable[str]) -> Iterator[Sentences]:
        """Yield the sentences of each text, in order, much faster than one by one."""
        waiting = iter(texts)
        while batch := list(islice(waiting, _BATCH_TEXTS)):
            yield from self._batch(batch)

    def _batch(self, texts: list[str]) -> Iterator[Sentences]:
        if self._clauses is None:
            yield from ([list(unicodedata.normalize("NFD", _clean(text)))] for text in texts)
            return
        cut = [split_raw(_clean(text)) for text in texts]
        words = [part for parts in cut for part in parts[::2]]
        spoken: list[Sentences] = []
        for some in _by_size(words):
            with self._lock:
                clauses = self._clauses.clauses(some)
            spoken += [sentences_of(clauses_of_text, self._clusters) for clauses_of_text in clauses]
        place = 0
        for parts in cut:
            count = (len(parts) + 1) // 2
            yield join_raw(parts, spoken[place : place + count])
            place += count

    def close(self) -> None:
        """End the worker process."""
        if self._clauses is not None:
            self._clauses.close()

    def __enter__(self) -> Phonemizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_phonemizer(
    phoneme_type: str | None = "espeak",
    espeak_voice: str = "",
    vowel_clusters: Any = None,
    source: str = "auto",
) -> Phonemizer:
    """Start what makes the phonemes of a voice.

    phoneme_type: "espeak" (also None), or "text": each character is a phoneme, for texts that hold phonemes already.
    espeak_voice: a language as espeak calls it: en-us, ru, de.
    vowel_clusters: `[["a", "ɪ"], ...]`, or that as JSON: runs of phonemes that count as one.
    source: "piper" (exact), "espeak-ng" (the program, nearly), or "auto": the first of these that is installed.

    Raises UserError if nothing is installed that can do it, the voice is not known, or a value makes no sense.
    """
    kind = phoneme_type or "espeak"
    if kind not in PHONEME_TYPES:
        raise _unknown_type(str(kind))
    if source not in SOURCES:
        raise UserError(f"there is no phoneme source '{source}'", f"there are {', '.join(SOURCES)}", "choose one")
    try:
        clusters = clusters_of(vowel_clusters)
    except ValueError as error:
        raise UserError("the vowel clusters make no sense", str(error), "set --data.vowel_clusters so") from None
    if kind == "text":
        return Phonemizer(None)
    return Phonemizer(_open_source(check_voice_name(espeak_voice), source), clusters)


def _open_source(voice: str, source: str) -> _ClauseSource:
    problems = []
    if source in ("auto", "piper"):
        try:
            return PiperSource(voice)
        except SourceMissing as error:
            problems.append(f"piper-tts: {error}")
    if source in ("auto", "espeak-ng"):
        try:
            program = ProgramSource(voice)
        except ProgramMissing as error:
            problems.append(f"espeak-ng: {error}")
        else:
            log.warning(
                "phonemes come from the program %s, not from piper-tts%s: a few of them will differ from those that "
                "the Piper client speaks; for the same ones: %s",
                program.name,
                f" ({problems[0].partition(': ')[2]})" if problems else "",
                how_to_install("piper-espeak"),
            )
            return program
    raise UserError(
        "there is no espeak-ng to make phonemes with",
        "; ".join(problems),
        f"{how_to_install('piper-espeak')} (any system; exactly the Piper client's phonemes), or install the program: "
        "Debian/Ubuntu: sudo apt install espeak-ng; Fedora: sudo dnf install espeak-ng; macOS: brew install espeak-ng; "
        "Windows: winget install eSpeak-NG.eSpeak-NG",
    )


def _unknown_type(kind: str) -> UserError:
    if kind in _NEEDS_MORE:
        return UserError(
            f"phoneme type '{kind}' is not made here",
            "it needs a library for that language alone",
            "write the phonemes into metadata.csv and use --data.phoneme_type text with --data.phonemes_path, or write "
            "the ids and use --data.dataset_type phoneme_ids",
        )
    return UserError(f"there is no phoneme type '{kind}'", f"there are {', '.join(PHONEME_TYPES)}", "choose one")


def _clean(text: str) -> str:
    """What C text and UTF-8 cannot hold, and control characters, by which espeak takes commands for all that follows."""
    return _CONTROL.sub(" ", text).encode("utf-8", "replace").decode("utf-8")


def _by_size(texts: list[str]) -> Iterator[list[str]]:
    """Groups of texts with about _BATCH_CHARACTERS in each."""
    group: list[str] = []
    size = 0
    for text in texts:
        if group and size + len(text) > _BATCH_CHARACTERS:
            yield group
            group, size = [], 0
        group.append(text)
        size += len(text)
    if group:
        yield group
