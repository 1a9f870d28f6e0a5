"""A batch of clips for training, and how clips of different lengths are padded into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Clip(NamedTuple):
    """One clip as the cache hands it out."""

    number: int  # of its row in the data set, from 1: the key of its random draws
    ids: Tensor  # (ids,) int64
    spec: Tensor  # (filter_length // 2 + 1, frames) float32, linear magnitude
    audio: Tensor  # (samples,) float32
    speaker: int | None  # speaker id; None in a voice of one speaker


@dataclass
class Batch:
    """Clips, longest spectrogram first, zero-padded on the right.

    Lightning moves it to a device by `to`; a DataLoader with pin_memory pins it.
    """

    ids: Tensor  # (batch, ids) int64; padding is 0
    id_lengths: Tensor  # (batch,) int64
    specs: Tensor  # (batch, filter_length // 2 + 1, frames) float32
    spec_lengths: Tensor  # (batch,) int64, in frames
    audio: Tensor  # (batch, 1, samples) float32, at least a training slice long
    audio_lengths: Tensor  # (batch,) int64, in samples
    speaker_ids: Tensor | None  # (batch,) int64
    clips: Tensor  # (batch,) int64, row numbers: the keys of the random draws

    def __len__(self) -> int:
        return len(self.clips)

    def to(self, device: Any, **options: Any) -> Batch:
        """The batch with every tensor on `device`; options are those of Tensor.to."""
        return self._each(lambda tensor: tensor.to(device, **options))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, function: Any) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(value) for name, value in values.items() if value is not None})


def collate(clips: Sequence[Clip], segment_size: int, hop_length: int = 256) -> Batch:
    """Pad clips into a batch, longest spectrogram first; of equal ones in the order of their numbers.

    Audio is padded to `segment_size` samples at least, and spectrograms to the frames of that, so that a training
    slice can be cut of every batch. Raises ValueError if there are no clips.
    """
    if not clips:
        raise ValueError("a batch needs at least one clip")
    ordered = sorted(clips, key=lambda clip: (-clip.spec.size(1), clip.number))
    ids = _padded([clip.ids for clip in ordered])
    specs = _padded([clip.spec for clip in ordered], segment_size // hop_length)
    audio = _padded([clip.audio for clip in ordered], segment_size)
    speakers = [clip.speaker for clip in ordered]
    return Batch(
        ids,
        _lengths([clip.ids for clip in ordered]),
        specs,
        _lengths([clip.spec for clip in ordered]),
        audio[:, None],  # (batch, 1, samples)
        _lengths([clip.audio for clip in ordered]),
        None if speakers[0] is None else torch.tensor(speakers, dtype=torch.int64),
        torch.tensor([clip.number for clip in ordered], dtype=torch.int64),
    )


def _lengths(items: Sequence[Tensor]) -> Tensor:
    return torch.tensor([item.size(-1) for item in items], dtype=torch.int64)


def _padded(items: Sequence[Tensor], at_least: int = 0) -> Tensor:
    """Stack tensors of different size in their last axis, filled with zeros on the right."""
    longest = max(at_least, *(item.size(-1) for item in items))
    padded = items[0].new_zeros((len(items), *items[0].shape[:-1], longest))
    for row, item in zip(padded, items):
        row[..., : item.size(-1)] = item
    return padded
