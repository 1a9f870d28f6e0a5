"""A whole model of the golden answers, and one step of its training as the golden answers were made."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from piper_train.models.config import VitsConfig
from piper_train.models.discriminators import MultiPeriodDiscriminator, MultiResolutionDiscriminator
from piper_train.models.segments import cut_segments
from piper_train.models.spectrogram import linear_spectrogram, log_mel, mel_of
from piper_train.models.synthesizer import Draws, Synthesizer, Trained
from piper_train.training.losses import (
    discriminator_loss,
    duration_loss,
    feature_loss,
    generator_loss,
    kl_loss,
    mel_loss,
)

from .filled import fill_part


class GoldenModel:
    """Generator and discriminators with golden weights, and the golden batch."""

    def __init__(self, said: dict[str, Any], arrays: dict[str, np.ndarray]):
        self.config = VitsConfig.from_mapping(said["hparams"])
        self.model_g = fill_part(Synthesizer(self.config), "model_g.", said)
        self.judges = {"": fill_part(MultiPeriodDiscriminator(), "model_d.", said)}
        if said["hparams"].get("use_mrd"):
            self.judges["mrd_"] = fill_part(MultiResolutionDiscriminator(), "model_mrd.", said)
        self.params_g = list(self.model_g.parameters())
        self.params_d = [parameter for judge in self.judges.values() for parameter in judge.parameters()]
        self.batch = {key: torch.from_numpy(value) for key, value in arrays.items()}

    def named_parameters(self) -> dict[str, nn.Parameter]:
        """All parameters under the names of a checkpoint."""
        parts = {"model_g": self.model_g, **{f"model_{key or 'd_'}"[:-1]: judge for key, judge in self.judges.items()}}
        return {f"{part}.{name}": value for part, module in parts.items() for name, value in module.named_parameters()}

    def losses(self) -> tuple[Trained, dict[str, Tensor]]:
        """Run generator and discriminators once -> what the generator made, and every loss by its golden name."""
        config, batch = self.config, self.batch
        lengths = batch["train.spec_lengths"]
        spec = _spectra(batch["train.audio"][:, 0], batch["train.audio_lengths"], config)
        draws = Draws(batch["train.noise_q"], batch.get("train.noise_dp"), batch["train.u_slice"])
        made = self.model_g(batch["ids"], batch["ids_lengths"], spec, lengths, batch.get("sid"), draws)
        losses = {
            "mel": mel_loss(
                cut_segments(log_mel(spec, config), made.ids_slice, config.segment_frames),
                mel_of(made.y_hat[:, 0], config),
            ),
            "kl": kl_loss(made.z_p, made.logs_q, made.m_p, made.logs_p, made.y_mask),
            "dur": duration_loss(made.l_length, made.x_mask),
        }
        real = cut_segments(batch["train.audio"], made.ids_slice * config.hop_length, config.segment_size)
        for key, judge in self.judges.items():
            judged = judge(real, made.y_hat)
            losses[f"{key}gen"] = generator_loss(judged.fake_scores)
            losses[f"{key}fm"] = feature_loss(judged.real_features, judged.fake_features)
            losses[f"{key}disc"] = discriminator_loss(judged.real_scores, judged.fake_scores)
        from_d = [value for name, value in losses.items() if name.endswith(("gen", "fm"))]
        losses["loss_d"] = torch.stack([value for name, value in losses.items() if name.endswith("disc")]).sum()
        losses["loss_g"] = 45 * losses["mel"] + losses["kl"] + losses["dur"] + torch.stack(from_d).sum()
        return made, losses

    def backward(self, losses: dict[str, Tensor]) -> None:
        """Give the generator the gradients of its loss and the discriminators those of theirs, from one pass."""
        losses["loss_g"].backward(inputs=self.params_g, retain_graph=True)
        losses["loss_d"].backward(inputs=self.params_d)

    def step(self) -> None:
        """Step both optimizers once with the gradients that are there."""
        torch.optim.AdamW(self.params_g, 2e-4, (0.8, 0.99), 1e-9).step()
        torch.optim.AdamW(self.params_d, 1e-4, (0.5, 0.9), 1e-9).step()


def _spectra(audio: Tensor, lengths: Tensor, config: VitsConfig) -> Tensor:
    """Spectra of each clip alone, as they lie in a data set's cache, padded with zeros to a batch."""
    spectra = [
        linear_spectrogram(row[:length], config.filter_length, config.hop_length, config.win_length).T
        for row, length in zip(audio, lengths.tolist(), strict=True)
    ]
    return nn.utils.rnn.pad_sequence(spectra, batch_first=True).transpose(1, 2)


def drawn(name: str, shape: tuple[int, ...], seed: int, uniform: bool = False) -> np.ndarray:
    """Random numbers that the golden answers name but do not hold."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    return rng.random(shape, np.float32) if uniform else rng.standard_normal(shape, np.float32)


def medium_audio(name: str, samples: int, rate: int, seed: int) -> np.ndarray:
    """A made-up clip of the golden answers: a gliding buzz with a slow loudness and a little noise."""
    t, c = np.arange(samples) / rate, zlib.crc32(name.encode()) % 97
    pitch = 110 + c + 30 * np.sin(2 * np.pi * 2.5 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    loudness = 0.55 + 0.4 * np.sin(2 * np.pi * 3.1 * t + 0.1 * c)
    tone = sum(np.sin(harmonic * phase) / harmonic for harmonic in (1, 2, 3, 5, 8))
    sound = 0.25 * loudness * tone + 0.02 * drawn(name, (samples,), seed).astype(np.float64)
    return np.clip(sound, -0.99, 0.99).astype(np.float32)
