"""Random excerpts of recordings for codec training, straight from their files: memory stays flat as data grows."""

from __future__ import annotations

import bisect
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ..audio import AudioError, find_audio
from ..errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recording:
    """A sound file that can be read from any place."""

    path: Path
    frames: int
    sample_rate: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.frames / self.sample_rate

    def excerpt(self, start: float, seconds: float, sample_rate: int) -> np.ndarray:
        """Read float32 (samples,) mono at `sample_rate`, from `start` seconds on; zeros beyond the end."""
        first, count = int(start * self.sample_rate), int(np.ceil(seconds * self.sample_rate))
        try:
            data, _ = soundfile.read(self.path, count, first, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UserError(
                f"{self.path} cannot be read at {start:.1f} s", str(error), "remove the file or replace it"
            ) from None
        mono = data.mean(axis=1)
        if self.sample_rate != sample_rate:
            mono = soxr.resample(mono, self.sample_rate, sample_rate)
        size = round(seconds * sample_rate)
        return np.pad(mono[:size], (0, max(0, size - len(mono))))


def find_recordings(folder: Path) -> list[Recording]:
    """List the recordings below `folder`; files that cannot be read by places are left out, with one line that counts them."""

    def look(path: Path) -> Recording | None:
        try:
            info = soundfile.info(path)
        except soundfile.LibsndfileError:
            return None
        usable = 0 < info.frames < 1 << 40 and 1000 <= info.samplerate <= 1 << 20  # a pipe's length is 2^63 - 1
        return Recording(path, info.frames, info.samplerate) if usable else None

    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "the codec's recordings are read from it", "check the path")
    try:
        paths = find_audio(folder)
    except AudioError as error:
        raise UserError(f"{folder} cannot be searched", str(error), "make the folder readable") from None
    with ThreadPoolExecutor(4) as pool:
        found = [recording for recording in pool.map(look, paths) if recording is not None]
    if len(found) < len(paths):
        log.warning(
            "%s: %d of %d files left out, not readable as WAV or FLAC", folder, len(paths) - len(found), len(paths)
        )
    if not found:
        raise UserError(f"{folder} has no recordings", "no WAV or FLAC file was found", "give a folder of recordings")
    return found


class ExcerptStream(IterableDataset):
    """Endless batches of excerpts; batch number n is a function of the seed, n and the rank alone.

    sources: folders with their share of the excerpts; within one, a recording's chance grows with its duration
    """

    def __init__(
        self,
        sources: Sequence[tuple[list[Recording], float]],
        sample_rate: int,
        samples: int,
        batch_size: int,
        gain_db: tuple[float, float],
        seed: int,
        rank: int = 0,
        start: int = 0,
    ):
        self.recordings = [recordings for recordings, _ in sources]
        weights = np.array([weight for _, weight in sources], dtype=float)
        self.shares = weights / weights.sum()
        self.ends = [np.cumsum([r.seconds for r in recordings]).tolist() for recordings in self.recordings]
        self.sample_rate, self.samples, self.batch_size = sample_rate, samples, batch_size
        self.gain_db, self.seed, self.rank, self.start = gain_db, seed, rank, start

    def __iter__(self) -> Iterator[Tensor]:
        info = torch.utils.data.get_worker_info()
        first, stride = (info.id, info.num_workers) if info else (0, 1)
        return (self.batch(number) for number in itertools.count(self.start + first, stride))

    def batch(self, number: int) -> Tensor:
        """Make batch `number`: (batch, 1, samples) float32 within [-1, 1]."""
        rng = np.random.default_rng([self.seed, number, self.rank])
        return torch.from_numpy(np.stack([self._excerpt(rng) for _ in range(self.batch_size)]))[:, None]

    def _excerpt(self, rng: np.random.Generator) -> np.ndarray:
        source = rng.choice(len(self.recordings), p=self.shares)
        ends = self.ends[source]
        chosen = min(bisect.bisect(ends, rng.uniform(0, ends[-1])), len(ends) - 1)
        recording, seconds = self.recordings[source][chosen], self.samples / self.sample_rate
        start = rng.uniform(0, max(0.0, recording.seconds - seconds))
        sound = recording.excerpt(start, seconds, self.sample_rate)
        loudest = max(float(np.abs(sound).max()), 1e-4)
        gain = min(10 ** (rng.uniform(*self.gain_db) / 20), 1 / loudest)
        return (sound * gain).astype(np.float32)


class CodecDataModule(L.LightningDataModule):
    """Training excerpts and whole held-out clips.

    train: folders, or mappings with `path` and `weight` (the share of excerpts; default: its hours of sound)
    validation: folders of held-out recordings, or none; segment_seconds: length of an excerpt
    """

    def __init__(
        self,
        train: Sequence[Any],
        sample_rate: int,
        samples_per_frame: int,
        validation: Sequence[Any] = (),
        segment_seconds: float = 1.0,
        batch_size: int = 16,
        gain_db: Sequence[float] = (-6.0, 3.0),
        num_workers: int = 0,
        validation_clips: int = 32,
        validation_seconds: float = 10.0,
        seed: int = 42,
    ):
        super().__init__()
        self.sample_rate, self.batch_size = sample_rate, batch_size
        self.samples = max(1, round(segment_seconds * sample_rate / samples_per_frame)) * samples_per_frame
        self.samples_per_frame = samples_per_frame
        self.gain_db = (float(gain_db[0]), float(gain_db[1]))
        self.num_workers, self.seed = num_workers, seed
        self.validation_seconds = validation_seconds
        self.sources = [_source(entry) for entry in _listed(train)]
        if not self.sources:
            raise UserError("there is nothing to train the codec on", "data.train is empty", "add data.train=[FOLDER]")
        if sum(weight for _, weight in self.sources) <= 0:
            raise UserError("there is nothing to train the codec on", "every weight in data.train is 0", "raise one")
        held_out = [r for folder in _listed(validation) for r in find_recordings(Path(str(folder)))]
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(held_out))[:validation_clips]
        self.held_out = [held_out[i] for i in sorted(order.tolist())]
        self._refuse_leaks()
        self.batches_done = 0

    def _refuse_leaks(self) -> None:
        trained = {r.path.resolve() for recordings, _ in self.sources for r in recordings}
        both = [r.path for r in self.held_out if r.path.resolve() in trained]
        if both:
            raise UserError(
                f"{both[0]} is both trained on and held out",
                f"{len(both)} recordings lie below a folder of data.train and one of data.validation",
                "give folders that do not overlap",
            )

    @property
    def has_validation(self) -> bool:
        """Whether any recording is held out."""
        return bool(self.held_out)

    def describe(self) -> str:
        """One line: how much of what is trained on."""
        parts = [
            f"{len(recordings)} recordings of {sum(r.seconds for r in recordings) / 60:.1f} min, weight {weight:g}"
            for recordings, weight in self.sources
        ]
        return f"training on {'; '.join(parts)}; {len(self.held_out)} held out"

    def train_dataloader(self) -> DataLoader:
        stream = ExcerptStream(
            self.sources, self.sample_rate, self.samples, self.batch_size, self.gain_db, self.seed,
            self.trainer.global_rank if self.trainer else 0, self.batches_done,
        )  # fmt: skip
        return DataLoader(stream, batch_size=None, num_workers=self.num_workers)

    def val_dataloader(self) -> Any:
        return DataLoader(_Clips(self), batch_size=None) if self.held_out else []

    def held_out_clip(self, number: int) -> Tensor:
        """Held-out recording `number`, (1, 1, samples), cut to validation_seconds and to whole frames."""
        recording = self.held_out[number]
        size = int(min(recording.seconds, self.validation_seconds) * self.sample_rate) // self.samples_per_frame
        size = max(1, size) * self.samples_per_frame
        sound = recording.excerpt(0.0, size / self.sample_rate, self.sample_rate)
        return torch.from_numpy(np.ascontiguousarray(sound, dtype=np.float32))[None, None]

    def fingerprint(self) -> list[Any]:
        """What decides the excerpts: names, lengths and rates of all recordings, and the share of each source."""
        return [[[(r.path.name, r.frames, r.sample_rate) for r in found], weight] for found, weight in self.sources]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: how many batches were consumed."""
        return {"batches_done": self.batches_done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue behind the batches that a checkpoint has seen."""
        self.batches_done = int(state_dict["batches_done"])


class _Clips(torch.utils.data.Dataset):
    def __init__(self, data: CodecDataModule):
        self.data = data

    def __len__(self) -> int:
        return len(self.data.held_out)

    def __getitem__(self, number: int) -> Tensor:
        return self.data.held_out_clip(number)


def _listed(entries: Any) -> list[Any]:
    return [entries] if isinstance(entries, (str, Path, Mapping)) else list(entries)


def _source(entry: Any) -> tuple[list[Recording], float]:
    if isinstance(entry, Mapping) and not {"path"} <= set(entry) <= {"path", "weight"}:
        raise UserError(
            f"data.train has an entry with the keys {', '.join(map(str, entry))}",
            "a folder has `path` and may have `weight`",
            "write data.train=[{path: FOLDER, weight: 0.5}]",
        )
    folder, weight = (entry["path"], entry.get("weight")) if isinstance(entry, Mapping) else (entry, None)
    recordings = find_recordings(Path(str(folder)))
    if weight is None:
        return recordings, sum(r.seconds for r in recordings) / 3600
    if not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
        raise UserError(f"the weight of {folder} is {weight!r}", "it must be a number from 0 on", "mend data.train")
    return recordings, float(weight)
