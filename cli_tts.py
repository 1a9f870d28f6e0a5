"""Speak text with a base model, a merged voice, a checkpoint or a Piper voice: into a file, a player, a pipe or many files.

  python cli_tts.py "Hello there." --model-path checkpoints/my_voice-merged -o output/hello.wav
  python cli_tts.py --text-file chapter.txt --stream --voice anna
  python cli_tts.py --batch lines.jsonl -o output/lines
  python cli_tts.py "Hello there." --model-path checkpoints/anna-piper/anna.onnx

A merged voice brings a reference along, a clip that it imitates: it is used unless another one is given.
Exit code: 0 done; 1 something was not said, or not well (--verify); 2 wrong request; 130 interrupted."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from fish_speech import arguments as flags
from fish_speech.device import allow_mps_fallback
from fish_speech.errors import run, terminate_like_interrupt
from fish_speech.log import setup
from fish_speech.prepare import flags as prepare_flags
from fish_speech.speaking import options as speaking_flags
from fish_speech.speaking.request import check, task_of
from fish_speech.speaking.targets import FORMATS
from piper_train.speech import options as piper_flags


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its help imports nothing heavy."""
    parser = flags.make_parser("cli_tts.py", __doc__)
    parser.add_argument("text", nargs="?", help="what to say; - or nothing reads it from stdin")
    parser.add_argument("--text-file", type=Path, metavar="FILE", help="read the text from this UTF-8 file")
    parser.add_argument("--batch", type=Path, metavar="FILE",
                        help='JSON lines {"text": ..., "output": ...}, a sound file each in the folder -o; the same '
                        "command again goes on where it stopped")  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="FILE",
                        help=".wav or .flac; - is stdout (default: output/speech_NNN.wav)")  # fmt: skip
    add_giving_out(parser.add_argument_group("giving out"))
    speaking_flags.add_model(parser.add_argument_group("model"))
    voice = parser.add_argument_group("reference voice")
    speaking_flags.add_reference(voice)
    voice.add_argument("--list-voices", action="store_true", help="list the voices of --voices-dir, and stop")
    voice.add_argument("--create-reference", nargs=2, type=Path, metavar=("AUDIO", "OUT.npy"),
                       help="write codes and words of a recording, for --voice or --prompt-tokens, and stop; the words "
                       "are those of --prompt-text, of a text beside AUDIO, or what is heard")  # fmt: skip
    voice.add_argument("--overwrite", action="store_true", help="replace a reference, or the files of a batch")
    sound = parser.add_argument_group("sound")
    speaking_flags.add_effects(sound)
    speaking_flags.add_markers(sound)
    sampling = parser.add_argument_group("sampling")
    speaking_flags.add_sampling(sampling)
    sampling.add_argument("--num-samples", type=flags.positive_int, default=1, metavar="N",
                          help="versions to speak, with seeds that follow one another (default: 1)")  # fmt: skip
    piper_flags.add_piper(parser.add_argument_group("Piper voice (--model-path VOICE.onnx)"))
    add_verifying(parser.add_argument_group("checking"))
    cache = parser.add_argument_group("cache of what was said before")
    speaking_flags.add_cache(cache)
    cache.add_argument("--cache-info", action="store_true", help="say where it is and how large, and stop")
    cache.add_argument("--clear-cache", action="store_true", help="empty it, and stop")
    return parser


def add_giving_out(group: argparse._ActionsContainer) -> None:
    """Add where sound goes."""
    group.add_argument("--play", action="store_true", help="play what was written")
    group.add_argument("--stream", action="store_true",
                       help="give out sound while it is made: play it, and write -o too if that is given")  # fmt: skip
    group.add_argument("--format", choices=FORMATS,
                       help="of -o; raw is 16-bit little-endian mono samples alone (default: by its name, - wav)")  # fmt: skip


def add_verifying(group: argparse._ActionsContainer) -> None:
    """Add how speech is checked."""
    group.add_argument("--verify", action="store_true",
                       help="a recogniser hears each segment; what it does not find right is spoken anew")  # fmt: skip
    group.add_argument("--attempts", type=flags.positive_int, default=3, metavar="N",
                       help="how often a segment is spoken at most (default: 3)")  # fmt: skip
    prepare_flags.add_recogniser(group)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and check, then look or speak."""
    argv = sys.argv[1:] if argv is None else argv
    options = make_parser().parse_args(argv)
    setup()
    print_anything()
    task, given = task_of(options), flags.given_flags(argv)
    check(task, options, given)
    piper_voice = piper_flags.piper_voice(options.model_path)
    piper_flags.check(piper_voice, given)
    if piper_voice is not None:
        return say_with_piper(task, options, piper_voice)
    allow_mps_fallback(options.device, options.force_mps)  # before anything loads torch, as a checkpoint does
    if task in ("speak", "batch", "create reference"):
        speaking_flags.settle_model(options)
    terminate_like_interrupt()
    from fish_speech.speaking import tasks
    from fish_speech.speaking.say import say
    from fish_speech.speaking.say_batch import say_batch

    if task == "list voices":
        return tasks.list_voices(options.voices_dir)
    if task == "cache info":
        return tasks.cache_info()
    if task == "clear cache":
        return tasks.clear_cache()
    if task == "create reference":
        return tasks.create_reference(options)
    return say_batch(options) if task == "batch" else say(options)


def say_with_piper(task: str, options: argparse.Namespace, voice: Path) -> int:
    """Speak with an exported Piper voice."""
    terminate_like_interrupt()
    from piper_train.speech.say import say
    from piper_train.speech.say_batch import say_batch

    return say_batch(options, voice) if task == "batch" else say(options, voice)


def print_anything() -> None:
    """Let names and words that the terminal's encoding lacks be printed as \\u....: they must not end a run."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    run(main)
