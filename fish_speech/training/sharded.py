"""Training with a model that is spread over the processes (FSDP2): each keeps a part of every weight.

A block's weights are gathered when it runs and let go of again, so that a model trains that no device could hold with
its gradients and averages. What a checkpoint holds is whole, the same as that of one process, and either continues the
other's run.

All processes must run the model equally often, or they wait for each other for ever: where one has fewer samples it runs
any clip for nothing. So lack of memory in one cannot be answered by redoing the step either; it ends the run.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from ..errors import UserError
from ..models import DualAR
from ..models.lora import is_lora_name
from ..out_of_memory import is_out_of_memory
from .losses import LossSums, dual_ar_sums
from .module import TextToSemantic, step_seed
from .processes import WatchedProcesses


class Sharded(WatchedProcesses, ModelParallelStrategy):
    """Lightning's strategy for FSDP2, with checkpoints as one process writes them."""

    def setup_environment(self) -> None:
        """Join the other processes; all of them share the model."""
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Lightning reads the file, `load_optimizer_state_dict` takes the averages from it."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The weights that a checkpoint holds, whole; empty but in the first process."""
        module: Any = self.lightning_module
        state = module.state_dict()
        return whole({k: v for k, v in state.items() if not module.has_lora or is_lora_name(k)}, self.is_global_zero)

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The optimizer's state, whole; empty but in the first process."""
        return whole(optimizer.state_dict(), self.is_global_zero)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Let the first process write."""
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the whole file, in each process."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take this process's parts of the weights; names and shapes were checked by the module."""
        assert self.lightning_module is not None
        parts = self.lightning_module.state_dict()
        for name, tensor in checkpoint["state_dict"].items():
            parts[name].copy_(part_of(tensor, parts[name]))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's parts of the averages."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            numbers = [number for group in state["param_groups"] for number in group["params"]]
            of_number = dict(zip(numbers, parameters, strict=True))
            averages = {
                number: {
                    name: part_of(value, of_number[number])
                    if isinstance(value, Tensor) and value.shape == of_number[number].shape
                    else value
                    for name, value in sorted(values.items())
                }
                for number, values in sorted(state["state"].items())
            }
            optimizer.load_state_dict({**state, "state": averages})


def whole(value: Any, keep: bool) -> Any:
    """Gather the parts of tensors in nested dicts and lists onto the CPU; all take part, those with `keep` get them."""
    if isinstance(value, DTensor):
        gathered = value.full_tensor()
        return gathered.cpu() if keep else None
    if isinstance(value, Mapping):
        items = {name: whole(item, keep) for name, item in value.items()}
        return items if keep else {}
    if isinstance(value, list):
        return [whole(item, keep) for item in value]
    return value


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, as `like` is spread; itself if that is not."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device, like.dtype), like.device_mesh, like.placements)


def shard(model: DualAR, mesh: Any) -> None:
    """Spread a model over the processes of `mesh`, in place: each block by itself, and what is left together.

    Its losses must then be asked for as `model.loss_sums(inputs, labels, padding_mask)`, which gathers the weights.
    """
    try:
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
    except ImportError:  # torch 2.5
        from torch.distributed._composable.fsdp import fully_shard, register_fsdp_forward_method  # type: ignore

    for block in [*model.layers, *model.fast_layers]:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    model.loss_sums = functools.partial(sums_with_all_weights, model)  # type: ignore[assignment]
    register_fsdp_forward_method(model, "loss_sums")


def sums_with_all_weights(model: DualAR, inputs: Tensor, labels: Tensor, padding_mask: Tensor) -> LossSums:
    """The summed losses, in which every weight has a part: processes that sum other gradients would not fit together.

    Without frames in any sample nothing is looked up among the codes; here that adds zero.
    """
    sums = dual_ar_sums(model, inputs, labels, padding_mask)
    first = torch.zeros(1, dtype=torch.long, device=inputs.device)
    return sums._replace(base=sums.base + 0 * model.codebook_embeddings(first).sum())


class ShardedTextToSemantic(TextToSemantic):
    """Trains a model that is spread over the processes."""

    def configure_model(self) -> None:
        """Spread the weights, once the processes know each other."""
        mesh = self.device_mesh
        if mesh is not None and not hasattr(self.model, "loss_sums"):
            shard(self.model, mesh["data_parallel"])

    def sums(self, batch: dict[str, Tensor]) -> LossSums:
        """The summed losses of samples, with the weights of all processes."""
        loss_sums: Any = self.model.loss_sums
        return LossSums(*loss_sums(batch["inputs"], batch["labels"], batch["attention_masks"]))

    def _turns(self, batch: dict[str, Tensor]) -> Iterator[tuple[int, dict[str, Tensor], bool]]:
        """Micro-batches, as many in each process: first sample, samples, and whether they count."""
        own = len(batch["inputs"])
        most = torch.tensor(-(-own // self.micro_batch), device=self.device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        for first in range(0, int(most) * self.micro_batch, self.micro_batch):
            if first < own:
                yield first, {name: values[first : first + self.micro_batch] for name, values in batch.items()}, True
            else:
                yield first, self._any_clip(), False

    def _any_clip(self) -> dict[str, Tensor]:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        shortest = min(data.train_lengths, key=data.train_lengths.__getitem__)
        return self.transfer_batch_to_device(data.batch_of([(0, (shortest,))]), self.device, 0)

    def _run_micro_batches(self, batch: dict[str, Tensor], counts: Tensor, number: int) -> Tensor:
        total = torch.zeros(6, device=self.device)
        try:
            for first, part, counted in self._turns(batch):
                torch.manual_seed(step_seed(self.seed, number, self.global_rank, first))
                sums = self.sums(part)
                loss = sums.base / counts[0].to(sums.base.dtype) + sums.semantic / counts[1].to(sums.base.dtype)
                self.manual_backward(loss if counted else 0 * loss)
                if counted:
                    total += torch.stack([value.detach().float() for value in sums])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"memory ran out with {self.micro_batch} samples at once",
                f"{str(error).splitlines()[0][:160]}; with strategy fsdp a step cannot be done again",
                "use a smaller --batch-size with more --gradient-accumulation-steps (the same result), or --strategy ddp; "
                "the same command continues from the newest checkpoint",
            ) from error
        return total

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Add up the losses of held-out clips."""
        for _, part, counted in self._turns(batch):
            values = torch.stack([value.float() for value in self.sums(part)]) * counted
            self._held_out = values if self._held_out is None else self._held_out + values


def refuse_fsdp(device: str, processes: int, platform: str) -> None:
    """Raise UserError where a model cannot be spread."""
    if processes == 1:
        raise UserError(
            "strategy=fsdp needs several processes",
            "it spreads the model over them; there is one",
            "use --num-gpus 2 or more, or --strategy ddp",
        )
    if device == "cuda" and platform != "linux":
        raise UserError(
            "strategy=fsdp needs NCCL", "there is none for CUDA but under Linux", "use --strategy ddp, or Linux"
        )
