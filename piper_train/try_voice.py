"""Try an exported voice: it says a sentence in its language, by the Piper client where that is installed.

  python -m piper_train.try_voice
  python -m piper_train.try_voice --model checkpoints/anna-piper/anna.onnx "Good morning."

Without --model it takes the newest voice in checkpoints/*-piper, checkpoints and the current folder. The client
(python -m piper) is what most users of a voice run, so that this is the last test before it is given away."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fish_speech.arguments import make_parser
from fish_speech.errors import DONE, FAILED, UserError, run, terminate_like_interrupt
from fish_speech.files import TEMPORARY_PREFIX, atomic_path
from fish_speech.log import setup
from fish_speech.speaking.file_sink import FileSink
from fish_speech.speaking.texts import check_text

from .speech.sentences import sentence_for
from .speech.session import config_path
from .speech.speakers import speaker_id
from .voice_config import VoiceConfig

log = logging.getLogger("piper_train.try_voice")  # not __name__: that is __main__ when this is run

FOLDER = Path("output")
_PLACES = ("checkpoints/*-piper/*.onnx", "checkpoints/*.onnx", "*.onnx")
_SILENT_DB = -60.0


class ClientFailed(Exception):
    """The Piper client ended with an error; the message has its last words."""


def newest_voice(folder: Path = Path()) -> Path:
    """The voice with a config beside it that was exported last, below `folder`. Raises UserError if there is none."""
    found = [path for place in _PLACES for path in folder.glob(place) if config_path(path).is_file()]
    voices = [path for path in found if not path.name.startswith(TEMPORARY_PREFIX)]
    if not voices:
        raise UserError(
            "there is no exported voice here",
            f"looked for {', '.join(_PLACES)}, each with its .onnx.json",
            "name one with --model, or export one: python -m piper_train.export_onnx --checkpoint X.ckpt --output-file X.onnx",
        )
    return max(voices, key=lambda path: (path.stat().st_mtime_ns, path.name))


def client_version() -> str | None:
    """The version of the Piper client, if it is installed. Does not import it: it is GPL, and runs as a program."""
    try:
        return importlib.metadata.version("piper-tts")
    except importlib.metadata.PackageNotFoundError:
        return None


def speak_by_client(model: Path, text: str, output: Path, speaker: int | None) -> None:
    """Let `python -m piper` speak into `output`, a .wav. Raises ClientFailed."""
    with atomic_path(output) as temporary:
        command = [sys.executable, "-m", "piper", "-m", str(model.resolve()), "-f", str(temporary.resolve())]
        ended = subprocess.run(
            command if speaker is None else [*command, "-s", str(speaker)],
            input=" ".join(text.split()) + "\n",  # the client takes each line for a text of its own
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONUTF8": "1"},
        )
        if ended.returncode:
            said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise ClientFailed(f"the Piper client failed with exit code {ended.returncode}: {said}")


def speak_by_ourselves(model: Path, text: str, output: Path, speaker: int | None) -> None:
    """Speak into `output`, a .wav, as cli_tts.py does. Raises UserError."""
    from fish_speech.synthesis.effects import Effects

    from .speech.say import speak_into
    from .speech.voice import Manner, OnnxVoice

    with OnnxVoice.load(model) as voice:
        voice.check(Manner(speaker))
        with FileSink(output, voice.sample_rate) as sink:
            speak_into(sink, voice, text, Manner(speaker), Effects())


def describe(path: Path) -> tuple[str, float]:
    """Seconds, rate and level of a sound file in words, and its level in dB of full scale."""
    import soundfile

    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    level = 10 * float(np.log10(np.mean(np.square(sound), dtype=np.float64) + 1e-20)) if len(sound) else -200.0
    return f"{len(sound) / rate:.2f} s at {rate} Hz, level {level:.1f} dBFS", level


def next_free(model: Path) -> Path:
    """A name in output/ that nobody has yet."""
    names = (FOLDER / f"{model.stem}_{number:03d}.wav" for number in range(1, 1_000_000))
    return next(path for path in names if not path.exists())


def _text_for(config: VoiceConfig, text: str | None) -> str:
    """What to say: `text`, or a sentence in the voice's language. Raises UserError."""
    if text is not None:
        check_text(text)
        return text
    if config.phoneme_type != "espeak":
        why = f"it takes phonemes of the type {config.phoneme_type}, in which we know no sentence"
        raise UserError("the voice needs a text", why, 'python -m piper_train.try_voice "..."')
    return sentence_for(config.espeak_voice)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, find, speak and tell."""
    parser = make_parser("python -m piper_train.try_voice", __doc__)
    parser.add_argument("text", nargs="?", help="what to say (default: a sentence in the voice's language)")
    parser.add_argument("--model", type=Path, metavar="VOICE.onnx", help="the voice (default: the newest)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.wav", help="(default: output/VOICE_NNN.wav)")
    parser.add_argument("--speaker", metavar="N|NAME", help="which of its speakers (default: the first)")
    parser.add_argument("--without-client", action="store_true", help="speak as cli_tts.py does even if "
                        "the Piper client is installed")  # fmt: skip
    options = parser.parse_args(argv)
    setup()
    terminate_like_interrupt()
    model = options.model or newest_voice()
    output = options.output or next_free(model)
    if output.suffix.lower() != ".wav" or output.is_dir():
        raise UserError(f"cannot write {output}", "the voice is tried into a WAV file", "use -o FILE.wav")
    from .speech.voice import read_config

    config = read_config(model)
    text = _text_for(config, options.text)
    speaker = speaker_id(config, options.speaker, model)
    version = None if options.without_client else client_version()
    log.info("%s says: %s", model, text)
    try:
        if version is None:
            speak_by_ourselves(model, text, output, speaker)
        else:
            speak_by_client(model, text, output, speaker)
    except ClientFailed as failed:
        log.error("%s", failed)
        return FAILED
    told, level = describe(output)
    by = "cli_tts.py's way" if version is None else f"piper-tts {version}"
    sys.stdout.write(f"{output}: {told}, spoken by {by}\n")
    if level < _SILENT_DB:
        log.error("this is silence: train longer, or look at the recordings it was trained on")
        return FAILED
    return DONE


if __name__ == "__main__":
    run(main)
