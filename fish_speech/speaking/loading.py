"""Load what speaks: the model folder or a checkpoint, its codec, and the cache of what it said before."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..device import choose_device
from ..errors import UserError
from ..versions import CONFIG_FILE, DEFAULT_VERSION, TOKENIZER_FILE, VERSIONS, config_of_codec, named_codec

if TYPE_CHECKING:
    from ..device import DeviceChoice
    from ..models import Codec
    from ..synthesis.cache import TokenCache
    from ..synthesis.speak import Speaker

log = logging.getLogger(__name__)

QUANTIZATIONS = ("none", "int8")


@dataclass(frozen=True)
class VoiceSettings:
    """Which weights speak, and where and how they compute."""

    model_version: str = DEFAULT_VERSION
    model_path: Path | None = None  # None: the model version's folder, downloaded if needed
    checkpoint: Path | None = None  # a step_N.ckpt, used without merging
    codec: Path | None = None  # None: the one in the model folder
    device: str = "auto"
    force_mps: bool = False
    precision: str = "fp32"
    quantize: str = "none"  # of QUANTIZATIONS
    offline: bool = False


@dataclass(frozen=True)
class LoadedVoice:
    """A speaker, and where its weights came from."""

    speaker: Speaker
    folder: Path  # of the model


def model_folder(settings: VoiceSettings) -> Path:
    """The model folder: the one named, or the version's, downloaded if needed. Raises UserError where there is none."""
    if settings.model_path:
        check_folder(settings.model_path)
        return settings.model_path
    from ..hub import ensure_version

    return ensure_version(VERSIONS[settings.model_version], offline=settings.offline)


def check_folder(folder: Path) -> None:
    """Raise UserError if the model folder that the user names is not there."""
    if not folder.is_dir():
        raise UserError(f"there is no model folder {folder}", "it does not exist, or is a file",
                        "check the path of --model-path")  # fmt: skip


def codec_path(settings: VoiceSettings, folder: Path) -> Path:
    """The codec weights: the file named, those that voice.json names, or the version's in the folder or in its own."""
    if settings.codec:
        return settings.codec
    version = VERSIONS[settings.model_version]
    found = named_codec(folder) or version.codec_in(folder)
    if found is not None:
        return found
    raise UserError(
        f"{folder} has no codec", f"expected {version.codec_file} there or in {version.folder}", "add --codec FILE"
    )


def codec_settings(settings: VoiceSettings, codec: Path) -> dict:
    """The shape of the codec whose weights are in `codec`."""
    from ..models import codec_config

    return codec_config(config_of_codec(codec, settings.model_version))


def load_codec_alone(settings: VoiceSettings) -> Codec:
    """Load only the codec, to encode a reference with."""
    device = choose_device(settings.device, "synthesis", settings.force_mps)
    from ..models import load_codec

    path = codec_path(settings, model_folder(settings))
    return load_codec(path, codec_settings(settings, path), device.device)


def load_voice(settings: VoiceSettings, open_cache: Callable[[], TokenCache] | None = None) -> LoadedVoice:
    """Load model and codec, once. With `open_cache`, the speaker looks there before it generates, and keeps what it did.

    For MPS, `allow_mps_fallback` must have been called before torch was imported: the scripts do so at their start.
    """
    device = _device(settings)
    folder = model_folder(settings)
    codec = codec_path(settings, folder)
    log.info("%s%s", device, f", {settings.quantize} weights" if settings.quantize != "none" else "")
    from ..synthesis.loading import load_speaker

    speaker = load_speaker(
        folder,
        codec,
        codec_settings(settings, codec),
        settings.checkpoint,
        device.device,
        device.dtype,
        int8=settings.quantize == "int8",
    )
    if open_cache is not None:
        speaker.remember(open_cache(), tokens_identity(settings, folder))
    return LoadedVoice(speaker, folder)


def tokens_identity(settings: VoiceSettings, folder: Path) -> str:
    """What decides the tokens beside the request: the weights, by their hash, and the arithmetic."""
    import torch

    from ..models.loading import weights_path
    from ..synthesis.weights_identity import weights_identity

    device = _device(settings)
    weights = [weights_path(folder), folder / CONFIG_FILE, folder / TOKENIZER_FILE]
    weights += [path for name in VERSIONS[settings.model_version].optional_files if (path := folder / name).is_file()]
    known = weights_identity([*weights, *([settings.checkpoint] if settings.checkpoint else [])])
    name = torch.cuda.get_device_name() if device.device == "cuda" else ""  # kernels differ from GPU to GPU
    return (
        f"{__version__} {known} {device.device} {name} {device.precision} {settings.quantize} torch {torch.__version__}"
    )


def voice_identity(settings: VoiceSettings, folder: Path) -> str:
    """What decides the sound beside the request: tokens_identity and the codec."""
    from ..synthesis.weights_identity import weights_identity

    return f"{tokens_identity(settings, folder)} {weights_identity([codec_path(settings, folder)])}"


def _device(settings: VoiceSettings) -> DeviceChoice:
    return choose_device(settings.device, "synthesis", settings.force_mps, settings.precision)
