"""Players are real programs here: small scripts on PATH that keep what they were given."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fish_speech.errors import UserError
from fish_speech.speaking import piecewise
from fish_speech.speaking.piecewise import cut_at_pause
from fish_speech.speaking.players import find_player, find_stream_player, play_file, player_sink
from fish_speech.speaking.sinks import PlayerFailed, SinkClosed, to_pcm16, wav_header

RATE = 16000
SOUND = (0.5 * np.sin(np.arange(20_000) / 7)).astype(np.float32)
SCRIPT = """#!{python}
import json, os, pathlib, sys, time
folder, mode = pathlib.Path({folder!r}), {mode!r}
(folder / "pid.new").write_text(str(os.getpid()))
(folder / "pid.new").rename(folder / "pid")
number = len(list(folder.glob("*.json")))
(folder / f"{{number}}.json").write_text(json.dumps(sys.argv))
if mode == "fails":
    print("no such device\\x1b[31m", file=sys.stderr)
    sys.exit(3)
if mode == "deaf":
    print("No more combinations to try, audio open failed", file=sys.stderr)
    sys.exit(0)
if mode == "closed":
    sys.stdin.buffer.read(100)
    sys.exit(0)
if mode == "stuck":
    time.sleep(60)
names = [name for name in sys.argv[1:] if os.path.isfile(name)]
data = pathlib.Path(names[0]).read_bytes() if names else sys.stdin.buffer.read()
(folder / f"{{number}}.heard").write_bytes(data)
"""


class Room:
    """A folder that is all of PATH, and what the players in it were given."""

    def __init__(self, folder: Path):
        self.programs, self.heard = folder / "programs", folder / "heard"
        self.programs.mkdir()
        self.heard.mkdir()

    def install(self, *names: str, mode: str = "plays") -> None:
        for name in names:
            path = self.programs / name
            path.write_text(SCRIPT.format(python=sys.executable, folder=str(self.heard), mode=mode), encoding="utf-8")
            path.chmod(0o755)

    def calls(self) -> list[list[str]]:
        return [json.loads(path.read_text()) for path in sorted(self.heard.glob("*.json"))]

    def sounds(self) -> list[bytes]:
        return [path.read_bytes() for path in sorted(self.heard.glob("*.heard"))]


@pytest.fixture()
def room(tmp_path, monkeypatch) -> Room:
    if sys.platform == "win32":
        pytest.skip("a script is no program on Windows")
    room = Room(tmp_path)
    monkeypatch.setenv("PATH", str(room.programs))
    return room


def play(player, sound: np.ndarray = SOUND, size: int = 3000) -> None:
    with player_sink(player, RATE) as sink:
        for start in range(0, len(sound), size):
            sink.write(sound[start : start + size])


@pytest.mark.parametrize(
    ("platform", "program", "header", "arguments"),
    [
        ("linux", "pacat", False, ["--playback", "--format=s16le", "--rate=16000", "--channels=1"]),
        ("linux", "aplay", False, ["-t", "raw", "-f", "S16_LE", "-r", "16000", "-c", "1"]),
        ("linux", "ffplay", True, ["-nodisp", "-autoexit", "-f", "wav", "-i", "-"]),
        ("linux", "play", False, ["-t", "raw", "-e", "signed", "-b", "16", "-c", "1", "-r", "16000"]),
        ("darwin", "ffplay", True, ["-i", "-"]),
        ("darwin", "play", False, ["-r", "16000"]),
        ("win32", "ffplay", True, ["-i", "-"]),
    ],
)
def test_a_player_of_streams_gets_the_sound_on_stdin(room, platform, program, header, arguments):
    room.install(program)
    play(find_stream_player(platform))
    assert room.sounds() == [(wav_header(RATE, None) if header else b"") + to_pcm16(SOUND).tobytes()]
    (call,) = room.calls()
    assert Path(call[0]).name == program and [part for part in call if part in arguments] == arguments
    assert not any("{" in part for part in call)


@pytest.mark.parametrize(
    ("platform", "programs", "suffix", "expected"),
    [
        ("linux", ("pw-play", "paplay", "aplay", "ffplay", "play"), ".wav", "pw-play"),
        ("linux", ("aplay", "ffplay"), ".wav", "aplay"),
        ("linux", ("aplay", "ffplay"), ".flac", "ffplay"),  # aplay would play FLAC as noise
        ("linux", ("afplay", "play"), ".wav", "play"),
        ("darwin", ("afplay", "ffplay"), ".flac", "afplay"),
        ("darwin", ("aplay", "ffplay"), ".wav", "ffplay"),
        ("win32", ("ffplay",), ".wav", Path(sys.executable).name),
        ("win32", ("ffplay",), ".flac", "ffplay"),
    ],
)
def test_the_first_player_that_can_play_the_file_is_taken(room, platform, programs, suffix, expected):
    room.install(*programs)
    assert find_player(suffix, platform).name == expected


def test_windows_plays_by_itself_and_without_a_shell(room):
    player = find_stream_player("win32")
    assert player.takes == "file" and player.command[0] == sys.executable and "winsound" in player.command[2]


@pytest.mark.parametrize("name", ["-q.wav", "two words; exit 1.wav", "$(exit).wav", "{rate}.wav"])
def test_a_file_is_played_whatever_its_name(room, tmp_path, monkeypatch, name):
    room.install("play")
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"sound")
    play_file(find_player(".wav", "linux"), Path(name))
    assert room.sounds() == [b"sound"] and room.calls()[0][-1] == str(tmp_path / name)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_without_a_player_there_is_an_error_that_names_some(room, platform):
    for find in (lambda: find_player(".wav", platform), lambda: find_stream_player(platform)):
        with pytest.raises(UserError, match="no player") as error:
            find()
        assert "ffplay" in error.value.why


def test_a_player_that_fails_is_told_of_with_its_words(room, tmp_path):
    room.install("play", mode="fails")
    (tmp_path / "a.wav").write_bytes(b"sound")
    with pytest.raises(PlayerFailed, match=r"^play failed with exit code 3: no such device\\x1b\[31m$"):
        play_file(find_player(".wav", "linux"), tmp_path / "a.wav")
    with pytest.raises(PlayerFailed, match=r"play failed with exit code 3: no such device"):
        play(find_stream_player("linux"), np.tile(SOUND, 20))


@pytest.mark.parametrize("program", ["ffplay", "pacat", "pw-play"])
def test_a_player_without_a_sound_device_has_failed_although_it_says_0(room, tmp_path, program):
    room.install(program, mode="deaf")
    with pytest.raises(PlayerFailed, match="audio open failed"):
        play(find_stream_player("linux"), np.tile(SOUND, 50))
    if program != "pacat":
        with pytest.raises(PlayerFailed, match="audio open failed"):
            play_file(find_player(".wav", "linux"), tmp_path / "a.wav")


def test_a_player_that_is_closed_ends_the_sound_without_a_complaint(room):
    room.install("play", mode="closed")
    with pytest.raises(SinkClosed) as closed:
        play(find_stream_player("linux"), np.tile(SOUND, 20))
    assert closed.value.exit_code == 0


def test_a_player_that_vanished_is_told_of(room):
    room.install("play")
    player = find_stream_player("linux")
    shutil.rmtree(room.programs)
    with pytest.raises(PlayerFailed, match="play does not start"):
        player_sink(player, RATE)


@pytest.mark.parametrize("program", ["play", "afplay"])
def test_stopping_ends_the_player(room, program):
    room.install(program, mode="stuck")
    sink = player_sink(find_stream_player("darwin"), RATE)
    sink.write(np.concatenate([SOUND, np.zeros(4000)]))
    deadline = time.monotonic() + 30
    while not (room.heard / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    sink.abort()
    with pytest.raises(ProcessLookupError):
        os.kill(int((room.heard / "pid").read_text()), 0)


def test_a_player_of_files_gets_pieces_cut_at_pauses(room):
    room.install("afplay")
    pause = np.zeros(RATE // 2, np.float32)
    sound = np.concatenate([SOUND, pause, SOUND, pause, SOUND[:9000]])
    play(find_stream_player("darwin"), sound)
    pieces = []
    for number, data in enumerate(room.sounds()):
        (room.heard / f"{number}.wav").write_bytes(data)
        pieces.append(soundfile.read(room.heard / f"{number}.wav", dtype="int16")[0])
    assert len(pieces) == 3 and np.array_equal(np.concatenate(pieces), to_pcm16(sound))
    for piece in pieces[:-1]:
        assert not piece[-800:].any()
    for piece in pieces[1:]:
        assert not piece[:800].any()
    assert not any(Path(call[-1]).exists() for call in room.calls())


def test_a_player_of_files_that_fails_ends_the_sound(room):
    room.install("afplay", mode="fails")
    with pytest.raises(PlayerFailed, match="exit code 3"):
        play(find_stream_player("darwin"))


def test_a_piece_is_neither_too_short_nor_too_long():
    loud = np.full(RATE * 20, 0.5, np.float32)
    assert cut_at_pause(loud[: RATE // 2], RATE) == 0
    assert cut_at_pause(loud[: RATE * 10], RATE) == 0
    assert RATE * piecewise.MIN_PIECE_S <= cut_at_pause(loud, RATE) <= len(loud)
    early = loud[: RATE * 10].copy()
    early[RATE // 2 : RATE // 2 + 4000] = 0
    assert cut_at_pause(early, RATE) == 0
    quieter = loud.copy()
    quieter[RATE * 7 : RATE * 7 + 1000] = 0.1
    assert RATE * 7 <= cut_at_pause(quieter, RATE) <= RATE * 7 + 1000


@pytest.mark.skipif(shutil.which("ffplay") is None, reason="needs ffplay")
def test_ffplay_plays_a_stream_to_its_end(monkeypatch):
    monkeypatch.setenv("SDL_AUDIODRIVER", "dummy")
    player = find_stream_player("win32")
    if player.name != "ffplay":
        pytest.skip("another player comes first")
    play(player, SOUND)  # raises PlayerFailed if it does not understand what it gets
