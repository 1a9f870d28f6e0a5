"""The main job on the bundled recordings with the bundled model, offline: prepare, fine-tune, merge, speak, measure.

  python tools/demo.py

Runs the commands that a user types and shows each. Writes output/demo.wav, output/demo-evaluation/report.html and a table.
The same command again continues where it stopped; --fresh starts anew."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it runs where the package is not installed

from fish_speech.arguments import make_parser, positive_int  # noqa: E402
from fish_speech.errors import FAILED, INTERRUPTED, WRONG_REQUEST, run  # noqa: E402
from fish_speech.log import setup  # noqa: E402
from fish_speech.pipeline import Step, run_step  # noqa: E402
from fish_speech.versions import VERSIONS  # noqa: E402

MINNOW = VERSIONS["minnow"]
PROJECT = "minnow-demo"
SAMPLES = Path("samples")
DATA, RUN, MERGED = Path("training_data", PROJECT), Path("results", PROJECT), Path("checkpoints", f"{PROJECT}-merged")
TEXTS = Path("tools/demo_texts.txt")  # sentences that are not in the samples
SOUND, EVALUATION, LOGS = Path("output/demo.wav"), Path("output/demo-evaluation"), Path("output/demo-logs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo in the repository's folder; return the exit code of the first command that fails, else 0."""
    parser = make_parser("tools/demo.py", __doc__)
    parser.add_argument("--steps", type=positive_int, help="of fine-tuning (default: finetune_tts.py's)")
    parser.add_argument("--fresh", action="store_true", help="remove what an earlier demo left first")
    options = parser.parse_args(argv)
    setup()
    os.chdir(ROOT)
    if options.fresh:
        for folder in (DATA, RUN, MERGED, EVALUATION):
            shutil.rmtree(folder, ignore_errors=True)
    seconds = {}
    for name, command in commands(options.steps):
        sys.stdout.write(f"\n== {name} ==\n$ python {' '.join(quoted(word) for word in command)}\n")
        sys.stdout.flush()
        began = time.monotonic()
        code = run_step(Step(name, command), LOGS / f"{name.replace(' ', '-')}.log")
        seconds[name] = time.monotonic() - began
        if code:
            sys.stderr.write(f"the demo stopped: {name} ended with exit code {code}; the same command continues\n")
            return code if code in (WRONG_REQUEST, INTERRUPTED) else FAILED
    sys.stdout.write("\n" + table(seconds) + f"\n\nListen to {SOUND}; look at {EVALUATION / 'report.html'}\n")
    return 0


def commands(steps: int | None = None) -> list[tuple[str, list[str]]]:
    """What a user would type, step by step, without the word python."""
    sentence = (ROOT / TEXTS).read_text(encoding="utf-8").splitlines()[0]
    return [
        ("prepare", ["prepare_dataset.py", "--input", str(SAMPLES), "--output", str(DATA)]),
        (
            "fine-tune and merge",
            ["finetune_tts.py", "--project", RUN.name, "--model-version", "minnow", "--data-dir", str(DATA), "--full-pipeline",
             "--save-every-n-steps", "5", "--log-every-n-steps", "5", *(["--max-steps", str(steps)] if steps else [])],
        ),
        (
            "speak",
            ["cli_tts.py", sentence, "--model-version", "minnow", "--model-path", str(MERGED), "-o", str(SOUND)],
        ),
        (
            "measure",
            ["-m", "fish_speech.evaluate", "--checkpoint", f"before={MINNOW.folder}", "--checkpoint", f"after={MERGED}",
             "--recordings", f"recordings={DATA}", "--texts", str(TEXTS), "--speaker", str(DATA), "--limit", "8",
             "--measures", "intelligibility,similarity", "--output", str(EVALUATION), "--force"],
        ),
    ]  # fmt: skip


def quoted(word: str) -> str:
    """A word as it is typed in a shell."""
    return f'"{word}"' if " " in word else word


def table(seconds: dict[str, float]) -> str:
    """What was done and what came of it, from the files that the commands wrote."""
    summary = json.loads((ROOT / DATA / "dataset_summary.json").read_text(encoding="utf-8"))
    results = json.loads((ROOT / EVALUATION / "results.json").read_text(encoding="utf-8"))
    found = {system["name"]: system["summary"] for system in results["systems"]}
    before, after, real = (found[name] for name in ("before", "after", "recordings"))
    voice = json.loads((ROOT / MERGED / "voice.json").read_text(encoding="utf-8"))
    rows = [
        ("clips", f"{summary['total_files']}"),
        ("seconds of speech", f"{60 * summary['total_duration_minutes']:.0f}"),
        ("fine-tuning steps", f"{voice['step']}"),
        ("training loss, first and last", change(scalars("train/loss"))),
        ("held-out loss, first and last", change(scalars("val/loss"))),
        ("speaker similarity, before -> after (recordings)", figures("similarity", before, after, real)),
        ("word error rate, before -> after (recordings)", figures("wer", before, after, real)),
        *((f"time to {name}", f"{value:.0f} s") for name, value in seconds.items()),
        ("time in all, this run", f"{sum(seconds.values()):.0f} s"),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def change(points: list[tuple[int, float]]) -> str:
    """First and last value of a curve."""
    return f"{points[0][1]:.2f} -> {points[-1][1]:.2f}" if points else "none"


def figures(key: str, before: dict, after: dict, real: dict) -> str:
    """One measure of the three systems."""
    one, other, best = ("none" if found.get(key) is None else f"{found[key]:.2f}" for found in (before, after, real))
    return f"{one} -> {other} ({best})"


def scalars(name: str) -> list[tuple[int, float]]:
    """The (step, value) pairs of one TensorBoard curve of the run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    points = {}
    for file in sorted((ROOT / RUN / "logs").rglob("events.out.tfevents.*")):
        events = EventAccumulator(str(file))
        events.Reload()
        if name in events.Tags()["scalars"]:
            points.update({event.step: event.value for event in events.Scalars(name)})
    return sorted(points.items())


if __name__ == "__main__":
    run(main)
