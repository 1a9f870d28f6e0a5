"""Turn recordings with transcripts into a data set to train on: 44.1 kHz mono clips, a manifest and a summary."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from fish_speech import arguments, errors

DESCRIPTION = """Turn recordings with transcripts into a data set to train on.

Every recording needs its text beside it: take1.wav and take1.txt (or .lab), UTF-8. Folders inside the input are
speakers. The output gets SPEAKER/clip.wav and clip.lab, manifest.jsonl, which says of every recording what became of
it, and dataset_summary.json. Run it again to continue, to take up changes, or with another input to add to the set.

  python prepare_dataset.py --input recordings --output training_data/my_voice --speaker anna

Exit code: 0 all done; 1 something was left out, with the reason; 2 wrong request, or nothing could be used."""

# Flags of the guides that come with a later version: told apart from typing errors.
LATER = (
    "--split-long --no-split --auto-transcribe --whisper-model --language --youtube --segment-duration --max-duration"
    " --use-silence-detection --min-silence-len --silence-thresh --min-segment-len --asr --runner --report"
)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its help imports nothing heavy."""
    parser = arguments.make_parser(None, DESCRIPTION)
    parser.add_argument(
        "--input", nargs="+", action="extend", required=True, metavar="PATH", help="folders or audio files; repeatable"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder of the data set, such as training_data/anna")
    parser.add_argument("--speaker", help="one speaker for all inputs (default: the recordings' folder)")
    parser.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="bring every clip to -23 LUFS with true peaks below -1 dBTP (default: yes)",
    )
    parser.add_argument(
        "--workers",
        type=arguments.positive_int,
        default=os.cpu_count() or 1,
        help="processes; the result is the same for any number (default: the number of cores)",
    )
    return parser


def main() -> int:
    """Parse, then prepare."""
    parser = make_parser()
    later = [flag for flag in LATER.split() if any(word.split("=")[0] == flag for word in sys.argv[1:])]
    if later:
        parser.error(f"this version does not have {', '.join(later)} yet; it takes recordings that have transcripts")
    given = parser.parse_args()

    from fish_speech import log
    from fish_speech.prepare.run import Options, prepare

    log.setup()
    errors.terminate_like_interrupt()
    return prepare(Options(tuple(given.input), given.output, given.speaker, given.normalize, given.workers))


if __name__ == "__main__":
    errors.run(main)
