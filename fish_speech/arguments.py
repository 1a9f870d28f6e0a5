"""Flags shared by the scripts and stages: one name, one meaning, one default. Imports nothing heavy."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Literal

from .device import DEVICES, PRECISIONS
from .versions import DEFAULT_VERSION, VERSIONS


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keep paragraphs of the description and give flags room."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=110)


def make_parser(prog: str | None, description: str) -> argparse.ArgumentParser:
    """Return a parser that allows no abbreviated flags: a new flag must never change what an old command means."""
    return argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=HelpFormatter, allow_abbrev=False
    )


def given_flags(argv: Sequence[str]) -> set[str]:
    """The long flags that a command line names, without their values."""
    return {word.split("=")[0] for word in argv if word.startswith("--")}


def add_device(parser: argparse._ActionsContainer, flag: str = "--device") -> None:
    """Add `--device` and its kin."""
    parser.add_argument(
        flag,
        default="auto",
        choices=DEVICES,
        help="where to run; auto takes cuda, else cpu (for speaking on a Mac, mps) (default: auto)",
    )


def add_force_mps(parser: argparse._ActionsContainer) -> None:
    """Add `--force-mps`."""
    parser.add_argument("--force-mps", action="store_true", help="let auto take Apple's MPS in FP32 (experimental)")


def add_precision(parser: argparse._ActionsContainer) -> None:
    """Add `--precision`."""
    parser.add_argument(
        "--precision",
        default="fp32",
        choices=PRECISIONS,
        help="fp32, or bf16 with LoRA weights kept in float32, where the hardware has it (default: fp32)",
    )


def add_model_version(parser: argparse._ActionsContainer) -> None:
    """Add `--model-version`; None where it is not given, see versions.settle_version."""
    parser.add_argument(
        "--model-version",
        choices=sorted(VERSIONS),
        help=f"which base model (default: what the model folder is, else {DEFAULT_VERSION})",
    )


def version_default(part: Literal["recipe", "sampling"], name: str, unset: str = "") -> str:
    """For help: the default of a flag by a part of the versions; `unset` says what happens where that has None."""
    shown = {}
    for version in VERSIONS.values():
        value = getattr(getattr(version, part), name)
        shown[version.name] = unset if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    usual = shown[DEFAULT_VERSION]
    others = [f"; {version} {value}" for version, value in shown.items() if value != usual]
    return f"default: {usual}{''.join(others)}"


def add_offline(parser: argparse._ActionsContainer) -> None:
    """Add `--offline`."""
    parser.add_argument("--offline", action="store_true", help="never ask the network for missing weights")


def add_runner(parser: argparse._ActionsContainer) -> None:
    """Add `--runner` and `--ray-address`."""
    parser.add_argument(
        "--runner", choices=("local", "ray"), default="local", help="processes here, or a Ray cluster (default: local)"
    )
    parser.add_argument(
        "--ray-address", metavar="HOST:PORT", help="the cluster (default: what RAY_ADDRESS names, else this machine's)"
    )


def runner_problem(given: argparse.Namespace) -> str | None:
    """Say why the flags of add_runner contradict each other; None if they do not."""
    if given.ray_address is not None and given.runner != "ray":
        return "--ray-address has no effect without --runner ray"
    return None


def use_ray_address(given: argparse.Namespace) -> None:
    """Let Ray, in this process and in its children, take the cluster of --ray-address. Called by main only."""
    if given.ray_address is not None:
        os.environ["RAY_ADDRESS"] = given.ray_address


def add_seed(parser: argparse._ActionsContainer, default: int = 42) -> None:
    """Add `--seed`."""
    parser.add_argument(
        "--seed", type=non_negative_int, default=default, help=f"start of all randomness (default: {default})"
    )


def positive_int(text: str) -> int:
    """Parse a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return value


def non_negative_int(text: str) -> int:
    """Parse a whole number of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def percent(text: str) -> float:
    """Parse a number from 0 to 100."""
    value = float(text)
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not a percentage from 0 to 100")
    return value


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value
