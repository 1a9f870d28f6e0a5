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
from .mel import LogMel
from .vector_quantizer import DownsampledVectorQuantizer


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
        """Encode (batch, 1, samples) of which `lengths` (batch,) samples count; default: all, rounded up to whole frames.

        Returns codes (batch, codebooks, frames) int64 and the number of frames (batch,) that each waveform reaches
        into; codes beyond those belong to padding. What follows the end of a waveform is silence.
        """
        per_frame = self.samples_per_frame
        waveform = F.pad(waveform, (0, -waveform.size(2) % per_frame))
        if lengths is None:
            lengths = torch.full((waveform.size(0),), waveform.size(2), device=waveform.device)
        codes = self.quantizer.encode(self.quantizer.before_codes(self.encoder(waveform)).transpose(1, 2))
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
        sound = self.decoder(self.quantizer.after_codes(self.quantizer.decode(codes).transpose(1, 2)))
        if frames is not None:
            ends = frames.to(codes.device)[:, None, None] * self.samples_per_frame
            sound = sound * (torch.arange(sound.size(2), device=codes.device) < ends)
        return sound
