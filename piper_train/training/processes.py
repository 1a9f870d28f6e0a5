"""Several processes that train one voice: each has the whole model and a share of every batch."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy

from fish_speech.errors import UserError
from fish_speech.training.processes import WatchedProcesses


class SummedGradients(WatchedProcesses, DDPStrategy):
    """For VitsModule, which adds up its gradients itself, once for each network.

    Torch's wrapper is left out: each backward pass is for one of the networks, and it would send the gradients of both.
    That is also what `ddp_find_unused_parameters_true` is asked for.
    """

    def configure_ddp(self) -> None:
        """Start with the first process's weights in all of them."""
        assert self.model is not None
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            dist.broadcast(tensor.detach(), 0)


def count_processes(accelerator: str, devices: Any, nodes: int = 1) -> int:
    """How many processes `trainer.devices` on each of `nodes` machines means. Raises UserError for too many GPUs."""
    there = torch.cuda.device_count()
    on_gpus = accelerator in ("gpu", "cuda") or (accelerator == "auto" and there > 0)
    if accelerator == "gpu" and not there and torch.backends.mps.is_available():
        on_gpus = False
    if isinstance(devices, str) and "," in devices:
        count = len([part for part in devices.split(",") if part.strip()])
    elif isinstance(devices, list | tuple):
        count = len(devices)
    else:
        count = -1 if devices in ("auto", "-1", None) else int(devices)
        count = count if count > 0 else (there if on_gpus else 1)
    if on_gpus and not there:
        raise UserError(
            f"trainer.accelerator={accelerator}, but there is no GPU that torch can use",
            "no CUDA device was found",
            "use --trainer.accelerator cpu --trainer.devices 1, or install torch for your GPU",
        )
    if on_gpus and count > there:
        raise UserError(
            f"{count} GPUs are asked for, {there} {'is' if there == 1 else 'are'} there",
            "each process needs a GPU of its own",
            f"use --trainer.devices {there}, or make more visible (CUDA_VISIBLE_DEVICES)",
        )
    return count * nodes


def choose_strategy(name: Any, accelerator: str, devices: Any, nodes: int = 1) -> Any:
    """Lightning's strategy for `trainer.strategy`; every kind of ddp is ours. Raises UserError for any other."""
    if not isinstance(name, str):
        return name  # an object, made by someone who knows
    if name != "auto" and not (name.startswith("ddp") and not name.startswith(("ddp_spawn", "ddp_fork", "ddp_note"))):
        raise UserError(
            f"trainer.strategy={name} cannot train a voice",
            "each process has the whole model; it is small, and two networks learn in turn",
            "use --trainer.strategy ddp_find_unused_parameters_true for several devices, auto for one",
        )
    if count_processes(accelerator, devices, nodes) == 1:
        return "auto"
    if torch.backends.mps.is_available() and not torch.cuda.is_available() and accelerator in ("gpu", "mps"):
        raise UserError("MPS trains in one process", "there is one such device", "use --trainer.devices 1")
    on_cuda = torch.cuda.is_available() and accelerator != "cpu"
    backend = "nccl" if on_cuda and dist.is_nccl_available() else "gloo"
    # The others wait while the first prepares the data set, which may take hours.
    return SummedGradients(process_group_backend=backend, timeout=timedelta(days=2))
