"""Phonemes from the espeak-ng program of this computer: close to the Piper client's, not the same.

The program prints a line of phonemes per clause and leaves out what ended the clause; that is read from the text.
Another release also speaks some words otherwise: a voice should be trained and spoken with the same phonemes.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fish_speech.errors import UserError
from fish_speech.extras import how_to_install
from fish_speech.prepare.names import one_line

from .clauses import Clause
from .patience import patience_s
from .punctuation import Piece, pieces_of
from .voices import unknown_voice

log = logging.getLogger(__name__)

_LINE_BYTES = 800  # the program cuts longer lines of its input, in the middle of a word
_BATCH_BYTES = 4_000  # of input to one start of the program: starting costs little, and they run side by side
_INSTALL = how_to_install("piper-espeak")
_PARAGRAPH = re.compile(r"\r?\n[ \t]*\r?\n\s*")


class ProgramMissing(Exception):
    """There is no espeak-ng program, or it does not run; says why."""


class _ProgramFailed(Exception):
    """The program ended with an error; says which."""


class ProgramSource:
    """The espeak-ng program, started once per batch. Raises ProgramMissing or, for an unknown voice, UserError."""

    exact = False

    def __init__(self, voice: str):
        self._program = find_program()
        self._voice = voice
        try:
            release = re.search(r"text-to-speech:\s*([\w.+-]{1,40})", self._run(["--version"]))
            known = _voice_names(self._run(["--voices"]))
        except _ProgramFailed as failure:
            raise ProgramMissing(str(failure)) from None
        self.name = f"espeak-ng {release[1] if release else '(unknown release)'}"
        if voice.partition("+")[0].lower() not in known:
            raise unknown_voice(voice, known, self.name)

    def clauses(self, texts: Sequence[str]) -> list[list[Clause]]:
        """Return the clauses of each text."""
        paragraphs = [[_one_line(part) for part in _PARAGRAPH.split(text)] for text in texts]
        flat = [paragraph for text in paragraphs for paragraph in text]
        answers = iter(self._clauses_of_lines(flat))
        result = []
        for text in paragraphs:
            clauses: list[Clause] = []
            for number, _ in enumerate(text, start=1):
                part = next(answers)
                if number < len(text):  # an empty line ends a sentence without a mark
                    part[-1] = Clause(part[-1].phonemes, "", True)
                clauses += part
            result.append(clauses)
        return result

    def close(self) -> None:
        """Nothing stays open."""

    def _clauses_of_lines(self, lines: list[str]) -> list[list[Clause]]:
        """The program's own clauses where it made as many as the punctuation says, else piece by piece."""
        pieces = [pieces_of(line) for line in lines]
        spoken = self._speak(lines)
        unclear = [number for number in range(len(lines)) if len(spoken[number]) != len(pieces[number])]
        alone = iter(self._speak([piece.text for number in unclear for piece in pieces[number]]))
        answers = [_closed_by(own, said) for own, said in zip(pieces, spoken)]
        for number in unclear:
            answers[number] = [clause for piece in pieces[number] for clause in _clauses_of_piece(piece, next(alone))]
        return answers

    def _speak(self, lines: Sequence[str]) -> list[list[str]]:
        """Return the phonemes of the clauses of each line, which has no line break in it."""
        batches = _batches(lines)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return [said for answers in pool.map(self._speak_batch, batches) for said in answers]

    def _speak_batch(self, lines: list[str]) -> list[list[str]]:
        """Speak lines in one start of the program, told apart by a word between them that no text can hold."""
        if any(len(line.encode()) > _LINE_BYTES for line in lines):
            return [self._speak_alone(line) for line in lines]
        mark = "".join(secrets.choice("bdfgklmnprstvz") + secrets.choice("aeiou") for _ in range(12))
        try:
            said = self._phonemes("".join(f"{line}\n{mark}\n" for line in ["", *lines]), [])
        except _ProgramFailed:
            said = []
        between = said[1] if len(said) > 1 else ""
        groups: list[list[str]] = [[]]
        for line in said:
            if line == between:
                groups.append([])
            else:
                groups[-1].append(line)
        if not between or len(groups) != len(lines) + 2:
            return [self._speak_alone(line) for line in lines]
        return groups[1:-1]

    def _speak_alone(self, line: str) -> list[str]:
        try:
            return self._phonemes(line + "\n", ["--stdin"]) or [""]
        except _ProgramFailed as failure:
            raise UserError(
                f"espeak-ng makes no phonemes of the text '{one_line(line[:80])}{'...' if len(line) > 80 else ''}'",
                str(failure),
                f"leave this text out or write it in other words, or let piper-tts speak it: {_INSTALL}",
            ) from None

    def _phonemes(self, text: str, options: list[str]) -> list[str]:
        said = self._run(["-q", "--ipa", "-b", "1", "-v", self._voice, *options], text)
        return [line.strip() for line in said.split("\n")[:-1]]

    def _run(self, arguments: list[str], text: str = "") -> str:
        try:
            done = subprocess.run(
                [self._program, *arguments],
                input=text.encode(),
                capture_output=True,
                check=False,
                timeout=patience_s(len(text)),
            )
        except subprocess.TimeoutExpired as late:
            raise _ProgramFailed(f"{self._program} gave no answer in {late.timeout:.0f} s") from None
        except OSError as error:
            raise ProgramMissing(f"{self._program} does not start: {error.strerror or error}") from None
        code = done.returncode
        if code:
            words = one_line(done.stderr.decode("utf-8", "replace").strip()[-300:])
            how = f"ended by signal {-code}" if code < 0 else f"failed with code {code}"
            raise _ProgramFailed(f"{self._program} {how}{f': {words}' if words else ''}")
        return done.stdout.decode("utf-8", "replace")


def find_program() -> str:
    """The path of espeak-ng. Raises ProgramMissing."""
    found = shutil.which("espeak-ng")
    if found is None and sys.platform == "win32":  # its installer leaves PATH as it is
        folders = (os.environ.get(name) for name in ("ProgramFiles", "ProgramFiles(x86)"))
        candidates = [Path(folder) / "eSpeak NG" / "espeak-ng.exe" for folder in folders if folder]
        found = next((str(path) for path in candidates if path.is_file()), None)
    if found is None:
        raise ProgramMissing("there is no program espeak-ng on PATH")
    return found


def _voice_names(table: str) -> set[str]:
    """Names from `espeak-ng --voices`: those by which piper-tts knows its voices too, their names and their files."""
    rows = [line.split() for line in table.splitlines()[1:]]
    files = [(row[3], re.split(r"[/\\]", row[4])) for row in rows if len(row) >= 5]
    return {known.lower() for name, path in files if path[0] != "mb" for known in (name, path[-1])}


def _one_line(text: str) -> str:
    return re.sub(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+", " ", text)


def _batches(lines: Sequence[str]) -> list[list[str]]:
    """Lines in groups of about _BATCH_BYTES, long ones alone."""
    batches: list[list[str]] = []
    room = 0
    for line in lines:
        size = len(line.encode())
        if not batches or size > room:
            batches.append([])
            room = 0 if size > _LINE_BYTES else _BATCH_BYTES
        batches[-1].append(line)
        room -= size + 1
    return batches


def _closed_by(pieces: list[Piece], said: list[str]) -> list[Clause]:
    return [Clause(phonemes, piece.terminator, piece.ends_sentence) for piece, phonemes in zip(pieces, said)]


def _clauses_of_piece(piece: Piece, said: list[str]) -> list[Clause]:
    """The program may make several clauses of what we take for one; the last gets our mark."""
    clauses = [Clause(phonemes, "", False) for phonemes in said]
    clauses[-1:] = [Clause(said[-1] if said else "", piece.terminator, piece.ends_sentence)]
    return clauses
