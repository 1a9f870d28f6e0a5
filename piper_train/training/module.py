"""The Lightning module of a Piper voice: generator and discriminators in turn, as VITS trains (arXiv:2106.06103)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from fish_speech.training.parallel import sum_gradients, summed

from ..checkpoints import RECORD, VOICE_CONFIG, plain, read_checkpoint
from ..data.batch import Batch
from ..models.discriminators import MultiPeriodDiscriminator, MultiResolutionDiscriminator
from ..models.synthesizer import Synthesizer
from .draws import VALIDATION, draws_of, key
from .finite import are_finite, norm_of_gradients, not_finite, refuse_broken
from .objective import Counts, Losses, losses_of, means, weighted
from .options import make_config, refuse_nonsense, refuse_without_effect
from .resuming import check_fits, fit_position, refuse_other_speakers, settings_of
from .warm_start import VOCODER, warm_start

log = logging.getLogger(__name__)

_PATIENCE = 20  # steps in a row without finite losses and gradients that 16-mixed may skip while its scale settles


class VitsModule(L.LightningModule):
    """Trains a voice: `model_g` speaks, `model_d` (and `model_mrd`) judge it.

    Randomness of a step is a function of the seed, the epoch, the step and the clip (see draws), so that a resumed run
    draws what an uninterrupted one would. `seed` is set by the command line.

    Args:
        batch_size: clips of each process in a step (set by data.batch_size)
        sample_rate: Hz
        num_symbols: rows of the phoneme embedding (set by data.num_symbols)
        num_speakers: more than 1 trains a voice of several speakers
        resblock: residual blocks of the decoder, 1 (large, quality high) or 2
        gin_channels: size of the speaker vector; 0 becomes 512 with several speakers
        use_sdp: draw durations (stochastic predictor) rather than regress them
        segment_size: samples that the decoder makes for each clip in a step
        use_mrd: add multi-resolution discriminators
        learning_rate: of the generator
        learning_rate_d: of the discriminators
        lr_decay: factor of the generator's learning rate, each epoch
        lr_decay_d: factor of the discriminators' learning rate, each epoch
        c_mel: weight of the mel loss
        c_kl: weight of the KL loss
        vocoder_warmstart_ckpt: checkpoint whose decoder, posterior encoder and flow to start with
        warmstart_ckpt: checkpoint to start with, from epoch 0; published ones do
        n_layers_q: no effect
        use_spectral_norm: no effect
        init_lr_ratio: no effect
        warmup_epochs: no effect
        grad_clip: no effect
        mos_metric: no effect; nothing is downloaded
        dataset: no effect
    """

    def __init__(
        self,
        batch_size: int = 32,
        sample_rate: int = 22050,
        num_symbols: int = 256,
        num_speakers: int = 1,
        resblock: str | int = "2",
        resblock_kernel_sizes: Any = (3, 5, 7),
        resblock_dilation_sizes: Any = ((1, 2), (2, 6), (3, 12)),
        upsample_rates: Any = (8, 8, 4),
        upsample_initial_channel: int = 256,
        upsample_kernel_sizes: Any = (16, 16, 8),
        filter_length: int = 1024,
        hop_length: int = 256,
        win_length: int = 1024,
        mel_channels: int = 80,
        mel_fmin: float = 0.0,
        mel_fmax: float | None = None,
        inter_channels: int = 192,
        hidden_channels: int = 192,
        filter_channels: int = 768,
        n_heads: int = 2,
        n_layers: int = 6,
        kernel_size: int = 3,
        p_dropout: float = 0.1,
        n_layers_q: int = 3,
        use_spectral_norm: bool = False,
        gin_channels: int = 0,
        use_sdp: bool = True,
        segment_size: int = 8192,
        use_mrd: bool = False,
        learning_rate: float = 2e-4,
        learning_rate_d: float = 1e-4,
        betas: tuple[float, float] = (0.8, 0.99),
        betas_d: tuple[float, float] = (0.5, 0.9),
        eps: float = 1e-9,
        lr_decay: float = 0.999875,
        lr_decay_d: float = 0.9999,
        init_lr_ratio: float = 1.0,
        warmup_epochs: int = 0,
        grad_clip: float | None = None,
        c_mel: float = 45.0,
        c_kl: float = 1.0,
        vocoder_warmstart_ckpt: str | Path | None = None,
        warmstart_ckpt: str | Path | None = None,
        mos_metric: str | None = "utmos",
        dataset: str | None = None,
    ):
        options = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        refuse_without_effect(options)
        refuse_nonsense(options)
        self.config = make_config(options)
        self.save_hyperparameters(plain({**options, **self.config.to_mapping()}))
        self.automatic_optimization = False
        self.seed = 0
        self.model_g = Synthesizer(self.config)
        self.model_d = MultiPeriodDiscriminator()
        self.model_mrd = MultiResolutionDiscriminator() if use_mrd else None
        self.epoch_is_whole = False  # whether the epoch that ends now has trained all its batches
        self.accumulate = 1  # batches whose gradients make one step
        self.is_half_done = False  # the generator has learnt from this step, its discriminators not yet
        self.is_accumulating = False  # gradients of the batches so far wait for those of more
        self._not_finite = 0  # steps in a row
        self._held_out: dict[str, Tensor] = {}  # sums of a validation so far

    @property
    def judges(self) -> dict[str, nn.Module]:
        """Discriminators by the prefix of their losses' names."""
        return {"": self.model_d} if self.model_mrd is None else {"": self.model_d, "mrd_": self.model_mrd}

    @property
    def data(self) -> Any:
        """The data module: it knows the epoch and how many of its batches are done."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def setup(self, stage: str) -> None:
        """Start with another voice's weights where that is asked for; a resumed run's command line does not ask."""
        if stage != "fit":
            return
        for name, prefixes in (("warmstart_ckpt", None), ("vocoder_warmstart_ckpt", VOCODER)):
            if path := self.hparams.get(name):
                log.info("%s", warm_start(self, read_checkpoint(Path(path)), prefixes))

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        data = self.data
        torch.manual_seed(key(self.seed, data.epoch, data.batches_done, self.global_rank))
        draws = draws_of(batch, self.config.inter_channels, self.seed, data.epoch)
        counts = Counts.of(batch).of_all()
        losses = losses_of(self.model_g, self.judges, batch, draws, self.config, counts)
        loss_g = weighted(losses.generator, self.hparams["c_mel"], self.hparams["c_kl"])
        loss_d = weighted(losses.discriminator, 1.0, 1.0)
        values = self._shared(losses, loss_g, loss_d)
        self._learn(loss_g / self.accumulate, loss_d / self.accumulate, values)
        data.batches_done += 1
        for name, value in values.items():
            self.log(name, value, on_step=True, on_epoch=False, prog_bar=name.startswith("loss"), batch_size=1)

    def _learn(self, loss_g: Tensor, loss_d: Tensor, values: dict[str, Tensor]) -> None:
        """Add up gradients; where a step is due, let first the generator learn, then its discriminators.

        values: the losses, to be told of where they or the gradients are no numbers
        """
        optimizer_g, optimizer_d = self.optimizers()  # type: ignore[misc,attr-defined]
        generator = list(self.model_g.parameters())
        judges = [weight for judge in self.judges.values() for weight in judge.parameters()]
        done = self.data.batches_done + 1
        is_due = done % self.accumulate == 0 or done >= self.trainer.num_training_batches
        if not self.is_accumulating:
            optimizer_g.zero_grad()
            optimizer_d.zero_grad()
        self.manual_backward(loss_g, inputs=generator, retain_graph=True)
        self.manual_backward(loss_d, inputs=judges)
        self.is_accumulating = not is_due
        if not is_due:
            self._watch(values)
            return
        sum_gradients(generator)
        sum_gradients(judges)
        norms = {f"the gradient of {who}": norm_of_gradients(weights) for who, weights in (
            ("the generator", generator), ("the discriminators", judges)
        )}  # fmt: skip
        self._watch({**values, **norms})
        scale = self._loss_scale()
        self.is_half_done = True
        optimizer_g.step()
        if self._loss_scale() != scale:  # 16-mixed: the discriminators' gradients carry the scale that was
            torch._foreach_mul_(
                [weight.grad for weight in judges if weight.grad is not None], self._loss_scale() / scale
            )
        optimizer_d.step()
        self.is_half_done = False

    def _loss_scale(self) -> float:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        return 1.0 if scaler is None else scaler.get_scale()

    def _shared(self, losses: Losses, loss_g: Tensor, loss_d: Tensor) -> dict[str, Tensor]:
        """The losses of the whole batch by the names they are logged with."""
        parts = {f"train_{name}": part for side in losses for name, part in side.items()}
        named = {"loss_g": loss_g, "loss_d": loss_d, **parts}
        return dict(zip(named, summed(torch.stack([part.detach() for part in named.values()])).unbind()))

    def _watch(self, values: dict[str, Tensor]) -> None:
        """Stop where a value is no number, before it reaches the weights; 16-mixed leaves out such steps for a while."""
        self._not_finite = 0 if are_finite(values) else self._not_finite + 1
        patience = _PATIENCE if str(self.trainer.precision).startswith("16") else 0
        if self._not_finite > patience:
            raise not_finite(values, self.data.epoch, self.data.batches_done)

    def on_train_epoch_end(self) -> None:
        """Let the learning rates decay, and go on to the next epoch."""
        data = self.data
        self.epoch_is_whole = data.batches_done >= self.trainer.num_training_batches
        if not self.epoch_is_whole:  # stopped in its middle, or resumed where it ends
            return
        for name, scheduler in zip(("learning_rate", "learning_rate_d"), self.lr_schedulers()):  # type: ignore[arg-type]
            self.log(name, float(scheduler.get_last_lr()[0]), on_step=False, on_epoch=True, batch_size=1)
            scheduler.step()
        data.epoch += 1
        data.batches_done = 0

    def on_validation_epoch_start(self) -> None:
        self._held_out = {}

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add up the losses of held-out clips, with the same draws each time."""
        counts = Counts.of(batch)
        draws = draws_of(batch, self.config.inter_channels, self.seed, VALIDATION)
        losses = losses_of(self.model_g, self.judges, batch, draws, self.config, counts.ones())
        for name, part in {**losses.generator, **losses.discriminator, **counts._asdict()}.items():
            self._held_out[name] = self._held_out.get(name, 0) + part.detach().float()

    def on_validation_epoch_end(self) -> None:
        names = self._held_out_names()
        zero = torch.zeros((), device=self.device)
        sums = dict(zip(names, summed(torch.stack([self._held_out.get(name, zero) for name in names])).unbind()))
        counts = Counts(*(sums.pop(name).clamp(min=1) for name in Counts._fields))
        parts = means(sums, counts)
        for_generator = {name: part for name, part in parts.items() if not name.endswith("disc")}
        loss = weighted(for_generator, self.hparams["c_mel"], self.hparams["c_kl"])
        for name, value in {"loss": loss, **parts}.items():
            self.log(f"val_{name}", value, batch_size=1)

    def _held_out_names(self) -> list[str]:
        judged = [f"{prefix}{name}" for prefix in self.judges for name in ("fm", "gen", "disc")]
        return ["mel", "kl", "dur", *judged, *Counts._fields]

    def configure_optimizers(self) -> Any:
        options = self.hparams
        judges = [weight for judge in self.judges.values() for weight in judge.parameters()]
        fused = True if self.device.type == "cpu" else None  # there four times as fast
        optimizers = [
            torch.optim.AdamW(weights, lr=rate, betas=tuple(betas), eps=options["eps"], fused=fused)
            for weights, rate, betas in (
                (self.model_g.parameters(), options["learning_rate"], options["betas"]),
                (judges, options["learning_rate_d"], options["betas_d"]),
            )
        ]
        decays = options["lr_decay"], options["lr_decay_d"]
        return optimizers, [torch.optim.lr_scheduler.ExponentialLR(o, d) for o, d in zip(optimizers, decays)]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the run was, and the voice's config. Raises UserError for weights that are no numbers: none is saved."""
        data = self.data
        refuse_broken(self, data.epoch)
        checkpoint[RECORD] = {
            "epochs_done": int(data.epoch),
            "batches_done": int(data.batches_done),
            "settings": settings_of(self.trainer, data, self.seed),
        }
        checkpoint[VOICE_CONFIG] = self._voice_config()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_fits(self, checkpoint)
        if self._trainer is not None and getattr(self.trainer, "datamodule", None) is not None:
            refuse_other_speakers(checkpoint.get(VOICE_CONFIG), self._voice_config())
            fit_position(checkpoint, settings_of(self.trainer, self.data, self.seed), self.data)

    def _voice_config(self) -> Any:
        voice = self.data.voice_config
        return plain(voice.to_mapping() if hasattr(voice, "to_mapping") else voice)
