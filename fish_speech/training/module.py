"""The Lightning module: one step of training or validation, the optimizer, and what a checkpoint holds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ..checkpoint import check_names
from ..errors import UserError
from ..models.dual_ar import DualAR
from ..models.lora import is_lora_name
from .losses import LossParts, dual_ar_loss

_NO_DECAY = (".bias", "norm.weight", ".embeddings.")


class TextToSemantic(L.LightningModule):
    """Trains a DualAR model: its adapters if it has any, else all its weights.

    gradient_checkpointing: whether to recompute activations in the backward pass; None leaves it to the run

    Randomness of a step (dropout) is a function of `seed`, the batch's number and the rank, so that a resumed run
    draws what an uninterrupted one would.
    """

    def __init__(
        self,
        model: DualAR,
        optimizer: Callable[..., torch.optim.Optimizer],
        lr_scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler],
        seed: int = 42,
        gradient_checkpointing: bool | None = None,
    ):
        super().__init__()
        self.strict_loading = False  # base weights are not in a LoRA checkpoint; on_load_checkpoint checks instead
        self.model = model
        self.seed = seed
        self._optimizer, self._lr_scheduler = optimizer, lr_scheduler
        self.gradient_checkpointing = gradient_checkpointing  # None: decided by the run, see choose_recompute
        self.model.recompute_activations = bool(gradient_checkpointing)
        self.has_lora = any(is_lora_name(name) for name, _ in model.named_parameters())
        self.run_info: dict[str, Any] = {}  # stored with each checkpoint

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        torch.manual_seed(step_seed(self.seed, data.batches_done, self.global_rank))
        parts = self._loss(batch)
        if not torch.isfinite(parts.loss):
            raise UserError(
                f"the loss of batch {data.batches_done} is {parts.loss.item()}",
                "the weights or the data of this batch hold values that cannot be trained on",
                "lower the learning rate, or continue from an earlier checkpoint; checkpoints so far are kept",
            )
        self._log("train", parts, on_step=True)
        data.batches_done += 1
        return parts.loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self._log("val", self._loss(batch), on_step=False)

    def on_validation_model_eval(self) -> None:
        self.model.eval()

    def on_validation_model_train(self) -> None:
        self.model.train()

    def _loss(self, batch: dict[str, Tensor]) -> LossParts:
        return dual_ar_loss(self.model, batch["inputs"], batch["labels"], batch["attention_masks"])

    def _log(self, stage: str, parts: LossParts, on_step: bool) -> None:
        size = 1 if on_step else None
        for name, value in parts._asdict().items():
            self.log(
                f"{stage}/{name}",
                value.detach(),
                on_step=on_step,
                on_epoch=not on_step,
                prog_bar=name == "loss",
                sync_dist=not on_step,
                batch_size=size or 1,
            )

    def configure_optimizers(self) -> Any:
        decayed, plain = parameter_groups(self)
        optimizer = self._optimizer([decayed, {**plain, "weight_decay": 0.0}])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._lr_scheduler(optimizer), "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.has_lora:
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: tensor for name, tensor in state.items() if is_lora_name(name)}
        checkpoint["fish_speech"] = self.run_info

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        expected = {
            name: tuple(tensor.shape)
            for name, tensor in self.state_dict().items()
            if not self.has_lora or is_lora_name(name)
        }
        check_names(expected, checkpoint["state_dict"], checkpoint.get("path", "the checkpoint"), "this run")


def parameter_groups(module: torch.nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split parameters into those with weight decay and those without (biases, norms, the text embeddings).

    Names are the Lightning module's, so they start with `model.`; frozen weights are listed too, as released.
    """
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, parameter in module.named_parameters():
        groups[any(part in name for part in _NO_DECAY)].append(parameter)
    return {"params": groups[0]}, {"params": groups[1]}


def step_seed(seed: int, batch: int, rank: int) -> int:
    """Seed of the randomness in one batch of a run."""
    digest = hashlib.sha256(f"{seed} {batch} {rank}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
