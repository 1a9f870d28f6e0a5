"""One codec training from a resolved config: build, resume or start, fit, export."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from ..checkpoint import read_file, run_record
from ..device import DeviceChoice
from ..errors import UserError
from ..files import write_text
from ..models.codec import Codec
from ..models.codec_loading import (
    DEFAULT_CODEC,
    FIREFLY,
    architecture_of,
    codec_config,
    load_codec,
    make_codec_config,
)
from ..models.firefly import FireflyCodec, FireflyConfig
from ..only_run import only_run
from .codec_data import CodecDataModule
from .codec_module import CodecTraining, new_codec
from .run import build_trainer, fit
from .starting import find_resume, refuse_changed, tell_of_new_end

log = logging.getLogger(__name__)


def run(config: DictConfig, device: DeviceChoice) -> int:
    """Train as `config` says; return the exit code. Raises UserError for what the user can mend."""
    log.info("%s", device)
    with only_run(Path(config.paths.run_dir)):
        return _run(config, device)


def _run(config: DictConfig, device: DeviceChoice) -> int:
    run_dir = Path(config.paths.run_dir)
    if device.device == "cuda":
        torch.set_float32_matmul_precision(config.float32_matmul)
    resume = find_resume(config)
    codec = build_codec(config, load=resume is None)
    data = build_data(config, codec)
    module = build_module(config, codec)
    settings = settings_of(config, codec, data)
    module.run_info = {
        "settings": settings,
        "project": str(config.project),
        "max_steps": config.trainer.max_steps,
        "device": device.as_dict(),
    }
    start = 0
    if resume is not None:
        start = check_resume(resume, settings, config)
        if start >= config.trainer.max_steps:
            log.info("project %s has reached step %d: training is done", config.project, start)
            return 0
        log.info("continuing this project exactly from %s (step %d)", resume, start)
    trainer = build_trainer(config, device, data)
    warnings.filterwarnings("ignore", message=".*ModelCheckpoint with manual optimization.*")  # saved behind each step
    warnings.filterwarnings("ignore", message=".*module.s. in eval mode at the start.*")  # a frozen encoder
    record = run_dir / "training_configs" / f"from_step_{start:09d}.yaml"
    write_text(record, OmegaConf.to_yaml(config, resolve=True))
    log.info("%s", data.describe())
    return fit(trainer, module, data, resume, config)


def build_codec(config: DictConfig, load: bool) -> FireflyCodec:
    """Make the codec: weights of config.pretrained_ckpt_path if `load` and there is one, else new ones."""
    path = config.pretrained_ckpt_path
    if config.new_head and not (path and config.codec_config):
        raise UserError(
            "new_head needs pretrained_ckpt_path and codec_config",
            "all but the head comes from the one, the head's shape from the other",
            "add both, or leave new_head out",
        )
    if path is not None and load and config.new_head:
        codec = with_new_head(trainable(load_codec(path), path), shape_of(config), config.seed)
        log.info("weights from %s, but for the head, which is new", path)
    elif path is not None and load:
        codec = trainable(load_codec(path, shape_of(config)), path)
        log.info("weights from %s", path)
    else:
        codec = new_codec(shape_of(config), config.seed)
        if load:
            log.info("new weights, training from scratch")
    total = sum(p.numel() for p in codec.parameters())
    log.info(
        "codec: %.1f M weights, %d Hz, %g frames/s of %d codes",
        total / 1e6, codec.sample_rate, codec.frame_rate, codec.codebooks,
    )  # fmt: skip
    return codec.requires_grad_(True).train()


def trainable(codec: Codec, path: str) -> FireflyCodec:
    """The codec, if it is of the architecture whose losses and discriminators are here."""
    if not isinstance(codec, FireflyCodec):
        raise _not_trained(path, architecture_of(codec.config).name)
    return codec


def _not_trained(source: object, architecture: str) -> UserError:
    return UserError(
        f"the codec {source} cannot be trained here",
        f"its architecture is {architecture}; {FIREFLY.name} codecs alone are trained by this toolkit",
        "use it as it is: fine-tuning a voice trains the text-to-semantic model alone",
    )


def with_new_head(old: FireflyCodec, shape: FireflyConfig, seed: int) -> FireflyCodec:
    """Put a new head of `shape` behind everything else of `old`; codes and latents stay what they are."""
    ours, theirs = shape.to_mapping(), old.config.to_mapping()
    other = [part for part in ours if part != "head" and ours[part] != theirs[part]]
    if other:
        raise UserError(
            "the new head does not fit the codec",
            f"the shapes of {', '.join(other)} differ too",
            "change the head only",
        )
    codec = new_codec(shape, seed)
    kept = {name: tensor for name, tensor in old.state_dict().items() if not name.startswith("head.")}
    codec.load_state_dict(kept, strict=False)  # the head is left out on purpose; the other shapes are equal, see above
    return codec


def shape_of(config: DictConfig) -> FireflyConfig:
    """The codec's shape: the one that is named, else the yaml beside the weights to start from, else the released one."""
    path = config.pretrained_ckpt_path
    beside = Path(path).with_suffix(".yaml") if path else None
    name = config.codec_config or (beside if beside is not None and beside.is_file() else DEFAULT_CODEC)
    shape = make_codec_config(codec_config(str(name)), name)
    if not isinstance(shape, FireflyConfig):
        raise _not_trained(path or name, architecture_of(shape).name)
    return shape


def build_data(config: DictConfig, codec: FireflyCodec) -> CodecDataModule:
    """Make the data module at the codec's sample rate."""
    options: dict[str, Any] = OmegaConf.to_container(config.data, resolve=True)  # type: ignore[assignment]
    kind = get_class(options.pop("_target_"))
    return kind(**options, sample_rate=codec.sample_rate, samples_per_frame=codec.samples_per_frame)


def build_module(config: DictConfig, codec: FireflyCodec) -> CodecTraining:
    """Wrap codec and discriminators with losses, optimizers and schedules."""
    torch.manual_seed(config.seed + 1)
    parts = {
        name: instantiate(config.model[name]) for name in ("discriminators", "stft_loss", "optimizer", "lr_scheduler")
    }
    mel_loss = instantiate(config.model.mel_loss, sample_rate=codec.sample_rate)
    options: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    plain = {name: value for name, value in options.items() if name not in ("_target_", "mel_loss", *parts)}
    return get_class(options["_target_"])(generator=codec, mel_loss=mel_loss, **parts, **plain).train()


def settings_of(config: DictConfig, codec: FireflyCodec, data: CodecDataModule) -> dict[str, Any]:
    """What must stay the same for a resumed run to equal one that never stopped."""
    losses = ("weights", "mel_loss", "stft_loss", "discriminators")
    return {
        "seed": config.seed,
        "shape": _digest(codec.config.to_mapping()),
        "data": _digest(data.fingerprint()),
        "batch size": config.data.batch_size,
        "segment": float(config.data.segment_seconds),
        "gain": [float(value) for value in config.data.gain_db],
        "learning rate": float(config.model.optimizer.lr),
        "losses": _digest(OmegaConf.to_container(OmegaConf.masked_copy(config.model, list(losses)), resolve=True)),
        "ema_decay": float(config.model.ema_decay),
        "gradient_clip": float(config.model.gradient_clip),
        "freeze_encoder": bool(config.model.freeze_encoder),
        "adversarial_from": config.model.adversarial_from,
        "precision": str(config.trainer.precision),
    }


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def check_resume(path: Path, settings: dict[str, Any], config: DictConfig) -> int:
    """Return the step of the checkpoint; raise UserError if it was made with other settings."""
    content = read_file(path)
    record, step = run_record(content), int(content["global_step"])
    refuse_changed(
        path, record.get("settings", {}), settings, "a new project with pretrained_ckpt_path=RUN/codec/codec.pth"
    )
    tell_of_new_end(config, record.get("max_steps"), step)
    return step
