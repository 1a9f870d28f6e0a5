"""Where a run starts: its own checkpoint, continued exactly, another run's weights, or the base."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from ..checkpoint import (
    check_names,
    list_checkpoints,
    newest_of,
    read_file,
    read_state_dict,
    record_of,
    run_record,
    sha256,
)
from ..datasets.shards import find_shards
from ..errors import UserError
from ..models import LoraConfig, load_adapter
from ..models.adapters import check_base_is, check_same_shape
from ..models.loading import weights_path
from ..versions import CONFIG_FILE
from .module import TextToSemantic
from .overfitting import stopped_early
from .self_checks import check_fresh_adapters

log = logging.getLogger(__name__)


def find_resume(config: DictConfig) -> Path | None:
    """The checkpoint of this same run to continue from, exactly; None for a new run."""
    folder = Path(config.paths.ckpt_dir)
    found = list_checkpoints(folder)
    if config.resume_step is not None:
        chosen = [checkpoint for checkpoint in found if checkpoint.step == config.resume_step]
        if not chosen:
            there = ", ".join(str(checkpoint.step) for checkpoint in found) or "none"
            raise UserError(f"{folder} has no step {config.resume_step}", f"steps there: {there}", "choose one of them")
    else:
        chosen = found[-1:]
    if not chosen:
        return None
    if config.get("ckpt_path") is not None and warm_start_of(chosen[0].path) != config.ckpt_path:
        raise UserError(
            f"project {config.project} has checkpoints already, so it cannot start from {config.ckpt_path}",
            f"{chosen[0].path} is continued when the project is trained again",
            "use a new project name for the warm start, or leave the other checkpoint out to continue this project",
        )
    if ended_early(config, chosen[0].path) and not config.reached_is_done:
        raise UserError(
            f"project {config.project} stopped early, at step {chosen[0].step}",
            f"its held-out loss had not fallen for {config.callbacks.early_stopping.patience} validations",
            "use what it has; more patience (--early-stopping-patience, of a stage callbacks.early_stopping.patience) or "
            "none trains on, a new project name starts anew",
        )
    done = chosen[0].step == config.trainer.max_steps and config.reached_is_done
    if chosen[0].step >= config.trainer.max_steps and not done:
        raise UserError(
            f"project {config.project} has reached step {chosen[0].step} already",
            f"the run ends at trainer.max_steps={config.trainer.max_steps}",
            f"ask for more steps with {more_steps(chosen[0].step)}, or use a new project name",
        )
    return chosen[0].path


def ended_early(config: DictConfig, checkpoint: Path) -> bool:
    """Whether early stopping ended the run of a checkpoint, and would with today's patience."""
    patience = OmegaConf.select(config, "callbacks.early_stopping.patience")
    return patience is not None and stopped_early(read_file(checkpoint), patience)


def set_aside_later(folder: Path, step: int) -> None:
    """Move checkpoints of later steps out of the way of a run that goes on from `step`: they are another run's by now.

    Left there, one of them would be the newest when this run is stopped and continued.
    """
    later = [checkpoint.path for checkpoint in list_checkpoints(folder) if checkpoint.step > step]
    if not later:
        return
    places = (folder / f"before_step_{step:09d}_{number}" for number in itertools.count(1))
    place = next(place for place in places if not place.exists())
    place.mkdir()
    for path in later:
        path.replace(place / path.name)
    log.info("the later checkpoints (%s) are kept in %s", ", ".join(path.name for path in later), place)


def more_steps(reached: int) -> str:
    """How to ask for a later end, of finetune_tts.py and of the stages."""
    return f"--max-steps {reached + 100} (of a stage: trainer.max_steps={reached + 100})"


def warm_start_of(path: Path) -> str | None:
    """The checkpoint of another run that the run of `path` began with, if any."""
    return record_of(path).get("warm_start")


def lora_of(config: DictConfig) -> LoraConfig | None:
    """The adapters that a run trains; None where it trains all weights."""
    values = config.model.model.lora_config
    return None if values is None else LoraConfig.of(OmegaConf.to_container(values, resolve=True))  # type: ignore[arg-type]


def settings_of(config: DictConfig, data: Any) -> dict[str, Any]:
    """What must stay the same for a resumed run to equal one that never stopped."""
    lora = lora_of(config)
    base = weights_path(Path(config.pretrained_ckpt_path))
    return {
        "seed": config.seed,
        "samples a step": data.batch_size * data.processes,
        "max_length": config.max_length,
        "pack_length": config.data.pack_length,
        "example format": config.data.get("example_format", "default"),
        "learning rate": float(config.model.optimizer.lr),
        "weight decay": float(config.model.optimizer.get("weight_decay") or 0.0),
        "gradient norm": config.trainer.gradient_clip_val,
        "attention dropout": config.attention_dropout,
        "warm-up steps": config.model.lr_scheduler.lr_lambda.get("num_warmup_steps"),
        "held-out share": config.data.val_share,
        "LoRA": None if lora is None else str(lora),
        "base config": sha256(Path(config.pretrained_ckpt_path) / CONFIG_FILE)[:16],
        "base weights": sha256(base)[:16] if config.model.model.load_weights else "new",
        "data": shards_hash(config.train_dataset.proto_files),
        "precision": str(config.trainer.precision),
    }


def shards_hash(paths: Any) -> str:
    """One hash over the content of all shards below `paths`."""
    digest = hashlib.sha256()
    for file in find_shards(list(paths)):
        digest.update(sha256(file).encode())
    return digest.hexdigest()[:16]


def refuse_changed(path: Path, before: Mapping[str, Any], settings: Mapping[str, Any], otherwise: str) -> None:
    """Raise UserError if the run of checkpoint `path` had other settings; what it did not record is not compared."""
    said = {"data": "the data set has changed since", "base weights": "the base weights have changed since"}
    changed = [
        said.get(k, f"{k}: {before[k]} then, {settings[k]} now")
        for k in settings
        if k in before and before[k] != settings[k]
    ]
    if changed:
        raise UserError(
            f"{path} was made with other settings",
            "; ".join(changed),
            f"use the same settings to continue, or {otherwise}",
        )


def start_weights(config: DictConfig, module: TextToSemantic, resume: Path | None, settings: Mapping[str, Any]) -> int:
    """Check or load the weights the run starts with, say which, and return the step it starts at."""
    if resume is not None:
        content = read_file(resume)
        record = run_record(content)
        before = record.get("settings", {})
        refuse_changed(resume, before, settings, "a new project name with this checkpoint as its start")
        step = int(content["global_step"])
        split = record.get("micro_batch")
        if isinstance(split, int) and 0 < split <= config.data.batch_size:
            module.micro_batch = split  # sums of other parts differ in their last bit
        if step < config.trainer.max_steps:
            log.info("continuing this project exactly from %s (step %d)", resume, step)
            tell_of_new_end(config, record.get("max_steps"), step)
        return step
    lora = lora_of(config)
    if lora is not None:
        check_fresh_adapters(module.model)
        if config.model.model.load_weights:
            check_base_is(module.model, weights_path(Path(config.pretrained_ckpt_path)))
    if config.ckpt_path is not None:
        path = newest_of(Path(config.ckpt_path))
        if lora is not None:
            check_same_shape(path, lora)
            load_adapter(module.model, path)
        else:
            tensors = read_state_dict(path)
            check_names({n: tuple(t.shape) for n, t in module.model.state_dict().items()}, tensors, path, "this model")
            module.model.load_state_dict(tensors)
        log.info("warm start: weights from %s, step 0, learning rate %s", path, config.model.optimizer.lr)
    else:
        log.info("new run from %s", config.pretrained_ckpt_path if config.model.model.load_weights else "new weights")
    return 0


def tell_of_new_end(config: DictConfig, before: int | None, step: int) -> None:
    """Say how the learning rate goes on where trainer.max_steps is another than before: schedules may depend on it."""
    now = int(config.trainer.max_steps)
    if before is None or before == now:
        return
    factor, peak = instantiate(config.model.lr_scheduler.lr_lambda), float(config.model.optimizer.lr)
    old, new = (peak * factor(step, num_training_steps=steps) for steps in (before, now))
    if old != new:
        log.info(
            "the run ends at step %d instead of %d, and its schedule with it: the learning rate goes on at %.3g, not %.3g",
            now, before, new, old,
        )  # fmt: skip
