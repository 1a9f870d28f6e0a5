"""Programs that play sound on Linux, macOS and Windows: found before anything is spoken, started without a shell.

Some take a stream on stdin; the others play files, and are given what is spoken in pieces, cut at pauses.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from ..errors import DONE, UserError
from ..prepare.names import one_line
from .piecewise import PieceSink
from .sinks import PlayerFailed, Sink, SinkClosed, StreamSink

_FFPLAY = ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error")
_NO_DEVICE = "audio open failed"  # ffplay's words
_WINSOUND = "import sys, winsound; winsound.PlaySound(sys.argv[1], winsound.SND_FILENAME)"


@dataclass(frozen=True)
class Player:
    """A program with its arguments. A `{rate}` in them becomes the sample rate."""

    command: tuple[str, ...]
    takes: str = "file"  # or "raw" or "wav": a stream on stdin
    suffixes: tuple[str, ...] = (".wav", ".flac")  # of files it can play

    @property
    def name(self) -> str:
        """What the program is called."""
        return Path(self.command[0]).name


def _file_players(platform: str) -> list[Player]:
    others = [Player((*_FFPLAY, "-i")), Player(("play", "-q"))]
    if platform == "darwin":
        return [Player(("afplay",)), *others]
    if platform == "win32":  # Windows' own player, asked by a Python of its own so that it can be stopped
        return [Player((sys.executable, "-c", _WINSOUND), suffixes=(".wav",)), *others]
    return [Player(("pw-play",)), Player(("paplay",)), Player(("aplay", "-q"), suffixes=(".wav",)), *others]


def _stream_players(platform: str) -> list[Player]:
    raw = ("--format=s16le", "--rate={rate}", "--channels=1")
    linux = [
        Player(("pacat", "--playback", "--latency-msec=100", *raw), "raw"),
        Player(("aplay", "-q", "-t", "raw", "-f", "S16_LE", "-r", "{rate}", "-c", "1", "-"), "raw"),
    ]
    # Their default buffers and guessing at the format would hold the first sound back.
    others = [
        Player((*_FFPLAY, "-fflags", "nobuffer", "-probesize", "4096", "-f", "wav", "-i", "-"), "wav"),
        Player(("play", "-q", "-t", "raw", "-e", "signed", "-b", "16", "-L", "-c", "1", "-r", "{rate}", "-"), "raw"),
    ]
    return others if platform in ("darwin", "win32") else [*linux, *others]


def find_player(suffix: str = ".wav", platform: str = sys.platform) -> Player:
    """The first program on PATH that plays a file of this kind; raise UserError if there is none."""
    known = [player for player in _file_players(platform) if suffix.lower() in player.suffixes]
    return _first_installed(known)


def find_stream_player(platform: str = sys.platform) -> Player:
    """The first program on PATH that plays a stream, or else files, in pieces; raise UserError if there is none."""
    return _first_installed([*_stream_players(platform), *_file_players(platform)])


def play_file(player: Player, path: Path) -> None:
    """Play a finished file to its end. Raises PlayerFailed."""
    running = _Running(player, str(Path(os.path.abspath(path))))  # noqa: PTH100 - a name may start with - but no path
    try:
        running.wait()
    except BaseException:
        running.stop()
        raise


def player_sink(player: Player, sample_rate: int) -> Sink:
    """A sink that plays what it gets, while it gets more. Closing it waits until all has been heard."""
    if player.takes == "file":
        return PieceSink(sample_rate, lambda path: _Running(player, str(path)))
    return _StreamPlayer(player, sample_rate)


class _Running:
    """A player at work."""

    def __init__(self, player: Player, *arguments: str, rate: int = 0, stdin: int = subprocess.DEVNULL):
        self._name = player.name
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - until the player has ended
        program = shutil.which(player.command[0]) or player.command[0]
        command = [program, *(part.format(rate=rate) if rate else part for part in player.command[1:]), *arguments]
        try:
            self.process = subprocess.Popen(
                command, bufsize=0, stdin=stdin, stdout=subprocess.DEVNULL, stderr=self._said
            )
        except OSError as error:
            self._said.close()
            raise PlayerFailed(f"{self._name} does not start: {error.strerror or error}") from None

    def wait(self, is_early: bool = False) -> None:
        """Wait for its end. Raises PlayerFailed if that is not the end of the sound.

        `is_early`: it ended before it had all. If it says something then, it was not closed by a person, whatever its
        exit code is: ffplay's is 0 without a sound device.
        """
        code = self.process.wait()
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 400))  # its last words say most
        said = one_line(self._said.read().decode("utf-8", "replace").strip())
        self._said.close()
        if code == DONE and not (said and (is_early or _NO_DEVICE in said)):
            return
        how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
        raise PlayerFailed(f"{self._name} {how}{f': {said}' if said else ''}")

    def stop(self) -> None:
        """End it, whatever it is doing."""
        with suppress(OSError):
            self.process.terminate()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._said.close()


class _StreamPlayer(Sink):
    """Feeds a player over its stdin."""

    def __init__(self, player: Player, sample_rate: int):
        self._running = _Running(player, rate=sample_rate, stdin=subprocess.PIPE)
        stdin = self._running.process.stdin
        assert stdin is not None
        try:
            self._stream = StreamSink(stdin, sample_rate, raw=player.takes == "raw")  # type: ignore[arg-type]
        except SinkClosed:
            self._closed()

    def write(self, chunk: np.ndarray) -> None:
        try:
            self._stream.write(chunk)
        except SinkClosed:
            self._closed()

    def close(self) -> None:
        try:
            self._stream.close()
            self._running.wait()
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        self._stream.abort()
        self._running.stop()

    def _closed(self) -> None:
        """It takes no more: a person closed it, which is no mistake, or it failed, which it says by its exit code."""
        self._running.wait(is_early=True)
        raise SinkClosed(DONE)


def _first_installed(known: list[Player]) -> Player:
    for player in known:
        if shutil.which(player.command[0]):
            return player
    names = ", ".join(dict.fromkeys(player.name for player in known))
    raise UserError(
        "there is no player", f"looked for {names}", "install one (ffplay, say), or write a file: -o FILE.wav"
    )
