"""A test data set that is made at once: sentences read by the voices of the programs espeak-ng or flite.

  python -m piper_train.quick_start --output training_data/quick-start --clips 200 --espeak-voice ru

Writes metadata.csv and wavs/, as any data set for Piper. The same request makes the same files, and what is there is
kept. A voice trained on it shows that everything works; a good voice needs recordings of a person, or --teacher."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import subprocess
import sys
import wave
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fish_speech import arguments as flags
from fish_speech.errors import DONE, UserError, run
from fish_speech.files import atomic_path, remove_leftovers, write_json, write_text
from fish_speech.log import progress, setup

from .phonemes.voices import close_matches
from .quick_start_texts import MOST, language_of, sentences

log = logging.getLogger("piper_train.quick_start")  # not __name__: that is __main__ when it is run

METADATA, WAVS, RECORD = "metadata.csv", "wavs", "quick_start.json"
CLIPS, VOICE, SEED = 200, "ru", 42
PROGRAMS = ("espeak-ng", "flite")
_LIMIT_S = 60.0  # for one sentence, which takes milliseconds: a program that hangs
# Of espeak-ng, variants of a voice; the empty one is the voice as it is.
_SPEAKERS = {
    "espeak-ng": ("", "+f2", "+m3", "+f4", "+m7", "+f5", "+m1", "+f1"),
    "flite": ("slt", "rms", "awb", "kal16"),
}


@dataclass(frozen=True)
class QuickStart:
    """What decides every byte of the data set."""

    clips: int = CLIPS
    espeak_voice: str = VOICE
    speakers: int = 1
    seed: int = SEED
    program: str = "espeak-ng"
    version: str = ""  # as the program says it


@dataclass(frozen=True)
class Clip:
    """A sentence and who reads it into which file."""

    file: str  # in wavs/
    speaker: str
    text: str


def settle(
    clips: int, espeak_voice: str, speakers: int = 1, seed: int = SEED, program: str | None = None
) -> QuickStart:
    """Choose the program, and check the request. Raises UserError where no program here can read it."""
    program = program or _program_for(espeak_voice)
    path = shutil.which(program)
    if path is None:
        raise UserError(f"the program {program} is not here", "it reads the sentences", how_to_get(program))
    if speakers > len(_SPEAKERS[program]):
        have = len(_SPEAKERS[program])
        raise UserError(f"--speakers {speakers} is too many", f"{program} has {have} here", f"--speakers {have}")
    if clips < speakers:
        raise UserError(f"--clips {clips} is too few", f"{speakers} speakers read one each", f"--clips {speakers}")
    if program == "espeak-ng":
        _check_voice(path, espeak_voice)
    elif language_of(espeak_voice) != "en":
        raise UserError(
            f"flite cannot read --espeak-voice {espeak_voice}", "it speaks English", how_to_get("espeak-ng")
        )
    return QuickStart(clips, espeak_voice, speakers, seed, program, _version(path))


def _program_for(espeak_voice: str) -> str:
    if shutil.which("espeak-ng"):
        return "espeak-ng"
    if shutil.which("flite") and language_of(espeak_voice) == "en":
        return "flite"
    raise UserError(
        f"no program here reads sentences for --espeak-voice {espeak_voice}",
        "a test data set is made by espeak-ng, or in English by flite, and neither was found",
        f"{how_to_get('espeak-ng')}; or train on recordings: --data-dir FOLDER",
    )


def how_to_get(program: str) -> str:
    """The command that installs a program on this system."""
    from fish_speech.doctor.install import install_program

    return install_program(program)


def _version(path: str) -> str:
    lines = _output([path, "--version"]).splitlines()
    named = next((line for line in lines if "version" in line.lower()), lines[0] if lines else "")
    return re.sub(r"\s+Data at:.*|\s+http.*", "", named.strip())[:100]


def _check_voice(path: str, espeak_voice: str) -> None:
    """Raise UserError for a voice that espeak-ng does not have, with those that look like it."""
    if re.fullmatch(r"[A-Za-z0-9+_-]{1,60}", espeak_voice) and not espeak_voice.startswith("-"):
        found = subprocess.run(
            [path, "-q", "-v", espeak_voice, "--stdin"], input=b"a", capture_output=True, timeout=_LIMIT_S
        )
        if found.returncode == 0:
            return
    known = [line.split()[1] for line in _output([path, "--voices"]).splitlines()[1:] if len(line.split()) > 1]
    near = close_matches(espeak_voice, known) or known[:5]
    raise UserError(
        f"espeak-ng has no voice {espeak_voice!r}",
        f"near to it are {', '.join(near)}",
        "choose one; espeak-ng --voices lists all",
    )


def _output(command: Sequence[str]) -> str:
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_S)
    return result.stdout.decode("utf-8", "replace")


def clips_of(request: QuickStart) -> list[Clip]:
    """The clips of a request; several speakers take turns."""
    voices = _SPEAKERS[request.program][: request.speakers]
    texts = sentences(request.espeak_voice, request.clips, request.seed)
    return [
        Clip(f"{number:04d}.wav", voices[number % len(voices)].lstrip("+") or "plain", text)
        for number, text in enumerate(texts)
    ]


def make(request: QuickStart, folder: Path) -> float:
    """Make what of the data set is not there yet; return its seconds. Raises UserError for a folder of something else."""
    _refuse_other(request, folder)
    wavs = folder / WAVS
    wavs.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    write_json(folder / RECORD, asdict(request))
    clips = clips_of(request)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        lengths = pool.map(lambda clip: _make_clip(request, clip, wavs / clip.file), clips)
        seconds = sum(progress(lengths, "reading sentences", len(clips), "clip"))
    rows = ([clip.file, clip.speaker, clip.text] if request.speakers > 1 else [clip.file, clip.text] for clip in clips)
    write_text(folder / METADATA, "".join("|".join(row) + "\n" for row in rows))
    return seconds


def recorded(folder: Path) -> dict[str, object] | None:
    """What a folder of ours was made from; None if it is no such folder."""
    import json

    try:
        value = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def is_whole(request: QuickStart, folder: Path) -> bool:
    """Whether the data set of a request lies in `folder`: metadata.csv is written last."""
    return recorded(folder) == asdict(request) and (folder / METADATA).is_file()


def _refuse_other(request: QuickStart, folder: Path) -> None:
    there = recorded(folder)
    if there is None and folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{folder} holds something else",
            "a test data set gets a folder of its own",
            "choose another folder: --output, with finetune_tts.py --project",
        )
    if there is not None and there != asdict(request):
        known = asdict(request)
        other = ", ".join(
            f"{key} {there.get(key)!r}, not {known[key]!r}" for key in known if there.get(key) != known[key]
        )
        raise UserError(
            f"{folder} is another test data set",
            f"it was made with {other}",
            "delete it, or choose another folder: --output, with finetune_tts.py --project",
        )


def _make_clip(request: QuickStart, clip: Clip, path: Path) -> float:
    """Let the program read one sentence into `path`, unless it is there; return its seconds."""
    if not path.is_file():
        with atomic_path(path) as temporary:
            result = _read_aloud(request, clip, temporary)
            if result.returncode or not temporary.is_file():
                said = result.stderr.decode("utf-8", "replace").strip()[-300:]
                raise UserError(
                    f"{request.program} could not read {clip.text!r}",
                    said or f"it ended with exit code {result.returncode}",
                    f"try it by hand: {request.program} --version; or train on recordings: --data-dir FOLDER",
                )
            _seconds(temporary)
    return _seconds(path)


def _read_aloud(request: QuickStart, clip: Clip, path: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the program. No sentence is an argument, so that none can look like a flag."""
    options: dict[str, Any] = {"capture_output": True, "timeout": _LIMIT_S}
    if request.program == "espeak-ng":
        variant = "" if clip.speaker == "plain" else f"+{clip.speaker}"
        command = ["espeak-ng", "-v", f"{request.espeak_voice}{variant}", "-b", "1", "--stdin", "-w", str(path)]
        return subprocess.run(command, input=clip.text.encode(), **options)
    words = path.with_name(f"{path.name}.txt")  # flite reads no stdin on Windows
    try:
        words.write_text(clip.text, encoding="utf-8")
        command = ["flite", "-voice", clip.speaker, "-f", str(words), "-o", str(path)]
        return subprocess.run(command, stdin=subprocess.DEVNULL, **options)
    finally:
        words.unlink(missing_ok=True)


def _seconds(path: Path) -> float:
    """The length of a wav file of 16-bit samples. Raises UserError for any other, or one without sound."""
    try:
        with wave.open(str(path)) as sound:
            whole = sound.getsampwidth() == 2 and sound.getnframes() > 0
            return sound.getnframes() / sound.getframerate() if whole else _refuse_sound(path, "it holds no sound")
    except (wave.Error, EOFError) as error:
        return _refuse_sound(path, str(error))


def _refuse_sound(path: Path, why: str) -> float:
    raise UserError(f"{path} is no 16-bit wav file", why, "delete it and run the same command again")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its help imports nothing heavy."""
    parser = flags.make_parser("python -m piper_train.quick_start", __doc__)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument("--clips", type=flags.positive_int, default=CLIPS, metavar="N",
                        help=f"sentences, up to {MOST} (default: {CLIPS})")  # fmt: skip
    parser.add_argument("--espeak-voice", default=VOICE, metavar="NAME",
                        help=f"espeak-ng's voice: en-us, ru, de, ... (default: {VOICE})")  # fmt: skip
    parser.add_argument("--speakers", type=flags.positive_int, default=1, metavar="N",
                        help="voices that take turns (default: 1)")  # fmt: skip
    parser.add_argument("--program", choices=PROGRAMS, help="what reads (default: espeak-ng; in English, else flite)")
    flags.add_seed(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, then make the data set."""
    options = make_parser().parse_args(argv)
    setup()
    if options.clips > MOST:
        raise UserError(f"--clips {options.clips} is too many", f"there are {MOST} sentences", f"--clips {MOST}")
    request = settle(options.clips, options.espeak_voice, options.speakers, options.seed, options.program)
    seconds = make(request, options.output)
    voices = f" in {request.speakers} voices" if request.speakers > 1 else ""
    log.info("%d clips%s, %.1f s, read by %s", request.clips, voices, seconds, request.version or request.program)
    sys.stdout.write(f"{options.output / METADATA}\n")
    return DONE


if __name__ == "__main__":
    run(main)
