"""Serve a voice: OpenAI's /v1/audio/speech, streamed while it is spoken, and a page to type, listen and compare."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments, errors, log
from .device import allow_mps_fallback
from .errors import DONE, UserError
from .extras import require
from .speaking import options as flags
from .versions import VERSIONS

if TYPE_CHECKING:
    from .serving.voices import VoiceShelf
    from .speaking.loading import VoiceSettings
    from .synthesis.speak import Speaker

logger = logging.getLogger("fish_speech.serve")  # not __name__: that is __main__ when the server runs

DESCRIPTION = """Speak over HTTP, as OpenAI's API does, with one voice loaded once.

  python -m fish_speech.serve --model-path checkpoints/my_voice-merged
  curl http://127.0.0.1:8000/v1/audio/speech -H 'content-type: application/json' \\
      -d '{"input": "Hello there.", "response_format": "wav"}' -o hello.wav

http://127.0.0.1:8000/ is a page to type, choose a voice, listen and compare. Sound is sent while it is made (flac at the
end). One text is spoken at a time; beyond --queue, clients are told to come back (429). Ctrl+C ends after the current one."""


def make_parser() -> argparse.ArgumentParser:
    parser = arguments.make_parser("python -m fish_speech.serve", DESCRIPTION)
    model = parser.add_argument_group("model")
    flags.add_model(model)
    model.add_argument("--model-name", metavar="NAME", help="what clients call it (default: its folder's name)")
    voice = parser.add_argument_group("voices, for requests to choose from by name")
    voice.add_argument("--voice", metavar="NAME", help="a voice of --voices-dir for requests that name none")
    flags.add_voices_folder(voice)
    flags.add_own_reference(voice)
    arguments.add_seed(voice)
    flags.add_cache(voice)
    network = parser.add_argument_group("network")
    network.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    network.add_argument("--port", type=_port, default=8000, help="port to listen on; 0: any free one (default: 8000)")
    network.add_argument("--api-key", metavar="KEY", help="what clients must send; seen by others who list processes")
    network.add_argument("--api-key-file", type=Path, metavar="FILE",
                         help="a file that holds it (default: the environment's FISH_SPEECH_API_KEY)")  # fmt: skip
    limits = parser.add_argument_group("limits")
    limits.add_argument("--queue", type=arguments.non_negative_int, default=8, metavar="N",
                        help="requests that may wait (default: 8)")  # fmt: skip
    limits.add_argument("--max-characters", type=_characters, default=4096, metavar="N",
                        help="longest text, in characters (default: 4096)")  # fmt: skip
    return parser


def main() -> int:
    options = make_parser().parse_args()
    log.setup()
    allow_mps_fallback(options.device, options.force_mps)
    flags.check_seed(options.seed)
    for module in ("fastapi", "uvicorn"):
        require(module, "the server", "serve")
    from .serving.security import is_loopback, key_needed

    key = api_key(options)
    loopback = is_loopback(options.host)
    if key is None and not loopback:
        raise key_needed(options.host)
    version = flags.settle_model(options)
    settings = flags.voice_settings(options)
    check_voice(options)
    from .serving.http import bind

    taken = bind(options.host, options.port)
    # With a key there may be a proxy before us, which asks by another name; a page that rebinds its name has no key.
    names = {"localhost", "127.0.0.1", "::1", options.host} if key is None else None
    _quiet_loggers()
    errors.terminate_like_interrupt()
    from .serving.app import create_app
    from .serving.http import serve
    from .serving.limits import Limits
    from .serving.queue import SpeechQueue
    from .serving.voices import VoiceShelf

    limits = Limits(waiting=options.queue, characters=options.max_characters)
    voices = VoiceShelf(options.voices_dir)
    queue = SpeechQueue(lambda: load(options, settings, voices), limits)
    app = create_app(queue, voices, model_name(options, settings), key, names, options.seed, version.sampling)
    host = f"[{options.host}]" if ":" in options.host else options.host
    logger.info("http://%s:%d/  %s", host, taken.getsockname()[1], "with an API key" if key else "without an API key")
    try:
        serve(app, queue, taken)
    except KeyboardInterrupt:  # the usual end of a server
        logger.info("stopped")
    if queue.is_running:  # it loads, and would abort the program where Python ends while the thread is inside torch
        logging.shutdown()
        os._exit(DONE)
    return DONE


def check_voice(options: argparse.Namespace) -> None:
    """Raise UserError for a --voice that is not there, before anything is loaded."""
    from .synthesis.voice_library import find_voice

    if options.voice is not None and options.no_reference:
        raise UserError("--voice and --no-reference are given", "a voice is a reference", "give one of them")
    if options.voice is not None:
        find_voice(options.voices_dir, options.voice)


def load(options: argparse.Namespace, settings: VoiceSettings, voices: VoiceShelf) -> Speaker:
    """Load the voice, and put its reference on the shelf. Runs in the thread that speaks."""
    from .speaking.loading import load_voice
    from .speaking.references import ReferenceChoice, find_references, read_references

    loaded = load_voice(settings, flags.cache_opener(options))
    own = flags.uses_own_reference(options)
    choice = ReferenceChoice(voice=options.voice, voices_folder=options.voices_dir, own=own)
    voices.default = read_references(find_references(choice, loaded.folder), loaded.speaker)
    voices.speaker = loaded.speaker
    logger.info("ready: %s", loaded.folder)
    return loaded.speaker


def api_key(options: argparse.Namespace) -> str | None:
    """The key that clients must send: of the flags or the environment; None if there is none."""
    from .serving.security import KEY_VARIABLE, check_key, read_key

    if options.api_key is not None and options.api_key_file is not None:
        raise UserError("two API keys are given", "--api-key and --api-key-file name one each", "give one of them")
    if options.api_key_file is not None:
        return check_key(read_key(options.api_key_file))
    key = options.api_key if options.api_key is not None else os.environ.get(KEY_VARIABLE)
    return None if key is None else check_key(key)


def model_name(options: argparse.Namespace, settings: VoiceSettings) -> str:
    """What clients call the model: --model-name, or its folder's name."""
    folder = settings.model_path or VERSIONS[settings.model_version].folder
    return options.model_name or folder.resolve().name


def _quiet_loggers() -> None:
    """Let uvicorn's tracebacks come out as ours do, and keep what clients say, sense or nonsense, out of the log."""
    uvicorn = logging.getLogger("uvicorn")
    uvicorn.handlers[:] = logging.getLogger("fish_speech").handlers
    uvicorn.setLevel(logging.ERROR)
    uvicorn.propagate = False
    for name in ("synthesis", "speaking.references"):
        logging.getLogger(f"fish_speech.{name}").setLevel(logging.WARNING)


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: 0-65535")
    return value


def _characters(text: str) -> int:
    value = arguments.positive_int(text)
    if value > 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is more than a million characters: nobody waits for that")
    return value


if __name__ == "__main__":
    errors.run(main)
