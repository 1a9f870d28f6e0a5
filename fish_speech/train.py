"""Train the text-to-semantic model: `python -m fish_speech.train --config-name text2semantic_finetune project=NAME`.

The configuration is hydra's: yaml files in configs/, keys overridden as key.sub=value, groups added as
+lora@model.model.lora_config=r_8_alpha_16. A project that has checkpoints is continued exactly where it stopped.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import configs
from .arguments import make_parser
from .configs import CONFIGS
from .device import DeviceChoice, allow_mps_fallback, choose_device
from .errors import UserError
from .errors import run as run_main
from .log import setup
from .ranks import is_first_process

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose_config(name: str, overrides: list[str], folder: Path = CONFIGS) -> DictConfig:
    """Compose a training config; raise UserError for an unknown config, group or key."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def known(group: str) -> str:
        return ", ".join(configs.names(group, folder))

    try:
        with initialize_config_dir(str(folder.resolve()), version_base="1.3"):
            config = compose(name, overrides)
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(
            "the training config cannot be made",
            " ".join(str(error).split())[:600],
            f"configs: {known('.')}; LoRA shapes for +lora@model.model.lora_config=...: {known('lora')}",
        ) from error
    missing = OmegaConf.missing_keys(config)
    if missing:
        raise UserError("the training config lacks values", f"not set: {', '.join(sorted(missing))}", "add KEY=VALUE")
    return config


def precision_of(value: Any) -> str:
    """Translate trainer.precision to ours: 32, bf16 (weights too, but for adapters), bf16-mixed (float32 weights)."""
    name = str(value)
    if name in ("32", "32-true", "fp32"):
        return "fp32"
    if name in ("bf16", "bf16-true"):
        return "bf16"
    if name == "bf16-mixed":
        return name
    raise UserError(
        f"trainer.precision={name} is not supported", "known: 32, bf16, bf16-mixed", "use trainer.precision=32"
    )


def main(argv: list[str] | None = None) -> int:
    """Parse, compose, train."""
    return main_of("python -m fish_speech.train", __doc__, "text2semantic_finetune", argv, _run)


def main_of(
    program: str,
    description: str | None,
    config_name: str,
    argv: list[str] | None,
    run: Callable[[DictConfig, DeviceChoice], int],
) -> int:
    """Parse a training command's line, compose its config (default `config_name`), choose the device and `run` it."""
    parser = make_parser(program, description or "")
    parser.add_argument("--config-name", default=config_name, help="a yaml in the config folder")
    parser.add_argument("--config-dir", type=Path, default=CONFIGS, help="the config folder (default: configs/)")
    parser.add_argument("--print-config", action="store_true", help="print the composed config and stop")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values for keys of the config")
    arguments = parser.parse_args(argv)
    setup()
    if not is_first_process():
        logging.getLogger("fish_speech").setLevel(logging.ERROR)  # the first says it
    config = compose_config(arguments.config_name, arguments.overrides, arguments.config_dir)
    if arguments.print_config:
        from omegaconf import OmegaConf

        sys.stdout.write(OmegaConf.to_yaml(config))
        return 0
    allow_mps_fallback(config.device, config.force_mps)
    return run(
        config,
        choose_device(config.device, "training", config.force_mps, precision_of(config.trainer.precision)),
    )


def _run(config: DictConfig, device: DeviceChoice) -> int:
    from .training.run import run

    return run(config, device)


if __name__ == "__main__":
    run_main(main)
