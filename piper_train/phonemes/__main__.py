"""`python -m piper_train.phonemes --espeak-voice ru "Привет, мир!"`: phonemes and ids of a text, sentence by sentence."""

from __future__ import annotations

import io
import sys
from collections import Counter
from pathlib import Path

from fish_speech import arguments as flags
from fish_speech.errors import UserError, run
from fish_speech.log import setup
from fish_speech.speaking.texts import read_text

from .ids import default_table, describe_missing, ids_of_sentence, read_table
from .phonemizer import PHONEME_TYPES, SOURCES, open_phonemizer

_DESCRIPTION = """\
Show what a Piper voice gets to read: for each sentence of a text a line of phonemes and a line of ids.
stderr says what made the phonemes, and which of them have no id."""


def command() -> int:
    """Parse, make phonemes, print."""
    parser = flags.make_parser("python -m piper_train.phonemes", _DESCRIPTION)
    parser.add_argument("text", nargs="?", help="text to read (default: stdin)")
    parser.add_argument("--text-file", type=Path, metavar="FILE", help="read the text from a UTF-8 file")
    parser.add_argument("--espeak-voice", metavar="NAME", help="language as espeak calls it: en-us, ru, de")
    parser.add_argument("--phoneme-type", choices=PHONEME_TYPES, default="espeak", help="text: each character is one")
    parser.add_argument("--vowel-clusters", metavar="JSON", help='phonemes that count as one: [["a", "ɪ"]]')
    parser.add_argument(
        "--phonemes-path", type=Path, metavar="FILE", help="JSON table phoneme -> id (default: Piper's)"
    )
    parser.add_argument("--source", choices=SOURCES, help="what makes the phonemes (default: auto, the most exact one)")
    options = parser.parse_args()
    setup()
    _check(options.phoneme_type, options.espeak_voice, [options.vowel_clusters, options.source])
    text = read_text(options.text, options.text_file, sys.stdin)
    table = read_table(options.phonemes_path) if options.phonemes_path else default_table()
    missing: Counter[str] = Counter()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # a console's code page has no phonemes
    voice, source = options.espeak_voice or "", options.source or "auto"
    with open_phonemizer(options.phoneme_type, voice, options.vowel_clusters, source) as phonemizer:
        for sentence in phonemizer.sentences(text):
            print("".join(sentence))
            print(*ids_of_sentence(sentence, table, missing))
        how = "exactly the Piper client's" if phonemizer.exact else "nearly the Piper client's"
        print(f"phonemes from {phonemizer.source}: {how}", file=sys.stderr)
    if missing:
        print(f"left out, as they have no id: {describe_missing(missing)}", file=sys.stderr)
    return 0


def _check(phoneme_type: str, voice: str | None, for_espeak: list[str | None]) -> None:
    if phoneme_type == "espeak" and voice is None:
        raise UserError("no language is given", "phonemes depend on it", "add --espeak-voice en-us, ru, de, ...")
    if phoneme_type == "text" and any(value is not None for value in [voice, *for_espeak]):
        raise UserError(
            "--espeak-voice, --vowel-clusters and --source have no effect with --phoneme-type text",
            "each character of the text is a phoneme then",
            "leave them out",
        )


if __name__ == "__main__":
    run(command)
