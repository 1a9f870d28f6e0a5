"""The stages that a request needs, each with the arguments that its flags come to."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from pathlib import Path

from .. import configs
from ..errors import UserError
from ..pipeline import ROOT, Step
from ..prepare.flags import handed_on
from ..versions import CONFIG_FILE, VERSIONS, config_of_codec
from .request import Work, prepared_folder
from .starts import checkpoint_to_merge, recorded_path, refuse_other_family, start_values, trained

TEXTS = ".lab"  # suffix of the transcripts that prepare_dataset.py writes
_NAMED = 3  # clips named at the end of a run


def plan(options: argparse.Namespace, work: Work, given: Collection[str] = ()) -> list[Step]:
    """The stages that the request needs, in order; `given` are the flags on the command line."""
    if not work.trains and (work.compares or work.merges):
        trained(options.project, options.checkpoint_step, "merge" if work.merges else "compare")
    if work.trains:
        refuse_other_family(options.project, options.model_version)
    base = base_folder(options, work) if work.needs_base else Path()
    data = data_folder(options, work)
    return [*(_making(options, work, given, data, base) if data else []), *_choosing(options, work, data, base)]


def _making(options: argparse.Namespace, work: Work, given: Collection[str], data: Path, base: Path) -> Iterator[Step]:
    """The stages from recordings to checkpoints."""
    if work.prepares:
        yield prepare_step(options, data, given)
    if work.extracts:
        yield extract_step(options, data, base)
    if work.packs and options.num_nodes == 1:
        yield pack_step(options, data)
    if work.trains:
        if options.num_nodes > 1:
            check_packed(options, data)
        yield train_step(options, data, base, given)


def _choosing(options: argparse.Namespace, work: Work, data: Path | None, base: Path) -> Iterator[Step]:
    """The stages from checkpoints to a voice."""
    if work.compares:
        yield tournament_step(options, data, base)
    if work.merges:
        yield merge_step(options, base, data, after_others=work.trains or work.compares)


def data_folder(options: argparse.Namespace, work: Work) -> Path | None:
    """The data set that the stages read: of a preparation, what it makes. None where no stage needs to be told."""
    return prepared_folder(options.project) if work.prepares else options.data_dir


def protos_folder(options: argparse.Namespace) -> Path:
    """Where the project's packed data lies."""
    return Path("results") / options.project / "protos"


def base_folder(options: argparse.Namespace, work: Work) -> Path:
    """The base model: --pretrained-ckpt-path, the one that what is merged was trained on, or the version's."""
    if options.pretrained_ckpt_path:
        if not (options.pretrained_ckpt_path / CONFIG_FILE).is_file():
            raise UserError(
                f"{options.pretrained_ckpt_path} is not a model folder",
                "it has no config.json",
                "give a folder with config.json, model.pth and tokenizer.tiktoken",
            )
        return options.pretrained_ckpt_path
    if not (work.trains or work.extracts):
        recorded = recorded_path(options.project, "base")
        if recorded is not None:
            return recorded
    version = VERSIONS[options.model_version]
    if options.dry_run and to_download(options):
        return version.folder
    from ..hub import ensure_version

    return ensure_version(version, offline=options.offline)


def to_download(options: argparse.Namespace) -> list[str]:
    """The files of the model version that a run would fetch first."""
    version = VERSIONS[options.model_version]
    if options.offline or not version.hub_id or options.pretrained_ckpt_path:
        return []
    return [name for name in version.files if not (version.folder / name).is_file()]


def codec_file(options: argparse.Namespace, base: Path) -> Path:
    """The codec weights in the base folder, or in the version's own."""
    version = VERSIONS[options.model_version]
    found = version.codec_in(base)
    if found is not None:
        return found
    if options.dry_run and version.codec_file in to_download(options):
        return version.folder / version.codec_file
    raise UserError(
        f"there is no codec {version.codec_file} in {base}", f"{version.folder} has none either", "copy it there"
    )


def prepare_step(options: argparse.Namespace, data: Path, given: Collection[str]) -> Step:
    """Recordings become a data set; its flags are those of prepare_dataset.py."""
    arguments = [str(ROOT / "prepare_dataset.py"), "--input", str(options.data_dir), "--output", str(data)]
    arguments += handed_on(options, given)
    if options.runner != "local":
        arguments += ["--runner", options.runner]
    if "--device" in given:
        arguments += ["--device", options.device]
    return Step("prepare_dataset", arguments, options.keep_going)


def extract_step(options: argparse.Namespace, data: Path, base: Path) -> Step:
    """Clips become codes. The codec's round trip of three clips is kept beside the run."""
    codec = codec_file(options, base)
    arguments = ["-m", "fish_speech.extract_vq", str(data), "--checkpoint-path", str(codec)]
    arguments += ["--config-name", config_of_codec(codec, options.model_version)]
    arguments += ["--batch-size", str(options.batch_size_extract)]
    if options.runner == "local":
        arguments += ["--num-workers", str(options.num_workers_extract)]
    else:
        arguments += ["--runner", options.runner]
    device = options.device_extract or options.device
    arguments += ["--device", device]
    if options.force_mps and device in ("auto", "mps"):
        arguments += ["--force-mps"]
    arguments += ["--check-dir", str(Path("results") / options.project / "round_trip")]
    return Step("extract_vq", [*arguments, *_left_out(options)], options.keep_going)


def pack_step(options: argparse.Namespace, data: Path) -> Step:
    """Codes and texts become shards, unless they are current."""
    arguments = ["-m", "fish_speech.build_dataset", "--input", str(data), "--output", str(protos_folder(options))]
    return Step("build_dataset", [*arguments, "--text-extension", TEXTS, *_left_out(options)], options.keep_going)


def _left_out(options: argparse.Namespace) -> list[str]:
    return ["--max-left-out", f"{100 if options.keep_going else options.max_left_out:g}"]


def check_packed(options: argparse.Namespace, data: Path) -> None:
    """Raise UserError unless the project's shards are current: several nodes cannot pack at once."""
    from ..build_dataset import is_current

    if not is_current(data, protos_folder(options), [TEXTS]):
        raise UserError(
            f"{protos_folder(options)} does not hold the data of {data} as it is now",
            "each node would pack it, into the same place",
            f"python finetune_tts.py --project {options.project} --data-dir {data} --build-dataset, on one node",
        )


def train_step(options: argparse.Namespace, data: Path, base: Path, given: Collection[str]) -> Step:
    """The training stage with every flag as the config key it stands for; what nobody gave stays as the yaml has it."""
    values = {
        "project": options.project,
        "data_dir": data,
        "pretrained_ckpt_path": base,
        "train_dataset.proto_files": [protos_folder(options)],
        "seed": options.seed,
        "device": options.device,
        "force_mps": options.force_mps,
        "trainer.precision": {"fp32": 32, "bf16": "bf16"}[options.precision],
        "trainer.max_steps": options.max_steps,
        "max_epochs": options.max_epochs,
        "reached_is_done": options.full_pipeline,  # the same command again goes on with merging
        "trainer.accumulate_grad_batches": options.gradient_accumulation_steps,
        "trainer.val_check_interval": options.save_every_n_steps,
        "trainer.log_every_n_steps": options.log_every_n_steps,
        "callbacks.model_checkpoint.every_n_train_steps": options.save_every_n_steps,
        "data.batch_size": options.batch_size,
        "model.optimizer.lr": options.learning_rate,
        "model.lr_scheduler.lr_lambda.num_warmup_steps": options.warmup_steps,
        "data.pack_length": options.max_length,
        "model_version": options.model_version,
        "callbacks.spoken_samples.every_n_steps": samples_every(options),
        **start_values(options, data, base),
    }
    codec = VERSIONS[options.model_version].codec_in(base)
    if codec is not None:  # without one nothing is spoken, and training goes well all the same
        values["callbacks.spoken_samples.codec"] = codec  # not `codec`: to hydra that is the folder configs/codec
    for flag, key, value in (
        ("--num-gpus", "trainer.devices", options.num_gpus),
        ("--num-nodes", "trainer.num_nodes", options.num_nodes),
        ("--strategy", "strategy", options.strategy),
        ("--early-stopping-patience", "callbacks.early_stopping.patience", options.early_stopping_patience),
    ):
        if flag in given:
            values[key] = value
    # A group's choice and plain words stay unquoted: hydra takes a quoted one for another name.
    overrides = [f"{key}={value if key == 'strategy' else configs.hydra_value(value)}" for key, value in values.items()]
    if options.lora_config != "none":
        overrides.append(f"+lora@model.model.lora_config={options.lora_config}")
    return Step("train", ["-m", "fish_speech.train", "--config-name", "text2semantic_finetune", *overrides])


def samples_every(options: argparse.Namespace) -> int | None:
    """Steps between spoken samples: as said, else as between checkpoints; None for never."""
    said = options.sample_every_n_steps
    return options.save_every_n_steps if said is None else said or None


def tournament_step(options: argparse.Namespace, data: Path | None, base: Path) -> Step:
    """Base and kept checkpoints speak the same held-out texts."""
    arguments = ["-m", "fish_speech.tournament", "--project", options.project, "--base", str(base)]
    arguments += ["--codec", str(codec_file(options, base)), "--num-texts", str(options.tournament_texts)]
    arguments += ["--device", options.device]
    if options.force_mps:
        arguments += ["--force-mps"]
    if data is not None:
        arguments += ["--data-dir", str(data)]
    if options.language is not None:
        arguments += ["--language", options.language]
    if not VERSIONS[options.model_version].uses_reference:
        arguments += ["--no-reference"]  # as its merged voice will speak
    # Where checkpoints are left out, the others competed; and who has trained for hours wants a voice in any case.
    return Step("tournament", arguments, left_out_is_fine=True, dispensable=options.full_pipeline)


def merge_step(options: argparse.Namespace, base: Path, data: Path | None, after_others: bool) -> Step:
    """Merging; which checkpoint is settled when it runs, since a step before it may make or recommend one.

    The voice's reference comes from the data that the checkpoint was trained on; where that has moved, from `data`.
    """
    output = Path("checkpoints") / f"{options.project}-merged"
    arguments = ["-m", "fish_speech.merge_lora", "--base-weight", str(base), "--output", str(output)]
    arguments += ["--codec", str(codec_file(options, base)), "--model-version", options.model_version]
    if not after_others and data is not None and data.is_dir() and recorded_path(options.project, "data") is None:
        arguments += ["--data-dir", str(data)]

    def checkpoint() -> list[str]:
        return ["--lora-weight", str(checkpoint_to_merge(options.project, options.checkpoint_step))]

    if after_others:
        return Step("merge_lora", arguments, late=checkpoint)
    return Step("merge_lora", [*arguments, *checkpoint()])


def left_out(options: argparse.Namespace) -> list[str]:
    """Say again at the end which clips were left out of the packed data, and which look odd, if any."""
    from ..datasets.shards import INDEX_FILE, read_index

    folder = protos_folder(options)
    index = read_index(folder) or {}
    lines = []
    for name, what in (("left_out", "left out of training"), ("suspicious", "trained on that look odd")):
        clips = [f"{clip}: {reason}" for clip, reason in index.get(name, [])]
        if clips:
            more = f"; ...; {folder / INDEX_FILE} lists all" if len(clips) > _NAMED else ""
            lines.append(f"clips {what}: {len(clips)}: {'; '.join(clips[:_NAMED])}{more}")
    return lines
