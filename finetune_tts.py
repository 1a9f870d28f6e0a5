"""Fine-tune a voice: extract codes, pack them, train adapters, merge them into a model that speaks.

  python finetune_tts.py --project my_voice --data-dir training_data/my_voice --full-pipeline

Each step runs as a process of its own and can be run alone. The same command again continues where it stopped.
Exit code: 0 all done; 1 a step failed; 2 wrong request; 130 interrupted."""

from __future__ import annotations

import logging
import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fish_speech import arguments as flags
from fish_speech import configs
from fish_speech.checkpoint import CheckpointFile, checkpoint_dir, list_checkpoints
from fish_speech.device import DEVICES
from fish_speech.errors import UserError, run
from fish_speech.log import setup
from fish_speech.pipeline import ROOT, Step, run_steps
from fish_speech.versions import VERSIONS

if TYPE_CHECKING:
    import argparse

log = logging.getLogger("fish_speech.finetune_tts")
_TRAINING_FLAGS = (
    "--max-steps", "--max-epochs", "--batch-size", "--gradient-accumulation-steps", "--max-length", "--learning-rate",
    "--warmup-steps", "--lora-config", "--save-every-n-steps", "--log-every-n-steps", "--precision", "--seed",
    "--resume-latest", "--resume-from-checkpoint", "--checkpoint-path",
)  # fmt: skip
_EXTRACTION_FLAGS = ("--batch-size-extract", "--num-workers-extract", "--device-extract")
_STEPS = ("prepare_data", "extract_tokens", "build_dataset", "train", "merge_weights")


def make_parser() -> argparse.ArgumentParser:
    parser = flags.make_parser("finetune_tts.py", __doc__)
    parser.add_argument("--project", required=True, help="name of the run: results/NAME, checkpoints/NAME-merged")
    parser.add_argument("--data-dir", type=Path, help="data set of prepare_dataset.py; recordings for --prepare-data")
    flags.add_model_version(parser)
    parser.add_argument("--pretrained-ckpt-path", type=Path, metavar="DIR",
                        help="base model folder, a merged one say (default: the model version's)")  # fmt: skip
    flags.add_offline(parser)
    steps = parser.add_argument_group("steps")
    steps.add_argument("--prepare-data", action="store_true", help="recordings with texts -> training_data/PROJECT")
    steps.add_argument("--extract-tokens", action="store_true", help="clips -> codes (.npy) beside them")
    steps.add_argument("--build-dataset", action="store_true", help="codes and texts -> results/PROJECT/protos")
    steps.add_argument("--train", action="store_true", help="train adapters; packs the data if that is not current")
    steps.add_argument("--merge-weights", action="store_true", help="checkpoint -> checkpoints/PROJECT-merged")
    steps.add_argument("--full-pipeline", action="store_true", help="all of them, as far as they are needed")
    steps.add_argument("--list-checkpoints", action="store_true", help="list the project's checkpoints")
    steps.add_argument("--keep-going", action="store_true", help="train although some clips could not be used")
    extract = parser.add_argument_group("extraction")
    extract.add_argument(
        "--batch-size-extract", type=flags.positive_int, default=16, help="clips a batch (default: 16)"
    )
    extract.add_argument("--num-workers-extract", type=flags.positive_int, default=1, help="processes (default: 1)")
    extract.add_argument("--device-extract", choices=DEVICES, help="where to extract (default: as --device)")
    train = parser.add_argument_group("training")
    train.add_argument(
        "--max-steps", type=flags.positive_int, help=f"optimizer steps ({flags.recipe_default('max_steps')})"
    )
    train.add_argument("--max-epochs", type=flags.positive_int,
                       help=f"passes over all clips, if fewer ({flags.recipe_default('max_epochs', 'any')})")  # fmt: skip
    train.add_argument("--batch-size", type=flags.positive_int, default=4, help="packed samples a batch (default: 4)")
    train.add_argument("--gradient-accumulation-steps", type=flags.positive_int, default=1,
                       help="batches per optimizer step (default: 1)")  # fmt: skip
    train.add_argument(
        "--max-length",
        type=flags.positive_int,
        help="clips are packed into samples of so many tokens "
        f"({flags.recipe_default('max_length', '4096, without CUDA 1024')})",
    )
    train.add_argument("--learning-rate", type=flags.positive_float,
                       help=f"1e-5 to 5e-5 is safe for 1.5 ({flags.recipe_default('learning_rate')})")  # fmt: skip
    train.add_argument("--warmup-steps", type=flags.non_negative_int, default=10, help="(default: 10)")
    train.add_argument("--lora-config",
                       help="a name in configs/lora; none: all weights "
                       f"({flags.recipe_default('lora_config')})")  # fmt: skip
    train.add_argument("--save-every-n-steps", type=flags.positive_int, default=100,
                       help="optimizer steps between checkpoints and validations (default: 100)")  # fmt: skip
    train.add_argument("--log-every-n-steps", type=flags.positive_int, default=10, help="(default: 10)")
    flags.add_device(train)
    flags.add_force_mps(train)
    flags.add_precision(train)
    flags.add_seed(train)
    resume = parser.add_argument_group("resuming")
    start = resume.add_mutually_exclusive_group()
    start.add_argument("--resume-latest", action="store_true",
                       help="continue this project, or start from the newest fitting checkpoint of another")  # fmt: skip
    start.add_argument("--resume-from-checkpoint", type=Path, metavar="CKPT",
                       help="this project's: continue exactly; another's: start with its weights, step 0")  # fmt: skip
    start.add_argument("--checkpoint-path", type=Path, metavar="PATH", help="the same, for a file or a folder")
    resume.add_argument("--checkpoint-step", type=flags.positive_int, help="the step to merge (default: the newest)")
    return parser


def main() -> int:
    options = make_parser().parse_args()
    setup()
    fill_in(options)
    check(options)
    if options.list_checkpoints:
        return show_checkpoints(options.project)
    return run_steps(plan(options), Path("results") / options.project / "logs")


def fill_in(options: argparse.Namespace) -> None:
    """Put the model version's way of training where the user says nothing."""
    recipe = VERSIONS[options.model_version].recipe
    if options.max_steps is not None or options.max_epochs is not None:  # the user's word alone says how long
        recipe = replace(recipe, max_steps=1_000_000_000, max_epochs=None)
    for name, value in asdict(recipe).items():
        if getattr(options, name) is None:
            setattr(options, name, value)


def check(options: argparse.Namespace) -> None:
    """Refuse requests that do not make sense, before anything is run."""
    if not re.fullmatch(r"[\w][\w .+-]{0,99}", options.project):
        raise UserError(
            f"--project {options.project!r} cannot be a folder name",
            "it names results/PROJECT and checkpoints/PROJECT-merged",
            "use letters, digits, and . _ - inside",
        )
    chosen = [name for name in _STEPS if getattr(options, name)]
    if not (chosen or options.full_pipeline or options.list_checkpoints):
        raise UserError("no step is chosen", "there is nothing to do", "add --full-pipeline, or a step such as --train")
    needs_data = options.full_pipeline or set(chosen) - {"merge_weights"}
    if needs_data and options.data_dir is None:
        raise UserError("--data-dir is missing", "this step reads the data set", "add --data-dir training_data/NAME")
    if needs_data and not options.data_dir.is_dir():
        raise UserError(
            f"there is no folder {options.data_dir}",
            "the data set is read from there",
            "python prepare_dataset.py --input RECORDINGS --output training_data/NAME",
        )
    trains = options.train or options.full_pipeline
    merges = options.merge_weights or options.full_pipeline
    extracts = options.extract_tokens or options.full_pipeline
    given = {word.split("=")[0] for word in sys.argv[1:] if word.startswith("--")}
    for names, has_effect in (
        (_TRAINING_FLAGS, trains),
        (_EXTRACTION_FLAGS, extracts),
        (("--device", "--force-mps"), trains or extracts),
        (("--checkpoint-step",), merges),
        (("--keep-going",), trains),
    ):
        if not has_effect and given & set(names):
            flag = sorted(given & set(names))[0]
            raise UserError(f"{flag} has no effect here", "no step of this command uses it", "leave it out")
    known = [*configs.names("lora"), "none"]
    if options.lora_config not in known:
        raise UserError(
            f"unknown LoRA config {options.lora_config!r}", f"known: {', '.join(known)}", "choose one of these"
        )


def plan(options: argparse.Namespace) -> list[Step]:
    """The stages that the request needs, in order."""
    full = options.full_pipeline
    data = options.data_dir
    steps = []
    if options.prepare_data or (full and not is_prepared(data)):
        data = Path("training_data") / options.project
        arguments = [str(ROOT / "prepare_dataset.py"), "--input", str(options.data_dir), "--output", str(data)]
        steps.append(Step("prepare_dataset", arguments, options.keep_going))
    base = base_folder(options) if (full or set(_STEPS[1:]) & chosen_steps(options)) else Path()
    if options.extract_tokens or full:
        steps.append(extract_step(options, data, base))
    protos = Path("results") / options.project / "protos"
    if options.build_dataset or options.train or full:
        arguments = ["-m", "fish_speech.build_dataset", "--input", str(data), "--output", str(protos)]
        steps.append(Step("build_dataset", [*arguments, "--text-extension", ".lab"], options.keep_going))
    if options.train or full:
        steps.append(train_step(options, data, base, protos))
    if options.merge_weights or full:
        steps.append(merge_step(options, base, after_training=options.train or full))
    return steps


def chosen_steps(options: argparse.Namespace) -> set[str]:
    return {name for name in _STEPS if getattr(options, name)}


def is_prepared(folder: Path) -> bool:
    """Whether a folder is a data set: it has transcripts as prepare_dataset.py writes them."""
    return next(folder.rglob("*.lab"), None) is not None


def base_folder(options: argparse.Namespace) -> Path:
    """The base model: --pretrained-ckpt-path, the one the checkpoint to merge was trained on, or the version's."""
    if options.pretrained_ckpt_path:
        if not (options.pretrained_ckpt_path / "config.json").is_file():
            raise UserError(
                f"{options.pretrained_ckpt_path} is not a model folder",
                "it has no config.json",
                "give a folder with config.json, model.pth and tokenizer.tiktoken",
            )
        return options.pretrained_ckpt_path
    if chosen_steps(options) == {"merge_weights"}:
        recorded = record_of(checkpoint_to_merge(options)).get("base")
        if recorded and Path(recorded).is_dir():
            return Path(recorded)
    from fish_speech.hub import ensure_version

    return ensure_version(VERSIONS[options.model_version], offline=options.offline)


def codec_file(options: argparse.Namespace, base: Path) -> Path:
    """The codec weights in the base folder, or in the version's own."""
    version = VERSIONS[options.model_version]
    found = version.codec_in(base)
    if found is not None:
        return found
    raise UserError(
        f"there is no codec {version.codec_file} in {base}", f"{version.folder} has none either", "copy it there"
    )


def extract_step(options: argparse.Namespace, data: Path, base: Path) -> Step:
    codec = codec_file(options, base)
    arguments = ["-m", "fish_speech.extract_vq", str(data), "--checkpoint-path", str(codec)]
    arguments += ["--config-name", VERSIONS[options.model_version].config_of(codec)]
    arguments += ["--batch-size", str(options.batch_size_extract), "--num-workers", str(options.num_workers_extract)]
    device = options.device_extract or options.device
    arguments += ["--device", device]
    if options.force_mps and device in ("auto", "mps"):
        arguments += ["--force-mps"]
    return Step("extract_vq", arguments, options.keep_going)


def train_step(options: argparse.Namespace, data: Path, base: Path, protos: Path) -> Step:
    """The training stage with every flag as the config key it stands for."""
    every = options.save_every_n_steps
    values = {
        "project": options.project,
        "data_dir": data,
        "pretrained_ckpt_path": base,
        "train_dataset.proto_files": [protos],
        "seed": options.seed,
        "device": options.device,
        "force_mps": options.force_mps,
        "trainer.precision": {"fp32": 32, "bf16": "bf16"}[options.precision],
        "trainer.max_steps": options.max_steps,
        "max_epochs": options.max_epochs,
        "reached_is_done": options.full_pipeline,  # the same command again goes on with merging
        "trainer.accumulate_grad_batches": options.gradient_accumulation_steps,
        "trainer.val_check_interval": every * options.gradient_accumulation_steps,
        "trainer.log_every_n_steps": options.log_every_n_steps,
        "callbacks.model_checkpoint.every_n_train_steps": every,
        "data.batch_size": options.batch_size,
        "model.optimizer.lr": options.learning_rate,
        "model.lr_scheduler.lr_lambda.num_warmup_steps": options.warmup_steps,
        "data.pack_length": options.max_length,
        **start_values(options, data),
    }
    overrides = [f"{key}={configs.hydra_value(value)}" for key, value in values.items()]
    if options.lora_config != "none":
        overrides.append(f"+lora@model.model.lora_config={options.lora_config}")
    return Step("train", ["-m", "fish_speech.train", "--config-name", "text2semantic_finetune", *overrides])


def start_values(options: argparse.Namespace, data: Path) -> dict[str, object]:
    """Where training starts: this project's checkpoint (exact) or another's (weights only)."""
    own = checkpoint_dir(options.project)
    given = options.resume_from_checkpoint or options.checkpoint_path
    if given is not None:
        path = existing(given)
        if path.resolve() == own.resolve():
            return {}
        if path.resolve().parent == own.resolve():
            step = next((c.step for c in list_checkpoints(own) if c.path.name == path.name), None)
            return {"resume_step": step}
        return {"ckpt_path": path}
    if options.resume_latest and not list_checkpoints(own):
        return {"ckpt_path": newest_fitting(options, data).path}
    return {}


def existing(path: Path) -> Path:
    """The checkpoint as given, or without the folder `fish-speech/` that older toolkits put in front."""
    for candidate in (path, Path(*path.parts[1:]) if path.parts[:1] == ("fish-speech",) else path):
        if candidate.is_file() or (candidate.is_dir() and list_checkpoints(candidate)):
            return candidate
    raise UserError(
        f"there is no checkpoint {path}",
        "the folder has no step_N.ckpt" if path.is_dir() else "the path does not exist",
        "see what there is: python finetune_tts.py --project NAME --list-checkpoints",
    )


def record_of(path: Path) -> dict:
    """What a checkpoint says of its run."""
    from fish_speech.checkpoint import read_file

    content = read_file(path)
    record = content.get("fish_speech") if isinstance(content, dict) else None
    return record if isinstance(record, dict) else {}


def newest_fitting(options: argparse.Namespace, data: Path) -> CheckpointFile:
    """The newest checkpoint of any project with the same data folder and LoRA shape; raise UserError with what there is."""
    lora = None if options.lora_config == "none" else configs.read_lora(options.lora_config)
    found = [c for folder in Path("results").glob("*/checkpoints") for c in list_checkpoints(folder)]
    for checkpoint in sorted(found, key=lambda c: (c.modified, c.step), reverse=True):
        record = record_of(checkpoint.path)
        shape = record.get("lora")
        same_lora = shape == lora if not (shape and lora) else all(shape[k] == lora[k] for k in ("r", "lora_alpha"))
        same_data = isinstance(record.get("data"), str) and Path(record["data"]).resolve() == data.resolve()
        if same_lora and same_data:
            return checkpoint
    there = "; ".join(f"{c.path}" for c in found[:10]) or "none at all"
    raise UserError(
        f"--resume-latest finds no checkpoint that fits project {options.project}",
        f"it must have the same data folder ({data}) and LoRA shape ({options.lora_config}); there is: {there}",
        "leave --resume-latest out for a new run, or name one with --resume-from-checkpoint",
    )


def checkpoint_to_merge(options: argparse.Namespace) -> Path:
    """The project's checkpoint of --checkpoint-step, or its newest."""
    found = list_checkpoints(checkpoint_dir(options.project))
    wanted = [c for c in found if options.checkpoint_step in (None, c.step)]
    if not wanted:
        there = ", ".join(str(c.step) for c in found) or "none"
        asked = f"step {options.checkpoint_step}" if options.checkpoint_step else "checkpoint"
        raise UserError(
            f"project {options.project} has no {asked} to merge",
            f"steps there: {there}",
            "train first, or choose a step",
        )
    return wanted[-1].path


def merge_step(options: argparse.Namespace, base: Path, after_training: bool) -> Step:
    """Merging; which checkpoint is settled when it runs, since training before it may make a newer one."""
    output = Path("checkpoints") / f"{options.project}-merged"
    arguments = ["-m", "fish_speech.merge_lora", "--base-weight", str(base), "--output", str(output)]
    if after_training:
        source = checkpoint_dir(options.project)
        if options.checkpoint_step:
            source = source / f"step_{options.checkpoint_step:09d}.ckpt"
    else:
        source = checkpoint_to_merge(options)
    codec = codec_file(options, base)
    arguments += ["--lora-weight", str(source), "--codec", str(codec), "--model-version", options.model_version]
    return Step("merge_lora", arguments)


def show_checkpoints(project: str) -> int:
    """Print the project's checkpoints, newest last."""
    found = list_checkpoints(checkpoint_dir(project))
    if not found:
        raise UserError(
            f"project {project} has no checkpoints", f"{checkpoint_dir(project)} has no step_N.ckpt", "train it first"
        )
    lines = [f"Available checkpoints for project '{project}':", *map(str, found), f"Latest: {found[-1].path.name}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    run(main)
