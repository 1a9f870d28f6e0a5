"""The flags of `finetune_tts.py --engine piper`. Imports nothing heavy."""

from __future__ import annotations

import argparse
from pathlib import Path

from fish_speech import arguments as flags
from fish_speech.prepare import flags as prepare_flags

from ..quick_start import CLIPS
from ..teach import add_teaching

DESCRIPTION = """Train a small voice for Piper (VITS): it speaks on a Raspberry Pi, without Python or torch.

  python finetune_tts.py --engine piper --full-pipeline                                   a test data set is made first
  python finetune_tts.py --engine piper --project anna --data-dir training_data/anna --espeak-voice en-us --full-pipeline
  python finetune_tts.py --engine piper --teacher checkpoints/anna-merged --script texts.txt --espeak-voice en-us

The last lets a fine-tuned Fish voice read a script and trains on that. The voice is checkpoints/PROJECT-piper/PROJECT.onnx.
Each step runs as a process of its own and can be run alone. The same command again continues where it stopped.
Exit code: 0 all done; 1 a step failed; 2 wrong request; 130 interrupted."""

QUALITIES = ("x-low", "low", "medium", "high")
PRECISIONS = {"fp32": "32-true", "16-mixed": "16-mixed", "bf16-mixed": "bf16-mixed"}  # by Lightning's names
MAX_EPOCHS, BATCH_SIZE = 1000, 32


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its help imports nothing heavy."""
    parser = flags.make_parser("finetune_tts.py --engine piper", DESCRIPTION)
    parser.add_argument("--engine", choices=("piper",), help="this one; fish, the default, has a help of its own")
    parser.add_argument("--project", help="name of the run: results/NAME, checkpoints/NAME-piper (default: that of the "
                        "data folder, TEACHER-taught, else quick-start)")  # fmt: skip
    parser.add_argument("--data-dir", type=Path, help="a data set (metadata.csv and wavs/, or of prepare_dataset.py), or "
                        "recordings to prepare (default: a test data set of synthetic speech)")  # fmt: skip
    parser.add_argument("--quality", metavar="NAME",
                        help=f"{', '.join(QUALITIES)}, or a yaml file of model.* values (default: medium)")  # fmt: skip
    parser.add_argument("--espeak-voice", metavar="NAME", help="language of the texts, as espeak-ng names it: en-us, ru, de "
                        "(default: as the project or the checkpoint says, else by the texts)")  # fmt: skip
    parser.add_argument("--checkpoint", type=Path, metavar="CKPT", help="to start from: this project's continues exactly, "
                        "any other gives its weights alone; with --export alone: to export")  # fmt: skip
    add_steps(parser.add_argument_group("steps"))
    prepare_flags.add_preparation(parser.add_argument_group("preparation of recordings, as in prepare_dataset.py"))
    add_teaching(parser.add_argument_group("a Fish voice as teacher"))
    add_training(parser.add_argument_group("training"))
    return parser


def add_steps(group: argparse._ActionsContainer) -> None:
    """Add what can be done, and what can be looked at."""
    group.add_argument("--prepare-data", action="store_true", help="recordings with texts -> training_data/PROJECT")
    group.add_argument("--teach", action="store_true", help="the teacher reads the script -> training_data/PROJECT")
    group.add_argument("--build-dataset", action="store_true", help="phonemes and sounds -> results/PROJECT/cache")
    group.add_argument("--train", action="store_true", help="train; results/PROJECT/lightning_logs for TensorBoard")
    group.add_argument("--export", action="store_true", help="the last checkpoint -> checkpoints/PROJECT-piper")
    group.add_argument("--full-pipeline", action="store_true",
                       help="all of them, as far as they are needed; with --teacher the default")  # fmt: skip
    group.add_argument("--dry-run", action="store_true", help="print what would run and the plan; write nothing")
    group.add_argument("--list-checkpoints", action="store_true", help="list the project's checkpoints")
    group.add_argument("--doctor", action="store_true", help="look whether this machine can do that; needs no project")
    group.add_argument("--clips", type=flags.positive_int, default=CLIPS, metavar="N",
                       help=f"of a test data set that is made (default: {CLIPS})")  # fmt: skip


def add_training(group: argparse._ActionsContainer) -> None:
    """Add what decides the result of training, and where it runs."""
    group.add_argument("--max-epochs", type=flags.positive_int, default=MAX_EPOCHS, metavar="N",
                       help=f"passes over all clips that the project makes in all (default: {MAX_EPOCHS})")  # fmt: skip
    group.add_argument("--batch-size", type=flags.positive_int, default=BATCH_SIZE, metavar="N",
                       help=f"clips a batch, in each process (default: {BATCH_SIZE})")  # fmt: skip
    group.add_argument("--gradient-accumulation-steps", type=flags.positive_int, default=1, metavar="N",
                       help="batches per optimizer step (default: 1)")  # fmt: skip
    group.add_argument("--learning-rate", type=flags.positive_float, help="of the generator (default: 2e-4)")
    group.add_argument("--num-speakers", type=flags.positive_int, metavar="N", help="2 or more: metadata.csv is "
                       "file|speaker|text (default: 1; of a folder of prepare_dataset.py, its speakers)")  # fmt: skip
    group.add_argument("--num-workers", type=flags.positive_int, default=1, metavar="N",
                       help="processes that read clips (default: 1)")  # fmt: skip
    group.add_argument("--log-every-n-steps", type=flags.positive_int, metavar="N",
                       help="(default: 50, less for small data sets)")  # fmt: skip
    flags.add_seed(group)
    flags.add_device(group)
    group.add_argument("--precision", default="fp32", metavar="NAME",
                       help=f"{', '.join(PRECISIONS)}: float32, or 16 bits where they do no harm (default: fp32)")  # fmt: skip
    group.add_argument("--num-gpus", type=flags.positive_int, default=1, metavar="N",
                       help="training processes on this machine; with --device cpu on the CPU (default: 1)")  # fmt: skip
