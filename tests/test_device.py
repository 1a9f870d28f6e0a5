"""Every row of the table in DESIGN.md section 4, with the hardware faked at the one place that asks torch."""

from __future__ import annotations

import ast
import itertools
import os
from pathlib import Path

import pytest
import torch

from fish_speech import device
from fish_speech.device import DEVICES, PRECISIONS, Hardware, choose_device
from fish_speech.errors import UserError

MACHINES = {
    "cuda": Hardware(cuda=True, cuda_name="NVIDIA H200", cuda_bf16=True, cpu_bf16=True),
    "old cuda": Hardware(cuda=True, cuda_name="GTX 1080", cuda_bf16=False),
    "mac": Hardware(mps=True),
    "cpu": Hardware(),
    "cpu with bf16": Hardware(cpu_bf16=True),
}


@pytest.fixture
def machine(monkeypatch):
    """Play a machine by name."""

    def play(name: str) -> None:
        monkeypatch.setattr(device, "probe_hardware", lambda: MACHINES[name])

    return play


def expected_device(hardware: Hardware, request: str, purpose: str, force_mps: bool) -> str | None:
    """The table in words of its own; None where the request is an error."""
    if force_mps and request in ("cuda", "cpu"):
        return None
    wanted = "mps" if force_mps else request
    if wanted == "auto":
        if hardware.cuda:
            return "cuda"
        return "mps" if hardware.mps and purpose == "synthesis" else "cpu"
    there = {"cuda": hardware.cuda, "mps": hardware.mps, "cpu": True}[wanted]
    return wanted if there else None


def has_bf16(hardware: Hardware, chosen: str) -> bool:
    return {"cuda": hardware.cuda_bf16, "mps": False, "cpu": hardware.cpu_bf16}[chosen]


@pytest.mark.parametrize(
    ("name", "request_", "purpose", "force_mps", "precision"),
    itertools.product(MACHINES, DEVICES, ("training", "synthesis"), (False, True), PRECISIONS),
)
def test_every_combination_follows_the_table(machine, name, request_, purpose, force_mps, precision):
    machine(name)
    chosen = expected_device(MACHINES[name], request_, purpose, force_mps)
    if chosen is None or (precision == "bf16" and not has_bf16(MACHINES[name], chosen)):
        with pytest.raises(UserError):
            choose_device(request_, purpose, force_mps, precision)
    else:
        choice = choose_device(request_, purpose, force_mps, precision)
        assert (choice.device, choice.precision) == (chosen, precision)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("cuda", {}, "device cuda, fp32: NVIDIA H200, found"),
        ("cuda", {"request": "cuda"}, "device cuda, fp32: NVIDIA H200, asked for"),
        ("cuda", {"precision": "bf16"}, "device cuda, bf16: NVIDIA H200, found"),
        ("cpu", {}, "device cpu, fp32: no CUDA device found"),
        ("cpu", {"request": "cpu"}, "device cpu, fp32: asked for"),
        ("mac", {}, "device cpu, fp32: MPS is not taken for training by itself (dtype and op failures); --force-mps"),
        ("mac", {"force_mps": True}, "device mps, fp32: asked for; MPS is experimental here, ops it lacks run on the"),
        ("mac", {"request": "mps"}, "device mps, fp32: asked for; MPS is experimental here, ops it lacks run on the"),
        ("mac", {"purpose": "synthesis"}, "device mps, fp32: found; MPS is experimental here, ops it lacks run on"),
    ],
)
def test_the_choice_is_told_with_its_reason_in_one_line(machine, name, arguments, expected):
    machine(name)
    line = str(choose_device(**arguments))
    assert line.startswith(expected) and "\n" not in line


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        (
            "cpu",
            {"request": "cuda"},
            ["--device cuda asks for a device that is not available", "torch found: CPU", "--device auto"],
        ),
        (
            "mac",
            {"request": "cuda"},
            ["--device cuda asks for a device that is not available", "torch found: MPS, CPU"],
        ),
        (
            "cuda",
            {"request": "mps"},
            ["--device mps asks for a device that is not available", "torch found: CUDA (NVIDIA H200), CPU"],
        ),
        ("cpu", {"force_mps": True}, ["--force-mps asks for a device that is not available", "torch found: CPU"]),
        ("mac", {"request": "cpu", "force_mps": True}, ["--force-mps contradicts --device cpu"]),
        ("mac", {"force_mps": True, "precision": "bf16"}, ["bf16 is not available on mps", "--precision fp32"]),
        ("old cuda", {"precision": "bf16"}, ["bf16 is not available on cuda", "no bfloat16", "--precision fp32"]),
        ("cpu", {"request": "gpu"}, ["unknown device 'gpu'", "auto, cuda, mps, cpu"]),
        ("cpu", {"precision": "fp16"}, ["unknown precision 'fp16'", "fp32, bf16"]),
    ],
)
def test_what_cannot_be_is_an_error_that_says_what_was_found(machine, name, arguments, expected):
    machine(name)
    with pytest.raises(UserError) as caught:
        choose_device(**arguments)
    for part in expected:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("request_", "force_mps", "switched_on"),
    # auto too: synthesis may take MPS by itself, and torch reads the variable before anyone knows
    [("mps", False, True), ("auto", True, True), ("auto", False, True), ("cpu", False, False), ("cuda", False, False)],
)
def test_the_fallback_for_missing_ops_is_on_wherever_mps_can_be_taken(monkeypatch, request_, force_mps, switched_on):
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "")  # so that the test's end restores what was there
    monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK")
    device.allow_mps_fallback(request_, force_mps)
    assert (os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") == "1") is switched_on


def test_a_fallback_that_the_user_switched_off_stays_off(monkeypatch):
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "0")
    device.allow_mps_fallback("mps", True)
    assert os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] == "0"


def test_precision_names_for_torch_and_lightning(machine):
    machine("cuda")
    fp32, bf16 = choose_device(), choose_device(precision="bf16")
    assert (fp32.dtype, fp32.lightning_accelerator, fp32.lightning_precision) == (torch.float32, "gpu", "32-true")
    assert (bf16.dtype, bf16.lightning_precision) == (torch.bfloat16, "bf16-mixed")
    assert choose_device("cpu").lightning_accelerator == "cpu"
    assert fp32.as_dict() == {"device": "cuda", "precision": "fp32", "reason": "NVIDIA H200, found"}


def test_the_real_machine_can_be_asked():
    assert choose_device("cpu").device == "cpu"
    assert isinstance(device.probe_hardware().cpu_bf16, bool)


@pytest.mark.parametrize(
    ("onednn", "avx512_bf16", "amx", "processor", "expected"),
    [
        (True, True, False, "x86_64", True),
        (True, False, True, "AMD64", True),
        (True, False, False, "x86_64", False),  # AVX512 without bfloat16: oneDNN would emulate it
        (False, True, True, "x86_64", False),
        (True, False, False, "aarch64", True),
        (False, False, False, "arm64", False),
    ],
)
def test_bf16_on_the_cpu_needs_instructions_for_it(monkeypatch, onednn, avx512_bf16, amx, processor, expected):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(device.platform, "machine", lambda: processor)
    assert device.probe_hardware().cpu_bf16 is expected


def test_no_other_file_asks_torch_what_there_is():
    package = Path(device.__file__).parent
    asking = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node).endswith(
                ("cuda.is_available", "mps.is_available")
            ):
                asking.append(path.name)
    assert set(asking) == {"device.py", "accelerator.py"}  # the second is the doctor's, who says what is wrong with it


def test_mixed_precision_keeps_weights_in_float32_and_is_for_training_on_hardware_that_has_it(machine):
    machine("cpu with bf16")
    choice = choose_device("cpu", "training", precision="bf16-mixed")
    assert (choice.dtype, choice.lightning_precision) == (torch.float32, "bf16-mixed")
    with pytest.raises(UserError, match="unknown precision"):
        choose_device("cpu", "synthesis", precision="bf16-mixed")
    machine("cpu")
    with pytest.raises(UserError, match="no bfloat16 arithmetic"):
        choose_device("cpu", "training", precision="bf16-mixed")
