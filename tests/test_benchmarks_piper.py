"""What the benchmarks of Piper voices set beside the toolkit computes the same."""

from __future__ import annotations

import sys

import lightning as L
import pytest
import torch

from .conftest import REPO

pytest.importorskip("psutil")
pytest.importorskip("numba")
sys.path.insert(0, str(REPO))  # benchmarks is no part of the installed package
from benchmarks import piper, piper_plain
from piper_train.models.alignment import maximum_path
from piper_train.training.module import VitsModule


def test_the_plain_alignment_finds_the_same_paths():
    values = torch.randn(3, 31, 17, generator=torch.Generator().manual_seed(0)).round(decimals=1)  # with ties
    frames, symbols = torch.tensor([31, 20, 9]), torch.tensor([17, 5, 9])
    expected = maximum_path(values, frames, symbols)
    assert torch.equal(piper_plain.maximum_path(values, frames, symbols), expected)


@pytest.mark.slow
def test_a_plain_training_step_has_the_same_gradients(tmp_path, monkeypatch):
    options = {**piper.options_of("medium", "tiny"), "p_dropout": 0.0}
    gradients = []
    for kind in (VitsModule, piper_plain.PlainModule):
        torch.manual_seed(0)
        module = kind(**options)
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, datamodule=piper.SameBatch(piper.random_batch("tiny", module.config), 1))
        gradients.append({name: weight.grad for name, weight in module.named_parameters()})
    ours, plain = gradients
    for name, gradient in ours.items():
        if not name.endswith("conv_k.bias"):  # zero but for rounding
            assert (gradient - plain[name]).norm() <= 1e-3 * gradient.norm() + 1e-6, name
