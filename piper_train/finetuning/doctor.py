"""Look whether this machine can train a Piper voice: the check behind `finetune_tts.py --engine piper --doctor`.

`python -m piper_train.finetuning.doctor REQUEST FIRST` is the process that does the looking; see fish_speech.doctor.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from importlib import metadata

from fish_speech.doctor import accelerator, machine, packages, programs, report, room
from fish_speech.doctor.checks import Check
from fish_speech.doctor.child import look
from fish_speech.doctor.findings import Finding, describe
from fish_speech.doctor.install import install_program, requirements
from fish_speech.doctor.optional import Part, look_at_part
from fish_speech.doctor.supervise import supervised
from fish_speech.errors import UserError
from fish_speech.extras import how_to_install, missing

log = logging.getLogger("piper_train.finetuning.doctor")

_TORCH = ("torch",)
_NEEDED = ("lightning", "numpy", "soundfile", "soxr", "librosa", "silero-vad", "onnxruntime", "tensorboard")
_TRAINING = (  # of the extra piper
    Part("jsonargparse", "jsonargparse", "the command line of training", "piper"),
    Part("numba", "numba", "alignment of text and sound in training", "piper"),
    Part("onnx", "onnx", "exporting the voice", "piper"),
)
_SAID = {"en-us": "Hello there.", "ru": "Привет."}


def main(device: str = "auto") -> int:
    """Print what is found to stdout; return 0 if nothing is wrong, else 1."""
    log.info("looking at this machine; half a minute")
    command = [sys.executable, "-m", "piper_train.finetuning.doctor", json.dumps({"device": device})]
    findings = supervised(command)
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write((report(findings) + "\n").encode(encoding, "backslashreplace").decode(encoding))
    return int(any(finding.state == "wrong" for finding in findings))


def checks_for(device: str) -> list[Check]:
    """The checks in the order of the report. Makes a list only: nothing is looked at yet."""
    needed = {name: specifier for name, specifier in requirements().items() if name in _NEEDED}
    return [
        Check("python", machine.look_at_python),
        Check("system", machine.look_at_system),
        Check("memory", machine.look_at_memory),
        Check("torch", accelerator.look_at_torch),
        Check("cuda", partial(accelerator.look_at_cuda, device), needs=_TORCH),
        Check("device", partial(accelerator.look_at_device, device), needs=_TORCH),
        Check("packages", partial(packages.look_at_missing, needed)),
        *(
            Check(f"package {name}", partial(packages.look_at_package, name, needed[name]), needs=("packaging",))
            for name in needed
        ),
        *(Check(part.package, partial(look_at_training_part, part)) for part in _TRAINING),
        *(Check(f"phonemes {voice}", partial(look_at_phonemes, voice)) for voice in _SAID),
        Check("piper-tts", look_at_client),
        Check("espeak-ng", look_at_reader),
        Check("ffmpeg", programs.look_at_ffmpeg),
        Check("folders", room.look_at_folders),
    ]


def look_at_training_part(part: Part) -> Iterator[Finding]:
    """A package of the extra piper; without it nothing is trained."""
    if missing(part.module):
        yield Finding(part.package, "wrong", f"not installed; for {part.purpose}", how_to_install(part.extra))
    else:
        yield from look_at_part(part)


def look_at_phonemes(voice: str) -> Iterator[Finding]:
    """Make phonemes of two words, and say what made them."""
    from ..phonemes.phonemizer import open_phonemizer

    name = f"phonemes {voice}"
    with open_phonemizer(espeak_voice=voice) as phonemizer:
        made = phonemizer.sentences(_SAID[voice])
        if not made or not made[0]:
            yield Finding(
                name, "wrong", f"{phonemizer.source} makes none of {_SAID[voice]!r}", how_to_install("piper-espeak")
            )
        elif phonemizer.exact:
            yield Finding(name, "good", f"{phonemizer.source}: {''.join(made[0])}")
        else:
            found = f"{phonemizer.source}, which differs here and there from what the Piper client says"
            yield Finding(name, "note", found, f"{how_to_install('piper-espeak')} (GPL-3.0-or-later)")


def look_at_client() -> Iterator[Finding]:
    """The Piper client, by its record alone: it is GPL and never imported."""
    try:
        version = metadata.version("piper-tts")
    except metadata.PackageNotFoundError:
        found = "not installed; speaks voices as their users do, and makes phonemes exactly as they do"
        yield Finding("piper-tts", "note", found, f"{how_to_install('piper-espeak')} (GPL-3.0-or-later)")
        return
    yield Finding("piper-tts", "good", version)


def look_at_reader() -> Iterator[Finding]:
    """What can read a test data set."""
    from ..quick_start import VOICE, settle

    try:
        request = settle(1, VOICE)
        yield Finding("espeak-ng", "good", f"{request.version}; reads test data sets")
    except (UserError, OSError) as error:
        words = error.what if isinstance(error, UserError) else describe(error)
        found = f"{words}; for a test data set" + (" (flite reads English)" if shutil.which("flite") else "")
        yield Finding("espeak-ng", "note", found, install_program("espeak-ng"))


def child() -> None:
    """Run the checks from FIRST on, and say in JSON lines which begins and what each found."""
    request, first = json.loads(sys.argv[1]), int(sys.argv[2])
    look(lambda: checks_for(request["device"]), first, request["device"])


if __name__ == "__main__":
    child()
