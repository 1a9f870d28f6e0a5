"""Going on from a checkpoint of ours: what must be the same for a resumed run to equal one that never stopped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fish_speech.checkpoint import check_names
from fish_speech.errors import UserError

from ..checkpoints import RECORD

if TYPE_CHECKING:
    import lightning as L

    from .module import VitsModule

log = logging.getLogger(__name__)

CLIPS = "clips of a batch"


def settings_of(trainer: L.Trainer, data: Any, seed: int) -> dict[str, Any]:
    """What a step's result depends on, beside weights and `model.*`; plain values, by the words they are told with."""
    return {
        "seed": int(seed),
        CLIPS: int(data.batch_size) * trainer.world_size,
        "batches of a step": int(getattr(trainer.lightning_module, "accumulate", 1)),
        "precision": str(trainer.precision),
        "data set": str(data.fingerprint()),
    }


def check_fits(module: VitsModule, checkpoint: Mapping[str, Any]) -> None:
    """Raise UserError unless the checkpoint holds exactly the module's weights."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    check_names(expected, checkpoint["state_dict"], checkpoint.get("path", "the checkpoint"), "this voice")


def fit_position(checkpoint: dict[str, Any], settings: Mapping[str, Any], data: Any) -> None:
    """Where data, seed, or the clips of a step are others than before, let an epoch that was broken off begin anew.

    Its batches are no more the ones that were counted. Changes the checkpoint's content, before Lightning takes its loops
    and the data module its position from there.
    """
    record = checkpoint.get(RECORD) or {}
    before = record.get("settings") or {}
    changed = [
        "another data set" if name == "data set" else f"{name} {settings[name]} instead of {before[name]}"
        for name in settings
        if name in before and before[name] != settings[name]
    ]
    if not changed:
        return
    log.info("not exactly what the run would have been without a stop: %s", ", ".join(changed))
    moved = any(before.get(name) != settings[name] for name in ("seed", CLIPS, "data set"))
    if moved and record.get("batches_done"):
        log.info("epoch %d, which was broken off, begins anew", record.get("epochs_done", 0))
        position = checkpoint.get(type(data).__qualname__)
        if isinstance(position, dict):
            position["batches_done"] = 0
        rewind_epoch(checkpoint)


def refuse_other_speakers(before: Any, now: Any) -> None:
    """Raise UserError where a voice's config.json numbers speakers otherwise than the checkpoint's does.

    Training would go on, with each voice learning from another's clips.
    """
    there, here = (config.get("speaker_id_map") if isinstance(config, Mapping) else None for config in (before, now))
    if not isinstance(there, Mapping) or not isinstance(here, Mapping):
        return
    moved = [f"{name} {number} there, {here.get(name, 'none')} here" for name, number in there.items()
             if here.get(name) != number]  # fmt: skip
    if moved:
        raise UserError(
            "the data set numbers its speakers otherwise than the checkpoint",
            f"{'; '.join(moved[:5])}: each would go on learning as another",
            "bring metadata.csv into the old order (speakers are numbered as they appear), or start a new voice",
        )


def rewind_epoch(checkpoint: dict[str, Any]) -> None:
    """Let Lightning begin the current epoch anew, in place."""
    loops = checkpoint.get("loops", {}).get("fit_loop", {})
    for counter in ("current", "total"):
        started = loops.get("epoch_progress", {}).get(counter)
        if started is not None:  # as at the end of the epoch before
            started["ready"] = started["started"] = started["processed"]
    progress = loops.get("epoch_loop.batch_progress", {}).get("current")
    if progress is not None:
        progress.update(dict.fromkeys(progress, 0))
