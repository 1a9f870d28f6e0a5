"""Shared fixtures: golden answers, models filled by the golden rule, and small checkpoint folders in the published format."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "golden"))
from fill import fill_state_dict

GOLDEN = Path(__file__).parent / "golden" / "fish-1.5"
REPO = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def golden():
    """Read a golden file by name: .json to values, .npz to a dict of arrays."""

    def read(name: str):
        path = GOLDEN / name
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}

    return read


@pytest.fixture(scope="session")
def fill():
    """Fill a module's weights by the golden rule, in place."""

    def fill_module(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
        module.load_state_dict(fill_state_dict(module.state_dict(), seed))
        return module

    return fill_module


@pytest.fixture()
def golden_dual_ar(golden, fill):
    """Build a golden tiny DualAR ('base' or 'alt'), optionally with LoRA, filled by the rule, in eval mode."""
    from fish_speech.models import DualAR, DualARConfig, LoraConfig, install_lora

    def build(name: str = "base", lora: dict | None = None, **changes) -> DualAR:
        manifest = golden("manifest.json")["llama"]
        given = {**manifest["configs"][name]["given"], **changes}
        model = DualAR(DualARConfig.from_mapping(given), manifest["semantic_begin_id"])
        if lora:
            install_lora(model, LoraConfig(**lora))
        return fill(model).eval()

    return build
