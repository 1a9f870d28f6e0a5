"""Train the codec: `python -m fish_speech.train_codec project=NAME data.train=[FOLDER]`.

From scratch (codec_config=NAME, a yaml of configs/codec) or from weights (pretrained_ckpt_path=FILE), at any size.
The configuration is hydra's, as for fish_speech.train. A project that has checkpoints is continued exactly where it stopped.
"""

from __future__ import annotations

import sys
from pathlib import Path

from .arguments import make_parser
from .configs import CONFIGS
from .device import allow_mps_fallback, choose_device
from .errors import run as run_main
from .log import setup
from .train import compose_config, precision_of


def main(argv: list[str] | None = None) -> int:
    """Parse, compose, train."""
    parser = make_parser("python -m fish_speech.train_codec", __doc__)
    parser.add_argument("--config-name", default="codec_train", help="a yaml in the config folder")
    parser.add_argument("--config-dir", type=Path, default=CONFIGS, help="the config folder (default: configs/)")
    parser.add_argument("--print-config", action="store_true", help="print the composed config and stop")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values for keys of the config")
    arguments = parser.parse_args(argv)
    setup()
    config = compose_config(arguments.config_name, arguments.overrides, arguments.config_dir)
    if arguments.print_config:
        from omegaconf import OmegaConf

        sys.stdout.write(OmegaConf.to_yaml(config))
        return 0
    allow_mps_fallback(config.device, config.force_mps)
    device = choose_device(config.device, "training", config.force_mps, precision_of(config.trainer.precision))
    from .training.codec_run import run

    return run(config, device)


if __name__ == "__main__":
    run_main(main)
