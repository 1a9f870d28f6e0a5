"""Stage: encode every clip of a folder into codec codes, `clip.npy` beside it: int32 (codebooks, frames).

Run again, it does only what is missing, torn, or older than its audio. A clip's codes do not depend on what was done
before: batches are planned over all clips, and a batch of which any clip is missing is computed again as a whole.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import arguments, errors, files, log
from .audio import AUDIO_SUFFIXES, MAX_CLIP_S, AudioError, duration_s, find_audio, read_audio
from .checkpoint import sha256
from .device import allow_mps_fallback, choose_device
from .errors import DONE, FAILED, UserError
from .versions import CODEC_RECORD, VERSIONS, ModelVersion
from .workers import WorkerLost, run_tasks

if TYPE_CHECKING:
    import numpy as np

    from .models import FireflyCodec, FireflyConfig

logger = logging.getLogger("fish_speech.extract_vq")  # not __name__: that is __main__ when the stage runs

DESCRIPTION = """Encode every audio file below a folder into codec codes, a .npy file beside each.

  python -m fish_speech.extract_vq training_data/my_voice --num-workers 1 --batch-size 16

Run it again to continue: what is done, whole and newer than its audio is skipped.
Exit code: 0 all done; 1 some files could not be used, each with its reason; 2 wrong request."""

MAX_PADDED_S = 480.0  # seconds of sound in a batch, padding included: 16 clips of 30 s
_WINDOW = 128  # clips that are bucketed by length together, on average
_SHOWN = 20  # failures listed on the terminal
SEVERAL = "several"  # in a folder's record: its codes are of more than one codec until a run has made all anew


class Clip(NamedTuple):
    """An audio file and how long its header says it is."""

    duration_s: float
    audio: Path

    @property
    def codes(self) -> Path:
        """Where its codes go."""
        return _codes_of(self.audio)


def _codes_of(audio: Path) -> Path:
    return audio.with_suffix(".npy")


@dataclass(frozen=True)
class Settings:
    """What a worker needs to know to encode."""

    checkpoint: Path
    config_name: str
    device: str
    threads: int | None  # of torch in each process; None: torch's own choice


@dataclass(frozen=True)
class BatchTask:
    """Clips to encode together, and those of them whose codes are to be written."""

    clips: tuple[Clip, ...]
    to_write: frozenset[Path]
    settings: Settings


class Outcome(NamedTuple):
    """What became of one clip that was to be written."""

    audio: Path
    seconds: float
    failure: str | None


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of this stage; its help imports nothing heavy."""
    parser = arguments.make_parser("python -m fish_speech.extract_vq", DESCRIPTION)
    parser.add_argument("data", nargs="?", type=Path, metavar="DATA", help="folder of clips, searched recursively")
    parser.add_argument("--filelist", type=Path, help="text file of lines PATH|SPEAKER|LANGUAGE|TEXT, instead of DATA")
    parser.add_argument("--num-workers", type=arguments.positive_int, default=1, help="processes (default: 1)")
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
    return parser


def find_clips(data: Path | None, filelist: Path | None) -> tuple[list[Clip], dict[Path, str]]:
    """List the clips by path, and the files that cannot be clips with the reasons. UserError if there is no audio."""
    if filelist is not None:
        paths = _read_filelist(filelist)
    else:
        assert data is not None
        if not data.exists():
            raise UserError(
                f"there is no folder {data}", "clips are read from it", "check the path, or prepare the data"
            )
        try:
            paths = find_audio(data) if data.is_dir() else [data]
        except AudioError as error:
            raise UserError(f"cannot search {data}", str(error), "make the folder readable") from None
    if not paths:
        raise UserError(
            f"no audio file in {filelist or data}",
            f"files with these suffixes count: {' '.join(sorted(AUDIO_SUFFIXES))}",
            f"python prepare_dataset.py --input recordings --output {data or 'training_data/my_voice'}",
        )
    failures: dict[Path, str] = {}
    owners: dict[str, Path] = {}
    for path in paths:
        owner = owners.setdefault(os.path.normcase(path.with_suffix(".npy")), path)
        if owner != path:
            failures[path] = f"same name as {owner.name}: both would write {owner.stem}.npy; rename one"
    candidates = [path for path in paths if path not in failures]
    clips = []
    with ThreadPoolExecutor(8) as pool:
        for path, found in zip(candidates, pool.map(_measure, candidates)):
            if isinstance(found, str):
                failures[path] = found
            elif found > MAX_CLIP_S:
                failures[path] = f"too long: {found:.0f} s, a clip has at most {MAX_CLIP_S:.0f} s; split the recording"
            else:
                clips.append(Clip(found, path))
    return clips, failures


def _measure(path: Path) -> float | str:
    try:
        return duration_s(path)
    except AudioError as error:
        return error.reason


def _read_filelist(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the file list {path}", str(error), "give a UTF-8 text file") from None
    names = sorted({line.split("|")[0].strip() for line in lines} - {""})
    return [Path(name) for name in names]


def plan_batches(clips: list[Clip], batch_size: int) -> list[tuple[Clip, ...]]:
    """Group clips of similar length, longest batches first; every clip is in one batch.

    Clips are bucketed within windows of about 128 neighbours, whose bounds depend on the names there alone: adding
    clips changes the batches around them and leaves all others as they were.
    """
    batches = []
    for window in _windows(clips):
        batch: list[Clip] = []
        for clip in sorted(window):
            if batch and (len(batch) == batch_size or (len(batch) + 1) * clip.duration_s > MAX_PADDED_S):
                batches.append(tuple(batch))
                batch = []
            batch.append(clip)
        batches.append(tuple(batch))
    return sorted(batches, key=lambda batch: -batch[-1].duration_s)


def _windows(clips: list[Clip]) -> Iterator[list[Clip]]:
    window: list[Clip] = []
    for clip in clips:
        starts = zlib.crc32(os.fsencode(clip.audio.name)) % _WINDOW == 0
        if window and (starts or clip.audio.parent != window[-1].audio.parent):
            yield window
            window = []
        window.append(clip)
    if window:
        yield window


def is_done(clip: Clip, config: FireflyConfig) -> bool:
    """Tell whether the clip has codes that are whole, plausible and newer than its audio."""
    import numpy as np

    try:
        if clip.codes.stat().st_mtime_ns < clip.audio.stat().st_mtime_ns:
            return False
        with clip.codes.open("rb") as file:
            codes = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):
                return False
    except (OSError, ValueError, EOFError, MemoryError):  # missing, torn, objects, or a header of absurd size
        return False
    if codes.dtype != np.int32 or codes.ndim != 2 or codes.shape[0] != config.quantizer.n_groups or not codes.size:
        return False
    frames = clip.duration_s * config.frame_rate
    exact = clip.audio.suffix.lower() in (".wav", ".flac")  # other headers may be wrong about the duration
    plausible = not exact or abs(codes.shape[1] - frames) < 2
    return plausible and int(codes.min()) >= 0 and int(codes.max()) < config.quantizer.codes


def encode_batch(task: BatchTask) -> list[Outcome]:
    """Encode a batch and write what is to be written; return an outcome for each of those.

    Raises UserError if the weights do not load or memory does not suffice, OSError if a result cannot be written.
    """
    import torch

    codec = _load(task.settings)
    wanted, others = ([c for c in task.clips if (c.audio in task.to_write) is first] for first in (True, False))
    sounds = _read_all(wanted, codec)
    failures = [Outcome(clip.audio, 0.0, sound) for clip, sound in sounds.items() if isinstance(sound, str)]
    if len(failures) == len(wanted):
        return failures  # no need for the others: a file that is broken would cost them all at every run
    sounds |= _read_all(others, codec)
    good = [(clip, sound) for clip in task.clips if not isinstance(sound := sounds[clip], str)]
    try:
        tensors = [torch.from_numpy(sound).to(task.settings.device) for _, sound in good]
        codes = [part.cpu().numpy() for part in codec.encode_clips(tensors)]
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"a batch of {len(good)} clips, the longest {task.clips[-1].duration_s:.0f} s, does not fit into memory",
            str(error).splitlines()[0],
            f"use --batch-size {max(1, len(good) // 2)}, fewer --num-workers, or --device cpu",
        ) from None
    outcomes = []
    for (clip, sound), part in zip(good, codes):
        if clip.audio in task.to_write:
            failure = None
            if part.min() < 0 or part.max() >= codec.codebook_size:
                failure = "the codec gave no valid codes for it: the weights may hold NaN"
            else:
                save_codes(clip.codes, part)
            outcomes.append(Outcome(clip.audio, len(sound) / codec.sample_rate, failure))
    return outcomes + failures


def _read_all(clips: list[Clip], codec: FireflyCodec) -> dict[Clip, np.ndarray | str]:
    """Read clips at the codec's rate; the reason in place of a waveform (samples,) where that fails."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(clips, pool.map(lambda clip: _read(clip, codec.sample_rate, codec.samples_per_frame), clips)))


def _read(clip: Clip, sample_rate: int, least: int) -> np.ndarray | str:
    try:
        waveform, _ = read_audio(clip.audio, sample_rate, max_duration_s=MAX_CLIP_S)
    except AudioError as error:
        return error.reason
    if len(waveform) < least:
        return f"too short: {len(waveform) / sample_rate:.3f} s are less than one frame of codes"
    return waveform


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
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(path: Path | None, weights: str, config: FireflyConfig) -> None:
    record = {"codec_sha256": weights, "frame_rate": config.frame_rate}
    if path is not None and _read_record(path) != record:
        files.write_json(path, record)


@cache
def _load(settings: Settings) -> FireflyCodec:
    """Load the codec once per process."""
    import torch

    from .models import codec_config, load_codec

    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    if settings.device == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # TF32 keeps 10 bits: codes near a rounding boundary would flip
    return load_codec(settings.checkpoint, codec_config(settings.config_name), settings.device)


def save_codes(path: Path, codes: np.ndarray) -> None:
    """Write codes (codebooks, frames) as int32, whole or not at all."""
    import numpy as np

    buffer = io.BytesIO()  # np.save to a file would report a full disk without its error number
    np.save(buffer, np.ascontiguousarray(codes, dtype=np.int32), allow_pickle=False)
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def extract(given: argparse.Namespace) -> int:
    """Run the stage and return its exit code."""
    started = time.monotonic()
    clips, failures = find_clips(given.data, given.filelist)
    choice = choose_device(given.device, "training", given.force_mps)
    from .models import FireflyConfig, codec_config

    version = VERSIONS[given.model_version]
    checkpoint = given.checkpoint_path or version.folder / version.codec_file
    config_name = given.config_name or version.config_of(checkpoint)
    config = FireflyConfig.from_mapping(codec_config(config_name))
    _remove_leftovers(clips)
    weights = _check_weights(checkpoint, version)
    record = given.data / CODEC_RECORD if given.data is not None and given.data.is_dir() else None
    recorded = _read_record(record).get("codec_sha256", "")
    another = recorded not in ("", weights)  # codes without a record are taken as fitting
    if another:
        logger.info("the codes in %s were made by other codec weights: all are made anew", given.data)
    made_anew = given.force or another
    paths = (*(clip.audio for clip in clips), *failures)
    mixed = made_anew and recorded != weights and any(_codes_of(path).exists() for path in paths)
    missing = {clip.audio for clip in clips if made_anew or not is_done(clip, config)}
    batches = [batch for batch in plan_batches(clips, given.batch_size) if any(c.audio in missing for c in batch)]
    seconds = 0.0
    if batches:
        workers = min(given.num_workers, len(batches))
        threads = None if workers == 1 else max(1, (os.cpu_count() or 1) // workers)
        settings = Settings(checkpoint, config_name, choice.device, threads)
        if workers == 1:
            _load(settings)  # here, so that what is wrong with the weights is said before a bar is drawn
        logger.info("%s; %d of %d clips to encode, %d workers", choice, len(missing), len(clips), workers)
        tasks = [BatchTask(b, frozenset(c.audio for c in b if c.audio in missing), settings) for b in batches]
        # Before the first codes: those of a run that is stopped must not pass for another codec's later.
        _write_record(record, SEVERAL if mixed else weights, config)
        try:
            outcomes = (outcome for batch in run_tasks(encode_batch, tasks, workers) for outcome in batch)
            for outcome in log.progress(outcomes, "extract", total=len(missing), unit="clip"):
                if outcome.failure is None:
                    seconds += outcome.seconds
                else:
                    failures[outcome.audio] = outcome.failure
        except WorkerLost as error:
            logger.error("failed: %s; run the same command again with fewer --num-workers to continue", error)
            return FAILED
    if another:  # what could not be made anew must not stay among the new codes
        for path in set(map(_codes_of, failures)) - {clip.codes for clip in clips if clip.audio not in failures}:
            path.unlink(missing_ok=True)
    _write_record(record, weights, config)
    _remove_leftovers(clips)  # once more: workers of a killed run live a moment longer than it
    for audio in sorted(failures)[:_SHOWN]:
        logger.warning("failed: %s: %s", ascii(str(audio))[1:-1], failures[audio])
    if len(failures) > _SHOWN:
        logger.warning("failed: %d more", len(failures) - _SHOWN)
    elapsed, made = time.monotonic() - started, len(missing - set(failures))
    factor = f", real-time factor {elapsed / seconds:.3f} on {choice.device}" if seconds else ""
    sys.stdout.write(
        f"{len(clips) - len(set(failures) & {clip.audio for clip in clips})} clips have codes: {made} encoded "
        f"({seconds:.1f} s), {len(clips) - len(missing)} done before, {len(failures)} failed; {elapsed:.1f} s{factor}\n"
    )
    return FAILED if failures else DONE


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
