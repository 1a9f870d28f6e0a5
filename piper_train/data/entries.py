"""Cache entries: the prepared sound of one recording, named by the recording's content and by how it was prepared.

An entry is a safetensors file with one tensor, `audio` (samples,) float32, and a few facts. A recording that changed
has another content, options that changed another name, so an entry is never wrong, only unused. Entries appear whole
or not at all, and what was torn later (a full disk, a broken copy) is seen by its size and made anew. Spectrograms are
not kept: making one as a clip is read takes a worker process 3 ms for 4.5 s of sound, keeping them twice the disk that
the sound takes.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fish_speech.audio import AudioError, read_audio, resample
from fish_speech.files import atomic_path

_MADE_BY = "1"  # raise it when the same recording and options give another sound
_LARGEST_HEADER = 4096  # bytes
_BLOCK = 1 << 20  # bytes


class Preparation(NamedTuple):
    """How recordings are prepared: what an entry depends on beside the recording."""

    sample_rate: int = 22050  # Hz
    trim_silence: bool = True
    before_s: float = 0.25  # kept before speech
    after_s: float = 0.25  # kept after speech

    def key(self) -> str:
        """Name it in a few characters of a file name."""
        options = (_MADE_BY, self.sample_rate, (self.before_s, self.after_s) if self.trim_silence else None)
        return hashlib.blake2b(json.dumps(options).encode(), digest_size=5).hexdigest()


class Facts(NamedTuple):
    """What an entry says of its sound."""

    samples: int
    peak: float  # of the absolute values
    speech: bool  # False: silence was to be trimmed, and no speech was found


class Torn(Exception):
    """An entry that is not there, or not whole."""


def content_of(path: Path) -> bytes:
    """Return 16 bytes that stand for a file's content. Raises OSError."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.digest()


def entry_path(cache_dir: Path, content: bytes, preparation: Preparation) -> Path:
    """Where the entry of a recording lies."""
    name = content.hex()
    return cache_dir / "audio" / name[:2] / f"{name}-{preparation.key()}.safetensors"


def read_facts(path: Path) -> Facts:
    """Read what an entry says of itself, and check that it is whole by its size. Raises Torn."""
    return _header(path)[0]


def read_sound(path: Path) -> np.ndarray:
    """Return an entry's audio, (samples,) float32. Raises Torn."""
    facts, start = _header(path)
    try:
        audio = np.fromfile(path, "<f4", facts.samples, offset=start)
    except OSError as error:
        raise Torn(str(error)) from None
    if len(audio) != facts.samples or not np.isfinite(audio).all():
        raise Torn("its samples are damaged")
    return audio


def _header(path: Path) -> tuple[Facts, int]:
    """Facts and the start of the samples, in bytes."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length <= _LARGEST_HEADER else {}
        size = path.stat().st_size
        tensor, said = header["audio"], header["__metadata__"]
        facts = Facts(int(tensor["shape"][0]), float(said["peak"]), said["speech"] == "True")
        if tensor["dtype"] != "F32" or size != 8 + length + 4 * facts.samples or facts.samples < 1:
            raise Torn("its size is not what its header says")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Torn(str(error)) from None
    return facts, 8 + length


def make_entry(recording: Path, path: Path, preparation: Preparation) -> Facts:
    """Read, resample and trim a recording and write its entry. Raises AudioError, and OSError if the disk is full."""
    import safetensors.numpy

    audio, speech = prepared_sound(recording, preparation)
    facts = Facts(len(audio), float(np.abs(audio).max()), speech)
    said = {"peak": repr(facts.peak), "speech": str(facts.speech)}
    with atomic_path(path) as temporary:
        safetensors.numpy.save_file({"audio": np.ascontiguousarray(audio, dtype=np.float32)}, temporary, said)
    return facts


def prepared_sound(recording: Path, preparation: Preparation) -> tuple[np.ndarray, bool]:
    """Return (samples,) float32 at the wanted rate, silence trimmed, and whether speech was looked for in vain.

    Not normalised. What is silent through and through is not trimmed. Raises AudioError.
    """
    from .trimming import speech_shares, trimmed

    waveform, rate = read_audio(recording, max_duration_s=_LONGEST_S)
    audio = resample(waveform, rate, preparation.sample_rate)
    if len(audio) == 0:
        raise AudioError(recording, "no samples: shorter than one sample at the new rate")
    if not preparation.trim_silence:
        return audio, True
    shares = speech_shares(waveform, rate, preparation.before_s, preparation.after_s)
    return (audio, False) if shares is None else (trimmed(audio, shares), True)


_LONGEST_S = 600.0  # of a recording, silence included


def silent(facts: Facts) -> bool:
    """Whether there is nothing to hear: no sample above -60 dBFS."""
    return not facts.peak > math.pow(10, -60 / 20)
