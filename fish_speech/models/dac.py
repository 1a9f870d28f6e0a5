"""The modded DAC codec of OpenAudio S1-mini: sound to codes and back by convolutions and windowed transformers.

A frame is one column of codes: a semantic one and nine residual ones. The released codec makes a frame of
2048 samples, so 44.1 kHz audio has about 21.5 frames per second. All of it is causal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dac_config import DacConfig
from .dac_layers import DacDecoder, DacEncoder
from .dac_pieces import PIECE_FRAMES, FoldedDecoder, FoldedEncoder, PieceDecoder, PieceEncoder
from .mel import LogMel
from .vector_quantizer import DownsampledVectorQuantizer

LEAST_FRAMES = 8  # of each row of a large batch, encoded at once
Folded = TypeVar("Folded")


class DacCodec(nn.Module):
    """Waveform to codes and back, with the parameter names of the published checkpoint."""

    def __init__(self, config: DacConfig):
        super().__init__()
        self.config = config
        self.log_mel = LogMel(config.mel)
        self.encoder = DacEncoder(config)
        self.quantizer = DownsampledVectorQuantizer(config.quantizer)
        self.decoder = DacDecoder(config)
        self.head_dtype = torch.float32  # of the decoder's convolutions; bfloat16 is faster on CPUs with AMX, not exact
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
        return self.quantizer.pre_module.norm.weight.device

    @torch.no_grad()
    def encode(self, waveform: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode (batch, 1, samples) of which `lengths` (batch,) samples count; default: all.

        Returns codes (batch, codebooks, frames) int64 and the number of frames (batch,) that each waveform reaches
        into; codes beyond those belong to padding. What follows the end of a waveform is silence.
        """
        batch, samples = waveform.size(0), waveform.size(2)
        if lengths is None:
            lengths = torch.full((batch,), samples, device=self.device)
        per_frame, encoder = self.samples_per_frame, self.piece_encoder()
        codes = torch.empty(batch, self.codebooks, 0, dtype=torch.int64, device=self.device)
        frames = max(LEAST_FRAMES, self.piece_frames // max(1, batch))
        for piece in waveform[:, 0].split(frames * per_frame, dim=1) if samples else ():
            padded = F.pad(piece.to(self.device), (0, -piece.size(1) % per_frame))
            codes = torch.cat((codes, encoder(padded)), dim=2)
        return codes, -(-lengths // per_frame)

    @torch.no_grad()
    def encode_clips(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Encode each waveform (samples,) as if it were alone; return its codes (codebooks, frames).

        Frames = ceil(samples / samples_per_frame). All is causal, so codes do not depend on what else is in the batch.
        """
        if self.device.type == "cpu" and len(clips) > 1:  # one clip fits into the caches, a batch does not
            return [self.encode_clips([clip])[0] for clip in clips]
        lengths = torch.tensor([clip.numel() for clip in clips], device=self.device)
        codes, frames = self.encode(nn.utils.rnn.pad_sequence(list(clips), batch_first=True)[:, None], lengths)
        return [row[:, :count] for row, count in zip(codes, frames.tolist(), strict=True)]

    @torch.no_grad()
    def decode(self, codes: Tensor, frames: Tensor | None = None) -> Tensor:
        """Codes (batch, codebooks, frames) -> waveform (batch, 1, samples) float32.

        Codes above the last one of their codebook count as the last one. `frames` (batch,) tells how many frames of
        each row count; the sound beyond is zero. Default: all.
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

    @property
    def piece_frames(self) -> int:
        """Frames, of all rows of a batch together, that are best encoded or decoded at once."""
        return PIECE_FRAMES if self.device.type == "cpu" else 8 * PIECE_FRAMES

    def piece_encoder(self) -> PieceEncoder:
        """Make an encoder of one sound, or of a batch, piece after piece."""
        parts = (self.encoder, self.quantizer.downsample)
        return PieceEncoder(self._fold("encoder", parts, None, lambda: FoldedEncoder(self)))

    def piece_decoder(self) -> PieceDecoder:
        """Make a decoder of one sound, piece after piece."""
        parts, dtype = (self.decoder, self.quantizer.upsample), self.head_dtype
        return PieceDecoder(self._fold("decoder", parts, dtype, lambda: FoldedDecoder(self, dtype)))

    def _fold(
        self, name: str, parts: Sequence[nn.Module], dtype: torch.dtype | None, fold: Callable[[], Folded]
    ) -> Folded:
        """What `fold` makes of the weights of `parts`, kept until these change."""
        weights = (p for part in parts for p in part.parameters())
        key = dtype, [(p.data_ptr(), 0 if p.is_inference() else p._version) for p in weights]
        if name not in self._folded or self._folded[name][0] != key:
            self._folded[name] = key, fold()
        return self._folded[name][1]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy takes along: not the folded weights, which it can make, and packed ones cannot be copied."""
        return {**self.__dict__, "_folded": {}}
