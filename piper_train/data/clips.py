"""Clips for training by their position: ids from the index, sound from the cache, the spectrogram made from it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.data import Dataset

from fish_speech.audio import AudioError
from fish_speech.errors import UserError
from piper_train.models.spectrogram import linear_spectrogram

from .batch import Clip
from .entries import Preparation, Torn, content_of, entry_path, make_entry, read_sound
from .index import Index


class Clips(Dataset[Clip]):
    """The usable clips of an index.

    What is in memory is the index alone. A sound whose cache entry has gone is made again, if the recording is still
    the one that the index knows.
    """

    def __init__(
        self,
        index: Index,
        cache_dir: Path,
        preparation: Preparation,
        filter_length: int = 1024,
        hop_length: int = 256,
        win_length: int = 1024,
    ):
        self.index, self.cache_dir, self.preparation = index, cache_dir, preparation
        self.stft = (filter_length, hop_length, win_length)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, position: int) -> Clip:
        arrays = self.index.arrays
        audio = self._sound(position)  # (samples,)
        speaker = int(arrays["speaker"][position])
        return Clip(
            int(arrays["number"][position]),
            torch.from_numpy(self.index.ids_of(position).astype("int64")),  # (ids,)
            linear_spectrogram(audio, *self.stft),  # (bins, frames)
            audio,
            None if speaker < 0 else speaker,
        )

    def _sound(self, position: int) -> torch.Tensor:
        content = self.index.arrays["content"][position].tobytes()
        path = entry_path(self.cache_dir, content, self.preparation)
        try:
            audio = read_sound(path)
        except Torn:
            audio = self._made_again(position, content, path)
        if len(audio) != int(self.index.arrays["samples"][position]):
            raise self._gone(position, "its cache entry is not the one that was prepared")
        return torch.from_numpy(audio)

    def _made_again(self, position: int, content: bytes, path: Path):
        recording = Path(self.index.text_of("recording", position))
        try:
            if content_of(recording) != content:
                raise self._gone(position, "its cache entry is gone, and the recording has changed")
            make_entry(recording, path, self.preparation)
            return read_sound(path)
        except (OSError, AudioError, Torn) as error:
            raise self._gone(position, f"its cache entry is gone and cannot be made again: {error}") from None

    def _gone(self, position: int, why: str) -> UserError:
        name = self.index.text_of("name", position)
        return UserError(f"the clip {name} cannot be read", why, "start the same command again: it prepares the data")
