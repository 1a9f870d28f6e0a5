"""A trial step before training: does the longest batch fit into memory, and how long does it take?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..log import peak_memory_gb
from ..out_of_memory import release_memory
from .parallel import any_process

if TYPE_CHECKING:
    from ..datasets.datamodule import SemanticDataModule
    from .module import TextToSemantic

_WARM_S = 20.0  # a first pass shorter than this is timed a second time, without what only a first one does


@dataclass(frozen=True)
class Probe:
    """What a forward and backward pass over the longest samples took."""

    samples: int  # samples run
    tokens: int  # tokens in them, padding left out
    micro_batch: int  # samples at once that fitted
    seconds: float
    peak_bytes: int | None  # highest use of memory: of the GPU, else of the process; None: unknown
    recompute: bool  # whether activations are recomputed


def probe_longest(module: TextToSemantic, data: SemanticDataModule) -> Probe:
    """Run the longest samples of an epoch as training will, and forget the gradients.

    Where they do not fit, `module` is left with the smaller micro-batch that does. What the optimizer of a new run will
    allocate in its first step is held meanwhile. Raises UserError where not even one sample fits.
    """
    batch = module.transfer_batch_to_device(data.longest_batch(module.micro_batch), module.device, 0)
    is_new = not any(optimizer.state for optimizer in module.trainer.optimizers)  # a resumed run has its averages
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad] if is_new else []
    reserve = [torch.empty_like(parameter) for parameter in trained for _ in range(2)]
    seconds = _pass(module, batch)
    if any_process(seconds < _WARM_S, module.device):  # all or none: a pass is shared
        seconds = _pass(module, batch)
    tokens, samples = int((~batch["attention_masks"]).sum()), len(batch["inputs"])
    if module.device.type == "cuda":
        peak: int | None = torch.cuda.max_memory_allocated(module.device)
    else:
        peak = int(peak_memory_gb() * 1e9) or None
    del reserve, batch
    release_memory(module.device)
    return Probe(samples, tokens, module.micro_batch, seconds, peak, module.model.recompute_activations)


def _pass(module: TextToSemantic, batch: dict[str, torch.Tensor]) -> float:
    """Seconds of one pass, in the precision of training: Lightning sets that for its own calls only."""
    _wait_for(module.device)
    if module.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(module.device)  # else that of a pass that did not fit counts
    start = time.perf_counter()
    with module.trainer.precision_plugin.forward_context():
        module.step_gradients(batch, number=0)
    _wait_for(module.device)
    seconds = time.perf_counter() - start
    for parameter in module.parameters():
        parameter.grad = None
    return seconds


def _wait_for(device: torch.device) -> None:
    """Let an accelerator finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
