"""The command `fit`: Lightning's CLI with our module, data, callbacks, and answers to what goes wrong."""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import ArgumentError
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from fish_speech.errors import DONE, INTERRUPTED, UserError
from fish_speech.files import remove_leftovers
from fish_speech.log import setup
from fish_speech.prepare.wording import clock
from fish_speech.ranks import is_first_process
from fish_speech.training.callbacks import AtomicCheckpointIO

from ..checkpoints import read_checkpoint
from ..data.datamodule import PiperDataModule
from ..quality import quality_of
from .callbacks import ProgressLines, SpokenSentences, StopBetweenSteps
from .continuing import LOGS, STARTS, defaults_of, newest_checkpoint, options_of, refuse_changes, refuse_reached
from .keeping import VoiceCheckpoints
from .module import VitsModule
from .processes import choose_strategy
from .typed import as_list, batches_of_a_step, whole_numbers

log = logging.getLogger(__name__)

_LINKS = (
    ("data.batch_size", "model.batch_size"),
    ("data.num_symbols", "model.num_symbols"),
    *((f"model.{name}", f"data.{name}") for name in ("num_speakers", "sample_rate", "filter_length", "hop_length")),
    *((f"model.{name}", f"data.{name}") for name in ("win_length", "segment_size")),
)


class Fit(LightningCLI):
    """Parses the command line, makes module, data and trainer, and fits."""

    def __init__(self, words: Sequence[str]):
        self.words = list(words)
        super().__init__(
            VitsModule,
            PiperDataModule,
            save_config_callback=SaveConfigCallback,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={
                "max_epochs": -1,
                "num_sanity_val_steps": 0,
                "use_distributed_sampler": False,  # the data module's own sampler knows the processes
                "enable_progress_bar": sys.stderr.isatty(),
                "enable_model_summary": False,
            },
            seed_everything_default=0,
            parser_kwargs={
                "prog": "python -m piper_train",
                "exit_on_error": False,
                "fit": {"exit_on_error": False},
            },
            args=self.words,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {"fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        for source, target in _LINKS:
            parser.link_arguments(source, target)
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)
        parser.add_lightning_class_args(VoiceCheckpoints, "checkpoint")

    def _parse_ckpt_path(self) -> None:
        """Lightning's would refuse what published checkpoints hold; see continuing."""
        options = self.config["fit"]
        given = options.get("ckpt_path")
        if not given:
            return
        path = newest_checkpoint(options["trainer"]) if given == "last" else Path(given)
        checkpoint = read_checkpoint(path)
        if checkpoint.is_own:
            refuse_reached(checkpoint, options["trainer"])
        elif options["model"].get("warmstart_ckpt"):
            raise UserError(
                f"both --ckpt_path {path} and --model.warmstart_ckpt are given",
                "the first was not made by this training, so it is a start with its weights, as the second",
                "give one of them",
            )
        stored = options_of(checkpoint)
        known = set(inspect.signature(VitsModule).parameters)
        self._subcommand_parsers["fit"].set_defaults(defaults_of(stored, known))
        self.config = self.parser.parse_args(self.words)
        options = self.config["fit"]
        refuse_changes(checkpoint, stored, options["model"].as_dict())
        if checkpoint.is_own:
            log.info("going on exactly from %s: %d epochs done", path, checkpoint.epochs_done)
            for name in STARTS:
                if options["model"].get(name):
                    log.info("model.%s is not used: the run has begun already", name)
                    options["model"][name] = None
            options["ckpt_path"] = str(path)
        else:
            log.info("%s was not made by this training: its weights are the start, from epoch 0", path)
            options["ckpt_path"], options["model"]["warmstart_ckpt"] = None, str(path)

    def instantiate_trainer(self, **options: Any) -> L.Trainer:
        given = self._get(self.config_init, "trainer")
        strategy = choose_strategy(given["strategy"], str(given["accelerator"]), given["devices"], given["num_nodes"])
        if given.get("gradient_clip_val"):
            raise UserError(
                "trainer.gradient_clip_val has no place here",
                "VITS trains without; two networks learn in turn",
                "leave it out, or lower --model.learning_rate",
            )
        self.model.accumulate = batches_of_a_step(given.get("accumulate_grad_batches"))
        for name, value in whole_numbers(self.words, given).items():
            given[name] = value
        plugins = [*as_list(given.get("plugins")), AtomicCheckpointIO()]
        if given.get("logger") in (None, True):  # Lightning's default, and without a file for the network's graph
            options["logger"] = TensorBoardLogger(given.get("default_root_dir") or Path.cwd(), default_hp_metric=False)
        given["callbacks"] = [
            *as_list(given.get("callbacks")), StopBetweenSteps(), ProgressLines(), SpokenSentences()
        ]  # fmt: skip
        return super().instantiate_trainer(strategy=strategy, plugins=plugins, accumulate_grad_batches=1, **options)

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Any]) -> L.Trainer:
        if config.get("enable_checkpointing") is False or config.get("fast_dev_run"):
            callbacks = [callback for callback in callbacks if not isinstance(callback, VoiceCheckpoints)]
        return super()._instantiate_trainer(config, callbacks)

    def after_instantiate_classes(self) -> None:
        seed = int(self._get(self.config, "seed_everything") or 0)
        self.model.seed = self.datamodule.seed = seed
        request = self.datamodule.request
        if request.quality is None:
            self.datamodule.request = replace(request, quality=quality_of(self.model.config))
        if torch.cuda.is_available():
            torch.set_float32_matmul_precision("high")  # TF32
            torch.backends.cudnn.allow_tf32 = True

    def fit(self, **options: Any) -> None:
        """Train; turn what can go wrong into what a person can do."""
        self._announce()
        if self.trainer.is_global_zero:
            remove_leftovers(Path(self.trainer.default_root_dir) / LOGS)
        try:
            self.trainer.fit(**options)
        except SystemExit:  # Lightning's answer to KeyboardInterrupt
            raise KeyboardInterrupt from None
        except (RuntimeError, MemoryError) as error:
            from fish_speech.out_of_memory import is_out_of_memory

            if not is_out_of_memory(error):
                raise
            raise self._out_of_memory(error) from error

    def _announce(self) -> None:
        trainer = self.trainer
        timed = any(isinstance(callback, Timer) for callback in trainer.callbacks)  # type: ignore[attr-defined]
        if trainer.max_epochs == -1 and trainer.max_steps == -1 and not timed:
            log.info(
                "training has no end: Ctrl+C saves and stops it (--trainer.max_epochs N gives it one); "
                "--ckpt_path last goes on"
            )

    @property
    def last(self) -> Path | None:
        """The checkpoint to go on from, as far as this run has written one."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        return next((callback.last for callback in callbacks if isinstance(callback, VoiceCheckpoints)), None)

    def _out_of_memory(self, error: BaseException) -> UserError:
        saved, data = self.last, self.datamodule
        go_on = f"--ckpt_path {saved} goes on" if saved else "nothing had been saved yet"
        return UserError(
            f"memory ran out in epoch {data.epoch}, batch {data.batches_done} (--data.batch_size {data.batch_size})",
            str(error).split("\n")[0][:200],
            f"lower --data.batch_size (with --trainer.accumulate_grad_batches a step still sees as many clips), leave out "
            f"long clips with --data.max_seconds, or use --trainer.precision 16-mixed or bf16-mixed on a GPU; {go_on}",
        )

    def finish(self) -> int:
        """Say where the run ended; 130 if it was stopped before its end."""
        trainer, last = self.trainer, self.last
        stopped = any(isinstance(c, StopBetweenSteps) and c.stopped for c in trainer.callbacks)  # type: ignore[attr-defined]
        epochs = self.datamodule.epoch
        reached = epochs == trainer.max_epochs or 0 < trainer.max_steps <= trainer.global_step
        if last is None:
            self._refuse_spent_time()
            if trainer.is_global_zero:
                log.info("nothing was saved")
        if stopped and not reached:
            if trainer.is_global_zero and last is not None:
                log.info("stopped in epoch %d; --ckpt_path %s goes on exactly", epochs, last)
            return INTERRUPTED
        if trainer.is_global_zero and last is not None:
            sys.stdout.write(f"trained {epochs} epochs: {last}\n")
        return DONE

    def _refuse_spent_time(self) -> None:
        """Raise UserError where nothing could be trained any more in --trainer.max_time."""
        for timer in self.trainer.callbacks:  # type: ignore[attr-defined]
            left = timer.time_remaining() if isinstance(timer, Timer) else None
            if left is not None and left <= 0 and self._get(self.config, "ckpt_path"):
                raise UserError(
                    "--trainer.max_time is used up",
                    f"it counts the time before the checkpoint too, {clock(timer.time_elapsed())} in all",
                    "give a longer one, or leave it out",
                )


def train(words: Sequence[str]) -> int:
    """Run the command; return the exit code. Raises UserError for what a person can mend."""
    setup()
    quiet()
    try:
        return Fit(words).finish()
    except ArgumentError as error:
        raise UserError(
            "the command line is not understood",
            " ".join(str(error).split())[:600],
            "python -m piper_train fit --help lists the options",
        ) from None
    except (MisconfigurationException, ValueError, TypeError) as error:
        if not isinstance(error, MisconfigurationException) and not comes_from_lightning(error):
            raise
        why = " ".join(str(error).split())
        raise UserError("the trainer.* options do not go together", why, "correct or leave them out") from error


def comes_from_lightning(error: BaseException) -> bool:
    """Whether Lightning itself raised it: its answer to options it cannot use."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("lightning.")


def quiet() -> None:
    """Leave out what Lightning says of itself; of several processes only the first speaks."""
    if not is_first_process():
        for name in ("fish_speech", "piper_train"):
            logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*use `self.log.*sync_dist=True.*",  # they are equal in all processes
        ".*smaller than the logging interval.*",
        "(?s).*does not round-trip.*",  # a tuple in a yaml
        "(?s)LightningCLI.s args parameter.*",
        ".*ModelCheckpoint.*manual optimization.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",  # where 16-mixed leaves out the first steps
        ".*Total length of `list` across ranks is zero.*",  # nothing is held out
        ".*your dataloader is not resumable.*",  # the data module is
    ):
        warnings.filterwarnings("ignore", message=message)
