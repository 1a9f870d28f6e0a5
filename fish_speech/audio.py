"""Audio files in and out: find them, read them whole or say why not, make them equally loud, write WAV.

soundfile reads what it can; the ffmpeg program reads the rest (m4a, aac, wma, video) through a pipe. A file that is
torn, empty or holds NaN raises AudioError with a one-line reason, so that a batch can leave it out and name the reason.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import stat
import struct
import subprocess
import tempfile
import wave
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .files import TEMPORARY_PREFIX, atomic_path

if TYPE_CHECKING:
    import soundfile

# Lower case: compare with path.suffix.lower().
_SOUNDFILE_SUFFIXES = (
    ".wav",
    ".flac",
    ".mp3",
    ".mp2",
    ".ogg",
    ".oga",
    ".opus",
    ".aiff",
    ".aif",
    ".aifc",
    ".au",
    ".caf",
)
_FFMPEG_SUFFIXES = (
    ".m4a",
    ".m4b",
    ".wma",
    ".aac",
    ".ac3",
    ".amr",
    ".mka",
    ".webm",
    ".mp4",
    ".m4v",
    ".mkv",
    ".mov",
    ".avi",
)
AUDIO_SUFFIXES = frozenset((*_SOUNDFILE_SUFFIXES, *_FFMPEG_SUFFIXES, ".w64", ".rf64", ".3gp"))
MAX_DURATION_S = 6 * 3600.0  # of any recording; 6 h of 44.1 kHz mono float32 are 3.8 GB
MAX_CLIP_S = 600.0  # of one clip with one transcript; training wants 1-30 s
SAMPLE_RATES = (1_000, 1_000_000)  # Hz; anything else is a damaged header
SILENCE_LUFS = -70.0  # the absolute gate of ITU-R BS.1770: below it nothing counts as sound
_BLOCK_VALUES = 1 << 20  # samples times channels read at once
_MP3_SLACK = 2304  # samples; two MP3 frames: a Xing header may be off by encoder delay and padding


class AudioError(Exception):
    """An audio file that cannot be used. `reason` is one line: what is wrong, then after a colon the details."""

    def __init__(self, path: Path | str, reason: str):
        self.path, self.reason = Path(path), " ".join(reason.split())
        super().__init__(f"{path}: {self.reason}")

    def __reduce__(self):
        return type(self), (self.path, self.reason)


def find_audio(folder: Path) -> list[Path]:
    """Return all audio files below `folder`, sorted by their path inside it.

    Links to folders are followed, each real folder once, so loops end. Our temporary files and the `._*` files that
    macOS leaves in archives are passed over; broken links are listed, so that reading them reports them. Raises
    AudioError if a folder cannot be read.
    """
    folder = Path(folder)
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:  # os.walk would pass over a folder it cannot read, and lose what is in it
        raise AudioError(error.filename or folder, f"folder cannot be read: {(error.strerror or str(error)).lower()}")

    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        status = os.stat(root)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders.sort()
        for name in names:
            if Path(name).suffix.lower() in AUDIO_SUFFIXES and not name.startswith((TEMPORARY_PREFIX, "._")):
                found.append(Path(root, name))
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def read_audio(
    path: Path, sample_rate: int | None = None, mono: bool = True, max_duration_s: float = MAX_DURATION_S
) -> tuple[np.ndarray, int]:
    """Read a whole file as float32 in [-1, 1] and return it with its sample rate in Hz.

    The waveform is (samples,), the mean of all channels, or (samples, channels) if not `mono`. With `sample_rate` it
    is resampled by soxr (HQ). Raises AudioError if any part of the file cannot be had.
    """
    with _open(path) as (rate, stream):
        count, blocks = 0, []
        for block in _checked(path, rate, stream, mono):
            count += len(block)
            if count > max_duration_s * rate:
                raise AudioError(path, f"too long: more than {max_duration_s:g} s; split the recording")
            blocks.append(block)
    if count == 0:
        raise AudioError(path, "no samples: the file has a header but no sound")
    waveform = np.concatenate(blocks)
    del blocks
    if sample_rate is None:
        return waveform, rate
    resampled = resample(waveform, rate, sample_rate)
    if len(resampled) == 0:
        raise AudioError(path, "no samples: shorter than one sample at the new rate")
    return resampled, sample_rate


def resample(waveform: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """Bring float32 (samples,) or (samples, channels) from `rate` to `sample_rate` by soxr (HQ)."""
    if rate == sample_rate:
        return waveform
    import soxr

    return np.asarray(soxr.resample(waveform, rate, sample_rate, quality="HQ"), dtype=np.float32)


@contextlib.contextmanager
def stream_audio(
    path: Path, sample_rate: int | None = None, max_duration_s: float = MAX_DURATION_S
) -> Iterator[Generator[np.ndarray, None, None]]:
    """Open a file of any length and yield its blocks: float32 (samples,), mono, in flat memory.

    Their rate is `sample_rate`, without one the file's own, which audio_info tells. Together they are what read_audio
    gives, as far as `max_duration_s`; what comes after that is not read. The blocks raise AudioError where the file
    turns out to be unusable.
    """
    with _open(path) as (rate, stream):
        blocks = _resampled(_first(_checked(path, rate, stream, True), round(max_duration_s * rate)), rate, sample_rate)
        try:
            yield blocks
        finally:
            blocks.close()


def _checked(path: Path, rate: int, stream: Iterator[np.ndarray], mono: bool) -> Iterator[np.ndarray]:
    """Mix (samples, channels) down to (samples,) if `mono`; raise AudioError at samples that are no numbers."""
    count = 0
    for block in stream:
        with np.errstate(over="ignore"):
            block = block.mean(axis=1, dtype=np.float32) if mono and block.shape[1] > 1 else block
        if not np.isfinite(block).all():
            bad = int(np.flatnonzero(~np.isfinite(block).reshape(len(block), -1).all(axis=1))[0])
            raise AudioError(path, f"NaN or infinite samples: the first at {(count + bad) / rate:.3f} s")
        count += len(block)
        yield block[:, 0] if mono and block.ndim == 2 else block


def _first(blocks: Iterator[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    for block in blocks:
        yield block[:samples]
        samples -= len(block)
        if samples <= 0:
            return


def _resampled(blocks: Iterator[np.ndarray], rate: int, sample_rate: int | None) -> Generator[np.ndarray, None, None]:
    if sample_rate is None or rate == sample_rate:
        yield from blocks
        return
    import soxr

    resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(np.ascontiguousarray(block))
    yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


class AudioInfo(NamedTuple):
    """What a file's header says."""

    duration_s: float
    sample_rate: int  # Hz


def audio_info(path: Path) -> AudioInfo:
    """Return duration and sample rate by the file's header, without decoding; ffmpeg's durations may be off by a frame."""
    _check_file(path)
    import soundfile

    refusal = ""
    try:
        info = soundfile.info(_system_name(path))
        if 0 < info.frames < 1 << 62:
            return AudioInfo(info.frames / info.samplerate, info.samplerate)
    except soundfile.LibsndfileError as error:
        refusal = _reason(error)
    if refusal:
        probe = _probe(path, refusal)
        declared = probe.get("format", {}).get("duration")
        if declared is not None:
            return AudioInfo(float(declared), int(probe["streams"][0]["sample_rate"]))
    with _open(path) as (rate, stream):  # a live recording, say: its header does not know
        return AudioInfo(sum(len(block) for block in stream) / rate, rate)


def duration_s(path: Path) -> float:
    """Return the duration in seconds by the file's header; see audio_info."""
    return audio_info(path).duration_s


def write_wav(path: Path, waveform: np.ndarray, sample_rate: int) -> int:
    """Write float (samples,) as 16-bit mono PCM, whole or not at all; return how many samples were clipped.

    Samples are rounded to the nearest step of 1 / 32768, so what was read from 16 bits is written back unchanged.
    """
    waveform = np.asarray(waveform)
    if waveform.ndim != 1:
        raise ValueError(f"write_wav takes (samples,), not {waveform.shape}")
    pcm = np.empty(len(waveform), dtype="<i2")
    clipped = 0
    for start in range(0, len(waveform), _BLOCK_VALUES):
        block = np.rint(waveform[start : start + _BLOCK_VALUES].astype(np.float64) * 32768.0)
        if not np.isfinite(block).all():
            raise ValueError(f"refusing to write NaN or infinite samples to {path}")
        # Full scale up is 32767: a sample of exactly 1.0 loses one step, which is no clipping one could hear.
        clipped += int(((block > 32768) | (block < -32768)).sum())
        pcm[start : start + len(block)] = np.clip(block, -32768, 32767)
    # The wave module writes through Python's files: a full disk is an OSError with its number, not an assertion.
    with atomic_path(path) as temporary, temporary.open("wb") as raw, wave.open(raw, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.data)
    return clipped


@dataclass(frozen=True)
class Loudness:
    """What normalize_loudness measured and did."""

    lufs_before: float | None  # integrated loudness; None: silent
    lufs: float | None  # after the gain
    gain_db: float
    peak_dbtp: float | None  # true peak after the gain
    limited: bool  # the true-peak limit kept the gain below what the target asks


def normalize_loudness(
    waveform: np.ndarray,
    sample_rate: int,
    target_lufs: float = -23.0,
    peak_dbtp: float = -1.0,
    lufs: float | None = None,
) -> tuple[np.ndarray, Loudness]:
    """Scale float32 (samples,) to an integrated loudness of `target_lufs`, with no true peak above `peak_dbtp`.

    One gain for the whole clip, so its dynamics stay. If the target asks for more than the true peak allows, the clip
    stays quieter than the target. A clip below -70 LUFS is silent and comes back unchanged. `lufs`: its loudness, if
    that is not to be measured.
    """
    before = measure_lufs(waveform, sample_rate) if lufs is None else lufs
    if before is None:
        return waveform, Loudness(None, None, 0.0, _to_db(true_peak(waveform, sample_rate)), False)
    peak = true_peak(waveform, sample_rate)
    ceiling_db = peak_dbtp - 20 * math.log10(peak)
    gain_db = min(target_lufs - before, ceiling_db)
    after = before + gain_db
    for _ in range(3):
        if before > SILENCE_LUFS + 10 or gain_db >= ceiling_db:
            break  # every block that the relative gate keeps is above the absolute gate: loudness follows the gain
        # A very quiet clip: the gain lifts more blocks over the absolute gate, so measure again.
        after = measure_lufs(waveform * np.float32(10 ** (gain_db / 20)), sample_rate) or after
        gain_db = min(gain_db + target_lufs - after, ceiling_db)
    scaled = (waveform * np.float32(10 ** (gain_db / 20))).astype(np.float32)
    limited = gain_db >= ceiling_db
    lufs = before + gain_db if before > SILENCE_LUFS + 10 else measure_lufs(scaled, sample_rate)
    return scaled, Loudness(before, lufs, gain_db, _to_db(peak * 10 ** (gain_db / 20)), limited)


def measure_lufs(waveform: np.ndarray, sample_rate: int) -> float | None:
    """Return the integrated loudness (ITU-R BS.1770, pyloudnorm) of (samples,) in LUFS, None if it is silent.

    The meter needs a block of 0.4 s: a shorter clip is measured as if it were repeated until it fills 0.4 s, so its
    loudness is that of the sound itself, not of sound and padding.
    """
    import pyloudnorm

    block = math.ceil(0.4 * sample_rate) + 1
    if 0 < len(waveform) < block:
        waveform = np.tile(waveform, math.ceil(block / len(waveform)))[:block]
    if len(waveform) == 0 or not np.any(waveform):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        lufs = float(pyloudnorm.Meter(sample_rate).integrated_loudness(np.asarray(waveform, dtype=np.float64)))
    return lufs if math.isfinite(lufs) and lufs > SILENCE_LUFS else None


def true_peak(waveform: np.ndarray, sample_rate: int) -> float:
    """Return the peak of (samples,) between its samples too, by 4x oversampling; linear, 1.0 is full scale."""
    import soxr

    peak = float(np.abs(waveform).max(initial=0.0))
    stream = soxr.ResampleStream(sample_rate, 4 * sample_rate, 1, dtype="float32", quality="HQ")
    for start in range(0, len(waveform), _BLOCK_VALUES):
        part = np.ascontiguousarray(waveform[start : start + _BLOCK_VALUES], dtype=np.float32)
        up = stream.resample_chunk(part, last=start + _BLOCK_VALUES >= len(waveform))
        peak = max(peak, float(np.abs(up).max(initial=0.0)))
    return peak


def _to_db(level: float) -> float | None:
    return 20 * math.log10(level) if level > 0 else None


class _Stream(NamedTuple):
    sample_rate: int  # Hz
    blocks: Iterator[np.ndarray]  # each (samples, channels) float32


@contextlib.contextmanager
def _open(path: Path) -> Iterator[_Stream]:
    """Open with soundfile, else with ffmpeg; the blocks raise AudioError when the file turns out to be torn."""
    _check_file(path)
    import soundfile

    try:
        file = soundfile.SoundFile(_system_name(path))
    except soundfile.LibsndfileError as error:
        probe = _probe(path, _reason(error))
        rate, channels = int(probe["streams"][0]["sample_rate"]), int(probe["streams"][0]["channels"])
        blocks = _ffmpeg_blocks(path, channels)
        _check_rate(path, rate)
        try:
            yield _Stream(rate, blocks)
        finally:
            blocks.close()
        return
    with file:
        _check_rate(path, file.samplerate)
        _check_container(path)
        yield _Stream(file.samplerate, _soundfile_blocks(path, file))


def _check_file(path: Path) -> None:
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # a named pipe would block for ever
            raise AudioError(path, "not a file")
        if status.st_size == 0:
            raise AudioError(path, "empty file: 0 bytes")
        with Path(path).open("rb"):
            pass
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        raise AudioError(path, f"cannot be read: {(error.strerror or str(error)).lower()}") from None


def _check_rate(path: Path, sample_rate: int) -> None:
    if not SAMPLE_RATES[0] <= sample_rate <= SAMPLE_RATES[1]:
        raise AudioError(path, f"not usable: its header says {sample_rate} Hz")


def _system_name(path: Path) -> str | bytes:
    """An absolute name, so that `-` is not stdin; bytes on POSIX, where names need not be UTF-8."""
    absolute = os.path.abspath(path)  # noqa: PTH100
    return absolute if os.name == "nt" else os.fsencode(absolute)


def _soundfile_blocks(path: Path, file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    import soundfile

    size = max(1, _BLOCK_VALUES // file.channels)
    declared = file.frames if file.frames < 1 << 62 else 0  # a FLAC stream of unknown length declares no number
    slack = _MP3_SLACK if file.format in ("MP3", "MPEG") else 0
    count = 0
    try:
        while len(block := file.read(size, dtype="float32", always_2d=True)):
            count += len(block)
            yield block
    except soundfile.LibsndfileError as error:
        raise AudioError(path, f"torn or damaged: {_reason(error)}") from None
    if count < declared - slack:
        raise AudioError(path, f"torn or damaged: {count} of {declared} samples are there")


def _check_container(path: Path) -> None:
    """Raise AudioError if a WAV, AIFF or Ogg file ends before its header says: libsndfile reads it as shorter."""
    size = Path(path).stat().st_size
    with Path(path).open("rb") as file:
        head = file.read(12)
        if head[:4] in (b"RIFF", b"FORM") and head[8:12] in (b"WAVE", b"AIFF", b"AIFC"):
            order = "<" if head[:4] == b"RIFF" else ">"
            while len(chunk := file.read(8)) == 8:
                length = struct.unpack(order + "I", chunk[4:])[0]
                missing = file.tell() + length - size
                # 0x7fffffff and above: a recorder that wrote to a pipe and could not know the length.
                if chunk[:4] in (b"data", b"SSND") and missing > 0 and length < 0x7FFFF000:
                    raise AudioError(path, f"torn or damaged: {missing} of {length} bytes of sound are missing")
                file.seek(length + length % 2, os.SEEK_CUR)
        elif head[:4] == b"OggS":
            start = max(0, size - (1 << 17))  # a page has at most 65307 bytes
            file.seek(start)
            tail = file.read()
            page = tail[tail.rfind(b"OggS") :]
            segments = page[26] if len(page) > 26 else 0  # the page header ends with a table of segment sizes
            whole = len(page) >= 27 + segments and len(page) >= 27 + segments + sum(page[27 : 27 + segments])
            if not whole:
                raise AudioError(path, "torn or damaged: the last Ogg page is not whole")


# Only real media formats and only local files: a playlist named .mp4 must not open other files or the network.
_FFMPEG_INPUT = (
    "-protocol_whitelist",
    "file,pipe",
    "-format_whitelist",
    "mov,matroska,webm,asf,aac,ac3,eac3,mp3,ogg,wav,w64,aiff,au,caf,flac,amr,ape,avi,flv,mpegts,mpeg,dts,tta,wv,"
    "mov,mp4,m4a,3gp,3g2,mj2,rm,voc,aea,loas,latm",
)


def _probe(path: Path, refusal: str = "") -> dict:
    """Ask ffprobe what the first audio stream of `path` is; AudioError if there is none or no ffmpeg."""
    program = shutil.which("ffprobe")
    if program is None or shutil.which("ffmpeg") is None:
        why = f" ({refusal})" if refusal else ""
        raise AudioError(path, f"no ffmpeg: soundfile cannot read it{why} and the ffmpeg program is not installed")
    entries = "stream=sample_rate,channels:format=duration"
    command = [
        program,
        "-v",
        "error",
        *_FFMPEG_INPUT,
        "-select_streams",
        "a:0",
        "-show_entries",
        entries,
        "-of",
        "json",
    ]
    result = subprocess.run([*command, "-i", f"file:{path}"], stdin=subprocess.DEVNULL, capture_output=True)
    try:
        probe = json.loads(result.stdout or b"{}")
    except ValueError:
        probe = {}
    if result.returncode or not probe:
        raise AudioError(path, f"not audio: {_complaint(path, result.stderr) or 'unknown format'}")
    streams = probe.get("streams") or [{}]
    if not int(streams[0].get("channels", 0)) or not int(streams[0].get("sample_rate", 0)):
        raise AudioError(path, "not audio: no sound track in it")
    return probe


def _ffmpeg_blocks(path: Path, channels: int) -> Generator[np.ndarray, None, None]:
    program = shutil.which("ffmpeg") or "ffmpeg"
    output = ["-map", "0:a:0", "-f", "f32le", "-c:a", "pcm_f32le", "-ac", str(channels), "pipe:1"]
    command = [program, "-nostdin", "-v", "error", *_FFMPEG_INPUT, "-i", f"file:{path}", *output]
    frame = 4 * channels  # bytes
    with tempfile.TemporaryFile() as messages:  # a pipe nobody reads would fill up and block ffmpeg
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages)
        assert process.stdout is not None
        try:
            while data := process.stdout.read(_BLOCK_VALUES // channels * frame or frame):
                values = np.frombuffer(data[: len(data) // frame * frame], dtype="<f4").astype(np.float32)
                yield values.reshape(-1, channels)
            code = process.wait()
            messages.seek(0)
            complaint = _complaint(path, messages.read())
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
    if code or complaint:
        raise AudioError(path, f"torn or damaged: {complaint or f'ffmpeg ended with {code}'}")


def _reason(error: soundfile.LibsndfileError) -> str:
    return str(error).split(": ", 1)[-1].rstrip(".").lower()


def _complaint(path: Path, output: bytes) -> str:
    """Return the last line that ffmpeg said, without addresses and paths: the same fault must give the same words."""
    text = re.sub(r"\[[^\]\n]* @ 0x[0-9a-f]+\] ?", "", output.decode("utf-8", "replace"))
    lines = [line.strip() for line in text.replace(f"file:{path}: ", "").splitlines() if line.strip()]
    return lines[-1][-200:] if lines else ""
