"""`python -m piper_train.prepare`: prepare a data set without training, and say what was left out and why.

Training does the same at its start, and keeps what this has made.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from fish_speech import log
from fish_speech.arguments import make_parser
from fish_speech.errors import run, terminate_like_interrupt

from .quality import QUALITIES


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("python -m piper_train.prepare", __doc__ or "")
    add = parser.add_argument
    add("--csv-path", type=Path, required=True, help="metadata.csv, or a folder that prepare_dataset.py made")
    add("--cache-dir", type=Path, required=True, help="where prepared sounds and the index are kept")
    add("--config-path", type=Path, required=True, help="the voice's config.json, written")
    add("--espeak-voice", required=True, metavar="VOICE", help="language of the phonemes, such as ru or en-us")
    add("--voice-name", default="", metavar="NAME", help="name of the data set in config.json")
    add("--audio-dir", type=Path, help="folder of the recordings (default: that of --csv-path, and its wavs/)")
    add("--sample-rate", type=int, default=22050, metavar="HZ", help="of the voice (default: 22050)")
    add("--num-speakers", type=int, default=1, metavar="N", help="of the voice (default: 1)")
    add("--num-symbols", type=int, default=256, metavar="N", help="rows of the phoneme embedding (default: 256)")
    add("--filter-length", type=int, default=1024, metavar="N", help="samples of an STFT window (default: 1024)")
    add("--hop-length", type=int, default=256, metavar="N", help="samples from frame to frame (default: 256)")
    add("--segment-size", type=int, default=8192, metavar="N", help="samples of a training slice (default: 8192)")
    add("--phoneme-type", help="espeak, or text where code points are phonemes (default: espeak)")
    add(
        "--dataset-type",
        default="text",
        choices=("text", "phoneme_ids"),
        help="what the last column is (default: text)",
    )
    add("--phonemes-path", type=Path, metavar="JSON", help="table of phonemes with their ids, in place of Piper's")
    add("--vowel-clusters", metavar="JSON", help="lists of phonemes that are one together")
    add("--phoneme-source", default="auto", choices=("auto", "piper", "espeak-ng"), help="(default: auto)")
    add("--trim-silence", action=argparse.BooleanOptionalAction, default=True, help="at both ends (default: on)")
    add("--keep-seconds-before-silence", type=float, default=0.25, metavar="S", help="before speech (default: 0.25)")
    add("--keep-seconds-after-silence", type=float, default=0.25, metavar="S", help="after speech (default: 0.25)")
    add("--min-seconds", type=float, metavar="S", help="shorter clips are left out (default: a training slice)")
    add("--max-seconds", type=float, default=30.0, metavar="S", help="longer clips are left out (default: 30)")
    add("--max-phoneme-ids", type=int, metavar="N", help="clips with more are left out (default: no limit)")
    add("--quality", choices=tuple(QUALITIES), help="for config.json")
    add("--workers", type=int, metavar="N", help="processes (default: as many as are of use)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare, and say what a person should know."""
    options = vars(_parser().parse_args(arguments))
    terminate_like_interrupt()
    log.setup()
    from .data.prepare import prepare
    from .data.request import PrepareRequest

    prepared = prepare(PrepareRequest(**options))
    prepared.log_lines()
    return 0


if __name__ == "__main__":
    run(main)
