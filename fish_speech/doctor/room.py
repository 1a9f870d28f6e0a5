"""Room for a run: free disk and memory against what this model takes, and folders that can be written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..configs import read_lora
from ..errors import UserError
from ..system_memory import memory
from ..versions import FISH, S1
from .findings import Finding
from .weights import Base

GB = 1e9
CHECKPOINTS_KEPT = 7  # the newest five, the best, and the one that is being written
_OPTIMIZER_BYTES = 12  # per weight that is trained, in a checkpoint: itself and AdamW's two moments, in float32
_PROGRAM_BYTES = 1_000_000_000  # Python with torch and Lightning, and the activations of a few hundred tokens
# By family: weights, those that LoRA trains, bytes of the folder, all of the family's largest version. They count until
# a config.json says how large the model is.
_USUAL = {FISH: (638_000_000, 6_200_000, 1_500_000_000), S1: (860_200_000, 8_100_000, 3_600_000_000)}


@dataclass(frozen=True)
class Needs:
    """What a run of one model takes, in bytes; at least, since batches add to memory."""

    download: int  # base weights that are not there yet
    merged: int  # the folder that merging writes
    checkpoints: int  # that are kept
    memory: int  # of the device: weights, gradients and optimizer


def needs_of(base: Base) -> Needs:
    """Count the model's weights by its config; a model that is not there is taken for its family's largest."""
    present = [path.stat().st_size for path in base.files if path.is_file()]
    complete = len(present) == len(base.files)
    folder = sum(present) if complete else max(_USUAL[base.version.family][2], sum(present))
    fetched = base.is_own and bool(base.version.hub_id)
    weights, trained = count_weights(base)
    return Needs(
        download=folder - sum(present) if fetched else 0,
        merged=folder,
        checkpoints=CHECKPOINTS_KEPT * trained * _OPTIMIZER_BYTES,
        memory=_PROGRAM_BYTES + 4 * weights + 12 * trained,  # float32, gradients and two moments
    )


def count_weights(base: Base) -> tuple[int, int]:
    """How many weights the model has, and how many the version's recipe trains."""
    from ..models import DualAR, LoraConfig, install_lora, read_config
    from ..models.lora import is_lora_name
    from ..models.shapes import shapes_only

    try:
        config = read_config(base.folder)
    except UserError:  # missing or damaged: the checks of the weights say so
        return _USUAL[base.version.family][:2]
    with shapes_only():
        model = DualAR(config, 0)
        total = sum(parameter.numel() for parameter in model.parameters())
        lora = base.version.recipe.lora_config
        if lora == "none":
            return total, total
        install_lora(model, LoraConfig(**read_lora(lora)))
    return total, sum(parameter.numel() for name, parameter in model.named_parameters() if is_lora_name(name))


def look_at_memory_of_a_run(base: Base, request: str) -> Iterator[Finding]:
    """Whether weights, gradients and optimizer fit where a training would run."""
    from ..device import choose_device

    try:
        device = choose_device(request, "training").device
    except UserError:
        return  # accelerator.look_at_device says so
    if device == "cuda":
        import torch

        free: int | None = torch.cuda.mem_get_info()[0]
    else:
        free = memory()[1]
    needed = needs_of(base).memory
    found = f"training takes at least {needed / GB:.1f} GB on {device}, longer samples more"
    if free is None:
        yield Finding("memory for a run", "note", f"{found}; this system does not say how much is free")
    elif free < needed:
        fix = "close other programs, or use a machine with more; a smaller --batch-size does not make the model smaller"
        yield Finding("memory for a run", "wrong", f"{found}, and {free / GB:.1f} GB are free", fix)
    elif free < 2 * needed:
        fix = "if memory runs out: a smaller --batch-size or --max-length"
        yield Finding("memory for a run", "note", f"{found}, and only {free / GB:.1f} GB are free", fix)
    else:
        yield Finding("memory for a run", "good", f"{found}, and {free / GB:.1f} GB are free")


def look_at_folders() -> Iterator[Finding]:
    """Write a real file where results, checkpoints and temporary files go."""
    for target in (Path("results"), Path("checkpoints")):
        folder = nearest(target)
        yield look_at_folder(f"folder {target}", folder, f"work in a folder that you may write to, or mend {folder}")
    temporary = Path(tempfile.gettempdir())
    variable = "TEMP" if os.name == "nt" else "TMPDIR"
    asked = os.environ.get(variable)
    if asked and Path(asked).absolute() != temporary.absolute():  # Python takes another one without a word
        found = f"{variable} is {asked}, which cannot be written; {temporary} is used"
        yield Finding("temporary folder", "note", found, f"set {variable} to a folder that can be written")
    finding = look_at_folder("temporary folder", temporary, f"set {variable} to a folder that can be written")
    free = shutil.disk_usage(temporary).free
    if finding.state == "good" and free < GB:
        fix = f"free some space, or set {variable} to a folder on another disk"
        yield Finding(finding.name, "note", f"only {free / GB:.1f} GB are free in {temporary}", fix)
    else:
        yield finding


def nearest(path: Path) -> Path:
    """`path`, or the first folder above it that is there."""
    path = path.absolute()
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def look_at_folder(name: str, folder: Path, fix: str) -> Finding:
    """Write a file into a folder, read it back, and remove it."""
    content = os.urandom(1 << 16)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor-", delete=True) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            if file.read() != content:
                return Finding(name, "wrong", f"what is written to {folder} comes back changed", "test the disk")
    except OSError as error:
        return Finding(name, "wrong", f"cannot write to {folder}: {error.strerror or error}", fix)
    return Finding(name, "good", f"{folder} can be written")


def look_at_disk(base: Base) -> Iterator[Finding]:
    """Free space on the disks of results/ and checkpoints/ against what a run writes there."""
    needs = needs_of(base)
    parts = {"results": [("checkpoints of the training", needs.checkpoints)],
             "checkpoints": [("the merged voice", needs.merged)]}  # fmt: skip
    if needs.download:
        parts["checkpoints"].append(("base weights to download", needs.download))
    disks: dict[int, list[str]] = {}
    for name in parts:
        disks.setdefault(nearest(Path(name)).stat().st_dev, []).append(name)
    for names in disks.values():
        wanted = [part for name in names for part in parts[name]]
        total, free = sum(size for _, size in wanted), shutil.disk_usage(nearest(Path(names[0]))).free
        listed = ", ".join(f"{what} {size / GB:.2f}" for what, size in wanted)
        found = f"{free / GB:.1f} GB free for {' and '.join(names)}; a run takes about {total / GB:.2f} GB ({listed})"
        fix = "free some space, or work in a folder on another disk"
        yield Finding("disk", "good" if free > total else "wrong", found, "" if free > total else fix)
