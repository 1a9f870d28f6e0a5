"""What the codecs of all families do alike: they tell their shape, keep folded weights, and decode piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .codec import CodecConfig, PieceDecoder

Folded = TypeVar("Folded")


class PiecewiseCodec(nn.Module):
    """A codec that decodes with folded weights. A family adds its parts, `encode` and what raises here."""

    def __init__(self, config: CodecConfig):
        super().__init__()
        self.config: Any = config
        self.head_dtype = (
            torch.float32
        )  # of the last and costliest part; bfloat16 is faster on CPUs with AMX, not exact
        self._folded: dict[str, tuple[object, Any]] = {}

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.config.sample_rate

    @property
    def samples_per_frame(self) -> int:
        """Samples that one frame of codes stands for."""
        return self.config.samples_per_frame

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.config.frame_rate

    @property
    def codebooks(self) -> int:
        """Codes per frame."""
        return self.config.codebooks

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of different codes of each codebook."""
        return self.config.codebook_sizes

    @property
    def codebook_size(self) -> int:
        """Every code is below it."""
        return max(self.codebook_sizes)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        raise NotImplementedError

    @property
    def piece_frames(self) -> int:
        """Frames that are best decoded at once on its device."""
        raise NotImplementedError

    def piece_decoder(self) -> PieceDecoder:
        """Make a decoder of one sound, piece after piece."""
        raise NotImplementedError

    @torch.no_grad()
    def decode(self, codes: Tensor, frames: Tensor | None = None) -> Tensor:
        """Codes (batch, codebooks, frames) -> waveform (batch, 1, samples) float32.

        `frames` (batch,) tells how many frames of each row count; the sound beyond is zero. Default: all.
        """
        counts = [codes.size(2)] * codes.size(0) if frames is None else frames.tolist()
        waveform = torch.zeros(codes.size(0), 1, codes.size(2) * self.samples_per_frame, device=codes.device)
        for row, count, sound in zip(codes, counts, waveform, strict=True):
            decoder, done = self.piece_decoder(), 0
            for piece in row[None, :, :count].split(self.piece_frames, dim=2):
                made = decoder(piece)
                sound[:, done : done + made.size(1)] = made
                done += made.size(1)
        return waveform

    def _kept(self, name: str, parts: Iterable[nn.Module], dtype: torch.dtype, fold: Callable[[], Folded]) -> Folded:
        """What `fold` makes of the weights of `parts` for `dtype`, kept by `name` until any of these changes."""
        weights = (p for part in parts for p in part.parameters())
        key = dtype, [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in weights]
        if name not in self._folded or self._folded[name][0] != key:
            self._folded[name] = key, fold()
        return self._folded[name][1]

    def _apply(self, *args: Any, **options: Any) -> PiecewiseCodec:
        """Move or convert the weights; folded ones of another device would only keep its memory."""
        before = self.device
        super()._apply(*args, **options)
        if self.device != before:
            self._folded = {}
        return self

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: not the folded weights, which it can make, and packed ones cannot be copied."""
        return {**self.__dict__, "_folded": {}}
