"""How the processes of a run work together: chosen from the request, and refused where it cannot work."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from hydra.utils import get_class
from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy

from ..device import DeviceChoice
from ..errors import UserError
from .processes import WatchedProcesses
from .sharded import Sharded, refuse_fsdp

STRATEGIES = ("ddp", "fsdp")


class DataParallel(WatchedProcesses, DDPStrategy):
    """Every process has the whole model and a share of each step's samples."""


class SummedGradients(DataParallel):
    """For a module that adds up its gradients itself, once a step, with `parallel.sum_gradients`.

    Torch's wrapper is left out: it adds up in every backward pass, and processes do not make the same number of those.
    It would also hold every gradient twice.
    """

    def configure_ddp(self) -> None:
        """Start with the first process's weights in all of them."""
        assert self.model is not None
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            dist.broadcast(tensor.detach(), 0)


def make_strategy(
    name: str, options: Mapping[str, Any], device: DeviceChoice, devices: int, nodes: int
) -> Strategy | None:
    """The strategy `name` for `devices` processes on each of `nodes` machines; None where one process needs none.

    options: of Lightning's DDP strategy, with its class as `_target_`. Raises UserError for what cannot work.
    """
    if name not in STRATEGIES:
        raise UserError(f"strategy={name} is unknown", f"known: {', '.join(STRATEGIES)}", "use strategy=ddp")
    check_places(device, devices, nodes)
    if name == "fsdp":
        refuse_fsdp(device.device, devices * nodes, sys.platform)
        return Sharded(process_group_backend=backend_of(device), save_distributed_checkpoint=False)
    if devices * nodes == 1:
        return None
    given = dict(options)
    kind = get_class(given.pop("_target_"))
    given["process_group_backend"] = given.get("process_group_backend") or backend_of(device)
    return kind(**given)


def backend_of(device: DeviceChoice) -> str:
    """What carries the messages: NCCL between CUDA devices under Linux, else gloo."""
    return "nccl" if device.device == "cuda" and sys.platform == "linux" else "gloo"


def check_places(device: DeviceChoice, devices: int, nodes: int) -> None:
    """Raise UserError where so many processes cannot be: too few GPUs, or nobody who starts those of other machines."""
    wanted = devices * nodes
    if device.device == "cuda" and devices > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise UserError(
            f"{devices} GPUs are asked for on each machine, {there} {'is' if there == 1 else 'are'} there",
            "each process needs a GPU of its own",
            f"use --num-gpus {there} (of a stage: trainer.devices={there}), or make more visible (CUDA_VISIBLE_DEVICES)",
        )
    if device.device == "mps" and wanted > 1:
        raise UserError("MPS trains in one process", "there is one such device in a machine", "use --num-gpus 1")
    for environment, said, how in (
        (TorchElasticEnvironment, "WORLD_SIZE", "torchrun's --nnodes and --nproc-per-node"),
        (SLURMEnvironment, "SLURM_NTASKS", "sbatch's --nodes and --ntasks-per-node"),
    ):
        by_slurm = environment is SLURMEnvironment
        if by_slurm and wanted == 1 and "SLURM_STEP_ID" not in os.environ:
            continue  # in a job of several tasks, but not started as these by srun
        if environment.detect():
            count = os.environ.get(said, "1")
            if count != str(wanted):
                raise UserError(
                    f"{count} processes were started for a run of {nodes} x {devices}",
                    f"{how} must fit trainer.num_nodes={nodes} and trainer.devices={devices}",
                    "give the same numbers to both",
                )
            return
    if nodes > 1 and not {"MASTER_ADDR", "NODE_RANK"} <= set(os.environ):
        raise UserError(
            f"nothing says which of the {nodes} machines this is",
            "each machine starts the command, by torchrun, by SLURM's srun, or by hand with MASTER_ADDR, MASTER_PORT "
            "and NODE_RANK (0, 1, ...) set",
            "see docs/scaling.md for the command lines",
        )
