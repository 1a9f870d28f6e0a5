"""Stage: encode every clip of a folder into codec codes, `clip.npy` beside it: int32 (codebooks, frames).

Run again, it does only what is missing, torn, or older than its audio. A clip's codes do not depend on what was done
before: batches are planned over all clips, and a batch of which any clip is missing is computed again as a whole.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import arguments, errors, files, log
from .checkpoint import sha256
from .codes import largest_of_rows, row_too_large
from .datasets.recordings import LONG_S, Clip, codes_of, find_clips, plan_batches
from .datasets.sources import UnusableClip, read_codes
from .device import DeviceChoice, allow_mps_fallback, choose_device
from .encoding import BatchTask, CheckTask, Settings, check_codec, encode_batch, load
from .errors import FAILED, UserError
from .left_out import add_max_left_out, exit_code
from .round_trip import CLIPS, RoundTrip, spread
from .versions import CODEC_RECORD, ModelVersion, config_of_codec, settle_version
from .workers import WorkerLost, run_tasks

if TYPE_CHECKING:
    from .models import CodecConfig
    from .ray_runner import Cluster

logger = logging.getLogger("fish_speech.extract_vq")  # not __name__: that is __main__ when the stage runs

DESCRIPTION = """Encode every audio file below a folder into codec codes, a .npy file beside each.

  python -m fish_speech.extract_vq training_data/my_voice --num-workers 1 --batch-size 16

Run it again to continue: what is done, whole and newer than its audio is skipped. At the end the codec is checked: some
clips are decoded again and compared with their sound.
Exit code: 0 all done; 1 some files could not be used, each with its reason; 2 wrong request."""

_SHOWN = 20  # failures listed on the terminal
_FEW = 5  # long clips named there
SEVERAL = "several"  # in a folder's record: its codes are of more than one codec until a run has made all anew


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this stage; its help imports nothing heavy."""
    parser = arguments.make_parser("python -m fish_speech.extract_vq", DESCRIPTION)
    parser.add_argument("data", nargs="?", type=Path, metavar="DATA", help="folder of clips, searched recursively")
    parser.add_argument("--filelist", type=Path, help="text file of lines PATH|SPEAKER|LANGUAGE|TEXT, instead of DATA")
    parser.add_argument("--num-workers", type=arguments.positive_int, help="processes (default: 1)")
    parser.add_argument("--runner", choices=("local", "ray"), default="local", help="processes here, or a Ray cluster")
    parser.add_argument(
        "--batch-size", type=arguments.positive_int, default=16, help="clips encoded together (default: 16)"
    )
    arguments.add_model_version(parser)
    parser.add_argument(
        "--config-name",
        help="codec config: a name in configs/codec or a .yaml file (default: beside the weights, else the version's)",
    )
    parser.add_argument("--checkpoint-path", type=Path, help="codec weights (default: the model version's)")
    arguments.add_device(parser)
    arguments.add_force_mps(parser)
    parser.add_argument("--force", action="store_true", help="encode again what is done already")
    add_max_left_out(parser)
    check = parser.add_mutually_exclusive_group()
    check.add_argument("--no-check", action="store_true", help="do not decode clips again to check the codec")
    check.add_argument("--check-dir", type=Path, metavar="DIR", help="keep the sounds and figures of that check there")
    return parser


def is_done(clip: Clip, config: CodecConfig) -> bool:
    """Tell whether the clip has codes that are whole, plausible and newer than its audio."""
    try:
        if clip.codes.stat().st_mtime_ns < clip.audio.stat().st_mtime_ns:
            return False
        codes = read_codes(clip.codes)
    except (OSError, UnusableClip):
        return False
    if codes.dtype != "int32" or codes.shape[0] != config.codebooks:
        return False
    frames = config.frames_of(round(clip.duration_s * config.sample_rate))
    exact = clip.audio.suffix.lower() in (".wav", ".flac")  # other headers may be wrong about the duration
    plausible = not exact or abs(codes.shape[1] - frames) < 2
    return plausible and row_too_large(largest_of_rows(codes), config.codebook_sizes) is None


def _check_weights(path: Path, version: ModelVersion) -> str:
    """Return the SHA-256 of the codec weights; raise UserError if there are none."""
    if path.is_file():
        return sha256(path)
    raise UserError(
        f"there are no codec weights {path}",
        "every clip is encoded with them",
        f"give --checkpoint-path, or get those of version {version.name}: {version.how_to_get}",
    )


def _read_record(path: Path | None) -> dict[str, Any]:
    """What a folder says of its codes: the hash of their codec's weights, or SEVERAL; empty if it has no record."""
    try:
        record = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(path: Path | None, weights: str, config: CodecConfig) -> None:
    sizes = config.codebook_sizes
    record: dict[str, Any] = {"codec_sha256": weights, "frame_rate": config.frame_rate, "codebook_size": max(sizes)}
    if len(set(sizes)) > 1:
        record["codebook_sizes"] = list(sizes)
    if path is not None and _read_record(path) != record:
        files.write_json(path, record)


@dataclass(frozen=True)
class Processes:
    """Where tasks run: in this process, in others of this machine, or on a cluster."""

    choice: str  # of the device, for people
    where: str
    device: str
    threads: int | None  # of torch in each process
    run: Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]  # in any order
    run_one: Callable[[Callable[[Any], Any], Any], Any]


@contextmanager
def _processes(given: argparse.Namespace, choice: DeviceChoice | None, batches: int) -> Iterator[Processes]:
    """Yield where so many batches are to be encoded. Without a choice of device that is a Ray cluster."""
    if choice is not None:
        workers = min(given.num_workers or 1, batches)
        threads = None if workers == 1 else max(1, (os.cpu_count() or 1) // workers)
        run = partial(_run_here, workers)
        yield Processes(
            str(choice), f"{workers} workers", choice.device, threads, run, lambda function, task: function(task)
        )
        return
    from .ray_runner import ray_cluster

    with ray_cluster() as cluster:
        device = _device_of(cluster, given.device)
        run_there = partial(cluster.run, gpus=1 if device == "cuda" else 0)
        run_one = lambda function, task: next(run_there(function, [task]))  # noqa: E731
        yield Processes(f"device {device}", str(cluster), device, 1, run_there, run_one)


def _run_here(workers: int, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
    return run_tasks(function, tasks, workers)


def _device_of(cluster: Cluster, request: str) -> str:
    """The device on a cluster: its GPUs if it has some. The machine that asks need not have any."""
    if request == "cuda" and not cluster.gpus:
        raise UserError(
            "--device cuda asks for a GPU, and the cluster has none", f"it is {cluster}", "use --device auto"
        )
    return "cuda" if cluster.gpus and request != "cpu" else "cpu"


def extract(given: argparse.Namespace) -> int:
    """Run the stage and return its exit code."""
    started = time.monotonic()
    _check_request(given)
    clips, failures = find_clips(given.data, given.filelist)
    if given.runner == "ray":  # all machines know files by the same names, and work in folders of their own
        clips = [clip._replace(audio=clip.audio.absolute()) for clip in clips]
        failures = {audio.absolute(): reason for audio, reason in failures.items()}
    choice = choose_device(given.device, "training", given.force_mps) if given.runner == "local" else None
    from .models import codec_config, make_codec_config

    version = settle_version(given.model_version, given.checkpoint_path and given.checkpoint_path.parent)
    checkpoint = given.checkpoint_path or version.folder / version.codec_file
    config_name = given.config_name or config_of_codec(checkpoint, version.name)
    if config_name.endswith((".yaml", ".yml")):
        config_name = str(Path(config_name).absolute())
    config = make_codec_config(codec_config(config_name), config_name)
    _remove_leftovers(clips)
    weights = _check_weights(checkpoint, version)
    record = given.data / CODEC_RECORD if given.data is not None and given.data.is_dir() else None
    recorded = _read_record(record).get("codec_sha256", "")
    another = recorded not in ("", weights)  # codes without a record are taken as fitting
    if another:
        logger.info("the codes in %s were made by other codec weights: all are made anew", given.data)
    made_anew = given.force or another
    paths = (*(clip.audio for clip in clips), *failures)
    mixed = made_anew and recorded != weights and any(codes_of(path).exists() for path in paths)
    missing = {clip.audio for clip in clips if made_anew or not is_done(clip, config)}
    batches = [batch for batch in plan_batches(clips, given.batch_size) if any(c.audio in missing for c in batch)]
    seconds = 0.0
    checked = RoundTrip((), "nothing was encoded in this run")
    if batches:
        with _processes(given, choice, len(batches)) as processes:
            settings = Settings(checkpoint.absolute(), config_name, processes.device, processes.threads)
            if choice is not None and (given.num_workers or 1) == 1:
                load(settings)  # here, so that what is wrong with the weights is said before a bar is drawn
            logger.info("%s; %d of %d clips to encode, %s", processes.choice, len(missing), len(clips), processes.where)
            tasks = [BatchTask(b, frozenset(c.audio for c in b if c.audio in missing), settings) for b in batches]
            # Before the first codes: those of a run that is stopped must not pass for another codec's later.
            _write_record(record, SEVERAL if mixed else weights, config)
            try:
                outcomes = (outcome for batch in processes.run(encode_batch, tasks) for outcome in batch)
                for outcome in log.progress(outcomes, "extract", total=len(missing), unit="clip"):
                    if outcome.failure is None:
                        seconds += outcome.seconds
                    else:
                        failures[outcome.audio] = outcome.failure
                if seconds and not given.no_check:
                    checked = processes.run_one(check_codec, _check_task(given, clips, failures, settings))
            except WorkerLost as error:
                fewer = " with fewer --num-workers" if choice is not None else ""
                logger.error("failed: %s; run the same command again%s to continue", error, fewer)
                return FAILED
    if another:  # what could not be made anew must not stay among the new codes
        for path in set(map(codes_of, failures)) - {clip.codes for clip in clips if clip.audio not in failures}:
            path.unlink(missing_ok=True)
    _write_record(record, weights, config)
    _remove_leftovers(clips)  # once more: workers of a killed run live a moment longer than it
    _tell(given, clips, failures, checked)
    elapsed, made = time.monotonic() - started, len(missing - set(failures))
    factor = f", real-time factor {elapsed / seconds:.3f} on {settings.device}" if seconds else ""
    sys.stdout.write(
        f"{len(clips) - len(set(failures) & {clip.audio for clip in clips})} clips have codes: {made} encoded "
        f"({seconds:.1f} s), {len(clips) - len(missing)} done before, {len(failures)} failed; {elapsed:.1f} s{factor}\n"
    )
    return exit_code(len(failures), len(set(paths)), given.max_left_out)


def _check_request(given: argparse.Namespace) -> None:
    """Refuse what cannot be meant."""
    if given.runner == "ray":
        if given.num_workers:
            raise UserError(
                "--num-workers has no effect with --runner ray", "the cluster says how many", "leave it out"
            )
        if given.device == "mps" or given.force_mps:
            raise UserError("there is no MPS on a Ray cluster", "it counts CPUs and CUDA GPUs", "use --device auto")
        given.data, given.check_dir = (path and path.absolute() for path in (given.data, given.check_dir))
    if (
        given.check_dir
        and given.data
        and given.data.resolve() in (given.check_dir.resolve(), *given.check_dir.resolve().parents)
    ):
        raise UserError(
            f"--check-dir {given.check_dir} lies in the data",
            "its sounds would be taken for clips",
            "choose a folder elsewhere, as results/PROJECT/round_trip",
        )


def _check_task(
    given: argparse.Namespace, clips: list[Clip], failures: dict[Path, str], settings: Settings
) -> CheckTask:
    """The clips to check the codec with: a few, spread over those that have codes."""
    good = [clip for clip in clips if clip.audio not in failures]
    chosen = spread([clip for clip in good if clip.duration_s >= 1] or good, CLIPS)
    return CheckTask(tuple((_named(clip.audio, given.data), clip) for clip in chosen), given.check_dir, settings)


def _named(audio: Path, data: Path | None) -> str:
    """A clip as people call it: below the data folder, on one line."""
    inside = data is not None and audio.is_relative_to(data) and audio != data
    return ascii(str(audio.relative_to(data) if inside and data else audio))[1:-1]


def _tell(given: argparse.Namespace, clips: list[Clip], failures: dict[Path, str], checked: RoundTrip) -> None:
    """Name the clips that failed and those that are long, and say how the codec did."""
    for audio in sorted(failures)[:_SHOWN]:
        logger.warning("failed: %s: %s", ascii(str(audio))[1:-1], failures[audio])
    if len(failures) > _SHOWN:
        logger.warning("failed: %d more", len(failures) - _SHOWN)
    long = [clip for clip in clips if clip.duration_s > LONG_S and clip.audio not in failures]
    if long:
        named = ", ".join(f"{_named(clip.audio, given.data)} ({clip.duration_s:.1f} s)" for clip in long[:_FEW])
        logger.warning(
            "%d of %d clips are longer than %.0f s, kept but hard to learn from: %s%s; prepare_dataset.py cuts them",
            *(len(long), len(clips), LONG_S, named, ", ..." if len(long) > _FEW else ""),
        )
    if given.no_check:
        return
    logger.info("%s", checked)
    for problem in checked.problems():
        logger.warning("codec round trip: %s", problem)


def _remove_leftovers(clips: list[Clip]) -> None:
    for folder in {clip.audio.parent for clip in clips}:
        files.remove_leftovers(folder)


def main() -> int:
    """Parse, then extract."""
    parser = make_parser()
    given = parser.parse_args()
    if (given.data is None) == (given.filelist is None):
        parser.error("give either DATA or --filelist")
    allow_mps_fallback(given.device, given.force_mps)
    log.setup()
    errors.terminate_like_interrupt()
    return extract(given)


if __name__ == "__main__":
    errors.run(main)
