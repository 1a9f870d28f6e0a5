"""`python -m fish_speech.doctor`: the doctor without the rest of finetune_tts.py."""

from __future__ import annotations

from pathlib import Path

from .. import arguments as flags
from ..errors import run
from ..log import setup
from ..versions import settle_version
from . import main


def command() -> int:
    """Parse and look."""
    description = "Look whether this machine can fine-tune. Exit code: 0 nothing is wrong; 1 something is."
    parser = flags.make_parser("python -m fish_speech.doctor", description)
    flags.add_model_version(parser)
    flags.add_device(parser)
    parser.add_argument(
        "--pretrained-ckpt-path",
        type=Path,
        metavar="DIR",
        help="base model folder to look at (default: the model version's)",
    )
    options = parser.parse_args()
    setup()
    version = settle_version(options.model_version, options.pretrained_ckpt_path)
    return main(version.name, options.device, options.pretrained_ckpt_path)


if __name__ == "__main__":
    run(command)
