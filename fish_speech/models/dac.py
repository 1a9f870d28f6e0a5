"""The modded DAC codec of OpenAudio S1-mini: sound to codes and back by convolutions and windowed transformers.

A frame is one column of codes: a semantic one and nine residual ones. The released codec makes a frame of
2048 samples, so 44.1 kHz audio has about 21.5 frames per second. All of it is causal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dac_config import DacConfig
from .dac_layers import DacDecoder, DacEncoder
from .dac_pieces import PIECE_FRAMES, FoldedDecoder, FoldedEncoder, PieceDecoder, PieceEncoder
from .mel import LogMel
from .piecewise_codec import PiecewiseCodec
from .vector_quantizer import DownsampledVectorQuantizer

LEAST_FRAMES = 8  # of each row of a large batch, encoded at once


class DacCodec(PiecewiseCodec):
    """Waveform to codes and back, with the parameter names of the published checkpoint.

    Codes above the last one of their codebook are decoded as the last one.
    """

    config: DacConfig

    def __init__(self, config: DacConfig):
        super().__init__(config)
        self.log_mel = LogMel(config.mel)
        self.encoder = DacEncoder(config)
        self.quantizer = DownsampledVectorQuantizer(config.quantizer)
        self.decoder = DacDecoder(config)

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

    @property
    def piece_frames(self) -> int:
        """Frames, of all rows of a batch together, that are best encoded or decoded at once."""
        return PIECE_FRAMES if self.device.type == "cpu" else 8 * PIECE_FRAMES

    def piece_encoder(self) -> PieceEncoder:
        """Make an encoder of one sound, or of a batch, piece after piece."""
        parts = (self.encoder, self.quantizer.downsample)
        return PieceEncoder(self._kept("encoder", parts, torch.float32, lambda: FoldedEncoder(self)))

    def piece_decoder(self) -> PieceDecoder:
        """Make a decoder of one sound, piece after piece."""
        parts, dtype = (self.decoder, self.quantizer.upsample), self.head_dtype
        return PieceDecoder(self._kept("decoder", parts, dtype, lambda: FoldedDecoder(self, dtype)))
