"""torch and what it computes on: does it match the hardware, and does a small product come out right?"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .findings import Finding, State, describe
from .install import in_range, install_driver, install_toolkit, requirements
from .nvidia import Nvidia, find_nvidia

if TYPE_CHECKING:
    import torch

GB = 1e9
_SIZE = 96  # rows of the matrices that are multiplied
_SELECTOR = "https://pytorch.org/get-started/locally"


def look_at_torch() -> Iterator[Finding]:
    """Import torch, compare its version, and multiply on the CPU."""
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        yield Finding("torch", "wrong", "not installed", install_toolkit())
        return
    specifier = requirements().get("torch", "")
    found = f"{torch.__version__}, {build()}, {torch.get_num_threads()} threads"
    version = torch.__version__.partition("+")[0]
    if in_range(version, specifier):
        yield Finding("torch", "good", found)
    else:
        yield Finding("torch", "wrong", f"{found}; needed: {specifier}", f'pip install "torch{specifier}"')
    problem = wrong_product("cpu", torch.float32)
    if problem:
        fix = "pip install --force-reinstall torch; if that changes nothing, test this machine's memory"
        yield Finding("cpu", "wrong", problem, fix)
    else:
        yield Finding("cpu", "good", "a product of matrices in float32 is right")


def build() -> str:
    """For which hardware this torch was built."""
    import torch

    if torch.version.hip:
        return f"ROCm {torch.version.hip} build"
    return f"CUDA {torch.version.cuda} build" if torch.version.cuda else "CPU build"


def wrong_product(device: str, dtype: torch.dtype) -> str:
    """Multiply on `device`; empty if the result is right. Small whole numbers, so that no rounding can excuse it."""
    import torch

    numbers = torch.arange(_SIZE * _SIZE).reshape(_SIZE, _SIZE)
    a, b = numbers * 7 % 5 - 2, numbers * 11 % 3 - 1
    expected = (a @ b).to(dtype)
    result = (a.to(device, dtype) @ b.to(device, dtype)).cpu()
    off = int((result != expected).sum())
    return f"{off} of {_SIZE * _SIZE} numbers of a product in {str(dtype).split('.')[-1]} are not right" if off else ""


def look_at_cuda(request: str) -> Iterator[Finding]:
    """CUDA: usable, or why it is not. `request` is --device: who asks for the CPU is not told off for having a card."""
    import torch

    nvidia = find_nvidia()
    with warnings.catch_warnings(record=True) as complaints:  # torch says here what it does not like of the driver
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    if usable:
        for number in range(torch.cuda.device_count()):
            yield look_at_card(number, nvidia)
        return
    state, found, fix = why_not(nvidia, [str(complaint.message) for complaint in complaints])
    if state == "wrong" and request in ("cpu", "mps"):
        state = "note"
    yield Finding("cuda", state, found, fix)


def why_not(nvidia: Nvidia, complaints: list[str]) -> tuple[State, str, str]:
    """State, reason and remedy where torch finds no CUDA device."""
    import torch

    there = bool(nvidia.cards or nvidia.trouble)
    if not there:
        return "note", f"no NVIDIA card and no driver found; torch is a {build()}", ""
    if nvidia.trouble:
        found = f"nvidia-smi fails ({nvidia.trouble}), so the driver does not run; torch is a {build()}"
        return "wrong", found, f"restart the machine; if that does not help, {install_driver()}"
    if not nvidia.driver:
        return "wrong", f"{nvidia}, but no driver: there is no nvidia-smi; torch is a {build()}", install_driver()
    if not (torch.version.cuda or torch.version.hip):
        newest = f"CUDA {nvidia.cuda} or older" if nvidia.cuda else "CUDA"
        fix = f"pip uninstall torch, then install it by the line that {_SELECTOR} gives for {newest}"
        return "wrong", f"{nvidia}; but this torch is a CPU build and cannot use it", fix
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        found = f"{nvidia}; CUDA_VISIBLE_DEVICES is {visible!r} and hides what there is"
        return "wrong", found, "unset CUDA_VISIBLE_DEVICES"
    reason = f": {complaints[-1]}" if complaints else ""
    fix = f"{install_driver()}; or install a torch for an older CUDA by the line that {_SELECTOR} gives"
    return "wrong", f"{nvidia}; torch is a {build()} and finds no usable device{reason}", fix


def look_at_card(number: int, nvidia: Nvidia) -> Finding:
    """Compute on one card."""
    import torch

    label, device = f"cuda:{number}", f"cuda:{number}"
    try:
        with torch.cuda.device(number):
            free, total = torch.cuda.mem_get_info()
            card = torch.cuda.get_device_properties(number)
            bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
            problems = [wrong_product(device, kind) for kind in (torch.float32, *([torch.bfloat16] if bf16 else []))]
    except RuntimeError as error:  # CUDA's errors, out of memory among them
        fix = "see with nvidia-smi who uses the card; install another torch by the line that " + _SELECTOR + " gives"
        return Finding(label, "wrong", describe(error), fix)
    found = f"{card.name}, {total / GB:.1f} GB, {free / GB:.1f} GB free, capability {card.major}.{card.minor}"
    found += f", bf16{'' if bf16 else ' not'} in hardware" + (f", driver {nvidia.driver}" if nvidia.driver else "")
    wrong = "; ".join(filter(None, problems))
    if wrong:
        return Finding(
            label, "wrong", f"{found}; {wrong}", "restart the machine; the card may be faulty or overclocked"
        )
    return Finding(label, "good", f"{found}; products of matrices are right")


def look_at_mps() -> Iterator[Finding]:
    """Apple's GPU, where there is one."""
    import torch

    if not torch.backends.mps.is_built():
        return
    if not torch.backends.mps.is_available():
        yield Finding("mps", "note", "torch is built for it, but this macOS or this machine has none it can use")
        return
    problem = wrong_product("mps", torch.float32)
    if problem:
        yield Finding("mps", "wrong", problem, "install the newest macOS and torch, and train with --device cpu")
    else:
        yield Finding("mps", "good", "a product in float32 is right; experimental: training takes it with --force-mps")


def look_at_device(request: str) -> Iterator[Finding]:
    """Where a training would run, and why; UserError where that cannot be had."""
    from ..device import choose_device

    choice = choose_device(request, "training")
    yield Finding("device", "good", f"training takes {choice.device}: {choice.reason}")
