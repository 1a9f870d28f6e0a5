"""A training of one weight, with Lightning's loop and our callbacks, whose held-out losses a test chooses.

Run as a program it is one process of two: `python -m tests.training.toy_run FOLDER RANK_THAT_IS_ASKED STEP SIGNAL`.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch

from fish_speech.training.callbacks import AtomicCheckpointIO, StopGracefully
from fish_speech.training.keeping import StepCheckpoint

warnings.filterwarnings("ignore", module="lightning")


class Toy(L.LightningModule):
    """One weight that falls by a tenth of the batch in each step."""

    def __init__(self, held_out: Callable[[int], float], on_step: Callable[[int], None] = lambda step: None):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.tensor(5.0))
        self.held_out, self.on_step = held_out, on_step

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        loss = self.weight * batch.mean()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.log("train/loss", self.weight.detach())
        self.on_step(self.global_step)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def on_validation_epoch_end(self) -> None:  # as in TextToSemantic: later than the callbacks' own
        self.log("val/loss", self.held_out(self.trainer.global_step))
        self.log("val/top_5_accuracy", 0.5)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Endless(torch.utils.data.IterableDataset):
    """Ones."""

    def __iter__(self):
        return itertools.repeat(torch.ones(1))


class CountingIO(AtomicCheckpointIO):
    """Remembers the names it wrote; fails with a full disk for `fail`."""

    def __init__(self, fail: str = ""):
        self.written: list[str] = []
        self.fail = fail

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        if Path(path).name == self.fail:
            raise OSError(28, "No space left on device")
        super().save_checkpoint(checkpoint, path)
        self.written.append(Path(path).stem)


def fit(
    folder: Path,
    steps: int,
    held_out: Callable[[int], float] | None,
    callbacks: Sequence[L.Callback],
    validate: int = 2,
    resume: int | None = None,
    module: Toy | None = None,
    **options: Any,
) -> L.Trainer:
    """Train to `steps`; `held_out` None holds nothing out; `resume` is the step whose checkpoint is continued."""
    trainer = L.Trainer(
        **{"accelerator": "cpu", "devices": 1, "logger": False, "plugins": [AtomicCheckpointIO()], **options},
        callbacks=list(callbacks),
        max_steps=steps,
        val_check_interval=validate,
        check_val_every_n_epoch=None,
        limit_val_batches=1 if held_out else 0,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )
    data = torch.utils.data.DataLoader(Endless(), batch_size=None)
    path = None if resume is None else str(folder / f"step_{resume:09d}.ckpt")
    trainer.fit(module or Toy(held_out or float), data, data, ckpt_path=path)
    return trainer


def steps_in(folder: Path) -> list[int]:
    """The steps of the checkpoints there."""
    return sorted(int(path.stem.removeprefix("step_")) for path in folder.glob("*.ckpt"))


def main(folder: str, asked: str, at: str, name: str) -> None:
    """Train up to 50 steps in two processes; rank `asked` gets the signal in step `at`."""
    from lightning.pytorch.strategies import DDPStrategy

    def ask(step: int) -> None:
        if step == int(at) and os.environ["RANK"] == asked:
            os.kill(os.getpid(), getattr(signal, name))

    stop = StopGracefully()
    callbacks = [stop, StepCheckpoint(folder, 100)]
    trainer = fit(
        Path(folder), 50, lambda step: 1.0, callbacks, 100, module=Toy(lambda step: 1.0, ask),
        devices=2, strategy=DDPStrategy(process_group_backend="gloo"),
    )  # fmt: skip
    print(f"stopped {stop.stopped} at {trainer.global_step}")


if __name__ == "__main__":
    main(*sys.argv[1:])
