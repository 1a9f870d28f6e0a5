"""The rows of Piper voices."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .process import Finished, run
from .table import Plan, Row, memory_rows

QUALITIES = ("x-low", "medium", "high")
THREADS = (1, 2)
PIPER_NOTES = """\
Piper voices, untrained, as reference/piper.md (3.4, 4, 6) describes them:
  training    medium with its real discriminators by Lightning's trainer, clips of 400, 340, 280 and 220 frames with 161 to 91
              ids, one step of generator and discriminators; the best of three runs, taken in turns. Baseline: the
              discriminators run for each side on its own, each loss's backward pass to all weights it reaches, AdamW as
              torch chooses it, alignment in numpy
  alignment   of those clips, and of four of 1000 frames and 401 ids; baseline: numpy, row by row and back cell by cell
  speaking    121 ids at 4 frames each, as sound per computing. .onnx beside torch with the decoder's norms folded, and that
              beside torch with them not folded
  first sound of five sentences with a warm voice, to the first sentence, phonemes included; baseline: to the last one
  phonemes    of 200 English sentences by one phonemizer; baseline: a phonemizer started for each of five sentences"""


def measure(plan: Plan, name: str, *arguments: str | Path, repeats: int) -> Finished:
    """Run one measurement in a child process."""
    count = str(1 if plan.quick else repeats)
    return run("benchmarks.piper", name, "--scale", plan.scale, "--repeats", count, *arguments)


def piper_rows(plan: Plan) -> Iterator[Row]:
    """Training, alignment, speaking and phonemes of Piper voices."""
    runs = [
        [measure(plan, "train", "--way", way, repeats=3) for way in ("fit", "plain")]
        for _ in range(1 if plan.quick else 3)  # in turns, so that a change of the machine's load hits both alike
    ]
    ours, plain = (min(of_way, key=lambda run: run.figures["step_s"]) for of_way in zip(*runs))
    title = "piper: train medium, batch 4"
    yield Row(f"{title}: step", ours.figures["step_s"], "s", plain.figures["step_s"])
    yield from memory_rows(title, ours, plain)
    found = measure(plan, "align", repeats=5).figures
    for name, what in (("batch", "that batch"), ("long", "4 clips of 1000 frames")):
        yield Row(f"piper: align {what}", 1000 * found[f"{name}_s"], "ms", 1000 * found[f"{name}_plain_s"])
    with tempfile.TemporaryDirectory(prefix="piper-bench-") as folder:
        for quality in QUALITIES:
            yield from speech_rows(plan, quality, Path(folder) / f"{quality}.onnx")
        yield from sentence_rows(plan, Path(folder) / "medium.onnx")


def speech_rows(plan: Plan, quality: str, voice: Path) -> Iterator[Row]:
    """An exported voice of a quality, beside torch."""
    exported = measure(plan, "export", "--quality", quality, "--voice", voice, repeats=1)
    yield Row(f"piper: {quality}: .onnx", exported.figures["bytes"] / 1e6, "MB")
    for threads in THREADS:
        options = ("--quality", quality, "--voice", voice, "--threads", str(threads))
        found = measure(plan, "speak", *options, repeats=5).figures
        title = f"piper: {quality}, {threads} thread{'s' if threads > 1 else ''}"
        yield Row(f"{title}: .onnx, to torch", found["onnx"], "x real", found["torch"], smaller_is_better=False)
        yield Row(f"{title}: torch, to norms not folded", found["torch"], "x real", found["unfolded"],
                  smaller_is_better=False)  # fmt: skip


def sentence_rows(plan: Plan, voice: Path) -> Iterator[Row]:
    """From text to sound, and to phonemes; nothing where no espeak is."""
    try:
        found = measure(plan, "phonemes", repeats=3).figures
    except RuntimeError as error:
        if "fix: " not in str(error):
            raise
        print("piper: phonemes and first sound left out: no espeak here", file=sys.stderr)
        return
    title = f"piper: phonemes by {found['source']}"
    yield Row(title, found["per_s"], "1/s", found["alone_per_s"], smaller_is_better=False)
    spoken = measure(plan, "first-sound", "--voice", voice, repeats=5).figures
    yield Row("piper: medium, first sound of five sentences", spoken["first_s"], "s", spoken["whole_s"])
    yield Row("piper: medium, from nothing loaded to the first sound", spoken["ready_s"], "s")
