"""Fine-tune a voice: extract codes, pack them, train adapters, choose the best, merge it into a model that speaks.

  python finetune_tts.py --project my_voice --data-dir training_data/my_voice --full-pipeline
  python finetune_tts.py --project my_voice --data-dir training_data/my_voice --full-pipeline --dry-run
  python finetune_tts.py --doctor
  python finetune_tts.py --engine piper --help

Each step runs as a process of its own and can be run alone. The same command again continues where it stopped.
Exit code: 0 all done; 1 a step failed; 2 wrong request; 130 interrupted."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from fish_speech import arguments as flags
from fish_speech.device import DEVICES
from fish_speech.errors import DONE, run
from fish_speech.finetuning.request import check, fill_in
from fish_speech.log import setup
from fish_speech.prepare import flags as prepare_flags
from fish_speech.versions import VERSIONS
from piper_train.finetuning.engines import engine_of, refuse_other_engine

log = logging.getLogger("fish_speech.finetune_tts")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser; its help imports nothing heavy."""
    parser = flags.make_parser("finetune_tts.py", __doc__)
    parser.add_argument("--engine", choices=("fish",),
                        help="this one; piper trains small voices and has a help of its own")  # fmt: skip
    parser.add_argument("--project", help="name of the run: results/NAME, checkpoints/NAME-merged")
    parser.add_argument("--data-dir", type=Path, help="data set of prepare_dataset.py, or recordings to prepare")
    flags.add_model_version(parser)
    parser.add_argument("--pretrained-ckpt-path", type=Path, metavar="DIR",
                        help="base model folder, a merged one say (default: the model version's)")  # fmt: skip
    flags.add_offline(parser)
    add_steps(parser.add_argument_group("steps"))
    prepare_flags.add_preparation(parser.add_argument_group("preparation of recordings, as in prepare_dataset.py"))
    add_extraction(parser.add_argument_group("extraction"))
    add_training(parser.add_argument_group("training"))
    add_machines(parser.add_argument_group("machines"))
    add_checking(parser.add_argument_group("checking and choosing"))
    add_resuming(parser.add_argument_group("resuming"))
    return parser


def add_steps(group: argparse._ActionsContainer) -> None:
    """Add what can be done, and what can be looked at."""
    group.add_argument("--prepare-data", action="store_true", help="recordings with texts -> training_data/PROJECT")
    group.add_argument("--extract-tokens", action="store_true", help="clips -> codes (.npy) beside them")
    group.add_argument("--build-dataset", action="store_true", help="codes and texts -> results/PROJECT/protos")
    group.add_argument("--train", action="store_true", help="train adapters; packs the data if that is not current")
    group.add_argument(
        "--tournament", action="store_true", help="base and kept checkpoints speak the same held-out texts"
    )
    group.add_argument("--merge-weights", action="store_true", help="checkpoint -> checkpoints/PROJECT-merged")
    group.add_argument("--full-pipeline", action="store_true", help="all of them, as far as they are needed")
    group.add_argument(
        "--dry-run", action="store_true", help="print what would run and the training's plan; write nothing"
    )
    group.add_argument("--list-checkpoints", action="store_true", help="list the project's checkpoints")
    group.add_argument(
        "--doctor", action="store_true", help="look whether this machine can do all that; needs no project"
    )
    group.add_argument("--max-left-out", type=flags.percent, default=5.0, metavar="PERCENT",
                       help="clips that may be unusable before the run stops; one may in any case (default: 5)")  # fmt: skip
    group.add_argument("--keep-going", action="store_true", help="train however many clips could not be used")


def add_extraction(group: argparse._ActionsContainer) -> None:
    """Add how codes are extracted."""
    group.add_argument("--batch-size-extract", type=flags.positive_int, default=16, help="clips a batch (default: 16)")
    group.add_argument("--num-workers-extract", type=flags.positive_int, default=1, help="processes (default: 1)")
    group.add_argument("--device-extract", choices=DEVICES, help="where to extract (default: as --device)")


def add_training(group: argparse._ActionsContainer) -> None:
    """Add what decides the result of training."""
    default = partial(flags.version_default, "recipe")
    safe = VERSIONS[flags.DEFAULT_VERSION].recipe.safe_learning_rate
    group.add_argument("--max-steps", type=flags.positive_int, help=f"optimizer steps ({default('max_steps')})")
    group.add_argument("--max-epochs", type=flags.positive_int,
                       help=f"passes over all clips, if fewer ({default('max_epochs', 'any')})")  # fmt: skip
    group.add_argument("--batch-size", type=flags.positive_int, default=4, help="packed samples a batch (default: 4)")
    group.add_argument("--gradient-accumulation-steps", type=flags.positive_int, default=1,
                       help="batches per optimizer step (default: 1)")  # fmt: skip
    group.add_argument("--max-length", type=flags.positive_int,
                       help="clips are packed into samples of so many tokens "
                       f"({default('max_length', '4096, without CUDA 1024')})")  # fmt: skip
    group.add_argument("--learning-rate", type=flags.positive_float,
                       help=f"1e-5 to {safe:g} is safe for {flags.DEFAULT_VERSION} ({default('learning_rate')})")  # fmt: skip
    group.add_argument("--warmup-steps", type=flags.non_negative_int, default=10, help="(default: 10)")
    group.add_argument("--lora-config",
                       help=f"a name in configs/lora; none: all weights ({default('lora_config')})")  # fmt: skip
    group.add_argument("--save-every-n-steps", type=flags.positive_int, default=100,
                       help="optimizer steps between checkpoints and validations (default: 100)")  # fmt: skip
    group.add_argument("--log-every-n-steps", type=flags.positive_int, default=10, help="(default: 10)")
    flags.add_seed(group)


def add_machines(group: argparse._ActionsContainer) -> None:
    """Add where it runs."""
    flags.add_device(group)
    flags.add_force_mps(group)
    flags.add_precision(group)
    group.add_argument("--num-gpus", type=flags.positive_int, default=1, metavar="N",
                       help="training processes on this machine; with --device cpu on the CPU (default: 1)")  # fmt: skip
    group.add_argument("--num-nodes", type=flags.positive_int, default=1, metavar="N",
                       help="machines that train together; start the command on each (default: 1)")  # fmt: skip
    group.add_argument("--strategy", choices=("ddp", "fsdp"),
                       help="of several processes: ddp, whole model in each; fsdp, in shares (default: ddp)")  # fmt: skip
    flags.add_runner(group)


def add_checking(group: argparse._ActionsContainer) -> None:
    """Add how a training is watched and its best checkpoint found."""
    group.add_argument("--early-stopping-patience", type=flags.positive_int, metavar="N",
                       help="stop after N validations without a lower held-out loss (default: never)")  # fmt: skip
    group.add_argument("--sample-every-n-steps", type=flags.non_negative_int, metavar="N",
                       help="speak two sentences every N steps; 0: never (default: as --save-every-n-steps)")  # fmt: skip
    group.add_argument("--tournament-texts", type=flags.non_negative_int, default=8, metavar="N",
                       help="held-out texts that the kept checkpoints speak after training; 0: none (default: 8)")  # fmt: skip


def add_resuming(group: argparse._ActionsContainer) -> None:
    """Add where training starts and what is merged."""
    start = group.add_mutually_exclusive_group()
    start.add_argument("--resume-latest", action="store_true",
                       help="continue this project, or start from the newest fitting checkpoint of another")  # fmt: skip
    start.add_argument("--resume-from-checkpoint", type=Path, metavar="CKPT",
                       help="this project's: continue exactly; another's: start with its weights, step 0")  # fmt: skip
    start.add_argument("--checkpoint-path", type=Path, metavar="PATH", help="the same, for a file or a folder")
    group.add_argument("--checkpoint-step", type=flags.positive_int, metavar="N",
                       help="the step to merge (default: what the tournament recommends, else the newest)")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Parse and check, then look or run."""
    argv = sys.argv[1:] if argv is None else argv
    engine = engine_of(argv)
    refuse_other_engine(argv, engine)
    if engine == "piper":
        from piper_train.finetuning.command import main as piper_main

        return piper_main(argv)
    options = make_parser().parse_args(argv)
    given = flags.given_flags(argv) - {"--engine"}
    setup()
    fill_in(options)
    work = check(options, given)
    if options.doctor:
        from fish_speech import doctor

        return doctor.main(options.model_version, options.device, options.pretrained_ckpt_path)
    if options.list_checkpoints:
        from fish_speech.finetuning.starts import listing

        sys.stdout.write("\n".join(listing(options.project)) + "\n")
        return DONE
    from fish_speech.finetuning.rehearsal import rehearse
    from fish_speech.finetuning.steps import left_out, plan
    from fish_speech.pipeline import run_steps

    flags.use_ray_address(options)
    steps = plan(options, work, given)
    if options.dry_run:
        return rehearse(options, work, steps)
    code = run_steps(steps, Path("results") / options.project / "logs")
    if work.trains and code == DONE:
        for line in left_out(options):
            log.warning("%s", line)
    return code


if __name__ == "__main__":
    run(main)
