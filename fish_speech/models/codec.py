"""What a codec is to all that use one: a waveform becomes columns of codes, and these become a waveform again.

A family's codec is a class of its own that fits these protocols; codec_loading.py has the table of them. Nothing outside
`models/` may know more of a codec than what stands here, except the training of firefly codecs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class CodecShape(Protocol):
    """What codes are to sound."""

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""

    @property
    def samples_per_frame(self) -> int:
        """Samples that one frame of codes stands for."""

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""

    @property
    def codebooks(self) -> int:
        """Codes per frame."""

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of different codes of each codebook; every code is below its own."""


class CodecConfig(CodecShape, Protocol):
    """The shape of a codec: all that can be said of its codes without its weights. Frozen."""

    @property
    def least_samples(self) -> int:
        """Samples of the shortest sound that can be encoded, and compared with what is decoded of it."""

    def frames_of(self, samples: int) -> int:
        """Frames of codes that so many samples give: whole ones only, or the last one filled up, as the family has it."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> CodecConfig:
        """Make a config from a yaml's content, without its `architecture`. ValueError or TypeError for what does not fit."""

    def to_mapping(self) -> dict[str, Any]:
        """Nested plain values, to save: what from_mapping takes."""


class PieceDecoder(Protocol):
    """Decodes one sound, piece after piece; the pieces together are what `decode` makes of the whole."""

    def __call__(self, codes: Tensor) -> Tensor:
        """Codes (batch, codebooks, frames) that follow the last ones -> their waveform (batch, samples) float32."""


class Codec(CodecShape, Protocol):
    """Waveform to codes and back; a torch module. What it returns carries no gradients."""

    head_dtype: torch.dtype  # of the last and costliest part while decoding; bfloat16 is faster on some CPUs, not exact

    @property
    def config(self) -> CodecConfig:
        """Its shape."""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""

    @property
    def codebook_size(self) -> int:
        """The largest of codebook_sizes."""

    @property
    def log_mel(self) -> LogMelLike:
        """The spectrogram by which two sounds of its rate are compared."""

    @property
    def piece_frames(self) -> int:
        """Frames that are best decoded at once on its device."""

    def piece_decoder(self) -> PieceDecoder:
        """A decoder of one sound. The first one prepares the weights, which takes time once."""

    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (batch, 1, samples), of which `lengths` (batch,) samples count.

        Returns codes (batch, codebooks, frames) int64 and how many frames (batch,) of each row are its own.
        """

    def encode_clips(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Encode each waveform (samples,) of at least least_samples, of any length, as if it were alone.

        Returns codes (codebooks, frames) int64 of each, frames_of(samples) frames.
        """

    def decode(self, codes: Tensor, frames: Tensor | None = None) -> Tensor:
        """Codes (batch, codebooks, frames) -> waveform (batch, 1, frames * samples_per_frame) float32.

        `frames` (batch,) tells how many frames of each row count; the sound beyond is zero. Default: all.
        """

    def to(self, device: torch.device | str, /) -> Any:
        """Move the weights."""

    def eval(self) -> Any:
        """Leave the mode of training."""

    def state_dict(self) -> dict[str, Any]:
        """The weights by their names in the published file."""


class LogMelLike(Protocol):
    """A log-mel spectrogram, whatever its shape."""

    def distance(self, one: Tensor, other: Tensor) -> Tensor:
        """Mean absolute difference of the log-mels of two waveforms (batch, samples)."""
