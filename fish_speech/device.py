"""Pick the device and the precision, once, with the reason. The only file that asks torch what there is.

The choice is a value: it is printed, stored with the run and handed down.
"""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from .errors import UserError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cuda", "mps", "cpu")
PRECISIONS = ("fp32", "bf16")
TRAINING_PRECISIONS = (*PRECISIONS, "bf16-mixed")  # the last: float32 weights, bfloat16 arithmetic
Purpose = Literal["training", "synthesis"]


@dataclass(frozen=True)
class Hardware:
    """What this machine offers to torch."""

    cuda: bool = False
    cuda_name: str = ""
    cuda_bf16: bool = False
    mps: bool = False
    cpu_bf16: bool = False  # in instructions, not emulated
    cuda_count: int = 0  # CUDA devices

    def describe(self) -> str:
        """Say what was found, for error messages."""
        found = [f"CUDA ({self.cuda_name})"] if self.cuda else []
        found += ["MPS"] if self.mps else []
        return ", ".join([*found, "CPU"])


@dataclass(frozen=True)
class DeviceChoice:
    """Where a run computes, in which precision, and why."""

    device: str
    precision: str
    reason: str

    def __str__(self) -> str:
        return f"device {self.device}, {self.precision}: {self.reason}"

    def as_dict(self) -> dict[str, str]:
        """Return the choice in a form to store with a run."""
        return asdict(self)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the base weights; LoRA weights are float32 whatever this is."""
        import torch

        return torch.bfloat16 if self.precision == "bf16" else torch.float32

    @property
    def lightning_accelerator(self) -> str:
        """The name Lightning's Trainer has for this device."""
        return {"cuda": "gpu"}.get(self.device, self.device)

    @property
    def lightning_precision(self) -> str:
        """The name Lightning's Trainer has for this precision: both of bf16 autocast, over weights of `dtype`."""
        return "32-true" if self.precision == "fp32" else "bf16-mixed"


def probe_hardware() -> Hardware:
    """Ask torch what there is. Tests replace this function to play other machines."""
    import torch

    cuda = torch.cuda.is_available()
    return Hardware(
        cuda=cuda,
        cuda_name=torch.cuda.get_device_name(0) if cuda else "",
        cuda_bf16=cuda and torch.cuda.is_bf16_supported(including_emulation=False),
        mps=torch.backends.mps.is_available(),
        cpu_bf16=_cpu_has_bf16(),
        cuda_count=torch.cuda.device_count() if cuda else 0,
    )


def _cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16: AVX512-BF16 or AMX on x86; elsewhere oneDNN is asked.

    oneDNN alone would also say yes to any AVX512, where it widens each number and is slower than in float32.
    """
    import torch

    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "x86"):
        return True
    tests = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    known = [test() for test in tests if test is not None]  # older torch lacks the one or the other
    return any(known) if known else True


def allow_mps_fallback(device: str, force_mps: bool) -> None:
    """Let ops that MPS lacks run on the CPU. Must be called before torch is imported: torch reads it then.

    auto counts too, since synthesis may take MPS by itself and only torch can tell; without MPS it has no effect.
    """
    if device in ("auto", "mps") or force_mps:
        os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def choose_device(
    request: str = "auto", purpose: Purpose = "training", force_mps: bool = False, precision: str = "fp32"
) -> DeviceChoice:
    """Return the device for `request`; raise UserError if the machine lacks it, never fall back silently.

    auto takes CUDA, else the CPU; for synthesis MPS comes before the CPU. `force_mps` lets auto take MPS for training.
    """
    if request not in DEVICES:
        raise UserError(f"unknown device {request!r}", f"known devices: {', '.join(DEVICES)}", "use --device auto")
    known = TRAINING_PRECISIONS if purpose == "training" else PRECISIONS
    if precision not in known:
        raise UserError(f"unknown precision {precision!r}", f"known: {', '.join(known)}", "use --precision fp32")
    if force_mps and request not in ("auto", "mps"):
        raise UserError(
            f"--force-mps contradicts --device {request}", "it asks for MPS", "drop --force-mps or use --device mps"
        )
    hardware = probe_hardware()
    if request == "mps" or force_mps:
        if not hardware.mps:
            _missing("--force-mps" if force_mps else "--device mps", hardware)
        device, reason = "mps", "asked for; MPS is experimental here, ops it lacks run on the CPU"
    elif request == "cuda" or (request == "auto" and hardware.cuda):
        if not hardware.cuda:
            _missing("--device cuda", hardware)
        device, reason = "cuda", f"{hardware.cuda_name}, {'asked for' if request == 'cuda' else 'found'}"
    elif request == "cpu":
        device, reason = "cpu", "asked for"
    elif purpose == "synthesis" and hardware.mps:
        device, reason = "mps", "found; MPS is experimental here, ops it lacks run on the CPU"
    elif hardware.mps:
        device, reason = "cpu", "MPS is not taken for training by itself (dtype and op failures); --force-mps tries it"
    else:
        device, reason = "cpu", "no CUDA device found"
    _check_precision(precision, device, hardware)
    return DeviceChoice(device, precision, reason)


def _missing(flag: str, hardware: Hardware) -> None:
    raise UserError(
        f"{flag} asks for a device that is not available",
        f"torch found: {hardware.describe()}",
        "use --device auto alone, or install a torch build and driver for this device (https://pytorch.org/get-started)",
    )


def _check_precision(precision: str, device: str, hardware: Hardware) -> None:
    has_bf16 = {"cuda": hardware.cuda_bf16, "cpu": hardware.cpu_bf16, "mps": False}[device]
    if precision != "fp32" and not has_bf16:
        raise UserError(
            f"--precision {precision} is not available on {device}",
            {
                "cuda": "this hardware has no bfloat16 arithmetic",
                "cpu": "this processor has no bfloat16 arithmetic (on x86: AVX512-BF16 or AMX)",
                "mps": "MPS runs in FP32 here",
            }[device],
            "use --precision fp32",
        )
