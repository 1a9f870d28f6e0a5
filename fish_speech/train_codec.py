"""Train a codec of firefly architecture: `python -m fish_speech.train_codec project=NAME data.train=[FOLDER]`.

From scratch (codec_config=NAME, a yaml of configs/codec) or from weights (pretrained_ckpt_path=FILE), at any size.
The configuration is hydra's, as for fish_speech.train. A project that has checkpoints is continued exactly where it stopped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .device import DeviceChoice
from .errors import run as run_main
from .train import main_of

if TYPE_CHECKING:
    from omegaconf import DictConfig


def main(argv: list[str] | None = None) -> int:
    """Parse, compose, train."""
    return main_of("python -m fish_speech.train_codec", __doc__, "codec_train", argv, _run)


def _run(config: DictConfig, device: DeviceChoice) -> int:
    from .training.codec_run import run

    return run(config, device)


if __name__ == "__main__":
    run_main(main)
