"""Decode a small file of each kind that recordings come in. The files are made here, by soundfile or ffmpeg."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from .findings import Finding, one_line
from .install import install_program, run_program
from .programs import ffmpeg_works

if TYPE_CHECKING:
    import numpy as np

RATE = 48000  # Hz; all of these formats have it, Opus has no other that music players know
DURATION_S, TONE_HZ, LEVEL = 1.0, 440.0, 0.25  # LEVEL: amplitude; 1.0 is full scale
_LENGTH_OFF_S = 0.15  # encoders pad: MP3 by two frames of 26 ms, AAC by three of 21 ms
_LEVEL_OFF_DB = 1.0


@dataclass(frozen=True)
class Kind:
    """A kind of file: its suffix, what soundfile calls it, and ffmpeg's arguments to make one."""

    name: str
    suffix: str
    soundfile: tuple[str, str] | None  # format, subtype
    ffmpeg: tuple[str, ...]
    picture: bool = False  # a video, of which the sound is read


KINDS = (
    Kind("WAV", ".wav", ("WAV", "PCM_16"), ("-c:a", "pcm_s16le")),
    Kind("FLAC", ".flac", ("FLAC", "PCM_16"), ("-c:a", "flac")),
    Kind("OGG (Vorbis)", ".ogg", ("OGG", "VORBIS"), ("-c:a", "libvorbis")),
    Kind("Opus", ".opus", ("OGG", "OPUS"), ("-c:a", "libopus")),
    Kind("MP3", ".mp3", ("MP3", "MPEG_LAYER_III"), ("-c:a", "libmp3lame")),
    Kind("m4a (AAC)", ".m4a", None, ("-c:a", "aac", "-b:a", "128k")),
    Kind("webm (Opus)", ".webm", None, ("-c:a", "libopus", "-b:a", "96k")),
    Kind("mp4 (video, AAC)", ".mp4", None, ("-c:v", "mpeg4", "-c:a", "aac", "-b:a", "128k"), picture=True),
)


class NoEncoder(Exception):
    """No file of this kind can be made here."""


def look_at_decoder(kind: Kind) -> Iterator[Finding]:
    """Make a file of this kind, read it as recordings are read, and compare length, level and pitch."""
    from ..audio import AudioError, read_audio

    label = f"decoding {kind.name}"
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        path = Path(folder) / f"tone{kind.suffix}"
        try:
            encoder = make(kind, path)
        except NoEncoder as error:
            yield Finding(label, "note", f"not checked: {error}")
            return
        try:
            waveform, rate = read_audio(path)
        except AudioError as error:
            fix = f"pip install --force-reinstall soundfile, and {install_program('ffmpeg')}"
            yield Finding(label, "wrong", f"a file that {encoder} made cannot be read: {error.reason}", fix)
            return
    problem = compare(waveform, rate)
    if problem:
        fix = f"pip install --force-reinstall soundfile, and a newer ffmpeg: {install_program('ffmpeg')}"
        yield Finding(label, "wrong", f"a tone that {encoder} wrote comes back wrong: {problem}", fix)
    else:
        yield Finding(label, "good", f"a tone that {encoder} wrote comes back: {describe(waveform, rate)}")


def tone() -> np.ndarray:
    """The sound in each file: float32 (samples,)."""
    import numpy as np

    times = np.arange(round(DURATION_S * RATE)) / RATE
    return (LEVEL * np.sin(2 * np.pi * TONE_HZ * times)).astype(np.float32)


def make(kind: Kind, path: Path) -> str:
    """Write the tone as a file of this kind and return who did; raises NoEncoder."""
    if kind.soundfile is not None:
        import soundfile

        file_format, subtype = kind.soundfile
        if soundfile.check_format(file_format, subtype):
            soundfile.write(path, tone(), RATE, format=file_format, subtype=subtype)
            return "soundfile"
    from ..audio import write_wav

    program = shutil.which("ffmpeg")
    if program is None or not _ffmpeg_works():
        raise NoEncoder("no working ffmpeg, which would make the file and read it")
    plain = path.with_name("plain.wav")
    write_wav(plain, tone(), RATE)
    picture = ("-f", "lavfi", "-i", f"color=size=64x64:rate=10:duration={DURATION_S:g}") if kind.picture else ()
    command = (program, "-nostdin", "-v", "error", "-y", "-i", str(plain), *picture, *kind.ffmpeg, str(path))
    code, output = run_program(command)
    if code or not path.is_file():
        raise NoEncoder(f"this ffmpeg makes none ({one_line(output) or f'it ended with {code}'})")
    return "ffmpeg"


@cache
def _ffmpeg_works() -> bool:
    return ffmpeg_works()


def compare(waveform: np.ndarray, rate: int) -> str:
    """What is wrong with a tone that was read; empty if nothing is."""
    duration, level_db, pitch = _measure(waveform, rate)
    expected_db = 20 * math.log10(LEVEL / math.sqrt(2))
    if abs(duration - DURATION_S) > _LENGTH_OFF_S:
        return f"{duration:.3f} s long instead of {DURATION_S:g} s"
    if not abs(level_db - expected_db) <= _LEVEL_OFF_DB:
        return f"its level is {level_db:.1f} dB instead of {expected_db:.1f} dB"
    if abs(pitch - TONE_HZ) > 5:
        return f"its pitch is {pitch:.0f} Hz instead of {TONE_HZ:.0f} Hz"
    return ""


def describe(waveform: np.ndarray, rate: int) -> str:
    """A tone in figures."""
    duration, level_db, pitch = _measure(waveform, rate)
    return f"{duration:.3f} s, {level_db:.1f} dB, {pitch:.0f} Hz"


def _measure(waveform: np.ndarray, rate: int) -> tuple[float, float, float]:
    """Duration in s; of its middle (encoders fade in and pad the end) level in dB and pitch in Hz."""
    import numpy as np

    start, end = round(0.3 * DURATION_S * rate), round(0.8 * DURATION_S * rate)
    middle = waveform[start:end]
    if not np.any(middle):
        return len(waveform) / rate, -np.inf, 0.0
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    level_db = 20 * np.log10(np.sqrt(np.mean(np.square(middle, dtype=np.float64))))
    return len(waveform) / rate, float(level_db), float(np.argmax(spectrum)) * rate / len(middle)
