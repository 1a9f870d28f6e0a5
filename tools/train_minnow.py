"""Make minnow from nothing, or continue making it: corpus, codec, codes, language model, checkpoints/minnow.

  python tools/train_minnow.py --work DIR                     every stage, each as far as it is not done
  python tools/train_minnow.py --work DIR pretrain ship --steps 40000     train the language model on, and ship it

Every stage can be interrupted; the same command continues. See docs/minnow.md."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = Path("checkpoints/minnow")

# Shares of what the codec hears. Allison's prompts come first: real speech in the language of the demo.
CODEC_SHARES = {
    "codec/en": 0.33, "codec/es": 0.06, "codec/fr": 0.06, "codec/it": 0.06, "codec/ru": 0.06,
    "lm/slt": 0.22, "lm/rms": 0.06, "lm/awb": 0.05, "lm/kal16": 0.05, "lm/espeak": 0.05,
}  # fmt: skip


def corpus(options: argparse.Namespace) -> list[list[str]]:
    """Sentences, synthetic voices reading them, recordings of real ones."""
    return [["tools/minnow_corpus.py", "--output", str(options.work / "corpus")]]


def codec(options: argparse.Namespace) -> list[list[str]]:
    """The codec, spectral losses only: on two cores the discriminators take five times as long as all the rest."""
    data, run = options.work / "corpus", options.work / "codec"
    train = ",".join(f"{{path: {data / name}, weight: {share}}}" for name, share in CODEC_SHARES.items())
    return [
        ["-m", "fish_speech.train_codec", "project=minnow_codec", f"paths.run_dir={run}", "codec_config=minnow",
         f"data.train=[{train}]", f"data.validation=[{data / 'codec_heldout/allison'}]", "data.batch_size=12",
         "data.validation_clips=12", "model.adversarial_from=null", "model.ema_decay=0.998", "model.optimizer.lr=6e-4",
         "model.discriminators.period_channels=4", "model.discriminators.resolution_channels=8",
         "callbacks.export.dtype=float16", f"trainer.max_steps={options.codec_steps}", f"trainer.precision={options.precision}",
         "trainer.val_check_interval=250", "trainer.log_every_n_steps=50", "reached_is_done=true"],
    ]  # fmt: skip


def codes(options: argparse.Namespace) -> list[list[str]]:
    """The corpus as codes, packed, and an untrained model folder with its tokenizer."""
    speech, base = options.work / "corpus/lm", options.work / "base"
    return [
        ["-m", "fish_speech.extract_vq", str(speech), "--model-version", "minnow", "--checkpoint-path", str(weights(options)),
         "--num-workers", str(options.workers), "--device", "cpu"],
        ["-m", "fish_speech.build_dataset", "--input", str(speech), "--output", str(options.work / "lm/protos")],
        *([] if (base / "config.json").is_file() else
          [["-m", "fish_speech.new_model", "--sentences", str(speech), "--output", str(base), "--merges", "200"]]),
    ]  # fmt: skip


def pretrain(options: argparse.Namespace) -> list[list[str]]:
    """The language model, all weights from scratch."""
    precision = "bf16-mixed" if options.precision == "bf16" else "32"
    return [
        ["-m", "fish_speech.train", "--config-name", "text2semantic_pretrain", "project=minnow_lm",
         f"paths.run_dir={options.work / 'lm'}", f"pretrained_ckpt_path={options.work / 'base'}",
         f"trainer.precision={precision}", f"trainer.max_steps={options.steps}", "reached_is_done=true"],
    ]  # fmt: skip


def ship(options: argparse.Namespace) -> list[list[str]]:
    """Newest weights and codec into checkpoints/minnow, 16 bits each."""
    return [
        ["-m", "fish_speech.merge_lora", "--model-version", "minnow", "--base-weight", str(options.work / "base"),
         "--lora-weight", str(options.work / "lm/checkpoints"), "--codec", str(weights(options)), "--output", str(OUTPUT),
         "--dtype", "bfloat16"],
    ]  # fmt: skip


def weights(options: argparse.Namespace) -> Path:
    """The codec's exported weights."""
    return options.work / "codec/codec/codec.pth"


STAGES: dict[str, Callable[[argparse.Namespace], list[list[str]]]] = {
    stage.__name__: stage for stage in (corpus, codec, codes, pretrain, ship)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages; return the exit code of the first command that fails, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"some of {', '.join(STAGES)} (default: all)")
    parser.add_argument("--work", type=Path, required=True, help="folder for corpus, runs and checkpoints (about 5 GB)")
    parser.add_argument("--codec-steps", type=int, default=7000, help="of codec training (default: 7000)")
    parser.add_argument("--steps", type=int, default=12000, help="of language model training (default: 12000)")
    parser.add_argument("--workers", type=int, default=2, help="processes that extract codes (default: 2)")
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
    for name in options.stages or STAGES:
        for command in STAGES[name](options):
            sys.stdout.write(f"== {name}: python {' '.join(command)}\n")
            sys.stdout.flush()
            code = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
            if code:
                sys.stderr.write(f"{name} ended with exit code {code}; the same command continues\n")
                return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
