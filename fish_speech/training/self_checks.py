"""What a run checks of itself: that it starts from what the base knows, and which clip made a loss no number."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from loralib import LoRALayer

from ..errors import UserError
from ..models import DualAR
from .losses import LossParts, LossSums

if TYPE_CHECKING:
    from ..datasets.datamodule import SemanticDataModule
    from .module import TextToSemantic

log = logging.getLogger(__name__)

_CLIPS = 4  # that the base is asked about
_NAMED = 3  # clips named in a message
_OTHERS = 8  # clips asked when some are wrong: is it they or the weights?


@contextlib.contextmanager
def without_adapters(model: torch.nn.Module) -> Iterator[None]:
    """Let every LoRA layer answer as its base weight alone."""
    layers = [layer for layer in model.modules() if isinstance(layer, LoRALayer)]
    ranks = [layer.r for layer in layers]
    try:
        for layer in layers:
            layer.r = 0
        yield
    finally:
        for layer, rank in zip(layers, ranks, strict=True):
            layer.r = rank


@torch.no_grad()
def check_fresh_adapters(model: DualAR) -> None:
    """Raise if the model with new adapters answers otherwise than the base: training would start from noise."""
    rng = torch.Generator().manual_seed(0)
    codes = torch.randint(0, model.config.codebook_size, (1, model.config.num_codebooks, 8), generator=rng)
    grid = torch.cat([codes[:, :1] + model.semantic_begin_id, codes], dim=1)
    was_training = model.training
    model.eval()
    adapted = model(grid)
    with without_adapters(model):
        base = model(grid)
    model.train(was_training)
    if not all(torch.equal(one, other) for one, other in zip(adapted, base, strict=True)):
        raise RuntimeError("new LoRA adapters change the model's answers; this is a bug")
    log.info("the model with new adapters answers as its base does")


@torch.no_grad()
def check_first_loss(module: TextToSemantic, data: SemanticDataModule) -> LossParts:
    """Compare the loss of the model a run starts with to what the base must reach; log it, warn where it does not.

    A base that knows these codes finds them likelier than the same frames in shuffled order, and than chance. One that
    does not was trained on another codec's codes, or its weights are damaged: training would begin from nothing.
    """
    clips = (data.held_out or list(data.train_lengths))[:_CLIPS]
    batch = module.transfer_batch_to_device(data.batch_of([(0, (clip,)) for clip in clips]), module.device, 0)
    with evaluating(module.model):
        found = losses_of(module, batch)
        shuffled = losses_of(module, shuffled_frames(batch, module.model)).semantic_loss.item()
    sizes = module.model.config.codebook_sizes
    codes, chance = found.semantic_loss.item(), math.fsum(math.log(size) for size in sizes) / len(sizes)
    facts = f"codes {codes:.3f}, in shuffled order {shuffled:.3f}, by chance {chance:.3f}"
    if codes < min(shuffled, chance):
        log.info("loss before training %.3f on %d clips: %s", found.loss, len(clips), facts)
    else:
        log.warning(
            "loss before training %.3f on %d clips: %s. The base does not know these codes: it is new, or the codes were "
            "made with another model's codec; then extract them again with the codec of this model version",
            found.loss, len(clips), facts,
        )  # fmt: skip
    return found


def losses_of(module: TextToSemantic, batch: dict[str, torch.Tensor]) -> LossParts:
    """Losses of a batch on the module's device, with its precision; its samples go one by one, for little memory."""
    parts = [{name: values[row : row + 1] for name, values in batch.items()} for row in range(len(batch["inputs"]))]
    with module.trainer.precision_plugin.forward_context():
        sums = [module.sums(part) for part in parts]
    return LossSums(*(torch.stack(values).sum() for values in zip(*sums, strict=True))).means()


@contextlib.contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode for a while."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def shuffled_frames(batch: dict[str, torch.Tensor], model: DualAR) -> dict[str, torch.Tensor]:
    """The batch with the frames of each row in another order, each frame whole, in inputs and labels alike."""
    inputs, labels = batch["inputs"].clone(), batch["labels"].clone()
    rng = torch.Generator().manual_seed(0)
    for row in range(len(inputs)):
        is_frame = (labels[row, 0] >= model.semantic_begin_id) & (labels[row, 0] <= model.semantic_end_id)
        columns = is_frame.nonzero()[:, 0]  # labels are of the column that comes next
        order = columns[torch.randperm(len(columns), generator=rng).to(columns.device)]
        labels[row, :, columns] = batch["labels"][row][:, order]
        inputs[row, :, columns + 1] = batch["inputs"][row][:, order + 1]
    return {**batch, "inputs": inputs, "labels": labels}


@torch.no_grad()
def explain_non_finite(
    module: TextToSemantic, data: SemanticDataModule, number: int, loss: float, norm: float
) -> UserError:
    """Find which clips of step `number` give a loss that is no number; return the error that ends the run."""
    epoch, samples = data.stream().samples_at(number)  # of all processes: each says the same
    clips = [clip for sample in samples for clip in sample]
    with evaluating(module.model):
        wrong = [clip for clip in clips if not _is_finite(module, data, epoch, clip)]
        weights_hold = _weights_hold(module, data, epoch, wrong)
    assert data.dataset is not None
    store = data.dataset.clips
    named = "; ".join(repr(store.name_of(clip)) for clip in wrong[:_NAMED]) + ("; ..." if len(wrong) > _NAMED else "")
    what = f"the loss of step {number + 1} is {loss}, its gradient's norm {norm}"
    kept = "the checkpoints so far are whole and kept"
    if wrong and weights_hold:
        return UserError(
            what,
            f"it comes from {len(wrong)} of the step's {len(clips)} clips: {named}",
            f"look at these clips, take them out of the data set and train again under a new project name; {kept}",
        )
    none = f"{len(wrong)} of its {len(clips)} clips give none"
    why = none if wrong else "each of its clips alone gives a finite loss"
    return UserError(
        what,
        f"{why}: the weights have left the range of numbers, not the data",
        f"lower --learning-rate and train again under a new project name, or from an earlier checkpoint; {kept}",
    )


def _weights_hold(module: TextToSemantic, data: SemanticDataModule, epoch: int, wrong: list[int]) -> bool:
    """Whether the clips without a finite loss are to blame, not what training made of the weights.

    Adapters are to blame if the base alone gives the clips a finite loss; without adapters other clips are asked.
    """
    if module.has_lora:
        with without_adapters(module.model):
            return any(not _is_finite(module, data, epoch, clip) for clip in wrong)
    others = [clip for clip in (*data.held_out, *data.train_lengths) if clip not in wrong][:_OTHERS]
    return 2 * sum(_is_finite(module, data, epoch, clip) for clip in others) > len(others)


def _is_finite(module: TextToSemantic, data: SemanticDataModule, epoch: int, clip: int) -> bool:
    batch = module.transfer_batch_to_device(data.batch_of([(epoch, (clip,))]), module.device, 0)
    return bool(torch.isfinite(losses_of(module, batch).loss))
