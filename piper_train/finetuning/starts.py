"""Where training starts, which checkpoint becomes the voice, and which there are."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fish_speech.errors import UserError

from .places import Places

if TYPE_CHECKING:
    from ..checkpoints import PiperCheckpoint

LAST = "last.ckpt"
_NAME = re.compile(r"epoch=(\d+)-val_mel=(\d+\.\d+)\.ckpt")


@dataclass(frozen=True)
class Start:
    """Where a training starts: fresh (`path` None), exactly where the project was, or with another voice's weights."""

    path: Path | None = None
    continues: bool = False
    checkpoint: PiperCheckpoint | None = None

    @property
    def epochs_done(self) -> int:
        """Epochs that count as trained; another voice's do not."""
        return self.checkpoint.epochs_done if self.continues and self.checkpoint else 0

    def arguments(self) -> list[str]:
        """What `fit` is told."""
        if self.path is None:
            return []
        return ["--ckpt_path" if self.continues else "--model.warmstart_ckpt", str(self.path)]

    def __str__(self) -> str:
        if self.path is None:
            return "new weights, epoch 0"
        if self.continues:
            return f"goes on exactly from {self.path}, {self.epochs_done} epochs done"
        return f"warm start: the weights of {self.path}, epoch 0"


def last_checkpoint(places: Places) -> Path | None:
    """The project's newest last.ckpt; None before its first."""
    found = [path for path in places.results.glob(f"lightning_logs/version_*/checkpoints/{LAST}") if path.is_file()]
    return max(found, key=lambda path: (path.stat().st_mtime_ns, _version(path)), default=None)


def _version(path: Path) -> int:
    number = path.parent.parent.name.rpartition("_")[2]
    return int(number) if number.isdigit() else -1


def is_own(path: Path, places: Places) -> bool:
    """Whether a checkpoint lies in the project's folder."""
    return path.resolve().is_relative_to(places.results.resolve())


def settle_start(options: argparse.Namespace, places: Places) -> Start:
    """Find where training starts. Raises UserError for a checkpoint that is missing, broken, or of another run."""
    from ..checkpoints import read_checkpoint

    last, given = last_checkpoint(places), options.checkpoint
    if given is None:
        return Start() if last is None else Start(last, True, read_checkpoint(last))
    if not given.is_file():
        raise UserError(
            f"there is no checkpoint {given}",
            "it is a folder" if given.is_dir() else "the path does not exist",
            "python finetune_tts.py --engine piper --project NAME --list-checkpoints shows what there is",
        )
    if is_own(given, places):
        return Start(given, True, read_checkpoint(given))
    if last is None:
        return Start(given, False, read_checkpoint(given))
    if read_record(places).get("warm_start") == str(given.resolve()):
        return Start(last, True, read_checkpoint(last))  # the same command again
    raise UserError(
        f"project {places.project} has checkpoints already, so it cannot start from {given}",
        f"{last} is continued when the project is trained again",
        "use a new --project for the warm start, or leave --checkpoint out to continue this project",
    )


def refuse_reached(start: Start, options: argparse.Namespace, places: Places) -> None:
    """Raise UserError where no epoch is left to train."""
    done = start.epochs_done
    if start.continues and done >= options.max_epochs:
        raise UserError(
            f"project {places.project} has trained {done} epochs already",
            f"--max-epochs {options.max_epochs} counts all epochs of a project; {start.path}",
            f"ask for more with --max-epochs {done + 100}, use --export for the voice, or a new --project",
        )


def to_export(options: argparse.Namespace, places: Places) -> Path:
    """The checkpoint that becomes the voice: --checkpoint, else the project's last."""
    if options.checkpoint is not None and (options.export and not options.train and not options.full_pipeline):
        if not options.checkpoint.is_file():
            raise UserError(
                f"there is no checkpoint {options.checkpoint}", "the path does not exist", "check --checkpoint"
            )
        return Path(options.checkpoint)
    last = last_checkpoint(places)
    if last is None:
        raise UserError(
            f"project {places.project} has no checkpoint to export",
            f"{places.results} has no lightning_logs/version_N/checkpoints/{LAST}",
            "train first, or name one with --checkpoint",
        )
    return last


def is_exported(places: Places, checkpoint: Path) -> bool:
    """Whether the voice was made of a checkpoint, or of a newer one."""
    voice = places.voice
    there = voice.is_file() and voice.with_name(f"{voice.name}.json").is_file()
    return there and voice.stat().st_mtime_ns >= checkpoint.stat().st_mtime_ns


def read_record(places: Places) -> Mapping[str, Any]:
    """What the project was started from; {} if nothing says it."""
    try:
        value = json.loads(places.record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def listing(places: Places) -> list[str]:
    """The project's checkpoints as lines, oldest run first, and which stand out. Raises UserError for none."""
    found = sorted(
        places.results.glob("lightning_logs/version_*/checkpoints/*.ckpt"),
        key=lambda path: (_version(path), path.stat().st_mtime_ns, path.name == LAST),
    )
    if not found:
        raise UserError(
            f"project {places.project} has no checkpoints",
            f"{places.results} has no lightning_logs/version_N/checkpoints/*.ckpt",
            "train it first",
        )
    lines = [f"Available checkpoints for project '{places.project}':", *map(_described, found)]
    last = last_checkpoint(places)
    if last is not None:
        lines.append(f"Latest: {last}")
    scored = {path: float(match[2]) for path in found if (match := _NAME.fullmatch(path.name))}
    if scored:
        best = min(scored, key=lambda path: scored[path])
        lines.append(f"Best by val_mel: {best} ({scored[best]:.4f})")
    if places.voice.is_file():
        lines.append(f"Voice: {places.voice}")
    return lines


def _described(path: Path) -> str:
    there = path.stat()
    when = datetime.fromtimestamp(there.st_mtime).strftime("%Y-%m-%d %H:%M")
    return f"{path}  {there.st_size / 1e6:.0f} MB  {when}"
