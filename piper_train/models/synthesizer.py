"""The generator of a Piper voice: VITS, from phoneme ids to a waveform in one model (arXiv:2106.06103).

While training, a recording's latents come from its spectrogram; the text learns to foresee them, an alignment found on the
way teaches the durations, and the decoder makes a short segment. When speaking, text alone gives durations and latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .alignment import log_likelihood, maximum_path
from .config import VitsConfig
from .decoder import Decoder
from .durations import DurationPredictor
from .flow import Flow
from .masks import path_of_durations, sequence_mask
from .posterior import PosteriorEncoder
from .segments import cut_segments, segment_starts
from .stochastic_durations import StochasticDurationPredictor
from .text_encoder import TextEncoder


@dataclass(frozen=True)
class Draws:
    """Random numbers of a training step; what is None is drawn where it is needed, in this order."""

    posterior: Tensor | None = None  # standard normal, (batch, channels, frames)
    durations: Tensor | None = None  # standard normal, (batch, 2, symbols)
    slices: Tensor | None = None  # uniform in [0, 1), (batch)


@dataclass(frozen=True)
class Noise:
    """Random numbers of speaking, before any scale, in float32; what is None is drawn, in this order."""

    durations: Tensor | None = None  # standard normal, (batch, 2, symbols)
    prior: Tensor | None = None  # standard normal, (batch, channels, frames); frames beyond the sound's are not used


class Trained(NamedTuple):
    """What a training step makes."""

    y_hat: Tensor  # waveform of the segments, (batch, 1, segment_size)
    l_length: Tensor  # loss of the durations, summed over each clip's symbols, (batch)
    path: Tensor  # alignment, ones and zeros, (batch, frames, symbols)
    ids_slice: Tensor  # frames at which the segments start, (batch)
    x_mask: Tensor  # (batch, 1, symbols)
    y_mask: Tensor  # (batch, 1, frames)
    z: Tensor  # latents of the sound, (batch, channels, frames)
    z_p: Tensor  # the same after the flow
    m_p: Tensor  # what the text foresees of z_p in each frame: mean
    logs_p: Tensor  # and ln of the standard deviation
    m_q: Tensor  # what the posterior encoder says of z: mean
    logs_q: Tensor  # and ln of the standard deviation


class Inferred(NamedTuple):
    """What speaking makes, and what it went through."""

    wave: Tensor  # (batch, 1, frames * hop_length) in [-1, 1]; what is beyond a clip's own frames means nothing
    durations: Tensor  # frames of each symbol, whole numbers, (batch, symbols)
    y_mask: Tensor  # (batch, 1, frames)
    logw: Tensor  # ln of the durations before length_scale, (batch, 1, symbols)
    z_p: Tensor  # (batch, channels, frames)
    z: Tensor  # the same after the flow, (batch, channels, frames)
    dec_in: Tensor  # what the decoder gets, (batch, channels, frames)


class Synthesizer(nn.Module):
    """The generator. Names of its parts and parameters are those of published checkpoints below `model_g.`"""

    def __init__(self, config: VitsConfig) -> None:
        super().__init__()
        self.config = config
        self.enc_p = TextEncoder(config)
        self.dec = Decoder(config)
        self.enc_q = PosteriorEncoder(config)
        self.flow = Flow(config)
        self.dp = StochasticDurationPredictor(config) if config.use_sdp else DurationPredictor(config)
        if config.num_speakers > 1:
            self.emb_g = nn.Embedding(config.num_speakers, config.gin_channels)

    def forward(
        self,
        ids: Tensor,
        ids_lengths: Tensor,
        spec: Tensor,
        spec_lengths: Tensor,
        sid: Tensor | None = None,
        draws: Draws | None = None,
    ) -> Trained:
        """Take a training step's way through the model.

        `ids` is (batch, symbols), `spec` (batch, bins, frames), the lengths and speakers `sid` are (batch). Raises
        ValueError for several speakers without `sid`.
        """
        draws = draws or Draws()
        g = self._speaker(sid)
        text = self.enc_p(ids, ids_lengths)
        z, m_q, logs_q, y_mask = self.enc_q(spec, spec_lengths, g, draws.posterior)
        z_p = self.flow(z, y_mask, g)
        # Exponents and sums over a whole clip do not survive half precision.
        with torch.autocast(ids.device.type, enabled=False):
            x, m, logs, x_mask = (tensor.float() for tensor in text)
            with torch.no_grad():
                path = maximum_path(log_likelihood(z_p.float(), m, logs), spec_lengths, ids_lengths)
                w = path.sum(1, keepdim=True)  # (batch, 1, symbols)
            l_length = self.dp.loss(x, x_mask, w, None if g is None else g.float(), draws.durations)
            m_p, logs_p = (tensor @ path.transpose(1, 2) for tensor in (m, logs))  # (batch, channels, frames)
        uniform = torch.rand(len(ids), device=ids.device) if draws.slices is None else draws.slices
        starts = segment_starts(uniform, spec_lengths, self.config.segment_frames)
        y_hat = self.dec(cut_segments(z, starts, self.config.segment_frames), g)
        return Trained(y_hat, l_length, path, starts, x_mask, y_mask, z, z_p, m_p, logs_p, m_q, logs_q)

    def infer(
        self,
        ids: Tensor,
        ids_lengths: Tensor,
        sid: Tensor | None = None,
        noise_scale: float | Tensor = 0.667,
        length_scale: float | Tensor = 1.0,
        noise_scale_w: float | Tensor = 0.8,
        noise: Noise | None = None,
        max_frames: int | None = None,
    ) -> Inferred:
        """Speak `ids` (batch, symbols) of `ids_lengths` (batch) by the speakers `sid` (batch, or 1 for all).

        Scales: of the latents' noise, of the durations, of the durations' noise. Sound ends at `max_frames`, where given:
        an untrained voice may ask for very long symbols. Raises ValueError for several speakers without `sid`.
        """
        noise = noise or Noise()
        g = self._speaker(sid)
        x, m, logs, x_mask = self.enc_p(ids, ids_lengths)
        logw = self.dp.log_durations(x, x_mask, g, noise.durations, noise_scale_w)
        durations = torch.ceil((torch.exp(logw) * x_mask * length_scale).squeeze(1))  # (batch, symbols)
        y_lengths = durations.sum(1).clamp(min=1, max=max_frames).long()
        frames = y_lengths.max()
        y_mask = sequence_mask(y_lengths, frames).to(x.dtype)
        path = path_of_durations(durations, frames).to(x.dtype)
        m_p, logs_p = (tensor @ path.transpose(1, 2) for tensor in (m, logs))  # (batch, channels, frames)
        prior = torch.randn_like(m_p) if noise.prior is None else _first_frames(noise.prior, frames)
        z_p = m_p + prior * torch.exp(logs_p) * noise_scale
        z = self.flow(z_p, y_mask, g, reverse=True)
        dec_in = z * y_mask
        return Inferred(self.dec(dec_in, g), durations.long(), y_mask, logw, z_p, z, dec_in)

    def _speaker(self, sid: Tensor | None) -> Tensor | None:
        """The speakers' vectors (batch, gin, 1); None in a voice of one speaker, which ignores `sid`."""
        if self.config.num_speakers == 1:
            return None
        if sid is None:
            raise ValueError(f"this voice has {self.config.num_speakers} speakers; say which one speaks (sid)")
        return self.emb_g(sid)[:, :, None]


def _first_frames(noise: Tensor, frames: Tensor) -> Tensor:
    if noise.size(2) < frames:
        raise ValueError(f"the noise of the latents has {noise.size(2)} frames, but the sound has {int(frames)}")
    return noise[:, :, :frames]
