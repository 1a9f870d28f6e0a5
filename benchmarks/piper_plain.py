"""The baselines of Piper voices: a training step and an alignment the straightforward way, as `reference/piper.md` (3.4, 4)
puts them into words. For comparison only; what does not differ is taken from the toolkit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from piper_train.models import synthesizer
from piper_train.training.draws import draws_of, key
from piper_train.training.module import VitsModule
from piper_train.training.objective import Counts, losses_of, weighted

UNREACHABLE = -1e9


def maximum_path(neg_cent: Tensor, t_y: Tensor, t_x: Tensor) -> Tensor:
    """The alignment in numpy, one row of symbols after another, then back cell by cell."""
    values = neg_cent.detach().cpu().float().numpy()
    path = np.zeros_like(values)
    for item, (frames, symbols) in enumerate(zip(t_y.tolist(), t_x.tolist(), strict=True)):
        sums = values[item, :frames, :symbols].copy()
        sums[0, 1:] = UNREACHABLE
        for y in range(1, frames):
            entered = np.concatenate([[UNREACHABLE], sums[y - 1, :-1]])
            sums[y] += np.maximum(sums[y - 1], entered)
            sums[y, y + 1 :] = UNREACHABLE
        x = symbols - 1
        for y in range(frames - 1, -1, -1):
            path[item, y, x] = 1
            if x and (x == y or sums[y - 1, x] < sums[y - 1, x - 1]):
                x -= 1
    return torch.from_numpy(path).to(neg_cent)


@contextmanager
def plain_alignment() -> Iterator[None]:
    """Let generators align in numpy."""
    ours, synthesizer.maximum_path = synthesizer.maximum_path, maximum_path
    try:
        yield
    finally:
        synthesizer.maximum_path = ours


class PlainModule(VitsModule):
    """Trains with a pass through the discriminators for each side, every gradient of each loss, and AdamW's default."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer_g, optimizer_d = self.optimizers()  # type: ignore[misc,attr-defined]
        torch.manual_seed(key(self.seed, self.data.epoch, self.data.batches_done, self.global_rank))
        draws = draws_of(batch, self.config.inter_channels, self.seed, self.data.epoch)
        told = Told(self.model_d)
        with plain_alignment():
            losses = losses_of(self.model_g, {"": told}, batch, draws, self.config, Counts.of(batch))
        real, made = told.heard
        judged = self.model_d(real, made.detach())
        loss_d = torch.stack(
            [(1 - r).square().mean() + f.square().mean() for r, f in zip(judged.real_scores, judged.fake_scores)]
        ).sum()
        optimizer_g.zero_grad()
        self.manual_backward(weighted(losses.generator, self.hparams["c_mel"], self.hparams["c_kl"]))
        optimizer_d.zero_grad()
        self.manual_backward(loss_d)
        optimizer_g.step()
        optimizer_d.step()
        self.data.batches_done += 1

    def configure_optimizers(self) -> Any:
        parts = (self.model_g, 2e-4, (0.8, 0.99)), (self.model_d, 1e-4, (0.5, 0.9))
        optimizers = [torch.optim.AdamW(part.parameters(), rate, betas, 1e-9) for part, rate, betas in parts]
        return optimizers, [torch.optim.lr_scheduler.ExponentialLR(optimizer, 1.0) for optimizer in optimizers]


class Told(torch.nn.Module):
    """Discriminators that remember what they judged."""

    def __init__(self, judge: torch.nn.Module):
        super().__init__()
        self.judge = judge
        self.heard: tuple[Tensor, Tensor]

    def forward(self, real: Tensor, made: Tensor) -> Any:
        self.heard = real, made
        return self.judge(real, made)
