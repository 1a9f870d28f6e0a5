"""Phonemes from the espeak-ng inside piper-tts, the very ones that the Piper client makes: our side of the worker."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from fish_speech.errors import UserError
from fish_speech.prepare.names import one_line

from .clauses import Clause
from .patience import patience_s
from .voices import unknown_voice

log = logging.getLogger(__name__)

_WORKER = Path(__file__).with_name("piper_worker.py")
_START_S = 120.0  # a first import from a slow disk, and a virus scanner


class SourceMissing(Exception):
    """piper-tts is not there, or does not run; says why."""


class WorkerDied(Exception):
    """The worker ended without an answer; says how."""


class PiperSource:
    """A worker with piper-tts, started once. Raises SourceMissing or, for a voice it does not have, UserError."""

    exact = True

    def __init__(self, voice: str):
        self._voice = voice
        self._worker = _Worker(voice)
        self.name = f"piper-tts {self._worker.release}"

    def clauses(self, texts: Sequence[str]) -> list[list[Clause]]:
        """Return the clauses of each text. A worker that died is started again; UserError names the text that kills it."""
        if not texts:
            return []
        try:
            return self._worker.ask(texts)
        except WorkerDied as death:
            log.debug("the phoneme worker %s; starting another", death)
        self._restart()
        if len(texts) > 1:
            return [answer for text in texts for answer in self.clauses([text])]
        try:
            return self._worker.ask(texts)
        except WorkerDied as death:
            shown = one_line(texts[0][:80]) + ("..." if len(texts[0]) > 80 else "")
            raise UserError(
                f"piper-tts makes no phonemes of the text '{shown}'",
                f"its worker process {death}",
                "leave this text out or write it in other words; if it happens with any text: pip install -U piper-tts",
            ) from None

    def _restart(self) -> None:
        self._worker.end()
        try:
            self._worker = _Worker(self._voice)
        except SourceMissing as error:
            raise UserError("the phoneme worker died and does not start again", str(error), "start again") from None

    def close(self) -> None:
        """End the worker."""
        self._worker.end()


class _Worker:
    """One worker process, from its first line to its end."""

    def __init__(self, voice: str):
        self._number = 0
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - its stderr, until it has ended
        try:
            self._process = subprocess.Popen(
                [sys.executable, str(_WORKER), voice],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            self._said.close()
            raise SourceMissing(f"no worker process starts: {error.strerror or error}") from None
        try:
            first = self._read(_START_S)
        except WorkerDied as death:
            self.end(at_once=True)
            raise SourceMissing(f"its worker process {death}") from None
        problem = first.get("problem")
        if problem:
            self.end()
        if problem == "voice":
            raise unknown_voice(voice, first["voices"], f"piper-tts {first['release']}")
        if problem:
            raise SourceMissing(one_line(first.get("detail", "piper-tts is not installed")))
        self.release = str(first["release"])

    def ask(self, texts: Sequence[str]) -> list[list[Clause]]:
        """Send texts, wait for their clauses. Raises WorkerDied; after any other exception the worker is gone too."""
        self._number += 1
        line = json.dumps({"id": self._number, "texts": list(texts)}).encode("ascii") + b"\n"
        stdin = self._process.stdin
        assert stdin is not None
        try:
            try:
                stdin.write(line)
                stdin.flush()
            except (OSError, ValueError):  # ValueError: closed
                raise WorkerDied(self._last_words()) from None
            answer = self._read(patience_s(len(line)))
            if answer.get("id") != self._number or len(answer["clauses"]) != len(texts):
                raise WorkerDied("gave an answer to another question")
        except BaseException:  # Ctrl+C between question and answer: the next answer would be this one's
            self.end(at_once=True)
            raise
        return [[Clause(*clause) for clause in clauses] for clauses in answer["clauses"]]

    def _read(self, patience_s: float) -> dict[str, Any]:
        """Read one answer. A worker that stays silent for longer than `patience_s` is killed, which ends the reading."""
        stdout = self._process.stdout
        assert stdout is not None
        is_late = threading.Event()

        def give_up() -> None:
            is_late.set()
            self._process.kill()

        alarm = threading.Timer(patience_s, give_up)
        alarm.daemon = True
        alarm.start()
        try:
            line = stdout.readline()
        except BaseException:
            self.end(at_once=True)
            raise
        finally:
            alarm.cancel()
        if not line.endswith(b"\n"):
            raise WorkerDied(f"gave no answer in {patience_s:.0f} s" if is_late.is_set() else self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        """Wait for its end and tell how it ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        code = self._process.poll()
        words = b""
        with contextlib.suppress(OSError, ValueError):
            self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 400))
            words = self._said.read()
        self.end()
        lines = words.decode("utf-8", "replace").strip().splitlines()
        how = (
            "closed its pipe" if code is None else f"ended by signal {-code}" if code < 0 else f"ended with code {code}"
        )
        return f"{how}: {one_line(lines[-1])}" if lines else how

    def end(self, at_once: bool = False) -> None:
        """End it and wait for that, without waiting for its work if `at_once`; harmless when it has ended."""
        if at_once:
            self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(2)  # a worker at its loop ends with its stdin
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._said.close()
