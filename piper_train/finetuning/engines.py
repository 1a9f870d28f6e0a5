"""The two engines of finetune_tts.py, fish and piper: which one is asked for, and flags that only the other one has."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from fish_speech.arguments import given_flags
from fish_speech.errors import UserError

ENGINES = ("fish", "piper")
# A flag of the one engine, and what to do instead with the other.
FISH_ONLY: Mapping[str, str] = {
    "--model-version": "use --quality x-low, low, medium or high",
    "--pretrained-ckpt-path": "use --checkpoint X.ckpt, a Piper checkpoint to start from",
    "--offline": "leave it out: nothing is downloaded",
    "--extract-tokens": "use --build-dataset: Piper learns from sound, not from codes",
    "--batch-size-extract": "leave it out: Piper learns from sound, not from codes",
    "--num-workers-extract": "leave it out: Piper learns from sound, not from codes",
    "--device-extract": "use --device",
    "--tournament": "leave it out; --list-checkpoints names the best by val_mel",
    "--tournament-texts": "leave it out; --list-checkpoints names the best by val_mel",
    "--merge-weights": "use --export, which makes checkpoints/PROJECT-piper/PROJECT.onnx",
    "--max-left-out": "leave it out: what is left out is counted and named, and the rest is used",
    "--keep-going": "leave it out: what is left out is counted and named, and the rest is used",
    "--max-steps": "use --max-epochs",
    "--max-length": "use python -m piper_train fit --data.max_seconds, or leave long clips out of the data set",
    "--warmup-steps": "leave it out: Piper's training has no warmup",
    "--lora-config": "leave it out: all weights are trained",
    "--save-every-n-steps": "leave it out: checkpoints are written at the end of epochs",
    "--early-stopping-patience": "use --max-epochs: the losses of adversarial training do not say when to stop",
    "--sample-every-n-steps": "leave it out: test sentences are spoken into TensorBoard at each validation",
    "--resume-latest": "leave it out: the same command continues the project; --checkpoint X.ckpt starts from another",
    "--resume-from-checkpoint": "use --checkpoint X.ckpt",
    "--checkpoint-path": "use --checkpoint X.ckpt",
    "--checkpoint-step": "use --export --checkpoint X.ckpt; --list-checkpoints lists them",
    "--force-mps": "use --device mps",
    "--num-nodes": "use python -m piper_train fit --trainer.num_nodes",
    "--strategy": "leave it out: several processes train with ddp_find_unused_parameters_true",
    "--runner": "first python prepare_dataset.py --runner ray, then --data-dir with what it made",
    "--ray-address": "first python prepare_dataset.py --runner ray, then --data-dir with what it made",
}
PIPER_ONLY: Mapping[str, str] = {
    "--quality": "use --model-version",
    "--espeak-voice": "leave it out: Fish reads letters, not phonemes; --language says what is spoken",
    "--checkpoint": "use --resume-from-checkpoint",
    "--export": "use --merge-weights, which makes checkpoints/PROJECT-merged",
    "--teach": "add --engine piper: a Fish voice teaches a Piper voice",
    "--teacher": "add --engine piper: a Fish voice teaches a Piper voice",
    "--script": "add --engine piper: a Fish voice teaches a Piper voice",
    "--verify": "add --engine piper: a Fish voice teaches a Piper voice",
    "--attempts": "add --engine piper: a Fish voice teaches a Piper voice",
    "--max-seconds": "use --max-length, in tokens",
    "--clips": "add --engine piper, which can make a test data set",
    "--num-workers": "use --num-workers-extract",
    "--num-speakers": "leave it out: Fish takes any number of speakers, a folder each",
}


def engine_of(argv: Sequence[str]) -> str:
    """The engine that a command line asks for, fish if it says nothing."""
    parser = argparse.ArgumentParser(prog="finetune_tts.py", add_help=False, allow_abbrev=False)
    parser.add_argument("--engine", choices=ENGINES, default="fish")
    return str(parser.parse_known_args(argv)[0].engine)


def refuse_other_engine(argv: Sequence[str], engine: str) -> None:
    """Raise UserError that says, of each flag that only the other engine has, what to use instead."""
    table = PIPER_ONLY if engine == "fish" else FISH_ONLY
    wrong = [flag for flag in table if flag in given_flags(argv)]
    if wrong:
        other = "piper" if engine == "fish" else "fish"
        verb = "is a flag" if len(wrong) == 1 else "are flags"
        raise UserError(
            f"{', '.join(wrong)} {verb} of --engine {other}",
            f"this is --engine {engine}"
            + (", the default" if engine == "fish" and "--engine" not in given_flags(argv) else ""),
            "; ".join(f"{flag}: {table[flag]}" for flag in wrong) if len(wrong) > 1 else table[wrong[0]],
        )
