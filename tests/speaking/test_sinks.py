"""Where sound goes: whole files, growing streams, and readers that go away."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fish_speech.errors import UserError
from fish_speech.speaking.file_sink import FileSink
from fish_speech.speaking.sinks import (
    PlayerFailed,
    Sink,
    SinkClosed,
    StreamSink,
    Tee,
    to_pcm16,
    wav_header,
)
from fish_speech.speaking.targets import output_target

RATE = 16000
SOUND = (0.5 * np.sin(np.arange(5000) / 7)).astype(np.float32)
REPO = Path(__file__).parents[2]


def chunks(sound: np.ndarray, size: int = 700) -> list[np.ndarray]:
    return [sound[start : start + size] for start in range(0, len(sound), size)]


class Unclosed(io.BytesIO):
    """Keeps what it holds when it is closed, as a pipe's reader does."""

    def close(self) -> None:
        self.flush()


class Pipe(Unclosed):
    def seekable(self) -> bool:
        return False


def test_full_scale_is_held_and_never_wraps():
    sound = np.array([0, 1, -1, 1.5, -1.5, 1e9, -1e9, 32767 / 32768, 0.4 / 32768, 0.6 / 32768, -0.6 / 32768])
    assert to_pcm16(sound).tolist() == [0, 32767, -32768, 32767, -32768, 32767, -32768, 32767, 0, 1, -1]


@given(arrays(np.int16, st.integers(0, 300)))
def test_what_was_16_bits_comes_back_unchanged(pcm):
    assert np.array_equal(to_pcm16(pcm.astype(np.float32) / 32768), pcm)


@given(arrays(np.float32, st.integers(1, 200), elements=st.floats(-2, 2, width=32)))
def test_a_sample_is_off_by_half_a_step_at_most(sound):
    error = np.abs(to_pcm16(sound) / 32768 - np.clip(sound.astype(np.float64), -1, 32767 / 32768))
    assert error.max() <= 0.5 / 32768


@pytest.mark.parametrize("sound", [np.array([0, np.nan]), np.array([np.inf]), np.zeros((2, 3))])
def test_samples_that_are_no_sound_are_refused(sound):
    with pytest.raises(ValueError, match=r"NaN|samples"):
        to_pcm16(sound)


@given(pcm=arrays(np.int16, st.integers(0, 300)), cuts=st.lists(st.integers(0, 300), max_size=4))
def test_a_wav_file_holds_what_was_written_however_it_was_cut(tmp_path_factory, pcm, cuts):
    path = tmp_path_factory.mktemp("wav") / "a.wav"
    with FileSink(path, RATE) as sink:
        for part in np.split(pcm.astype(np.float32) / 32768, sorted(cuts)):
            sink.write(part)
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        assert np.array_equal(np.frombuffer(file.readframes(1000), "<i2"), pcm)
    assert path.stat().st_size == 44 + 2 * len(pcm)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.WAV", "a.FLAC"])
def test_a_file_appears_when_it_is_whole(tmp_path, name):
    sink = FileSink(tmp_path / "new" / name, RATE)
    for chunk in chunks(SOUND):
        sink.write(chunk)
        assert not (tmp_path / "new" / name).exists()
    sink.close()
    sound, rate = soundfile.read(tmp_path / "new" / name, dtype="int16")
    assert rate == RATE and np.array_equal(sound, to_pcm16(SOUND)) and sink.samples == len(SOUND)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("begun", [True, False])
def test_a_file_that_is_stopped_leaves_what_was_there_before(tmp_path, name, begun):
    (tmp_path / name).write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), FileSink(tmp_path / name, RATE) as sink:
        if begun:
            sink.write(SOUND)
        raise KeyboardInterrupt
    sink.abort()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"before")]


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_a_file_that_is_not_to_be_named_is_not(tmp_path, name):
    seen = []

    def refuse(path: Path) -> None:
        seen.append(len(soundfile.read(path)[0]))
        raise UserError("no", "no", "no")

    sink = FileSink(tmp_path / name, RATE, refuse)
    sink.write(SOUND)
    with pytest.raises(UserError):
        sink.close()
    assert seen == [len(SOUND)] and not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="limits of processes are POSIX's")
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("limit", [20, 5000, 39_000])  # bytes: before, in and just before the end of the sound
def test_a_disk_that_takes_no_more_is_an_error_with_its_number_and_leaves_nothing(tmp_path, name, limit):
    program = """if True:
        import resource, signal, sys
        from pathlib import Path
        import numpy as np, soundfile
        from fish_speech.speaking.file_sink import FileSink
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
        try:
            with FileSink(Path(sys.argv[1]), 16000) as sink:
                for part in range(4):
                    sink.write(np.random.default_rng(part).uniform(-1, 1, 5000))
        except OSError as error:
            print(error.errno, error.filename == sys.argv[1])
        """
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / name), str(limit)],
        env={**os.environ, "PYTHONPATH": str(REPO)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == [str(errno.EFBIG), "True"], result.stderr
    assert not result.stderr and not list(tmp_path.iterdir())


def test_a_raw_stream_is_16_bit_little_endian_and_nothing_else():
    stream = Pipe()
    with StreamSink(stream, RATE, raw=True) as sink:
        for chunk in chunks(SOUND):
            sink.write(chunk)
    assert stream.getvalue() == to_pcm16(SOUND).astype("<i2").tobytes()


def test_every_chunk_goes_out_at_once():
    stream = Pipe()
    sink = StreamSink(stream, RATE)
    sizes = [len(stream.getvalue())]
    for chunk in chunks(SOUND):
        sink.write(chunk)
        sizes.append(len(stream.getvalue()))
    assert np.diff(sizes).tolist() == [2 * len(chunk) for chunk in chunks(SOUND)]


def test_a_wav_stream_of_unknown_length_is_read_by_other_programs(tmp_path):
    stream = Pipe()
    with StreamSink(stream, RATE) as sink:
        sink.write(SOUND)
    assert stream.getvalue()[:44] == wav_header(RATE, None)
    sound, rate = soundfile.read(io.BytesIO(stream.getvalue()), dtype="int16")
    assert rate == RATE and np.array_equal(sound, to_pcm16(SOUND))


def test_stdout_that_is_a_file_gets_its_length(tmp_path):
    with (tmp_path / "two.bin").open("wb", buffering=0) as file:
        file.write(b"earlier")  # as in (echo; cli_tts.py -o -) > FILE
        with StreamSink(os.fdopen(os.dup(file.fileno()), "wb", buffering=0), RATE) as sink:
            sink.write(SOUND)
        file.write(b"later")
    data = (tmp_path / "two.bin").read_bytes()
    assert data == b"earlier" + wav_header(RATE, 2 * len(SOUND)) + to_pcm16(SOUND).tobytes() + b"later"


def test_a_file_opened_to_append_is_only_appended_to(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"earlier")
    with StreamSink((tmp_path / "a.wav").open("ab", buffering=0), RATE) as sink:
        sink.write(SOUND)
    if sys.platform != "win32":
        data = (tmp_path / "a.wav").read_bytes()
        assert data == b"earlier" + wav_header(RATE, None) + to_pcm16(SOUND).tobytes()


def test_a_reader_that_goes_away_closes_the_sink():
    reader, writer = os.pipe()
    sink = StreamSink(os.fdopen(writer, "wb", buffering=0), RATE, raw=True)
    sink.write(SOUND[:100])
    os.close(reader)
    with pytest.raises(SinkClosed) as closed:
        sink.write(SOUND)
    assert isinstance(closed.value, BrokenPipeError) and closed.value.exit_code == 1
    sink.abort()


@pytest.mark.skipif(sys.platform == "win32", reason="non-blocking pipes are POSIX's")
def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_all():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    got = []

    def read() -> None:
        with os.fdopen(reader, "rb") as pipe:
            got.append(pipe.read())

    thread = threading.Thread(target=read)
    sound = np.tile(SOUND, 60)  # more than a pipe holds
    with StreamSink(os.fdopen(writer, "wb", buffering=0), RATE, raw=True) as sink:
        threading.Timer(0.1, thread.start).start()
        sink.write(sound)
    while not got:
        thread.join(0.1) if thread.ident else None
    assert got[0] == to_pcm16(sound).tobytes()


PROGRAM = """if True:
    import sys
    from pathlib import Path
    import numpy as np
    from fish_speech.errors import run
    from fish_speech.speaking.targets import output_target
    def main():
        target = output_target(Path(sys.argv[1]), sys.argv[2])
        with target.open(16000) as sink:
            for _ in range(int(sys.argv[3])):
                sink.write(np.full(1000, 0.25, np.float32))
    run(main)
"""


def start(*arguments: object, **options) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPO)}, stderr=subprocess.PIPE, **options)


def test_stdout_carries_sound_and_nothing_else():
    process = start("-", "raw", 10, stdout=subprocess.PIPE)
    out, said = process.communicate()
    assert process.returncode == 0 and not said
    assert out == to_pcm16(np.full(10_000, 0.25)).tobytes()


@pytest.mark.parametrize("form", ["raw", "wav"])
def test_a_reader_like_head_ends_the_program_quietly(form):
    process = start("-", form, 100_000, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert len(process.stdout.read(5000)) == 5000
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 1 and not said


@pytest.mark.skipif(sys.platform == "win32", reason="named pipes are files on POSIX alone")
@pytest.mark.parametrize(("name", "form"), [("pipe.raw", "raw"), ("pipe", "wav")])
def test_a_named_pipe_gets_the_stream_and_stays(tmp_path, name, form):
    os.mkfifo(tmp_path / name)
    process = start(tmp_path / name, form, 10)
    data = (tmp_path / name).read_bytes()
    assert process.wait(60) == 0
    assert data[-20_000:] == to_pcm16(np.full(10_000, 0.25)).tobytes() and len(data) == 20_000 + 44 * (form == "wav")
    assert (tmp_path / name).is_fifo()
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX's")
def test_sound_is_not_written_to_a_terminal():
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    process = start("-", "raw", 1, stdout=slave)
    said = process.communicate()[1].decode()
    assert process.returncode == 2 and "error: cannot write sound to a terminal" in said and "Traceback" not in said
    with pytest.raises(UserError, match="terminal"):
        output_target(Path(os.ttyname(slave)))
    os.close(slave)
    os.close(master)


@pytest.mark.parametrize(
    ("output", "form", "told"),
    [
        ("a.mp3", None, "WAV or FLAC"),
        ("a", None, "WAV or FLAC"),
        ("a.wav", "flac", "do not agree"),
        ("a.wav", "raw", "raw goes to stdout"),
        ("folder.wav", None, "folder"),
    ],
)
def test_outputs_that_cannot_be_are_refused_before_anything_is_made(tmp_path, output, form, told):
    (tmp_path / "folder.wav").mkdir()
    with pytest.raises(UserError, match=told):
        output_target(tmp_path / output, form)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.wav"]


def test_flac_is_not_streamed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(UserError, match="FLAC cannot be streamed"):
        output_target(Path("-"), "flac")


class Failing(Sink):
    """A sink that ends with an error at the second chunk, or when it is closed."""

    def __init__(self, error: Exception, at_close: bool = False):
        self.error, self.at_close, self.count, self.aborted = error, at_close, 0, False

    def write(self, chunk: np.ndarray) -> None:
        self.count += 1
        if self.count == 2 and not self.at_close:
            raise self.error

    def close(self) -> None:
        raise self.error

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.parametrize("at_close", [False, True])
def test_a_player_that_is_closed_or_fails_does_not_cost_the_file(tmp_path, at_close):
    for error in (SinkClosed(), PlayerFailed("it broke")):
        player = Failing(error, at_close)
        tee = Tee([player, FileSink(tmp_path / "a.wav", RATE)])
        for chunk in chunks(SOUND):
            tee.write(chunk)
        if isinstance(error, PlayerFailed):
            with pytest.raises(PlayerFailed):
                tee.close()
        else:
            tee.close()
        assert player.aborted
        assert np.array_equal(soundfile.read(tmp_path / "a.wav", dtype="int16")[0], to_pcm16(SOUND))
        (tmp_path / "a.wav").unlink()


def test_with_nobody_left_to_hear_it_the_sound_ends():
    tee = Tee([Failing(SinkClosed()), Failing(SinkClosed())])
    tee.write(SOUND)
    with pytest.raises(SinkClosed):
        tee.write(SOUND)


def test_a_disk_error_ends_all_sinks(tmp_path):
    full = Failing(OSError(errno.ENOSPC, "full"))
    with pytest.raises(OSError, match="full"), Tee([FileSink(tmp_path / "a.wav", RATE), full]) as tee:
        tee.write(SOUND)
        tee.write(SOUND)
    assert full.aborted and not list(tmp_path.iterdir())
