"""One training run from a resolved config: build, check, resume or warm-start, fit, and leave a record."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import get_class, get_method, instantiate
from omegaconf import DictConfig, OmegaConf

from ..checkpoint import list_checkpoints
from ..datasets.datamodule import FRAME_RATE, SemanticDataModule
from ..device import DeviceChoice
from ..errors import INTERRUPTED, UserError
from ..files import write_text
from ..models import DualAR
from ..only_run import only_run
from ..out_of_memory import is_out_of_memory
from ..ranks import is_first_process
from .callbacks import AtomicCheckpointIO, StopGracefully
from .coverage import CoverageMeter
from .memory import choose_micro_batch
from .module import TextToSemantic
from .preflight import PlanIsMade, Preflight
from .sharded import ShardedTextToSemantic
from .starting import ended_early, find_resume, lora_of, more_steps, set_aside_later, settings_of, start_weights
from .strategies import make_strategy

log = logging.getLogger(__name__)


def run(config: DictConfig, device: DeviceChoice) -> int:
    """Train as `config` says; return the exit code. Raises UserError for what the user can mend."""
    log.info("%s", device)
    if config.dry_run:
        return _run(config, device)
    with only_run(Path(config.paths.run_dir)):
        return _run(config, device)


def _run(config: DictConfig, device: DeviceChoice) -> int:
    run_dir = Path(config.paths.run_dir)
    torch.manual_seed(config.seed)
    if device.device == "cuda":
        torch.set_float32_matmul_precision(config.float32_matmul)
    choose_packing(config, device)
    resume = find_resume(config)
    model = build_model(config, device)
    data = build_data(config, model)
    asked = config.trainer.max_steps
    limit_epochs(config, data)
    module = build_module(config, model, device, max(data.pack_length, *data.train_lengths.values()))
    settings = {} if config.expected_data else settings_of(config, data)
    lora = lora_of(config)
    module.run_info = {
        "settings": settings,
        "lora": None if lora is None else {**asdict(lora), "target_modules": list(lora.target_modules)},
        "family": model.config.family,
        "base": str(config.pretrained_ckpt_path),
        "project": str(config.project),
        "data": config.data_dir or [str(path) for path in config.train_dataset.proto_files],
        "warm_start": config.ckpt_path,
        "device": device.as_dict(),
        "max_steps": int(config.trainer.max_steps),
    }
    start = start_weights(config, module, resume, settings)
    if resume is not None and ended_early(config, resume):
        log.info("project %s stopped early, at step %d: training is done", config.project, start)
        return 0
    if start >= config.trainer.max_steps:
        more = f"{more_steps(start)} trains" if config.trainer.max_steps == asked else "more epochs (max_epochs) train"
        done = "project %s has reached step %d: training is done; %s on, a new project name starts anew"
        log.info(done, config.project, start, more)
        return 0
    if config.dry_run:
        return dry_run(
            build_trainer(config, device, data, callbacks=[Preflight(config, device, start, stop=True)]), module, data
        )
    trainer = build_trainer(config, device, data)
    record = run_dir / "training_configs" / f"from_step_{start:09d}.yaml"
    write_text(record, OmegaConf.to_yaml(config, resolve=True))
    if not config.train:
        log.info("train is false: nothing to do beside %s", record)
        return 0
    if resume is not None and is_first_process():
        set_aside_later(Path(config.paths.ckpt_dir), start)
    log.info("%s", data.coverage())
    return fit(trainer, module, data, resume, config)


def limit_epochs(config: DictConfig, data: Any) -> None:
    """Turn max_epochs into a number of steps, if that is fewer than trainer.max_steps."""
    if config.max_epochs is None:
        return
    steps = sum(data.batches_per_epoch(epoch) for epoch in range(config.max_epochs))
    log.info("%d epochs are %d steps", config.max_epochs, steps)
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
        if not Path(path).exists() and not config.expected_data:
            raise UserError(
                f"there is no packed data at {path}",
                "training reads the shards that build_dataset makes",
                f"python -m fish_speech.build_dataset --input training_data/NAME --output {path} --text-extension .lab",
            )
    options: dict[str, Any] = OmegaConf.to_container(config.data, resolve=True)  # type: ignore[assignment]
    kind = get_class(options.pop("_target_"))
    options.pop("tokenizer", None)
    samples = options.pop("batch_size")
    if config.expected_data:
        from ..datasets.expected import expected_clips

        rate = options.get("frame_rate") or FRAME_RATE
        options["clips"], options["estimated"] = expected_clips(
            Path(config.expected_data), model.config.num_codebooks, rate
        )
    data = kind(
        **options,
        batch_size=samples * config.trainer.accumulate_grad_batches,
        processes=process_count(config),
        tokenizer=model.tokenizer,
        num_codebooks=model.config.num_codebooks,
        codebook_size=model.config.codebook_sizes,
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
    samples, clip_norm = config.data.batch_size, config.trainer.gradient_clip_val
    kind = ShardedTextToSemantic if config.get("strategy") == "fsdp" else get_class(options["_target_"])
    module = kind(
        model=model, **parts, **plain, micro_batch=samples, clip_norm=None if clip_norm is None else float(clip_norm)
    )
    if module.gradient_checkpointing is None:
        module.micro_batch, model.recompute_activations, reason = choose_micro_batch(
            model.config, samples, longest, device.device
        )
        kept = "recomputed" if model.recompute_activations else "kept"
        split = f", {module.micro_batch} of {samples} samples at once" if module.micro_batch < samples else ""
        log.info("activations are %s%s: %s", kept, split, reason)
    return module.train()


def process_count(config: DictConfig) -> int:
    """How many processes will train together."""
    devices = config.trainer.devices
    count = len(devices) if not isinstance(devices, int | str) else int(devices) if devices != "auto" else -1
    return (count if count > 0 else max(1, torch.cuda.device_count())) * config.trainer.num_nodes


def build_trainer(
    config: DictConfig, device: DeviceChoice, data: Any, callbacks: list[L.Callback] | None = None
) -> L.Trainer:
    """Make Lightning's Trainer with the config's callbacks, loggers and checkpoint files; with `callbacks` those alone."""
    options: dict[str, Any] = OmegaConf.to_container(config.trainer, resolve=True)  # type: ignore[assignment]
    kind, strategy = get_class(options.pop("_target_")), options.pop("strategy")
    options["accelerator"] = options["accelerator"] or device.lightning_accelerator
    options["precision"] = device.lightning_precision
    for ours in ("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm"):  # the module does it
        options.pop(ours, None)
    if not data.has_validation:
        options["limit_val_batches"] = 0
    devices = process_count(config) // config.trainer.num_nodes
    chosen = make_strategy(config.get("strategy", "ddp"), strategy, device, devices, config.trainer.num_nodes)
    if chosen is not None:
        options["strategy"] = chosen
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*use `self.log.*sync_dist=True.*")  # they are equal in all processes
    if callbacks is not None:
        return kind(**options, callbacks=callbacks, logger=False, enable_checkpointing=False)
    own = [CoverageMeter(), Preflight(config, device)] if isinstance(data, SemanticDataModule) else []
    return kind(
        **options,
        callbacks=[*own, *(instantiate(part) for part in config.callbacks.values())],
        logger=[instantiate(part) for part in config.logger.values()],
        plugins=[AtomicCheckpointIO()],
    )


def dry_run(trainer: L.Trainer, module: L.LightningModule, data: Any) -> int:
    """Go as far as the plan and stop; nothing is written."""
    with contextlib.suppress(PlanIsMade):
        trainer.fit(module, datamodule=data)
    return 0


def fit(trainer: L.Trainer, module: L.LightningModule, data: Any, resume: Path | None, config: DictConfig) -> int:
    """Train, from checkpoint `resume` on if there is one; return the exit code."""
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(resume) if resume else None)
    except SystemExit:  # Lightning's answer to KeyboardInterrupt and to SIGTERM before the first step
        raise KeyboardInterrupt from None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(
            f"memory ran out at step {trainer.global_step}, outside the samples that can be split",
            str(error).split("\n")[0][:200],
            "close other programs, or use a smaller --max-length or --lora-config; the same command continues",
        ) from error
    return finish(trainer, config)


def finish(trainer: L.Trainer, config: DictConfig) -> int:
    """Say where the run ended, in its first process; 130 if it was stopped before its last step."""
    stopped = any(isinstance(callback, StopGracefully) and callback.stopped for callback in trainer.callbacks)  # type: ignore[attr-defined]
    saved = {checkpoint.step: checkpoint.path for checkpoint in list_checkpoints(Path(config.paths.ckpt_dir))}
    where = saved.get(trainer.global_step, "nowhere")  # not the newest: a run may have gone on from an earlier step
    if stopped and trainer.global_step < config.trainer.max_steps:
        if trainer.is_global_zero:
            log.info("stopped at step %d, saved in %s; the same command continues", trainer.global_step, where)
        return INTERRUPTED
    if trainer.is_global_zero:
        sys.stdout.write(f"trained to step {trainer.global_step}: {where}\n")
    return 0
