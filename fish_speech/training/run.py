"""One training run from a resolved config: build, check, resume or warm-start, fit, and leave a record."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock
import lightning as L
import torch
from hydra.utils import get_class, get_method, instantiate
from loralib import LoRALayer
from omegaconf import DictConfig, OmegaConf

from ..checkpoint import check_names, list_checkpoints, newest_of, read_file, read_state_dict, sha256
from ..datasets.shards import find_shards
from ..device import DeviceChoice
from ..errors import INTERRUPTED, UserError
from ..files import remove_leftovers, write_text
from ..models import DualAR, load_adapter
from ..models.loading import weights_path
from .callbacks import AtomicCheckpointIO, StopGracefully
from .memory import choose_recompute
from .module import TextToSemantic

log = logging.getLogger(__name__)

# What torchrun, SLURM and Lightning number a run's processes and nodes with; the first has 0 wherever one is set.
_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")


def run(config: DictConfig, device: DeviceChoice) -> int:
    """Train as `config` says; return the exit code. Raises UserError for what the user can mend."""
    log.info("%s", device)
    with only_run(Path(config.paths.run_dir)):
        return _run(config, device)


@contextlib.contextmanager
def only_run(run_dir: Path) -> Iterator[None]:
    """Keep a second training of the same project out; a killed one's lock is free at once."""
    if any(os.environ.get(name, "0") != "0" for name in _RANKS):  # one more of the same run: the first holds the lock
        yield
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(run_dir / ".lock")
    try:
        lock.acquire(timeout=30)  # a run that was just stopped may still be saving
    except filelock.Timeout as error:
        raise UserError(
            f"{run_dir} is being trained by another process",
            "two would overwrite each other",
            "wait for it, or stop it",
        ) from error
    try:
        remove_leftovers(run_dir)
        yield
    finally:
        lock.release()


def _run(config: DictConfig, device: DeviceChoice) -> int:
    run_dir = Path(config.paths.run_dir)
    torch.manual_seed(config.seed)
    if device.device == "cuda":
        torch.set_float32_matmul_precision(config.float32_matmul)
    choose_packing(config, device)
    model = build_model(config, device)
    data = build_data(config, model)
    limit_epochs(config, data)
    resume = find_resume(config)
    module = build_module(config, model, device, max(data.pack_length, *data.train_lengths.values()))
    settings = settings_of(config, data)
    lora = config.model.model.lora_config
    module.run_info = {
        "settings": settings,
        "lora": None if lora is None else {name: lora[name] for name in ("r", "lora_alpha", "lora_dropout")},
        "base": str(config.pretrained_ckpt_path),
        "project": str(config.project),
        "data": config.data_dir or [str(path) for path in config.train_dataset.proto_files],
        "warm_start": config.ckpt_path,
        "device": device.as_dict(),
        "max_steps": int(config.trainer.max_steps),
    }
    start = start_weights(config, module, resume, settings)
    if start >= config.trainer.max_steps:
        more = f"{more_steps(start)} trains on, a new project name starts anew"
        log.info("project %s has reached step %d: training is done; %s", config.project, start, more)
        return 0
    trainer = build_trainer(config, device, data)
    record = run_dir / "training_configs" / f"from_step_{start:09d}.yaml"
    write_text(record, OmegaConf.to_yaml(config, resolve=True))
    if not config.train:
        log.info("train is false: nothing to do beside %s", record)
        return 0
    log.info("%s", data.coverage())
    return fit(trainer, module, data, resume, config)


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
    done = chosen[0].step == config.trainer.max_steps and config.reached_is_done
    if chosen[0].step >= config.trainer.max_steps and not done:
        raise UserError(
            f"project {config.project} has reached step {chosen[0].step} already",
            f"the run ends at trainer.max_steps={config.trainer.max_steps}",
            f"ask for more steps with {more_steps(chosen[0].step)}, or use a new project name",
        )
    return chosen[0].path


def more_steps(reached: int) -> str:
    """How to ask for a later end, of finetune_tts.py and of the stages."""
    return f"--max-steps {reached + 100} (of a stage: trainer.max_steps={reached + 100})"


def warm_start_of(path: Path) -> str | None:
    """The checkpoint of another run that the run of `path` began with, if any."""
    return record_of(read_file(path)).get("warm_start")


def record_of(content: Any) -> Mapping[str, Any]:
    """What a checkpoint says of its run; nothing if another tool made it."""
    record = content.get("fish_speech") if isinstance(content, Mapping) else None
    return record if isinstance(record, Mapping) else {}


def limit_epochs(config: DictConfig, data: Any) -> None:
    """Turn max_epochs into a number of steps, if that is fewer than trainer.max_steps."""
    if config.max_epochs is None:
        return
    batches = sum(data.batches_per_epoch(epoch) for epoch in range(config.max_epochs))
    steps = -(-batches // config.trainer.accumulate_grad_batches)
    log.info("%d epochs are %d batches, %d steps", config.max_epochs, batches, steps)
    config.trainer.max_steps = min(config.trainer.max_steps, steps)


def choose_packing(config: DictConfig, device: DeviceChoice) -> None:
    """Settle data.pack_length: without CUDA shorter samples, so that a step takes seconds, not minutes."""
    if config.data.pack_length is None:
        config.data.pack_length = config.max_length if device.device == "cuda" else min(1024, config.max_length)
        log.info("clips are packed into samples of up to %d tokens", config.data.pack_length)


def build_model(config: DictConfig, device: DeviceChoice) -> DualAR:
    """Load the model as `config.model.model` says, on the CPU; Lightning moves it."""
    options: dict[str, Any] = OmegaConf.to_container(config.model.model, resolve=True)  # type: ignore[assignment]
    load = get_method(options.pop("_target_"))
    model = load(
        **{"lora" if name == "lora_config" else name: v for name, v in options.items()},
        dtype=device.dtype,
        seed=config.seed,
    )
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    log.info("model %s: %.1f M weights, %.2f M of them trained", options["folder"], total / 1e6, trainable / 1e6)
    return model


def build_data(config: DictConfig, model: DualAR) -> Any:
    """Make the data module; raise UserError if the packed data is missing."""
    for path in config.train_dataset.proto_files:
        if not Path(path).exists():
            raise UserError(
                f"there is no packed data at {path}",
                "training reads the shards that build_dataset makes",
                f"python -m fish_speech.build_dataset --input training_data/NAME --output {path} --text-extension .lab",
            )
    options: dict[str, Any] = OmegaConf.to_container(config.data, resolve=True)  # type: ignore[assignment]
    kind = get_class(options.pop("_target_"))
    options.pop("tokenizer", None)
    data = kind(
        **options,
        tokenizer=model.tokenizer,
        num_codebooks=model.config.num_codebooks,
        codebook_size=model.config.codebook_size,
    )
    data.setup("fit")
    return data


def build_module(config: DictConfig, model: DualAR, device: DeviceChoice, longest: int) -> TextToSemantic:
    """Wrap the model with its optimizer and schedule, in training mode; `longest`: tokens of the longest sample."""
    options: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    if device.device != "cuda" or config.attention_dropout is not None:
        rate = config.attention_dropout or 0.0
        if rate != model.config.dropout:
            log.info("attention dropout %g instead of the model's %g", rate, model.config.dropout)
        model.set_dropout(rate)
    parts = {name: instantiate(config.model[name]) for name in ("optimizer", "lr_scheduler")}
    plain = {name: value for name, value in options.items() if name not in ("_target_", "model", *parts)}
    module = get_class(options["_target_"])(model=model, **parts, **plain)
    if module.gradient_checkpointing is None:
        tokens = config.data.batch_size * longest
        model.recompute_activations, reason = choose_recompute(model.config, tokens, device.device)
        log.info("activations are %s: %s", "recomputed" if model.recompute_activations else "kept", reason)
    return module.train()


def settings_of(config: DictConfig, data: Any) -> dict[str, Any]:
    """What must stay the same for a resumed run to equal one that never stopped."""
    lora = config.model.model.lora_config
    base = weights_path(Path(config.pretrained_ckpt_path))
    return {
        "seed": config.seed,
        "batch size": config.data.batch_size,
        "gradient accumulation": config.trainer.accumulate_grad_batches,
        "max_length": config.max_length,
        "pack_length": config.data.pack_length,
        "learning rate": float(config.model.optimizer.lr),
        "warm-up steps": config.model.lr_scheduler.lr_lambda.get("num_warmup_steps"),
        "held-out share": config.data.val_share,
        "LoRA": None if lora is None else f"r {lora.r}, alpha {lora.lora_alpha}, dropout {lora.lora_dropout}",
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
    changed = [
        f"{k}: {before[k]} then, {settings[k]} now" for k in settings if k in before and before[k] != settings[k]
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
        record = record_of(content)
        before = record.get("settings", {})
        refuse_changed(resume, before, settings, "a new project name with this checkpoint as its start")
        step = int(content["global_step"])
        if step < config.trainer.max_steps:
            log.info("continuing this project exactly from %s (step %d)", resume, step)
            tell_of_new_end(config, record.get("max_steps"), step)
        return step
    if module.has_lora:
        check_fresh_adapters(module.model)
    if config.ckpt_path is not None:
        path = newest_of(Path(config.ckpt_path))
        if module.has_lora:
            load_adapter(module.model, path)
        else:
            tensors = read_state_dict(path)
            check_names({n: tuple(t.shape) for n, t in module.model.state_dict().items()}, tensors, path, "this model")
            module.model.load_state_dict(tensors)
        log.info("warm start: weights from %s, step 0, learning rate %s", path, config.model.optimizer.lr)
    else:
        log.info("new run from %s", config.pretrained_ckpt_path)
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


def build_trainer(config: DictConfig, device: DeviceChoice, data: Any) -> L.Trainer:
    """Make Lightning's Trainer with our callbacks, loggers and checkpoint files."""
    options: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    kind, strategy = get_class(options.pop("_target_")), options.pop("strategy")
    options["accelerator"] = options["accelerator"] or device.lightning_accelerator
    options["precision"] = device.lightning_precision
    if not data.has_validation:
        options["limit_val_batches"] = 0
    if options["devices"] not in (1, "1", [0]) or options["num_nodes"] != 1:
        backend = strategy.get("process_group_backend")
        strategy["process_group_backend"] = backend or (
            "nccl" if device.device == "cuda" and sys.platform == "linux" else "gloo"
        )
        options["strategy"] = get_class(strategy.pop("_target_"))(**strategy)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    return kind(
        **options,
        callbacks=[instantiate(part) for part in config.callbacks.values()],
        logger=[instantiate(part) for part in config.logger.values()],
        plugins=[AtomicCheckpointIO()],
    )


def fit(trainer: L.Trainer, module: L.LightningModule, data: Any, resume: Path | None, config: DictConfig) -> int:
    """Train, from checkpoint `resume` on if there is one; return the exit code."""
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(resume) if resume else None)
    except SystemExit:  # Lightning's answer to KeyboardInterrupt and to SIGTERM before the first step
        raise KeyboardInterrupt from None
    return finish(trainer, config)


def finish(trainer: L.Trainer, config: DictConfig) -> int:
    """Say where the run ended, in its first process; 130 if it was stopped before its last step."""
    stopped = any(isinstance(callback, StopGracefully) and callback.stopped for callback in trainer.callbacks)  # type: ignore[attr-defined]
    saved = list_checkpoints(Path(config.paths.ckpt_dir))
    where = saved[-1].path if saved else "nowhere"
    if stopped and trainer.global_step < config.trainer.max_steps:
        if trainer.is_global_zero:
            log.info("stopped at step %d, saved in %s; the same command continues", trainer.global_step, where)
        return INTERRUPTED
    if trainer.is_global_zero:
        sys.stdout.write(f"trained to step {trainer.global_step}: {where}\n")
    return 0
