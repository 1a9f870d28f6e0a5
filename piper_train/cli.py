"""The command line of training: `python -m piper_train fit --data.csv_path metadata.csv ...`, as Lightning's CLI.

Options are `--data.*`, `--model.*`, `--trainer.*`, `--checkpoint.*`, `--seed_everything` and `--ckpt_path`, each with a
space or = before its value; `--config FILE.yaml` holds any of them, as configs/piper/high.yaml does.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fish_speech.errors import UserError
from fish_speech.extras import missing, require

_NEEDED = ("jsonargparse", "docstring_parser", "typeshed_client", "numba")
_ABOUT = """usage: python -m piper_train fit [options]

Train a Piper voice. The data set is metadata.csv (file|text, or file|speaker|text) with a folder of sounds.

  python -m piper_train fit --data.config_path config.json --data.voice_name NAME --data.csv_path metadata.csv \\
    --data.audio_dir wavs --data.cache_dir .cache --data.espeak_voice ru --model.sample_rate 22050 --data.batch_size 32

  --config configs/piper/high.yaml     another quality than medium (x-low, low, high)
  --ckpt_path X.ckpt                   go on exactly from a checkpoint of this training (`last`: from the newest one);
                                       a published one is a start from epoch 0
  --model.warmstart_ckpt X.ckpt        start from epoch 0 with another voice's weights
  --trainer.max_epochs N               epochs in all; without it training goes on until it is stopped
  --trainer.max_steps N                steps in all, two for each batch: the generator's and the discriminators'
  --trainer.devices 2 --trainer.accelerator gpu --trainer.strategy ddp_find_unused_parameters_true

`python -m piper_train fit --help` lists every option. The result is lightning_logs/version_N/checkpoints/*.ckpt;
`python -m piper_train.export_onnx` makes a voice of one.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_ABOUT)
        return 0
    if words[0] != "fit":
        raise UserError(
            f"unknown command {words[0]}",
            "there is one, fit, which also validates and writes the test sentences into TensorBoard",
            "python -m piper_train fit --help",
        )
    if missing(*_NEEDED):
        for module in _NEEDED:
            require(module, "training a Piper voice", "piper")
    from .training.command import train

    return train(words)
