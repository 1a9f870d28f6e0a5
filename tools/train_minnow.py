"""Make minnow from nothing, or continue making it: corpus, codec, codes, language model, checkpoints/minnow.

  python tools/train_minnow.py --work DIR                     every stage but head, each as far as it is not done
  python tools/train_minnow.py --work DIR pretrain ship --steps 40000     train the language model on, and ship it
  python tools/train_minnow.py --work DIR head ship           better the sound, with the same codes

Every stage can be interrupted; the same command continues. See docs/minnow.md."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # so that it runs where the package is not installed

import yaml  # noqa: E402

from fish_speech.arguments import add_device, make_parser, positive_int  # noqa: E402
from fish_speech.checkpoint import list_checkpoints  # noqa: E402
from fish_speech.configs import hydra_value  # noqa: E402
from fish_speech.errors import run  # noqa: E402
from fish_speech.log import setup  # noqa: E402
from fish_speech.models import codec_config  # noqa: E402
from fish_speech.pipeline import Step, run_steps  # noqa: E402

OUTPUT = Path("checkpoints/minnow")

CODEC_STEPS, HEAD_STEPS, STEPS = 6000, 6000, 12000
BY_DEFAULT = ("corpus", "codec", "codes", "pretrain", "ship")
# Shares of what the codec hears. Allison's prompts come first: real speech in the language of the demo.
CODEC_SHARES = {
    "codec/en": 0.33, "codec/es": 0.06, "codec/fr": 0.06, "codec/it": 0.06, "codec/ru": 0.06,
    "lm/slt": 0.22, "lm/rms": 0.06, "lm/awb": 0.05, "lm/kal16": 0.05, "lm/espeak": 0.05,
}  # fmt: skip


def corpus(options: argparse.Namespace) -> list[list[str]]:
    """Sentences, synthetic voices reading them, recordings of real ones."""
    return [["tools/minnow_corpus.py", "--output", str(options.work / "corpus")]]


def codec(options: argparse.Namespace) -> list[list[str]]:
    """The codec; without --discriminators by spectral losses only, since they take several times as long as all the rest."""
    run_dir = options.work / "codec"
    values = codec_values(options, run_dir) | {
        "project": "minnow_codec",
        "trainer.max_steps": at_least_reached(options.codec_steps, run_dir),
    }
    return [["-m", "fish_speech.train_codec", *overrides(values)]]


def head(options: argparse.Namespace) -> list[list[str]]:
    """The sound alone: a new head, or the same with --discriminators, behind codes that stay what they are."""
    run_dir = options.work / "head"
    old = yaml.safe_load(encoder(options).with_suffix(".yaml").read_text(encoding="utf-8"))
    values = codec_values(options, run_dir) | {
        "project": "minnow_head",
        "pretrained_ckpt_path": encoder(options),
        "new_head": old["head"] != codec_config("minnow")["head"],
        "model.freeze_encoder": True,
        "trainer.max_steps": at_least_reached(options.head_steps, run_dir),
    }
    return [["-m", "fish_speech.train_codec", *overrides(values)]]


def codec_values(options: argparse.Namespace, run_dir: Path) -> dict[str, object]:
    """What both trainings of the codec share."""
    data = options.work / "corpus"
    return {
        "paths.run_dir": run_dir,
        "codec_config": "minnow",
        "device": options.device,
        "data.train": [{"path": data / name, "weight": share} for name, share in CODEC_SHARES.items()],
        "data.validation": [data / "codec_heldout/allison"],
        "data.batch_size": 12,
        "data.validation_clips": 12,
        "model.adversarial_from": 0 if options.discriminators else None,
        "model.ema_decay": 0.998,
        "model.optimizer.lr": 6e-4,
        "model.discriminators.period_channels": 4,
        "model.discriminators.resolution_channels": 8,
        "callbacks.export.dtype": "float16",
        "trainer.precision": options.precision,
        "trainer.val_check_interval": 250,
        "trainer.log_every_n_steps": 50,
        "reached_is_done": True,
    }


def codes(options: argparse.Namespace) -> list[list[str]]:
    """The corpus as codes, packed, and an untrained model folder with its tokenizer."""
    speech, base = options.work / "corpus/lm", options.work / "base"
    return [
        ["-m", "fish_speech.extract_vq", str(speech), "--model-version", "minnow", "--checkpoint-path", str(encoder(options)),
         "--num-workers", str(options.workers), "--device", options.device],
        ["-m", "fish_speech.build_dataset", "--input", str(speech), "--output", str(options.work / "lm/protos")],
        *([] if (base / "config.json").is_file() else
          [["-m", "fish_speech.new_model", "--sentences", str(speech), "--output", str(base), "--merges", "200"]]),
    ]  # fmt: skip


def pretrain(options: argparse.Namespace) -> list[list[str]]:
    """The language model, all weights from scratch."""
    run_dir = options.work / "lm"
    values = {
        "project": "minnow_lm",
        "paths.run_dir": run_dir,
        "pretrained_ckpt_path": options.work / "base",
        "device": options.device,
        "trainer.precision": "bf16-mixed" if options.precision == "bf16" else "32",
        "trainer.max_steps": at_least_reached(options.steps, run_dir),
        "reached_is_done": True,
    }
    return [["-m", "fish_speech.train", "--config-name", "text2semantic_pretrain", *overrides(values)]]


def overrides(values: dict[str, object]) -> list[str]:
    """Hydra's overrides for config keys."""
    return [f"{key}={hydra_value(value)}" for key, value in values.items()]


def at_least_reached(steps: int, run_dir: Path) -> int:
    """`steps`, or where the run is already, if that is further: a run is never asked to end before it stands."""
    return max([steps, *(checkpoint.step for checkpoint in list_checkpoints(run_dir / "checkpoints"))])


def ship(options: argparse.Namespace) -> list[list[str]]:
    """Newest weights and codec into checkpoints/minnow, 16 bits each."""
    return [
        ["-m", "fish_speech.merge_lora", "--model-version", "minnow", "--base-weight", str(options.work / "base"),
         "--lora-weight", str(options.work / "lm/checkpoints"), "--codec", str(weights(options)), "--output", str(OUTPUT),
         "--dtype", "bfloat16"],
    ]  # fmt: skip


def encoder(options: argparse.Namespace) -> Path:
    """The weights that the codes are made with."""
    return options.work / "codec/codec/codec.pth"


def weights(options: argparse.Namespace) -> Path:
    """The weights to ship: those of the `head` stage, if it was run."""
    newest = options.work / "head/codec/codec.pth"
    return newest if newest.is_file() else encoder(options)


STAGES: dict[str, Callable[[argparse.Namespace], list[list[str]]]] = {
    stage.__name__: stage for stage in (corpus, codec, head, codes, pretrain, ship)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages; return 0 or the exit code of the one that failed: 2 wrong request, 130 interrupted, else 1."""
    parser = make_parser("tools/train_minnow.py", __doc__)
    parser.add_argument(
        "stages", nargs="*", metavar="STAGE", help=f"some of {', '.join(STAGES)} (default: all but head)"
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for corpus, runs and checkpoints (about 5 GB)")
    parser.add_argument("--codec-steps", type=positive_int, default=CODEC_STEPS, help=f"(default: {CODEC_STEPS})")
    parser.add_argument("--head-steps", type=positive_int, default=HEAD_STEPS, help=f"(default: {HEAD_STEPS})")
    parser.add_argument(
        "--discriminators", action="store_true", help="train codec and head adversarially too: for GPUs"
    )
    parser.add_argument("--steps", type=positive_int, default=STEPS, help=f"of the language model (default: {STEPS})")
    parser.add_argument("--workers", type=positive_int, default=2, help="processes that extract codes (default: 2)")
    add_device(parser)
    parser.add_argument(
        "--precision",
        choices=("32", "bf16"),
        default="32",
        help="bf16: twice as fast where the processor has it (AMX, GPU)",
    )
    options = parser.parse_args(argv)
    options.work = options.work.resolve()
    unknown = [name for name in options.stages if name not in STAGES]
    if unknown:
        parser.error(f"unknown stage {unknown[0]!r}; known: {', '.join(STAGES)}")
    setup()
    os.chdir(ROOT)
    for name in options.stages or BY_DEFAULT:
        # A clip that cannot be coded is left out and named; it does not keep the others from being trained on.
        steps = [Step(name, command, left_out_is_fine=name == "codes") for command in STAGES[name](options)]
        code = run_steps(steps, options.work / "logs")
        if code:
            sys.stderr.write(f"{name} ended with exit code {code}; the same command continues\n")
            return code
    return 0


if __name__ == "__main__":
    run(main)
