"""Turn recordings of any kind into a data set to train on: clips, transcripts, a manifest that explains each clip."""

from __future__ import annotations

import argparse
from pathlib import Path

from fish_speech import arguments, errors

DESCRIPTION = """Turn recordings into a data set to train on.

Texts beside the recordings are used: .txt, .lab, .srt, .vtt, Whisper's .json, metadata.csv. What has none is recognised
with --auto-transcribe. Long recordings are cut in pauses, and each clip gets the words that are spoken in it; what
cannot be trusted is left out, with the reason. Sub-folders of an input are speakers. The output gets SPEAKER/clip.wav
and clip.lab, manifest.jsonl, which accounts for every second, and dataset_summary.json. Run it again to continue, to
take up changes, or with another input to add to the set.

  python prepare_dataset.py --input recordings --output training_data/my_voice --speaker anna
  python prepare_dataset.py --input talk.m4a --output training_data/my_voice --auto-transcribe --whisper-model small
  python prepare_dataset.py --input "https://youtube.com/watch?v=ID" --output training_data/my_voice --youtube --auto-transcribe

Exit code: 0 all done; 1 a recording could not be used, with the reason; 2 wrong request, or nothing could be used."""

WHISPER_MODELS = "tiny, base, small, medium, large, turbo"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its help imports nothing heavy."""
    parser = arguments.make_parser(None, DESCRIPTION)
    parser.add_argument(
        "--input", nargs="+", action="extend", required=True, metavar="PATH", help="folders, files or URLs; repeatable"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder of the data set, such as training_data/anna")
    parser.add_argument("--speaker", help="one speaker for all inputs (default: the recordings' folder)")
    parser.add_argument("--youtube", action="store_true", help="the inputs are URLs of videos or playlists (yt-dlp)")
    parser.add_argument(
        "--max-duration",
        type=arguments.positive_float,
        metavar="MIN",
        help="use the first MIN minutes of each recording (default: all)",
    )
    add_clips(parser.add_argument_group("clips"))
    add_texts(parser.add_argument_group("texts"))
    add_checks(parser.add_argument_group("checks"))
    group = parser.add_argument_group("running")
    group.add_argument(
        "--workers",
        type=arguments.positive_int,
        help="processes; the result is the same for any number (default: one per core; 1 with whisper)",
    )
    group.add_argument("--runner", choices=("local", "ray"), default="local", help="processes here, or a Ray cluster")
    arguments.add_device(group)
    return parser


def add_clips(group: argparse._ActionsContainer) -> None:
    """Add the flags that say how recordings are cut and how loud clips are."""
    group.add_argument(
        "--normalize",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="bring every clip to -23 LUFS with true peaks below -1 dBTP (default: yes)",
    )
    split = group.add_mutually_exclusive_group()
    split.add_argument("--split-long", action="store_true", default=True, help="cut long recordings (default)")
    split.add_argument("--no-split", dest="split_long", action="store_false", help="one clip per recording")
    group.add_argument(
        "--segment-duration",
        type=arguments.positive_float,
        metavar="S",
        help="seconds that clips of long recordings come near to (default: 10)",
    )
    group.add_argument(
        "--min-segment-len",
        type=arguments.positive_float,
        metavar="S",
        help="no clip that is cut is shorter (default: 1)",
    )
    group.add_argument(
        "--use-silence-detection", action="store_true", help="find pauses by level instead of by silero-vad"
    )
    group.add_argument(
        "--min-silence-len", type=arguments.positive_int, metavar="MS", help="of a pause by level (default: 500)"
    )
    group.add_argument(
        "--silence-thresh", type=float, metavar="DB", help="level below which is silence, dBFS (default: -40)"
    )


def add_texts(group: argparse._ActionsContainer) -> None:
    """Add the flags of speech recognition."""
    group.add_argument(
        "--auto-transcribe",
        action="store_true",
        help="recognise recordings that have no text, and check the texts of those that have",
    )
    group.add_argument(
        "--asr",
        choices=("whisper", "faster-whisper", "pocketsphinx"),
        help="recogniser (default: whisper; to check texts, whisper if it is here, else pocketsphinx)",
    )
    group.add_argument(
        "--whisper-model", metavar="NAME", help=f"{WHISPER_MODELS}, or the path of a model (default: small)"
    )
    group.add_argument("--language", help="of the speech, as en or de (default: as the recogniser hears)")


def add_checks(group: argparse._ActionsContainer) -> None:
    """Add the flags of the costly measures and the report."""
    group.add_argument("--report", action="store_true", help="write report.html: every second, the worst clips first")
    group.add_argument(
        "--check-speaker", action="store_true", help="mark clips that sound like another speaker (extra eval)"
    )
    group.add_argument("--dnsmos", action="store_true", help="score the sound quality of each clip (extra eval)")


def main() -> int:
    """Parse, then prepare."""
    parser = make_parser()
    given = parser.parse_args()
    refuse_without_effect(parser, given)

    from fish_speech import log
    from fish_speech.prepare.run import prepare

    log.setup()
    errors.terminate_like_interrupt()
    return prepare(options_of(parser, given))


def refuse_without_effect(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End with an error if a flag does nothing beside the others."""
    from fish_speech.prepare.download import is_url

    levels = [flag for flag in ("--min-silence-len", "--silence-thresh") if value_of(given, flag) is not None]
    lengths = [flag for flag in ("--segment-duration", "--min-segment-len") if value_of(given, flag) is not None]
    if levels and not given.use_silence_detection:
        parser.error(f"{levels[0]} has no effect without --use-silence-detection")
    if not given.split_long and (lengths or given.use_silence_detection):
        parser.error(f"{[*lengths, '--use-silence-detection'][0]} has no effect with --no-split")
    if given.whisper_model and given.asr == "pocketsphinx":
        parser.error("--whisper-model has no effect with --asr pocketsphinx")
    local = [text for text in given.input if not is_url(text)]
    if given.youtube and local:
        parser.error(f"--youtube takes URLs, as https://youtube.com/watch?v=ID; not one: {local[0]!r}")
    if given.runner == "ray" and given.workers:
        parser.error("--workers has no effect with --runner ray: the cluster says how many")


def value_of(given: argparse.Namespace, flag: str) -> object:
    """The value of a flag."""
    return getattr(given, flag.lstrip("-").replace("-", "_"))


def options_of(parser: argparse.ArgumentParser, given: argparse.Namespace):
    """The request as the package takes it."""
    from fish_speech.prepare.options import Options, Processing
    from fish_speech.prepare.segments import Limits
    from fish_speech.prepare.speech import SilenceThreshold, SileroVad

    defaults = Limits()
    try:
        least = given.min_segment_len or defaults.min_s
        limits = Limits(given.segment_duration or max(defaults.target_s, least), least)
        detector: SileroVad | SilenceThreshold = SileroVad()
        if given.use_silence_detection:
            named = {"min_silence_ms": given.min_silence_len, "silence_db": given.silence_thresh}
            detector = SilenceThreshold(**{name: value for name, value in named.items() if value is not None})
    except ValueError as error:
        parser.error(str(error))
    processing = Processing(
        normalize=given.normalize,
        split=given.split_long,
        limits=limits,
        detector=detector,
        max_duration_s=None if given.max_duration is None else 60 * given.max_duration,
        transcribe=given.auto_transcribe,
        dnsmos=given.dnsmos,
    )
    return Options(
        tuple(given.input),
        given.output,
        given.speaker,
        processing,
        given.workers,
        given.runner == "ray",
        given.asr,
        given.whisper_model,
        given.language,
        given.device,
        given.check_speaker,
        given.report,
    )


if __name__ == "__main__":
    errors.run(main)
