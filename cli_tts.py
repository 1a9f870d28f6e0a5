"""Speak text with a base model, a merged voice or a training checkpoint, and write it to a WAV file.

python cli_tts.py "Hello there." --model-path checkpoints/my_voice-merged -o output/hello.wav

A merged voice brings a reference along, a clip that it imitates: it is used unless another one is given.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fish_speech import arguments as flags
from fish_speech.device import allow_mps_fallback, choose_device
from fish_speech.errors import UserError, run
from fish_speech.log import setup
from fish_speech.versions import VERSIONS, config_of_codec, named_codec

if TYPE_CHECKING:
    import argparse

    from fish_speech.synthesis.voices import PackedReference, Reference

log = logging.getLogger("fish_speech.cli_tts")
_MAX_TEXT_BYTES = 1 << 20


def make_parser() -> argparse.ArgumentParser:
    parser = flags.make_parser("cli_tts.py", __doc__)
    parser.add_argument("text", nargs="?", help="what to say; - or nothing reads it from stdin")
    parser.add_argument("--text-file", type=Path, help="read the text from this UTF-8 file")
    parser.add_argument("-o", "--output", type=Path, help="WAV file to write (default: output/speech_NNN.wav)")
    parser.add_argument("--play", action="store_true", help="play what was written")
    model = parser.add_argument_group("model")
    flags.add_model_version(model)
    model.add_argument("--model-path", type=Path, help="model folder (default: the model version's)")
    model.add_argument("--checkpoint", type=Path, help="a step_N.ckpt with LoRA weights, used without merging")
    model.add_argument("--codec", type=Path, help="codec weights (default: those in the model folder)")
    flags.add_device(model)
    flags.add_force_mps(model)
    flags.add_precision(model)
    flags.add_offline(model)
    voice = parser.add_argument_group("reference voice")
    voice.add_argument("--prompt-tokens", type=Path, action="append", default=[], metavar="NPY",
                       help="codes of a recording to imitate; repeatable, each with its --prompt-text")  # fmt: skip
    voice.add_argument("--prompt-text", action="append", default=[], help="the words spoken in it")
    voice.add_argument("--reference-audio", type=Path, help="a recording to imitate, with its --prompt-text")
    voice.add_argument("--no-reference", action="store_true",
                       help="do not use the reference that a merged voice brings along")  # fmt: skip
    voice.add_argument("--create-reference", nargs=2, type=Path, metavar=("AUDIO", "OUT.npy"),
                       help="write codes of AUDIO and its --prompt-text for --prompt-tokens, and stop")  # fmt: skip
    sampling = parser.add_argument_group("sampling")
    sampling.add_argument("--temperature", type=float, default=0.7, help="0-2; 0 takes the likeliest (default: 0.7)")
    sampling.add_argument("--top-p", type=float, default=0.7, help="share of probability kept (default: 0.7)")
    sampling.add_argument("--repetition-penalty", type=float, default=1.2, help="1 is none (default: 1.2)")
    sampling.add_argument("--max-new-tokens", type=flags.non_negative_int,
                          help="frames per segment; 0: the model's limit (default: by its text)")  # fmt: skip
    sampling.add_argument("--chunk-length", type=flags.positive_int, default=200,
                          help="bytes of text per segment (default: 200)")  # fmt: skip
    sampling.add_argument("--num-samples", type=flags.positive_int, default=1, help="versions to speak (default: 1)")
    flags.add_seed(sampling)
    return parser


def main() -> int:
    options = make_parser().parse_args()
    setup()
    if options.create_reference:
        return create_reference(options)
    text = read_text(options)
    player = find_player() if options.play else None
    check_output(options.output)
    folder = model_folder(options)
    packed = own_reference(options, folder)
    speaker = load(options, folder)
    import numpy as np

    from fish_speech.audio import write_wav
    from fish_speech.synthesis.sampling import SamplingConfig
    from fish_speech.synthesis.speak import SpeechRequest

    try:
        sampling = SamplingConfig(options.temperature, options.top_p, options.repetition_penalty)
    except ValueError as error:
        raise UserError("the sampling settings do not make sense", str(error), "correct the flag") from error
    references = read_references(options, speaker, packed)
    for number in range(options.num_samples):
        request = SpeechRequest(
            text, references, sampling, options.max_new_tokens, options.chunk_length, options.seed + number
        )
        started = time.monotonic()
        waveform = np.concatenate([np.zeros(0, np.float32), *speaker.segments(request)])
        if not len(waveform):
            raise UserError(
                "the model said nothing", "it ended at once", "try another --seed or a higher --temperature"
            )
        path = output_path(options, number)
        write_wav(path, waveform, speaker.codec.sample_rate)
        seconds, spent = len(waveform) / speaker.codec.sample_rate, time.monotonic() - started
        log.info("%.2f s of speech in %.1f s (%.2f x real time)", seconds, spent, seconds / spent)
        sys.stdout.write(f"{path}\n")
        if player:
            subprocess.run([*player, str(path)], check=False)
    return 0


def read_text(options: argparse.Namespace) -> str:
    if options.text_file and options.text:
        raise UserError("two texts are given", "one as argument and one as --text-file", "give one of them")
    try:
        if options.text_file:
            if options.text_file.stat().st_size > _MAX_TEXT_BYTES:
                raise UserError(f"{options.text_file} is too long", "texts may have 1 MB", "split the file")
            return options.text_file.read_text(encoding="utf-8-sig")
        if options.text and options.text != "-":
            return options.text
        if sys.stdin is None or sys.stdin.isatty():
            raise UserError("no text is given", "there is nothing to say", 'python cli_tts.py "Hello there."')
        data = sys.stdin.buffer.read(_MAX_TEXT_BYTES + 1)
        if len(data) > _MAX_TEXT_BYTES:
            raise UserError("the text on stdin is too long", "texts may have 1 MB", "split it")
        return data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read the text file {options.text_file}", str(error), "check the path") from error
    except UnicodeDecodeError as error:
        raise UserError("the text is not UTF-8", str(error), "save it as UTF-8") from error


def check_output(path: Path | None) -> None:
    if path is not None and path.suffix.lower() != ".wav":
        raise UserError(f"cannot write {path}", "output is a WAV file", f"use -o {path.with_suffix('.wav')}")
    if path is not None and path.is_dir():
        raise UserError(f"cannot write {path}", "it is a folder", f"use -o {path / 'speech.wav'}")


def output_path(options: argparse.Namespace, number: int) -> Path:
    """The file to write: -o, numbered if there are several samples, or the next free name in output/."""
    if options.output is None:
        free = (Path("output") / f"speech_{index:03d}.wav" for index in range(1, 1_000_000))
        return next(path for path in free if not path.exists())
    if options.num_samples == 1:
        return options.output
    return options.output.with_name(f"{options.output.stem}_{number + 1}{options.output.suffix}")


def model_folder(options: argparse.Namespace) -> Path:
    """The model folder: --model-path, or the version's, downloaded if needed."""
    if options.model_path:
        return options.model_path
    from fish_speech.hub import ensure_version

    return ensure_version(VERSIONS[options.model_version], offline=options.offline)


def codec_path(options: argparse.Namespace, folder: Path) -> Path:
    """The codec weights: --codec, those that voice.json names, or the version's in the folder or in its own."""
    if options.codec:
        return options.codec
    version = VERSIONS[options.model_version]
    found = named_codec(folder) or version.codec_in(folder)
    if found is not None:
        return found
    raise UserError(
        f"{folder} has no codec", f"expected {version.codec_file} there or in {version.folder}", "add --codec FILE"
    )


def codec_settings(options: argparse.Namespace, codec: Path) -> dict:
    """The shape of the codec whose weights are in `codec`."""
    from fish_speech.models import codec_config

    return codec_config(config_of_codec(codec, options.model_version))


def own_reference(options: argparse.Namespace, folder: Path) -> PackedReference | None:
    """The reference that the model folder brings along; None if it has none or the flags say otherwise."""
    if options.no_reference or options.checkpoint or options.prompt_tokens or options.reference_audio:
        return None
    from fish_speech.synthesis.voices import packed_reference

    packed = packed_reference(folder)
    if packed is not None and not packed.used:
        log.info("%s speaks without its reference; --prompt-tokens %s uses it", folder, packed.codes)
        return None
    if packed is not None:
        log.info("reference: %s (another one: --prompt-tokens; none: --no-reference)", packed.codes)
    return packed


def load(options: argparse.Namespace, folder: Path):
    """Load model and codec, once."""
    allow_mps_fallback(options.device, options.force_mps)
    device = choose_device(options.device, "synthesis", options.force_mps, options.precision)
    log.info("%s", device)
    from fish_speech.synthesis.speak import load_speaker

    codec = codec_path(options, folder)
    return load_speaker(folder, codec, codec_settings(options, codec), options.checkpoint, device.device, device.dtype)


def read_references(options: argparse.Namespace, speaker, packed: PackedReference | None = None) -> list[Reference]:
    """The reference voices, each with its words: those of the flags or the model folder's; a missing one is an error."""
    from fish_speech.synthesis.voices import Reference, encode_reference, read_codes

    config = speaker.model.config
    if packed is not None and not options.prompt_text:
        return [Reference(packed.text, read_codes(packed.codes, config.num_codebooks, config.codebook_size))]
    texts = list(options.prompt_text)
    sources = [*options.prompt_tokens, *([options.reference_audio] if options.reference_audio else [])]
    for path in options.prompt_tokens[len(texts) :]:  # a .txt beside the codes, as --create-reference writes it
        beside = path.with_suffix(".txt")
        if beside.is_file():
            try:
                texts.append(beside.read_text(encoding="utf-8-sig").strip())
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(
                    f"cannot read {beside}", str(error), "save it as UTF-8 text, or give --prompt-text"
                ) from None
    if len(texts) != len(sources):
        raise UserError(
            f"{len(sources)} references and {len(texts)} texts are given",
            "each reference needs the words spoken in it",
            "give one --prompt-text per --prompt-tokens or --reference-audio",
        )
    codes = [read_codes(path, config.num_codebooks, config.codebook_size) for path in options.prompt_tokens]
    if options.reference_audio:
        codes.append(encode_reference(speaker.codec, options.reference_audio))
    return [Reference(text, array) for text, array in zip(texts, codes, strict=True)]


def create_reference(options: argparse.Namespace) -> int:
    """Encode a recording for later use as a reference voice."""
    audio, target = options.create_reference
    if len(options.prompt_text) != 1:
        raise UserError("the words of the recording are missing", "a reference needs them", "add --prompt-text TEXT")
    if target.suffix != ".npy":
        raise UserError(f"cannot write {target}", "codes are .npy files", f"use {target.with_suffix('.npy')}")
    device = choose_device(options.device, "synthesis", options.force_mps)
    from fish_speech.models import load_codec
    from fish_speech.synthesis.voices import encode_reference, write_reference

    path = codec_path(options, model_folder(options))
    codec = load_codec(path, codec_settings(options, path), device.device)
    codes = encode_reference(codec, audio)
    write_reference(target, codes, options.prompt_text[0])
    sys.stdout.write(f"{target}: {codes.shape[1]} frames, {codes.shape[1] / codec.frame_rate:.1f} s\n")
    return 0


def find_player() -> list[str]:
    """A program that plays a WAV file; raise UserError if there is none."""
    known = {
        "darwin": [["afplay"]],
        "win32": [["powershell", "-NoProfile", "-Command", "& {(New-Object Media.SoundPlayer $args[0]).PlaySync()}"]],
    }
    linux = [["pw-play"], ["paplay"], ["aplay", "-q"], ["ffplay", "-nodisp", "-autoexit", "-loglevel", "error"]]
    for command in known.get(sys.platform, linux):
        if shutil.which(command[0]):
            return command
    raise UserError(
        "--play finds no player", "looked for pw-play, paplay, aplay, ffplay", "install one, or drop --play"
    )


if __name__ == "__main__":
    run(main)
