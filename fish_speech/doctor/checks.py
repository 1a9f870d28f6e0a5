"""All checks, in the order of the report: first what the later ones stand on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from . import accelerator, decoders, machine, optional, packages, programs, room, weights
from .findings import Finding, guarded
from .install import requirements

_TORCH, _NUMPY, _SOUND = ("torch",), ("numpy",), ("numpy", "soundfile")
SOON_S, LATE_S = (
    180.0,
    1200.0,
)  # the first import of torch takes minutes on some machines; hashing on a network disk too


@dataclass(frozen=True)
class Check:
    """One thing to look at, and how long that may take before it counts as hanging."""

    name: str
    look: Callable[[], Iterable[Finding]]
    limit_s: float = SOON_S
    needs: tuple[str, ...] = ()  # modules whose absence is said once, by a check of their own

    def run(self) -> list[Finding]:
        """What it finds; an error becomes a finding."""
        for module in self.needs:
            try:
                importlib.import_module(module)
            except (Exception, SystemExit):
                return [Finding(self.name, "note", f"not checked: the package {module} cannot be imported")]
        return guarded(self.name, self.look)


def checks_for(model_version: str, device: str = "auto", base: Path | None = None) -> list[Check]:
    """The checks of one request. Makes a list only: nothing is looked at yet."""
    model = weights.Base.of(model_version, base)
    needed = {name: specifier for name, specifier in requirements().items() if name != "torch"}
    return [
        Check("python", machine.look_at_python),
        Check("system", machine.look_at_system),
        Check("memory", machine.look_at_memory),
        Check("torch", accelerator.look_at_torch),
        Check("cuda", partial(accelerator.look_at_cuda, device), needs=_TORCH),
        Check("mps", accelerator.look_at_mps, needs=_TORCH),
        Check("device", partial(accelerator.look_at_device, device), needs=_TORCH),
        Check("packages", partial(packages.look_at_missing, needed)),
        *(
            Check(f"package {name}", partial(packages.look_at_package, name, needed[name]), needs=("packaging",))
            for name in needed
        ),
        Check("ffmpeg", programs.look_at_ffmpeg),
        *(
            Check(f"decoding {kind.name}", partial(decoders.look_at_decoder, kind), needs=_SOUND)
            for kind in decoders.KINDS
        ),
        Check("folders", room.look_at_folders),
        Check("disk", partial(room.look_at_disk, model), needs=_TORCH),
        Check("weights", partial(weights.look_at_files, model), LATE_S),
        Check("model", partial(weights.look_at_model, model), LATE_S, needs=_TORCH),
        Check("codec", partial(weights.look_at_codec, model), LATE_S, needs=_TORCH),
        Check("memory for a run", partial(room.look_at_memory_of_a_run, model, device), needs=_TORCH),
        Check("whisper weights", optional.look_at_whisper, LATE_S, needs=_NUMPY),
        *(Check(part.package, partial(optional.look_at_part, part)) for part in optional.PARTS),
        Check("faster-whisper weights", optional.look_at_faster_whisper_weights, needs=_NUMPY),
        Check("download of recordings", optional.look_at_downloads, needs=_NUMPY),
    ]
