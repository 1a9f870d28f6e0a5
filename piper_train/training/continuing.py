"""What `--ckpt_path` means: which options a checkpoint brings, and whether there is anything left to train."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from fish_speech.errors import UserError

from ..checkpoints import PiperCheckpoint
from ..models.config import VitsConfig
from .options import make_config
from .warm_start import describe

LOGS = "lightning_logs"  # folder of a project's runs; without a log, checkpoints lie beside it
STARTS = ("warmstart_ckpt", "vocoder_warmstart_ckpt")
_FROM_DATA = ("batch_size", "num_symbols")  # model.* options that data.* sets
_VOICE = {field.name for field in fields(VitsConfig)}
# What a start with foreign weights may choose anew.
_FREE_OF_FOREIGN = {"num_speakers", "gin_channels", "p_dropout", "segment_size", "mel_fmin", "mel_fmax", "num_symbols"}


def options_of(checkpoint: PiperCheckpoint) -> dict[str, Any]:
    """`model.*` options that a run from this checkpoint has where nobody says otherwise.

    Of another trainer's only the architecture counts.
    """
    stored = checkpoint.model_config().to_mapping()
    if checkpoint.is_own:
        return {**checkpoint.hyper_parameters, **stored}
    if stored["gin_channels"] == 512:
        stored["gin_channels"] = 0  # follows from the number of speakers, which may be chosen
    return stored


def defaults_of(stored: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """The options of `options_of` as new defaults of the command line, by their full names, as far as they are `known`."""
    ours = set(known) - {*_FROM_DATA, *STARTS}
    defaults = {f"model.{name}": value for name, value in stored.items() if name in ours}
    return {**defaults, "data.num_symbols": stored["num_symbols"]}


def refuse_changes(checkpoint: PiperCheckpoint, stored: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """Raise UserError where `chosen`, the run's `model.*` options, are not the checkpoint's, as far as they must be."""
    run = make_config(chosen)
    ours, theirs = {**chosen, **run.to_mapping()}, {**stored, **make_config(stored).to_mapping()}
    compared = set(theirs) & set(ours) - {"batch_size", *STARTS} if checkpoint.is_own else _VOICE - _FREE_OF_FOREIGN
    other = [
        f"model.{name}: {_plain(theirs[name])} there, {_plain(ours[name])} here"
        for name in sorted(compared)
        if _plain(theirs[name]) != _plain(ours[name])
    ]
    if not other:
        return
    voices = describe(checkpoint.model_config()), describe(run)
    named = f": it is {voices[0]}, this run {voices[1]}" if voices[0] != voices[1] else ""
    anew = ", or start anew from its weights with --model.warmstart_ckpt" if checkpoint.is_own else ""
    raise UserError(
        f"{checkpoint.path} was made with other options{named}",
        "; ".join(other),
        f"leave these options out to go on with the checkpoint's{anew}",
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def refuse_reached(checkpoint: PiperCheckpoint, trainer: Mapping[str, Any]) -> None:
    """Raise UserError where a run from the checkpoint has nothing left to do."""
    epochs, steps = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    done = checkpoint.epochs_done
    if epochs is not None and 0 <= epochs <= done:
        raise UserError(
            f"{checkpoint.path} has {done} epochs behind it, and --trainer.max_epochs is {epochs}",
            "max_epochs counts all epochs of a voice, those before the checkpoint included",
            f"use --trainer.max_epochs {done + 1} or more",
        )
    if steps is not None and 0 < steps <= checkpoint.global_step:
        raise UserError(
            f"{checkpoint.path} has {checkpoint.global_step} steps behind it, and --trainer.max_steps is {steps}",
            "max_steps counts all steps, two for each batch: one of the generator, one of the discriminators",
            f"use --trainer.max_steps {checkpoint.global_step + 2} or more",
        )


def newest_checkpoint(trainer: Mapping[str, Any]) -> Path:
    """The newest last.ckpt of the runs in this folder, for `--ckpt_path last`. Raises UserError where there is none."""
    folder = Path(trainer.get("default_root_dir") or Path.cwd())
    patterns = (f"{LOGS}/version_*/checkpoints/last.ckpt", "checkpoints/last.ckpt")
    found = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    if not found:
        raise UserError(
            f"there is no checkpoint in {folder / LOGS}",
            "--ckpt_path last means the newest version_N/checkpoints/last.ckpt there",
            "name the checkpoint, or leave --ckpt_path out to start a voice",
        )
    return max(found, key=lambda path: path.stat().st_mtime)
