"""Turn recordings of any kind into a data set to train on: clips, transcripts, a manifest that explains each clip."""

from __future__ import annotations

import argparse
from pathlib import Path

from fish_speech import arguments, errors
from fish_speech.prepare import flags

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


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its help imports nothing heavy."""
    parser = arguments.make_parser(None, DESCRIPTION)
    parser.add_argument(
        "--input", nargs="+", action="extend", required=True, metavar="PATH", help="folders, files or URLs; repeatable"
    )
    parser.add_argument("--output", required=True, type=Path, help="folder of the data set, such as training_data/anna")
    parser.add_argument("--youtube", action="store_true", help="the inputs are URLs of videos or playlists (yt-dlp)")
    flags.add_recordings(parser)
    flags.add_clips(parser.add_argument_group("clips"))
    flags.add_texts(parser.add_argument_group("texts"))
    flags.add_checks(parser.add_argument_group("checks"))
    group = parser.add_argument_group("running")
    group.add_argument(
        "--workers",
        type=arguments.positive_int,
        help="processes; the result is the same for any number (default: one per core; 1 with whisper)",
    )
    arguments.add_runner(group)
    arguments.add_device(group)
    return parser


def main() -> int:
    """Parse, then prepare."""
    parser = make_parser()
    given = parser.parse_args()
    refuse_without_effect(parser, given)

    from fish_speech import log
    from fish_speech.prepare.run import prepare

    log.setup()
    arguments.use_ray_address(given)
    errors.terminate_like_interrupt()
    return prepare(options_of(parser, given))


def refuse_without_effect(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End with an error if a flag does nothing beside the others."""
    from fish_speech.prepare.download import is_url

    problem = flags.without_effect(given) or arguments.runner_problem(given)
    if problem:
        parser.error(problem)
    local = [text for text in given.input if not is_url(text)]
    if given.youtube and local:
        parser.error(f"--youtube takes URLs, as https://youtube.com/watch?v=ID; not one: {local[0]!r}")
    if given.runner == "ray" and given.workers:
        parser.error("--workers has no effect with --runner ray: the cluster says how many")


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
