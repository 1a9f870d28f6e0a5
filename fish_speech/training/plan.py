"""What a run comes to before it runs: data, epochs, memory, time, disk, and what of it is outside the safe ranges."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint import list_checkpoints
from ..device import DeviceChoice
from ..versions import VERSIONS, ModelVersion, settle_version
from .memory import activation_bytes, free_bytes
from .plan_text import render
from .plan_warnings import warnings_of
from .starting import lora_of

if TYPE_CHECKING:
    from ..datasets.datamodule import SemanticDataModule
    from ..models import DualAR, LoraConfig
    from .probe import Probe

__all__ = ["RunPlan", "plan_run", "render", "warnings_of"]

_KEPT = 5  # newest checkpoints, where the config does not say


@dataclass(frozen=True)
class RunPlan:
    """The figures of a run. Bytes, seconds and tokens are of one process unless the name says more."""

    project: str
    version: ModelVersion
    estimated: str | None  # how the data was guessed; None: it is packed

    clips: int  # trained on
    speakers: int
    seconds: float
    tokens: int  # of an epoch, all processes
    held_out: int
    held_out_seconds: float

    start: int  # the step that the run goes on from
    steps: int  # where it ends
    batch_size: int
    accumulation: int
    processes: int
    steps_per_epoch: int
    longest: int  # tokens of the longest sample
    learning_rate: float
    warmup_steps: int

    lora: LoraConfig | None  # None: all weights are trained
    weights: int  # of the model, adapters not counted
    trained: int
    checkpoint_bytes: int

    device: DeviceChoice
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    recompute: bool
    micro_batch: int  # samples computed together
    room_bytes: int | None  # that the run can have on the device; None: the system does not say
    peak_bytes: int | None  # as the probe measured it

    step_s: float | None  # None without a probe
    validation_s: float | None
    validations: int

    kept: int  # checkpoints
    merged_bytes: int
    there_bytes: int  # of this run's checkpoints that exist already
    free_disk_bytes: int
    run_dir: Path

    @property
    def epochs(self) -> float:
        """Passes over the data from step 0 on."""
        return self.steps / self.steps_per_epoch

    @property
    def step_tokens(self) -> float:
        """Tokens of an average step, all processes."""
        return self.tokens / self.steps_per_epoch

    @property
    def held_out_share(self) -> float:
        """Of all clips."""
        return self.held_out / (self.held_out + self.clips)

    @property
    def memory_bytes(self) -> int:
        """Estimate of what the run takes on the device."""
        return self.weight_bytes + self.gradient_bytes + self.optimizer_bytes + self.activation_bytes

    @property
    def total_s(self) -> float | None:
        """Time from `start` to the end; None without a probe."""
        if self.step_s is None:
            return None
        return (self.steps - self.start) * self.step_s + self.validations * (self.validation_s or 0.0)

    @property
    def disk_bytes(self) -> int:
        """What the run and the merging after it still write and keep."""
        checkpoints = (self.kept + 1) * self.checkpoint_bytes  # a new one is written before an old one is removed
        return max(0, checkpoints - self.there_bytes) + self.merged_bytes


def plan_run(
    config: Any,
    data: SemanticDataModule,
    model: DualAR,
    device: DeviceChoice,
    probe: Probe | None,
    start: int = 0,
    estimated: str | None = None,
) -> RunPlan:
    """Work out the plan of a composed config, with its data set up and its model loaded; `probe` is a step as measured.

    start: the step that the run goes on from; estimated: how the data was guessed, see datasets.expected
    """
    assert data.dataset is not None
    clips = data.dataset.clips
    accumulation = int(config.trainer.accumulate_grad_batches)
    processes = data.processes
    stream = data.stream()
    steps_per_epoch = stream.batches_in(0)
    longest = max(sum(data.train_lengths[clip] for clip in sample) for sample in stream.plan(0))
    tokens, steps = sum(data.train_lengths.values()), int(config.trainer.max_steps)

    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    trained_bytes = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    weight_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    lora = config.model.model.lora_config
    in_checkpoint = trained_bytes if lora is not None else weight_bytes
    shares = processes if config.get("strategy") == "fsdp" else 1
    recompute = probe.recompute if probe is not None else bool(model.recompute_activations)
    micro_batch = probe.micro_batch if probe is not None else int(config.data.batch_size)

    every = int(config.callbacks.model_checkpoint.every_n_train_steps)
    kept = int(config.callbacks.model_checkpoint.get("keep_newest") or _KEPT) + bool(data.held_out)
    run_dir, base = Path(config.paths.run_dir), Path(config.pretrained_ckpt_path)
    times = _times(config, data, probe, tokens / steps_per_epoch / processes, lora is not None, processes)
    return RunPlan(
        project=str(config.project),
        version=version_of(config),
        estimated=estimated,
        clips=len(data.train_lengths),
        speakers=len({clips.speakers[clip] for clip in data.train_lengths}),
        seconds=sum(map(clips.frames_of, data.train_lengths)) / data.frame_rate,
        tokens=tokens,
        held_out=len(data.held_out),
        held_out_seconds=sum(map(clips.frames_of, data.held_out)) / data.frame_rate,
        start=start,
        steps=steps,
        batch_size=int(config.data.batch_size),
        accumulation=accumulation,
        processes=processes,
        steps_per_epoch=steps_per_epoch,
        longest=longest,
        learning_rate=float(config.model.optimizer.lr),
        warmup_steps=int(config.model.lr_scheduler.lr_lambda.get("num_warmup_steps") or 0),
        lora=lora_of(config),
        weights=sum(p.numel() for p in model.parameters()) - (trained if lora is not None else 0),
        trained=trained,
        checkpoint_bytes=in_checkpoint + 2 * trained_bytes,  # and AdamW's two averages
        device=device,
        weight_bytes=weight_bytes // shares,
        gradient_bytes=trained_bytes // shares,
        optimizer_bytes=2 * trained_bytes // shares,
        activation_bytes=kept_bytes(model.config, micro_batch * longest, recompute),
        recompute=recompute,
        micro_batch=micro_batch,
        room_bytes=room_bytes(device.device, weight_bytes),
        peak_bytes=None if probe is None else probe.peak_bytes,
        step_s=times[0],
        validation_s=times[1],
        validations=(steps - start) // int(config.trainer.val_check_interval) if data.held_out else 0,
        kept=min(kept, max(1, -(-steps // every))),
        merged_bytes=sum(path.stat().st_size for path in base.iterdir() if path.is_file()) if base.is_dir() else 0,
        there_bytes=sum(checkpoint.size for checkpoint in list_checkpoints(Path(config.paths.ckpt_dir))),
        free_disk_bytes=shutil.disk_usage(existing_parent(run_dir)).free,
        run_dir=run_dir,
    )


def version_of(config: Any) -> ModelVersion:
    """The model version that finetune_tts.py noted in the config, else that of the base, else 1.5."""
    named = VERSIONS.get(str(config.get("model_version")))
    return named or settle_version(None, Path(config.pretrained_ckpt_path))


def _times(
    config: Any, data: SemanticDataModule, probe: Probe | None, step_tokens: float, has_lora: bool, processes: int
) -> tuple[float | None, float | None]:
    """Seconds of an average step and of a validation, from those of the probed one; tokens are of one process."""
    if probe is None or not probe.tokens:
        return None, None
    assert data.dataset is not None
    most = config.trainer.get("limit_val_batches", 1.0)
    own = data.held_out[::processes]
    heard = own[: most * data.batch_size] if isinstance(most, int) else own[: round(most * len(own))]
    tokens = sum(data.dataset.length_of(clip) for clip in heard)
    # Passes of a step: forward, again where activations are recomputed, gradients of activations, of weights.
    passes = 2 + probe.recompute + (not has_lora)
    per_token = probe.seconds / probe.tokens
    return per_token * step_tokens, per_token * tokens / passes


def kept_bytes(config: Any, tokens: int, recompute: bool) -> int:
    """What the backward pass of `tokens` positions keeps; recomputed, it is a block's input each and one block whole."""
    whole = activation_bytes(config, tokens)
    if not recompute:
        return whole
    inputs = config.n_layer * config.dim + config.num_codebooks * config.n_fast_layer * (config.fast_dim or config.dim)
    return min(whole, 4 * tokens * inputs + whole // max(1, config.n_layer))


def room_bytes(device: str, weight_bytes: int) -> int | None:
    """Memory of `device` that the run can have: what is free and what its model, or a probe before, holds already."""
    free = free_bytes(device)
    if free is None:
        return None
    if device == "cuda":
        import torch

        return free + torch.cuda.memory_reserved()
    return free + weight_bytes


def existing_parent(path: Path) -> Path:
    """The nearest folder above `path` that exists, itself included."""
    path = path.resolve()
    return next(folder for folder in (path, *path.parents) if folder.is_dir())
