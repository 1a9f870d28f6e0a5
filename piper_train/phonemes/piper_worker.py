"""A program of its own: asks the espeak-ng inside piper-tts for phonemes. Started by piper_source.py, by its path.

piper-tts is GPL-3.0-or-later and must not be loaded by the toolkit's own processes; it lives here, behind pipes.
A request is a line of JSON, `{"id": 1, "texts": ["..."]}`; its answer too: `{"id": 1, "clauses": [[["phonemes",
"terminator", ends_sentence], ...], ...]}`. The first line tells what it is, or what is wrong. JSON is ASCII-escaped:
no console, code page or line break of a text can change it. It ends when its stdin ends.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path


def main(voice: str) -> None:
    """Serve until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is the parent's affair
    own_folder = Path(__file__).resolve().parent  # Python puts it first; its module names are not for piper-tts
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != own_folder]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print must not come between

    def answer(value: dict) -> None:
        answers.write(json.dumps(value).encode("ascii") + b"\n")
        answers.flush()

    try:
        from importlib.metadata import PackageNotFoundError, version

        try:
            release = version("piper-tts")
        except PackageNotFoundError:
            return answer({"problem": "missing"})
        import piper
        from piper import espeakbridge

        data = Path(piper.__file__).parent / "espeak-ng-data"
        espeakbridge.initialize(str(data))
    except Exception as error:  # anything at all: it is another's package
        return answer({"problem": "broken", "detail": f"{type(error).__name__}: {error}"})
    try:
        espeakbridge.set_voice(voice)
    except RuntimeError:
        names = {path.name.lower() for path in (data / "lang").rglob("*") if path.is_file()}
        return answer({"problem": "voice", "release": release, "voices": sorted(names)})
    with_vowels = _arabic_vowels() if voice == "ar" else str
    answer({"release": release})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        clauses = [espeakbridge.get_phonemes(with_vowels(text)) for text in request["texts"]]
        answer({"id": request["id"], "clauses": clauses})


def _arabic_vowels() -> Callable[[str], str]:
    """The client writes the vowels into Arabic text first."""
    from piper.tashkeel import TashkeelDiacritizer

    return TashkeelDiacritizer().diacritize


if __name__ == "__main__":
    main(sys.argv[1])
