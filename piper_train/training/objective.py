"""What a batch says of generator and discriminators: every loss of VITS, and how processes share a batch.

Each value is this process's part of the loss of the whole batch, so that values and gradients of several processes add
up to those of one with all clips, whatever each got.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fish_speech.training.parallel import summed

from ..data.batch import Batch
from ..models.config import VitsConfig
from ..models.discriminators import Judged
from ..models.segments import cut_segments
from ..models.spectrogram import log_mel, mel_of
from ..models.synthesizer import Draws, Trained
from .losses import discriminator_loss, duration_loss, feature_loss, generator_loss, kl_loss, mel_loss


class Counts(NamedTuple):
    """What the losses of a whole batch are means of, each a tensor ()."""

    clips: Tensor
    frames: Tensor
    tokens: Tensor  # ids

    @classmethod
    def of(cls, batch: Batch) -> Counts:
        """Those of one process's part."""
        device = batch.specs.device
        clips = torch.tensor(float(len(batch.clips)), device=device)
        return cls(clips, batch.spec_lengths.sum().float(), batch.id_lengths.sum().float())

    def of_all(self) -> Counts:
        """Those of the batch that all processes share; each must ask."""
        return Counts(*summed(torch.stack(list(self))).unbind())

    def ones(self) -> Counts:
        """Counts that make the losses sums."""
        one = torch.ones_like(self.clips)
        return Counts(one, one, one)


class Losses(NamedTuple):
    """Parts of the losses by their names; the generator's are not weighted yet."""

    generator: dict[str, Tensor]  # mel, kl, dur, fm, gen [, mrd_gen, mrd_fm]
    discriminator: dict[str, Tensor]  # disc [, mrd_disc]


# What each loss is a mean of; all others are means over clips.
_MEANS = {"kl": "frames", "dur": "tokens"}


def losses_of(
    generator: nn.Module,
    judges: dict[str, nn.Module],
    batch: Batch,
    draws: Draws,
    config: VitsConfig,
    counts: Counts,
) -> Losses:
    """Run generator and discriminators once and compare.

    judges: by the prefix of their losses' names, "" and "mrd_"; the scores serve both sides: the generator's losses reach
    back through them to the sound, and a backward pass must name the weights that it is for
    """
    made: Trained = generator(
        batch.ids, batch.id_lengths, batch.specs, batch.spec_lengths, batch.speaker_ids, draws=draws
    )
    real = cut_segments(batch.audio, made.ids_slice * config.hop_length, config.segment_size)
    share = counts.clips.reciprocal() * len(batch.clips)  # a mean over our clips, as part of that over all
    with torch.autocast(real.device.type, enabled=False):
        target = cut_segments(log_mel(batch.specs, config), made.ids_slice, config.segment_frames)
        sound = made.y_hat.float()
        for_generator = {
            "mel": mel_loss(target, mel_of(sound[:, 0], config)) * share,
            "kl": kl_loss(made.z_p, made.logs_q, made.m_p, made.logs_p, made.y_mask, counts.frames),
            "dur": duration_loss(made.l_length, made.x_mask, counts.tokens),
        }
    for_discriminator = {}
    for prefix, judge in judges.items():
        judged: Judged = judge(real, sound)
        with torch.autocast(real.device.type, enabled=False):
            for_generator[f"{prefix}fm"] = feature_loss(judged.real_features, judged.fake_features) * share
            for_generator[f"{prefix}gen"] = generator_loss(judged.fake_scores) * share
            for_discriminator[f"{prefix}disc"] = discriminator_loss(judged.real_scores, judged.fake_scores) * share
    return Losses(for_generator, for_discriminator)


def weighted(parts: dict[str, Tensor], c_mel: float, c_kl: float) -> Tensor:
    """The loss of one side: its parts with VITS's weights, added up."""
    weights = {"mel": c_mel, "kl": c_kl}
    return torch.stack([weights.get(name, 1.0) * part for name, part in parts.items()]).sum()


def means(sums: dict[str, Tensor], counts: Counts) -> dict[str, Tensor]:
    """Losses from their sums (see Counts.ones) and what they are means of."""
    return {name: total / getattr(counts, _MEANS.get(name, "clips")) for name, total in sums.items()}
