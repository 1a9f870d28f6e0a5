"""Print how fast the toolkit trains, merges, encodes, decodes and generates on this machine, and in how much memory.

Everything runs on random weights of the sizes of Fish Speech 1.5, OpenAudio S1-mini and Piper voices, each measurement in
a process of its own, one after another, beside a baseline measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from . import preparing
from .piper_table import PIPER_NOTES, piper_rows
from .process import run
from .table import Plan, Row, memory_rows

VERSIONS = ("1.5", "s1-mini")
FRAME_RATE = 44100 / 2048  # frames of the released codecs per second of sound, both the same
BATCHES = {"1x256": "1 x 256", "4x512": "4 x 512"}
NOTES = """\
gain       how many times better than the baseline: above 1 is faster, or smaller
x real     seconds of sound per second of computing: above 1 is faster than real time
tokens/s   tokens that are not padding; all in float32; training has LoRA r 8 with dropout 0.01, no attention dropout,
           forward, backward and AdamW
4 x 512    rows of 512, 430, 350 and 260 tokens, padded to 512; of each row 40 % are text and 60 % frames
recompute  training with gradient_checkpointing on, which the toolkit chooses only where memory is short
RSS        peak resident memory of the whole process, pages of mapped files included (the system's own record)
anonymous  peak resident memory without pages of files, which the system can drop at will (looked at every 10 ms)
Baselines, as reference/fish-1.5.md and reference/openaudio-s1-mini.md describe the released systems:
  training    the whole padded batch through model.forward: vocabulary logits at all positions, padding included,
              a mask over all pairs of positions, each block's activations recomputed in the backward pass
  merging     the whole model built in float32 with LoRA, both state dicts joined and loaded, merged, saved
  extraction  clips one at a time (as the toolkit does on a CPU), and all padded to the longest in one batch; that of
              s1-mini makes the decoder's input besides, as the released one does
  decoding    the released way: one pass over the whole sound in one-dimensional layout, weights normalised anew
  preparing   librosa.load, effects.split, loudness to -23 LUFS, write: no texts, no measures, cuts at every silence
  generation  caches and mask of the longest sequence (8192), repeated KV heads, one fast position at a time, logits of
              the whole vocabulary
Generation, each way in a process of its own that loads the published format (bfloat16 file) as cli_tts does:
  frames/s    after the first, median of three runs of 64 (the baseline: 16) frames behind a prompt of 100 tokens, top-p
              sampling; tokens/s are its codes, 8 a frame in 1.5 and 10 in s1-mini; all-tokens draws from the whole
              vocabulary as the baseline does, the others from semantic tokens and the end token, as cli_tts does
  first frame from the prompt to the first column, and first sound to the first decoded chunk, models loaded and warm
  memory      1 GiB of float32 read by all threads, the best of three ways (sum, maximum, product with a vector), of six
              tries of each, and of the turns between the other measurements
  weights     bytes of the linear weights that a frame must read, times frames/s: slow layers once, fast layers once per
              code after the first, semantic rows of the vocabulary; int8 weights count one byte
Side by side: the same rows of both versions; s1-mini / 1.5 is above 1 where s1-mini takes more, or is faster"""


def train_rows(plan: Plan) -> Iterator[Row]:
    """Step time, throughput and memory of training on each batch, activations kept or recomputed."""
    for batch, repeats in (("1x256", 5), ("4x512", 3)):
        options = ("--batch", batch)
        ways = {"": plan.measure("train", *options, repeats=repeats)}
        released = plan.measure("train", *options, "--as-released", repeats=repeats)
        ways[", recompute"] = plan.measure("train", *options, "--recompute", repeats=repeats)
        for way, ours in ways.items():
            name = f"train {BATCHES[batch]}{way}"
            if "too_large_bytes" in ours.figures:
                needed = ours.figures["too_large_bytes"] / 1e9
                print(f"{plan.version}: {name} left out: activations of {needed:.1f} GB do not fit", file=sys.stderr)
                continue
            yield Row(f"{name}: step", ours.figures["step_s"], "s", released.figures["step_s"])
            speeds = ours.figures["tokens_per_s"], released.figures["tokens_per_s"]
            yield Row(f"{name}: throughput", speeds[0], "tokens/s", speeds[1], smaller_is_better=False)
            yield from memory_rows(name, ours, released)


def merge_rows(plan: Plan) -> Iterator[Row]:
    """Time and memory of merging, and the ratio of memory to the model file."""
    with tempfile.TemporaryDirectory(prefix="fish-bench-") as folder:
        base = Path(folder) / "base"
        plan.measure("write-model", "--folder", base)
        ours = run(
            "fish_speech.merge_lora",
            *("--base-weight", base, "--lora-weight", base / "adapter.ckpt", "--output", Path(folder) / "merged"),
        )
        released = plan.measure("merge-as-released", "--folder", base, "--output", Path(folder) / "released")
        size = (base / "model.pth").stat().st_size
    yield Row("merge: whole command", ours.seconds, "s", released.seconds)
    yield from memory_rows("merge", ours, released)
    yield Row("merge: model file", size / 1e9, "GB")
    yield Row(
        "merge: peak RSS / model file (at most 1.3)",
        ours.peak_rss / size,
        "x file",
        released.peak_rss / size,
    )
    if ours.peak_anonymous and released.peak_anonymous:
        yield Row(
            "merge: peak anonymous / model file",
            ours.peak_anonymous / size,
            "x file",
            released.peak_anonymous / size,
        )


def codec_rows(plan: Plan) -> Iterator[Row]:
    """Speed of encoding and decoding against real time."""
    found = plan.measure("encode", repeats=5)
    what, speed = "codec: extraction, 6 clips of 5-10 s", found.figures["speed"]
    yield Row(f"{what}, to one by one", speed, "x real", found.figures["alone_speed"], smaller_is_better=False)
    yield Row(f"{what}, to a padded batch", speed, "x real", found.figures["padded_speed"], smaller_is_better=False)
    ours, padded = (plan.measure("codec-memory", "--way", way) for way in ("encode", "encode-padded"))
    yield Row(f"{what}: peak RSS", ours.peak_rss / 1e9, "GB", padded.peak_rss / 1e9)
    found = plan.measure("decode", repeats=5)
    figures = found.figures
    for way, what in (
        ("whole", "decoding 10 s"),
        ("chunks", "decoding 10 s in chunks"),
        ("images", "decoding 10 s by the modules, as before"),
    ):
        if way in figures:
            yield Row(f"codec: {what}, per second of sound", figures[way], "s", figures["plain"])
    yield Row("codec: first chunk", figures["first_chunk_s"], "s")
    chunks, plain = (plan.measure("codec-memory", "--way", way) for way in ("chunks", "plain"))
    title = f"codec: decoding {chunks.figures['sound_s']:g} s: peak RSS"
    yield Row(title, chunks.peak_rss / 1e9, "GB", plain.peak_rss / 1e9)


def generate_rows(plan: Plan) -> Iterator[Row]:
    """Speed, delay and memory of generation, and how much of the memory's bandwidth it uses."""
    with tempfile.TemporaryDirectory(prefix="fish-bench-") as temporary:
        folder = Path(temporary) / "base"
        plan.measure("write-model", "--folder", folder)
        found, sounds, memory = {}, {}, [plan.measure("bandwidth").figures]
        for way in memory[0]["ways"]:
            found[way] = plan.measure("generate", "--way", way, "--folder", folder, repeats=3)
            if way in ("fp32", "bf16", "int8"):
                sounds[way] = plan.measure("first-sound", "--way", way, "--folder", folder, repeats=3).figures
            memory.append(plan.measure("bandwidth").figures)
    best = max(memory, key=lambda figures: figures["bytes_per_s"])
    yield Row(f"memory, read by {best['way']}", best["bytes_per_s"] / 1e9, "GB/s")
    released = found.pop("released")
    baseline, codebooks = released.figures["frames_per_s"], released.figures["codebooks"]
    for way, ours in found.items():
        figures, title = ours.figures, f"generate, {way.replace('-', ', ').replace('all, ', 'all ')}"
        rate = figures["frames_per_s"]
        yield Row(title, rate, "frames/s", baseline, smaller_is_better=False)
        yield Row(f"{title}: codes", rate * codebooks, "tokens/s", baseline * codebooks, smaller_is_better=False)
        yield Row(f"{title}: sound", rate / FRAME_RATE, "x real", baseline / FRAME_RATE, smaller_is_better=False)
        read = rate * figures["bytes_per_frame"]
        yield Row(f"{title}: weights read", read / 1e9, "GB/s")
        yield Row(f"{title}: share of the memory's bandwidth", 100 * read / best["bytes_per_s"], "%")
        yield Row(f"{title}: first frame", figures["first_s"], "s", released.figures["first_s"])
        if way in sounds:
            yield Row(f"{title}: first sound", sounds[way]["first_sound_s"], "s")
        yield Row(f"{title}: loading", figures["load_s"], "s", released.figures["load_s"])
        yield from memory_rows(title, ours, released)


def prepare_rows(plan: Plan) -> Iterator[Row]:
    """Speed of preparing a long recording with subtitles, and memory as it grows; librosa's load-and-split beside it."""
    lengths = (30.0, 60.0, 120.0) if plan.scale == "tiny" else (600.0, 3600.0, 18000.0)
    memory = {}
    for seconds in lengths:
        if plan.quick and seconds > 3600:
            continue
        with tempfile.TemporaryDirectory(prefix="fish-bench-") as folder:
            source = preparing.write_recording(Path(folder) / "in" / "long.wav", seconds)
            ours = run("prepare_dataset", "--input", source.parent, "--output", Path(folder) / "out")
            memory[seconds] = ours
            if seconds == lengths[1]:
                librosa = run("benchmarks.preparing", source, Path(folder) / "librosa")
                title = f"prepare: {seconds / 60:g} min with subtitles, whole command"
                yield Row(title, seconds / ours.seconds, "x real", seconds / librosa.seconds, smaller_is_better=False)
                yield Row(f"{title}: peak RSS", ours.peak_rss / 1e9, "GB", librosa.peak_rss / 1e9)
    for seconds, found in memory.items():
        yield Row(f"prepare: {seconds / 60:g} min: peak RSS, to the shortest", found.peak_rss / 1e9, "GB",
                  memory[lengths[0]].peak_rss / 1e9)  # fmt: skip


PARTS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "train": train_rows,
    "merge": merge_rows,
    "codec": codec_rows,
    "generate": generate_rows,
    "prepare": prepare_rows,
    "piper": piper_rows,
}
OF_NO_MODEL = {"prepare", "piper"}  # of neither version


def side_by_side(rows: Sequence[Row], versions: Sequence[str]) -> Iterator[str]:
    """A table of what was measured of the first and of another of `versions`, and how many times more the other is."""
    first, *others = versions
    found = {(row.version, row.what): row for row in rows}
    for other in others:
        yield f"{'':<58}{first:>12} {other:>12} {'':<9}{other + ' / ' + first:>14}"
        for row in rows:
            beside = found.get((other, row.what))
            if row.version == first and beside is not None and row.value:
                ratio = f"{beside.value / row.value:14.2f}"
                yield f"{row.what:<58}{row.value:12.3f} {beside.value:12.3f} {row.unit:<9}{ratio}"


def machine() -> dict[str, Any]:
    """What the figures were measured on, and how busy it was before."""
    threads = os.environ.get("OMP_NUM_THREADS", psutil.cpu_count(logical=False))
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "threads": int(threads or 1),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load": round(psutil.getloadavg()[0], 2),
        "torch": version("torch"),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def parts_named(text: str) -> list[str]:
    """Split a comma-separated list of parts."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; choose from {', '.join(PARTS)}")
    return names


def main(argv: list[str] | None = None) -> int:
    """Measure, print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=parts_named, default=list(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument(
        "--model-version", choices=VERSIONS, help="one model version only (default: each of them, side by side)"
    )
    parser.add_argument("--quick", action="store_true", help="one repeat of each measurement instead of three or five")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    parser.add_argument(
        "--scale", choices=["full", "tiny"], default="full", help="tiny tests the benchmarks themselves"
    )
    given = parser.parse_args(argv)
    about = machine()
    print(
        f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads, {about['memory_gb']} GB, "
        f"load {about['load']} before; torch {about['torch']}, Python {about['python']}, {about['system']}"
    )
    print(f"random weights, scale {given.scale}\n")
    print(f"{'':<66}{'here':>12} {'':<9}{'baseline':>12}{'gain':>9}")
    rows: list[Row] = []
    versions = (given.model_version,) if given.model_version else VERSIONS
    for part in given.only:
        for version_name in ("",) if part in OF_NO_MODEL else versions:
            for row in PARTS[part](Plan(given.scale, given.quick, version_name or VERSIONS[0])):
                rows.append(replace(row, version=version_name))
                print(rows[-1], flush=True)
    beside = list(side_by_side(rows, versions))
    if len(beside) > 1:
        print("\n" + "\n".join(beside))
    print(f"\n{NOTES}\n{PIPER_NOTES}")
    if given.json:
        values = [{**asdict(row), "gain": row.gain} for row in rows]
        given.json.write_text(json.dumps({"machine": about, "scale": given.scale, "rows": values}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
