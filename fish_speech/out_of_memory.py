"""Memory that ran out, on any device: to know it by its error, and to give back what a failed attempt left."""

from __future__ import annotations

import gc

import torch

_OUT_OF_MEMORY = (  # of torch's allocators for the CPU (Linux and macOS, Windows), CUDA, cuBLAS, cuDNN and MPS
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "std::bad_alloc",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(phrase in text for phrase in _OUT_OF_MEMORY)


def release_memory(device: torch.device) -> None:
    """Give back what a failed attempt on `device` left, so that the next one finds it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
