"""Encode batches of clips and check the codec: the work of extraction that any process, on any machine, can do."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import files
from .audio import MAX_CLIP_S, AudioError, read_audio
from .codes import largest_of_rows, row_too_large
from .datasets.recordings import Clip
from .device import choose_device
from .errors import UserError
from .round_trip import RoundTrip, round_trip

if TYPE_CHECKING:
    import numpy as np

    from .models import Codec


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know to encode."""

    checkpoint: Path
    config_name: str
    device: str
    threads: int | None  # of torch in each process; None: torch's own choice


@dataclass(frozen=True)
class BatchTask:
    """Clips to encode together, and those of them whose codes are to be written."""

    clips: tuple[Clip, ...]
    to_write: frozenset[Path]
    settings: Settings


@dataclass(frozen=True)
class CheckTask:
    """Clips, with the names to call them, to decode from their codes again; `folder` gets what was compared."""

    clips: tuple[tuple[str, Clip], ...]
    folder: Path | None
    settings: Settings


class Outcome(NamedTuple):
    """What became of one clip that was to be written."""

    audio: Path
    seconds: float
    failure: str | None


def encode_batch(task: BatchTask) -> list[Outcome]:
    """Encode a batch and write what is to be written; return an outcome for each of those.

    Raises UserError if the weights do not load or memory does not suffice, OSError if a result cannot be written.
    """
    import torch

    codec = load(task.settings)
    wanted, others = ([c for c in task.clips if (c.audio in task.to_write) is first] for first in (True, False))
    sounds = _read_all(wanted, codec)
    failures = [Outcome(clip.audio, 0.0, sound) for clip, sound in sounds.items() if isinstance(sound, str)]
    if len(failures) == len(wanted):
        return failures  # no need for the others: a file that is broken would cost them all at every run
    sounds |= _read_all(others, codec)
    good = [(clip, sound) for clip in task.clips if not isinstance(sound := sounds[clip], str)]
    try:
        tensors = [torch.from_numpy(sound).to(task.settings.device) for _, sound in good]
        codes = [part.cpu().numpy() for part in codec.encode_clips(tensors)]
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"a batch of {len(good)} clips, the longest {task.clips[-1].duration_s:.0f} s, does not fit into memory",
            str(error).splitlines()[0],
            f"use --batch-size {max(1, len(good) // 2)}, fewer --num-workers, or --device cpu",
        ) from None
    outcomes = []
    for (clip, sound), part in zip(good, codes):
        if clip.audio in task.to_write:
            failure = None
            if part.min() < 0 or row_too_large(largest_of_rows(part), codec.codebook_sizes) is not None:
                failure = "the codec gave no valid codes for it: the weights may hold NaN"
            else:
                save_codes(clip.codes, part)
            outcomes.append(Outcome(clip.audio, len(sound) / codec.sample_rate, failure))
    return outcomes + failures


def check_codec(task: CheckTask) -> RoundTrip:
    """Decode clips from their codes and compare them with their sound."""
    clips = [(name, clip.audio, clip.codes) for name, clip in task.clips]
    return round_trip(clips, load(task.settings), task.folder)


def _read_all(clips: list[Clip], codec: Codec) -> dict[Clip, np.ndarray | str]:
    """Read clips at the codec's rate; the reason in place of a waveform (samples,) where that fails."""
    with ThreadPoolExecutor(4) as pool:
        return dict(
            zip(clips, pool.map(lambda clip: _read(clip, codec.sample_rate, codec.config.least_samples), clips))
        )


def _read(clip: Clip, sample_rate: int, least: int) -> np.ndarray | str:
    try:
        waveform, _ = read_audio(clip.audio, sample_rate, max_duration_s=MAX_CLIP_S)
    except AudioError as error:
        return error.reason
    if len(waveform) < least:
        return f"too short: {len(waveform) / sample_rate:.3f} s, the codec needs {least / sample_rate:.3f} s"
    return waveform


@cache
def load(settings: Settings) -> Codec:
    """Load the codec, once per process."""
    import torch

    from .models import codec_config, load_codec

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.device == "cuda":
        choose_device("cuda")  # a process of a cluster may run where there is none
        torch.backends.cudnn.allow_tf32 = False  # TF32 keeps 10 bits: codes near a rounding boundary would flip
    return load_codec(settings.checkpoint, codec_config(settings.config_name), settings.device)


def save_codes(path: Path, codes: np.ndarray) -> None:
    """Write codes (codebooks, frames) as int32, whole or not at all."""
    import numpy as np

    buffer = io.BytesIO()  # np.save to a file would report a full disk without its error number
    np.save(buffer, np.ascontiguousarray(codes, dtype=np.int32), allow_pickle=False)
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
