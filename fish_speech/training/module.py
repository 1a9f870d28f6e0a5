"""The Lightning module: one step of training or validation, the optimizer, and what a checkpoint holds."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ..checkpoint import check_names
from ..errors import UserError
from ..models.dual_ar import DualAR
from ..models.lora import is_lora_name
from ..out_of_memory import is_out_of_memory, release_memory
from .losses import LossParts, LossSums, dual_ar_sums, label_counts
from .parallel import any_process, clip_gradients, sum_gradients, summed

log = logging.getLogger(__name__)

_NO_DECAY = (".bias", "norm.weight", ".embeddings.")


class TextToSemantic(L.LightningModule):
    """Trains a DualAR model: its adapters if it has any, else all its weights.

    gradient_checkpointing: whether to recompute activations in the backward pass; None leaves it to the run
    micro_batch: samples that are run at once; a step of more is split
    clip_norm: largest norm of a step's gradient; None does not limit it

    A batch is what one optimizer step sees. It is run by micro-batches, in one process or several, and each label
    counts the same however it is split: 4 samples at once, 2 twice or 2 in each of two processes give one gradient.
    Where memory runs out, the step is done again with half the micro-batch.

    Randomness of a step (dropout) is a function of `seed`, the step, the rank and the micro-batch's first sample, so
    that a resumed run draws what an uninterrupted one would.
    """

    def __init__(
        self,
        model: DualAR,
        optimizer: Callable[..., torch.optim.Optimizer],
        lr_scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler],
        seed: int = 42,
        gradient_checkpointing: bool | None = None,
        micro_batch: int = 1_000_000,
        clip_norm: float | None = None,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # base weights are not in a LoRA checkpoint; on_load_checkpoint checks instead
        self.model = model
        self.seed, self.micro_batch, self.clip_norm = seed, micro_batch, clip_norm
        self._optimizer, self._lr_scheduler = optimizer, lr_scheduler
        self.gradient_checkpointing = gradient_checkpointing  # None: decided by the run, see choose_micro_batch
        self.model.recompute_activations = bool(gradient_checkpointing)
        self.has_lora = any(is_lora_name(name) for name, _ in model.named_parameters())
        self.run_info: dict[str, Any] = {}  # stored with each checkpoint
        self._held_out: Tensor | None = None  # summed losses of a validation so far, as LossSums

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        parts = self.step_gradients(batch, data.batches_done)
        norm = clip_gradients(self.parameters(), self.clip_norm)
        if not torch.isfinite(parts.loss + norm):
            from .self_checks import explain_non_finite

            raise explain_non_finite(self, data, data.batches_done, parts.loss.item(), norm.item())
        optimizer: Any = self.optimizers()
        optimizer.step()
        optimizer.zero_grad()
        self.lr_schedulers().step()  # type: ignore[union-attr, call-arg]
        data.batches_done += 1
        for name, value in {**parts._asdict(), "grad_norm": norm}.items():
            self.log(f"train/{name}", value.detach(), on_step=True, on_epoch=False, batch_size=1)

    def step_gradients(self, batch: dict[str, Tensor], number: int) -> LossParts:
        """Set each gradient to that of the mean loss over all labels of step `number`, and return that mean.

        `batch` is this process's share. Raises UserError where memory does not suffice for one sample.
        """
        counts = summed(label_counts(self.model, batch["labels"])).clamp(min=1)  # tokens, codes
        while True:
            failure = None
            try:
                total = self._run_micro_batches(batch, counts, number)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error).split("\n")[0] or type(error).__name__
            if not any_process(failure is not None, self.device):
                break
            for parameter in self.parameters():
                parameter.grad = None
            release_memory(self.device)
            self._need_less(failure or "another process ran out of memory")
        sum_gradients(self.parameters())
        return LossSums(*summed(total).unbind()).means()

    def _run_micro_batches(self, batch: dict[str, Tensor], counts: Tensor, number: int) -> Tensor:
        """Add up the gradients of this process's samples; return their LossSums as one tensor (6,) float32."""
        total = torch.zeros(6, device=self.device)
        for first in range(0, len(batch["inputs"]), self.micro_batch):
            torch.manual_seed(step_seed(self.seed, number, self.global_rank, first))
            sums = self.sums({name: values[first : first + self.micro_batch] for name, values in batch.items()})
            loss = sums.base / counts[0].to(sums.base.dtype) + sums.semantic / counts[1].to(sums.base.dtype)
            self.manual_backward(loss)
            total += torch.stack([value.detach().float() for value in sums])
        return total

    def _need_less(self, reason: str) -> None:
        """Halve the micro-batch, then recompute activations; raise UserError when both are done."""
        if self.micro_batch > 1:
            self.micro_batch = -(-self.micro_batch // 2)
            samples = "1 sample" if self.micro_batch == 1 else f"{self.micro_batch} samples"
            what = f"{samples} at once, the same result in more turns"
        elif not self.model.recompute_activations and self.gradient_checkpointing is None:
            self.model.recompute_activations = True
            what = "recomputed activations, the same result in a third more time"
        else:
            recomputed = self.model.recompute_activations
            raise UserError(
                "memory does not suffice for a single sample",
                f"{reason}; activations are {'recomputed already' if recomputed else 'kept, as gradient_checkpointing says'}",
                "use a smaller --max-length (shorter samples), --precision bf16 where the hardware has it, "
                "close other programs, or train on a device with more memory",
            )
        log.warning("out of memory (%s): the step is done again with %s", reason[:120], what)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the losses of held-out clips."""
        for first in range(0, len(batch["inputs"]), self.micro_batch):
            sums = self.sums({name: values[first : first + self.micro_batch] for name, values in batch.items()})
            values = torch.stack([value.float() for value in sums])
            self._held_out = values if self._held_out is None else self._held_out + values

    def on_validation_epoch_start(self) -> None:
        self._held_out = None

    def on_validation_epoch_end(self) -> None:
        values = torch.zeros(6, device=self.device) if self._held_out is None else self._held_out
        parts = LossSums(*summed(values).unbind()).means()
        if not torch.isfinite(parts.loss):
            raise UserError(
                f"after step {self.trainer.global_step} the held-out loss is {parts.loss.item()}",
                "training has driven the weights out of the range of numbers",
                "lower --learning-rate and train again under a new project name; the checkpoints so far are whole and kept",
            )
        for name, value in parts._asdict().items():
            self.log(f"val/{name}", value, batch_size=1)

    def on_validation_model_eval(self) -> None:
        self.model.eval()

    def on_validation_model_train(self) -> None:
        self.model.train()

    def sums(self, batch: dict[str, Tensor]) -> LossSums:
        """Summed losses of a batch: inputs and labels (batch, 1 + codebooks, tokens), attention_masks (batch, tokens)."""
        return dual_ar_sums(self.model, batch["inputs"], batch["labels"], batch["attention_masks"])

    def configure_optimizers(self) -> Any:
        decayed, plain = parameter_groups(self)
        optimizer = self._optimizer([decayed, {**plain, "weight_decay": 0.0}])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._lr_scheduler(optimizer), "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the run trained, and what it is. Raises UserError for weights that are no numbers: none is written."""
        trained = [p for p in self.parameters() if p.requires_grad]
        if not all(torch.stack(torch.aminmax(p.detach())).isfinite().all() for p in trained if p.numel()):
            raise UserError(
                f"after step {checkpoint['global_step']} weights are no numbers any more",
                "its learning rate has driven them out of the range",
                "lower --learning-rate and train again under a new project name; the checkpoints so far are whole and kept",
            )
        if self.has_lora:
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {name: tensor for name, tensor in state.items() if is_lora_name(name)}
        checkpoint["fish_speech"] = {**self.run_info, "micro_batch": self.micro_batch}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        expected = {
            name: tuple(tensor.shape)
            for name, tensor in self.state_dict().items()
            if not self.has_lora or is_lora_name(name)
        }
        check_names(expected, checkpoint["state_dict"], checkpoint.get("path", "the checkpoint"), "this run")
        count_steps(checkpoint)


def count_steps(checkpoint: dict[str, Any]) -> None:
    """Let Lightning count on from the checkpoint's step, in place.

    It counts steps of manual optimization by themselves, and a run that optimized automatically has none of these.
    """
    loops = checkpoint.get("loops", {}).get("fit_loop", {})
    total = loops.get("epoch_loop.manual_optimization.optim_step_progress", {}).get("total")
    if total is not None and not total["completed"]:
        total["ready"] = total["completed"] = checkpoint["global_step"]


def parameter_groups(module: torch.nn.Module) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split parameters into those with weight decay and those without (biases, norms, the text embeddings).

    Names are the Lightning module's, so they start with `model.`; frozen weights are listed too, as released.
    """
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for name, parameter in module.named_parameters():
        groups[any(part in name for part in _NO_DECAY)].append(parameter)
    return {"params": groups[0]}, {"params": groups[1]}


def step_seed(seed: int, batch: int, rank: int, first: int = 0) -> int:
    """Seed of the randomness in one batch of a run, from its sample number `first` on."""
    digest = hashlib.sha256(f"{seed} {batch} {rank}{f' {first}' if first else ''}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
