"""The Lightning module of codec training: generator and discriminators in turn, a moving average, and its measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ..errors import UserError
from ..models.convnext import ConvNeXtBlock
from ..models.discriminators import Discriminators
from ..models.firefly import FireflyCodec, FireflyConfig
from .codec_losses import MelLoss, StftLoss, adversarial_loss, discriminator_loss, feature_loss
from .module import step_seed

Optimizer = Callable[..., torch.optim.Optimizer]
Scheduler = Callable[..., torch.optim.lr_scheduler.LRScheduler]


class CodecTraining(L.LightningModule):
    """Trains a firefly codec: spectral losses from the start, discriminators from `adversarial_from` on.

    adversarial_from: step at which the discriminators begin; None: never
    freeze_encoder: keep all weights that decide the codes, so that codes and language models made with them stay valid
    ema_decay: of the moving average of the weights, which is what is validated and exported
    weights: of the parts of the generator's loss: mel, stft, adversarial, feature
    gradient_clip: largest norm of the generator's, and of the discriminators', gradients
    """

    code_counts: Tensor  # (codebooks, codes): how often each code was used of late

    def __init__(
        self,
        generator: FireflyCodec,
        discriminators: Discriminators,
        mel_loss: MelLoss,
        stft_loss: StftLoss,
        optimizer: Optimizer,
        lr_scheduler: Scheduler,
        weights: dict[str, float],
        adversarial_from: int | None = 0,
        freeze_encoder: bool = False,
        ema_decay: float = 0.999,
        gradient_clip: float = 10.0,
        seed: int = 42,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.discriminators = generator, discriminators
        self.mel_loss, self.stft_loss, self.weights = mel_loss, stft_loss, dict(weights)
        self.adversarial_from, self.freeze_encoder = adversarial_from, freeze_encoder
        self.gradient_clip, self.seed = gradient_clip, seed
        self._optimizer, self._lr_scheduler = optimizer, lr_scheduler
        if freeze_encoder:
            for parameter in generator.encoder_parameters():
                parameter.requires_grad_(False)

        def blend(averages: Any, currents: Any, count: Tensor | int) -> None:
            decay = min(ema_decay, (1 + int(count)) / (10 + int(count)))  # follow faster while the weights still run
            torch._foreach_lerp_(list(averages), list(currents), 1 - decay)

        self.average = AveragedModel(generator, multi_avg_fn=blend)
        self.average.requires_grad_(False)
        quantizer = generator.config.quantizer
        self.register_buffer("code_counts", torch.zeros(quantizer.n_groups, quantizer.codes), persistent=True)
        self.run_info: dict[str, Any] = {}

    def train(self, mode: bool = True) -> CodecTraining:
        """As usual, but a frozen encoder makes in training the codes that it makes in use: without stochastic depth."""
        super().train(mode)
        if self.freeze_encoder:
            self.generator.backbone.eval()
            self.generator.quantizer.downsample.eval()
        return self

    @property
    def adversarial(self) -> bool:
        """Whether this step trains with discriminators."""
        return self.adversarial_from is not None and self.global_step >= self.adversarial_from

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        torch.manual_seed(step_seed(self.seed, data.batches_done, self.global_rank))
        adversarial = self.adversarial
        generator_optimizer, judge_optimizer = self.optimizers()  # type: ignore[misc,attr-defined]
        made, codes = self.generator(batch)
        made = made.float()
        values: dict[str, Tensor] = {}
        if adversarial:
            judged_real = self.discriminators(batch)
            loss = discriminator_loss(judged_real, self.discriminators(made.detach()))
            judge_optimizer.zero_grad()
            self.manual_backward(loss)
            if not torch.isfinite(self._clip(self.discriminators.parameters())):
                self._give_up(f"the discriminators' gradient of batch {data.batches_done} is not finite")
            judge_optimizer.optimizer.step()  # not Lightning's wrapper: only the generator's steps are counted
            values["discriminator"] = loss
        parts = {"mel": self.mel_loss(made, batch), "stft": self.stft_loss(made, batch)}
        if adversarial:
            self.discriminators.requires_grad_(False)
            with torch.no_grad():
                judged_real = self.discriminators(batch)
            judged_made = self.discriminators(made)
            parts |= {
                "adversarial": adversarial_loss(judged_made),
                "feature": feature_loss(judged_real, judged_made),
            }
        total = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        if not torch.isfinite(total):
            self._give_up(f"the loss of batch {data.batches_done} is {total.item()}")
        generator_optimizer.zero_grad()
        self.manual_backward(total)
        self.discriminators.requires_grad_(True)
        values["grad_norm"] = self._clip(p for p in self.generator.parameters() if p.requires_grad)
        if not torch.isfinite(values["grad_norm"]):
            self._give_up(f"the gradient of batch {data.batches_done} is {values['grad_norm'].item()}")
        generator_optimizer.step()
        self.average.update_parameters(self.generator)
        generator_schedule, judge_schedule = self.lr_schedulers()  # type: ignore[misc]
        generator_schedule.step()  # type: ignore[call-arg]
        if adversarial:
            judge_schedule.step()  # type: ignore[call-arg]
        data.batches_done += 1
        self._count(codes)
        self._log_step({"loss": total, **parts, **values, **self.usage()})

    def _give_up(self, what: str) -> NoReturn:
        raise UserError(
            what,
            "the weights or the recordings of this batch hold values that cannot be trained on",
            "start a new project with pretrained_ckpt_path=RUN/codec/codec.pth and a lower model.optimizer.lr; "
            "checkpoints so far are kept",
        )

    def _clip(self, parameters: Any) -> Tensor:
        return nn.utils.clip_grad_norm_(list(parameters), self.gradient_clip)

    def _count(self, codes: Tensor) -> None:
        """Add `codes` (batch, codebooks, frames) to the histogram, which forgets over some hundred steps."""
        self.code_counts *= 0.99
        flat = codes.transpose(0, 1).flatten(1)
        self.code_counts.scatter_add_(1, flat, torch.ones_like(flat, dtype=self.code_counts.dtype))

    def usage(self) -> dict[str, Tensor]:
        """How the codebooks are used of late: share of codes seen, and perplexity, each the mean over codebooks."""
        share = self.code_counts / self.code_counts.sum(dim=1, keepdim=True).clamp(min=1e-9)
        entropy = -(share * share.clamp(min=1e-12).log()).sum(dim=1)
        return {"codes_used": (self.code_counts > 0.1).float().mean(), "perplexity": entropy.exp().mean()}

    def _log_step(self, values: dict[str, Tensor]) -> None:
        for name, value in values.items():
            self.log(
                f"train/{name}", value.detach(), on_step=True, on_epoch=False, prog_bar=name == "loss", batch_size=1
            )

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        codec: Any = self.average.module
        made, _ = codec(batch)
        made = made.float()
        values = {
            "mel": self.mel_loss(made, batch),
            "stft": self.stft_loss(made, batch),
            "mel_l1": codec.log_mel.distance(made, batch),
        }
        for name, value in values.items():
            self.log(f"val/{name}", value, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.generator.parameters() if p.requires_grad]
        optimizers = [self._optimizer(trained), self._optimizer(self.discriminators.parameters())]
        return optimizers, [self._lr_scheduler(optimizer) for optimizer in optimizers]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["fish_speech"] = self.run_info


def new_codec(config: FireflyConfig, seed: int, layer_scale: float = 0.1) -> FireflyCodec:
    """Make a codec with weights drawn from `seed`.

    `layer_scale` is what each ConvNeXt block starts with; the paper's 1e-6 needs long trainings.
    """
    torch.manual_seed(seed)
    codec = FireflyCodec(config)
    for module in codec.modules():
        if isinstance(module, ConvNeXtBlock):
            nn.init.constant_(module.gamma, layer_scale)
    return codec
