"""The firefly codec: mel, ConvNeXt encoder, downsampled grouped FSQ and HiFi-GAN head.

A frame is one column of codes, one entry per codebook. The released codec makes one every hop_length * downsample =
512 * 4 samples, so 44.1 kHz audio has about 21.5 frames per second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .convnext import ConvNeXtEncoder, EncoderConfig
from .firefly_decoder import PIECE_FRAMES, FoldedDecoder, PieceDecoder
from .fsq import DownsampledQuantizer, QuantizerConfig
from .hifigan import HeadConfig, HiFiGANHead
from .mel import LogMel, MelConfig
from .piecewise_codec import PiecewiseCodec


@dataclass(frozen=True)
class FireflyConfig:
    """What a firefly codec is; the defaults are the released one's."""

    spec_transform: MelConfig = field(default_factory=MelConfig)
    backbone: EncoderConfig = field(default_factory=EncoderConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        links = {
            "spec_transform.n_mels and backbone.input_channels": (
                self.spec_transform.n_mels,
                self.backbone.input_channels,
            ),
            "backbone.dims[-1] and quantizer.input_dim": (self.backbone.dims[-1], self.quantizer.input_dim),
            "quantizer.input_dim and head.num_mels": (self.quantizer.input_dim, self.head.num_mels),
            "spec_transform.hop_length and head.hop_length": (self.spec_transform.hop_length, self.head.hop_length),
        }
        for names, (one, other) in links.items():
            if one != other:
                raise ValueError(f"{names} must be equal, but are {one} and {other}")

    @property
    def sample_rate(self) -> int:
        """Of the waveforms, in Hz."""
        return self.spec_transform.sample_rate

    @property
    def samples_per_frame(self) -> int:
        """Samples that one frame of codes stands for."""
        return self.spec_transform.hop_length * self.quantizer.downsample

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.sample_rate / self.samples_per_frame

    @property
    def codebooks(self) -> int:
        """Codes per frame."""
        return self.quantizer.n_groups

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of different codes of each codebook."""
        return (self.quantizer.codes,) * self.codebooks

    @property
    def least_samples(self) -> int:
        """Samples of the shortest sound that gives a frame, and a mel to compare."""
        return max(self.samples_per_frame, self.spec_transform.win_length)

    def frames_of(self, samples: int) -> int:
        """Frames of codes that lie wholly inside so many samples."""
        return samples // self.spec_transform.hop_length // self.quantizer.downsample

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> FireflyConfig:
        """Make a config from nested mappings (a yaml's content). Raises ValueError or TypeError for what does not fit."""
        values = {str(name): part for name, part in values.items() if not str(name).startswith("_")}
        if "spec" in values:  # a shorter name in use for the same part
            values["spec_transform"] = values.pop("spec")
        parts = {
            "spec_transform": MelConfig,
            "backbone": EncoderConfig,
            "quantizer": QuantizerConfig,
            "head": HeadConfig,
        }
        unknown = sorted(set(values) - set(parts))
        if unknown:
            raise ValueError(f"unknown parts of a firefly codec: {', '.join(unknown)}; known: {', '.join(parts)}")
        return cls(**{name: parts[name](**part) for name, part in values.items()})

    def to_mapping(self) -> dict[str, Any]:
        """Return nested plain values, to save."""
        return asdict(self)


class FireflyCodec(PiecewiseCodec):
    """Waveform to codes and back, with the parameter names of the published generator checkpoint."""

    config: FireflyConfig

    def __init__(self, config: FireflyConfig):
        super().__init__(config)
        self.log_mel = LogMel(config.spec_transform)
        self.backbone = ConvNeXtEncoder(config.backbone)
        self.head = HiFiGANHead(config.head)
        self.quantizer = DownsampledQuantizer(config.quantizer)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.backbone.norm.weight.device

    def forward(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 1, samples) -> the reconstruction, and codes (batch, codebooks, frames); with gradients, for training.

        Samples must be a multiple of samples_per_frame.
        """
        latents, codes = self.quantizer(self.backbone(self.log_mel(waveform)))
        return self.head(latents), codes

    def encoder_parameters(self) -> list[nn.Parameter]:
        """The weights that decide the codes; with these unchanged, codes made earlier keep their meaning."""
        quantizer = self.quantizer
        inputs = [rvq.project_in for rvq in quantizer.residual_fsq.rvqs]  # type: ignore[union-attr]
        return [p for part in (self.backbone, quantizer.downsample, *inputs) for p in part.parameters()]  # type: ignore

    @torch.no_grad()
    def encode(self, waveform: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode (batch, 1, samples) of which `lengths` (batch,) samples count.

        Returns codes (batch, codebooks, frames) int64 and the number of frames (batch,) that lie wholly inside each
        waveform; codes beyond those belong to padding. Rows shorter than the longest see zeros after their end where
        a row alone sees its reflection, so their last frames may differ from `encode_clips`.
        """
        return self.encode_mel(self.log_mel(waveform), self.log_mel.frames(lengths))

    @torch.no_grad()
    def encode_clips(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Encode each waveform (samples,) as if it were alone; return its codes (codebooks, frames).

        Frames = floor(floor(samples / hop) / downsample). The codes do not depend on what else is in the batch: each
        mel is made alone, and all that follows is causal.
        """
        if self.device.type == "cpu" and len(clips) > 1:  # one clip fits into the caches, a batch does not
            return [self.encode_clips([clip])[0] for clip in clips]
        mels = [self.log_mel(clip[None])[0] for clip in clips]  # (mels, frames) each
        lengths = torch.tensor([mel.size(1) for mel in mels], device=self.device)
        batch = nn.utils.rnn.pad_sequence([mel.T for mel in mels], batch_first=True).transpose(1, 2)
        codes, frames = self.encode_mel(batch, lengths)
        return [row[:, :count] for row, count in zip(codes, frames.tolist(), strict=True)]

    @torch.no_grad()
    def encode_mel(self, mel: Tensor, mel_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Encode log-mel frames (batch, mels, frames), zeroed beyond `mel_lengths` (batch,), as `encode` does."""
        return self.quantizer.encode(self.latents(mel, mel_lengths)), mel_lengths // self.config.quantizer.downsample

    def latents(self, mel: Tensor, mel_lengths: Tensor) -> Tensor:
        """Run the encoder: (batch, mels, frames) -> (batch, channels, frames), zero beyond `mel_lengths` (batch,)."""
        inside = _inside(mel_lengths, mel.size(-1))
        return self.backbone(mel * inside) * inside

    @property
    def piece_frames(self) -> int:
        """Frames that are best decoded at once: what fits into the caches of a CPU, many elsewhere."""
        return PIECE_FRAMES if self.device.type == "cpu" else 16 * PIECE_FRAMES

    def piece_decoder(self) -> PieceDecoder:
        """Make a decoder of one sound, piece after piece."""
        parts, dtype = (self.head, self.quantizer.upsample), self.head_dtype
        return PieceDecoder(self._kept("decoder", parts, dtype, lambda: FoldedDecoder(self, dtype)))


def _inside(lengths: Tensor, size: int) -> Tensor:
    """Mask (batch, 1, size), true below each of `lengths` (batch,)."""
    return (torch.arange(size, device=lengths.device) < lengths[:, None])[:, None]
