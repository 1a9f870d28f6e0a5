"""The stages that a request needs, each with the arguments that its flags come to."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from fish_speech.errors import UserError
from fish_speech.pipeline import ROOT, Step
from fish_speech.prepare.flags import handed_on

from .. import quick_start
from .architecture import Architecture, settle_architecture
from .data_source import Source, first_rows
from .flags import PRECISIONS
from .languages import unknown_language, voice_of_config, voice_of_mapping, voice_of_texts
from .places import Places
from .request import Work
from .starts import Start, is_exported, read_record, refuse_reached, settle_start, to_export

STRATEGY = "ddp_find_unused_parameters_true"  # each backward pass touches one of the two networks
_ACCELERATORS = {"cuda": "gpu"}  # Lightning's names, where they are others


@dataclass(frozen=True)
class Plan:
    """A request with everything settled."""

    steps: list[Step]
    source: Source
    places: Places
    start: Start
    espeak_voice: str = ""
    architecture: Architecture | None = None  # None: nothing is built or trained
    finished: bool = False  # all epochs are trained, and only the rest is left to do

    def record(self) -> dict[str, object]:
        """What is kept of how the project began."""
        warm = self.start.path.resolve() if self.start.path and not self.start.continues else None
        return {
            "data": str(self.source.folder),
            "kind": self.source.kind,
            "espeak_voice": self.espeak_voice,
            "quality": self.architecture.name if self.architecture else None,
            "warm_start": str(warm) if warm else None,
        }


def plan(options: argparse.Namespace, work: Work, source: Source, given: Collection[str] = ()) -> Plan:
    """Settle a request; raises UserError where it cannot be done. Writes nothing."""
    places = Places(options.project)
    start = settle_start(options, places) if work.trains or work.builds else Start()
    if work.trains and _only_export_is_left(options, places, start):
        return Plan([export_step(options, places)], source, places, start, finished=True)
    if work.trains:
        refuse_reached(start, options, places)
    architecture, voice = None, ""
    if work.builds:
        voice = espeak_voice(options, work, source, start)
        architecture = settle_architecture(options.quality, start, number_of_speakers(options, work, source, start))
    steps = list(_steps(options, work, source, places, start, architecture, voice, given))
    return Plan(steps, source, places, start, voice, architecture)


def _only_export_is_left(options: argparse.Namespace, places: Places, start: Start) -> bool:
    """Whether a full pipeline was stopped between its last epoch and its voice."""
    if not (options.full_pipeline and start.continues and start.path):
        return False
    return start.epochs_done >= options.max_epochs and not is_exported(places, start.path)


def _steps(
    options: argparse.Namespace,
    work: Work,
    source: Source,
    places: Places,
    start: Start,
    architecture: Architecture | None,
    voice: str,
    given: Collection[str],
) -> Iterator[Step]:
    if work.prepares:
        yield prepare_step(options, source, given)
    if work.teaches:
        yield teach_step(options, source)
    if work.makes:
        yield quick_start_step(options, source, voice, given)
    if work.builds:
        assert architecture is not None
        yield build_step(options, source, places, architecture, voice)
        if work.trains:
            yield train_step(options, source, places, start, architecture, voice)
    if work.exports:
        yield export_step(options, places, after_training=work.trains)


def espeak_voice(options: argparse.Namespace, work: Work, source: Source, start: Start) -> str:
    """The voice that makes the phonemes. Raises UserError where nothing tells it, or the project has another."""
    project = read_record(Places(options.project)).get("espeak_voice")
    if start.continues and start.checkpoint is not None:
        project = voice_of_mapping(start.checkpoint.voice_config) or project
        if options.espeak_voice and isinstance(project, str) and project != options.espeak_voice:
            raise UserError(
                f"project {options.project} was trained with --espeak-voice {project}",
                f"with {options.espeak_voice} its phonemes would mean something else",
                f"leave --espeak-voice out, or start a new --project with --checkpoint {start.path}",
            )
        if isinstance(project, str) and project:
            return project
    if options.espeak_voice:
        return str(options.espeak_voice)
    if source.kind == "quick start":
        recorded = (quick_start.recorded(source.folder) or {}).get("espeak_voice")
        start_from = voice_of_mapping(start.checkpoint.voice_config) if start.checkpoint else None
        return str(recorded or start_from or quick_start.VOICE)
    found = voice_of_config(source.folder / "config.json")
    found = found or (
        voice_of_texts(_texts(options, work, source)) if source.kind != "recordings" else options.language
    )
    if found is None and start.checkpoint is not None:
        found = voice_of_mapping(start.checkpoint.voice_config)
    if found is None:
        raise unknown_language(str(options.script if work.teaches else source.folder))
    return found


def _texts(options: argparse.Namespace, work: Work, source: Source) -> list[str]:
    if work.teaches:
        from ..teach_script import read_script

        return [line.text for line in read_script(options.script).lines[:200]]
    return [row.text for row in first_rows(source)]


def number_of_speakers(options: argparse.Namespace, work: Work, source: Source, start: Start) -> int:
    """How many the voice has: as asked for, as the checkpoint that is continued, or as the data set says."""
    if start.continues and start.checkpoint is not None:
        there = start.checkpoint.model_config().num_speakers
        if options.num_speakers not in (None, there):
            raise UserError(
                f"project {options.project} has {there} speakers, not {options.num_speakers}",
                f"{start.path} was trained so",
                "leave --num-speakers out, or start a new --project",
            )
        return there
    if options.num_speakers is not None:
        return int(options.num_speakers)
    if work.makes and quick_start.recorded(source.folder) is None:
        return 1
    return source.speakers()


def prepare_step(options: argparse.Namespace, source: Source, given: Collection[str]) -> Step:
    """Recordings become a data set; its flags are those of prepare_dataset.py."""
    arguments = [str(ROOT / "prepare_dataset.py"), "--input", str(options.data_dir), "--output", str(source.folder)]
    arguments += handed_on(options, given)
    if "--device" in given:
        arguments += ["--device", options.device]
    return Step("prepare_dataset", arguments, left_out_is_fine=True)


def teach_step(options: argparse.Namespace, source: Source) -> Step:
    """The teacher reads the script."""
    arguments = ["-m", "piper_train.teach", "--teacher", str(options.teacher), "--script", str(options.script)]
    arguments += ["--output", str(source.folder), "--device", options.device, "--seed", str(options.seed)]
    arguments += ["--max-seconds", f"{options.max_seconds:g}"]
    if options.verify:
        arguments += ["--verify", "--attempts", str(options.attempts)]
        for flag, value in (
            ("--asr", options.asr),
            ("--whisper-model", options.whisper_model),
            ("--language", options.language),
        ):
            arguments += [flag, value] if value is not None else []
    return Step("teach", arguments, left_out_is_fine=True)


def quick_start_step(options: argparse.Namespace, source: Source, voice: str, given: Collection[str]) -> Step:
    """A test data set is made, or found whole; one that is there stays as it is where nobody asks for another."""
    there = quick_start.recorded(source.folder) or {}
    wanted = {"clips": options.clips, "seed": options.seed, "speakers": options.num_speakers or 1}
    asked = {"clips": "--clips" in given, "speakers": "--num-speakers" in given}
    arguments = ["-m", "piper_train.quick_start", "--output", str(source.folder), "--espeak-voice", voice]
    for name, value in wanted.items():
        known = there.get(name)
        arguments += [f"--{name}", str(known if isinstance(known, int) and not asked.get(name) else value)]
    return Step("quick_start", arguments)


def build_step(
    options: argparse.Namespace, source: Source, places: Places, architecture: Architecture, voice: str
) -> Step:
    """Texts become phonemes, and recordings sound at the voice's rate, as far as they have changed."""
    arguments = ["-m", "piper_train.prepare", "--csv-path", str(source.csv_path)]
    if source.audio_dir is not None:
        arguments += ["--audio-dir", str(source.audio_dir)]
    arguments += ["--cache-dir", str(places.cache), "--config-path", str(places.config)]
    arguments += ["--voice-name", places.project, "--espeak-voice", voice]
    arguments += ["--sample-rate", str(architecture.config.sample_rate)]
    arguments += ["--num-speakers", str(architecture.config.num_speakers)]
    for name in ("filter_length", "hop_length", "win_length", "segment_size"):
        value = getattr(architecture.config, name)
        if value != type(architecture.config).__dataclass_fields__[name].default:
            arguments += [f"--{name.replace('_', '-')}", str(value)]
    return Step("build_dataset", arguments)


def train_step(
    options: argparse.Namespace, source: Source, places: Places, start: Start, architecture: Architecture, voice: str
) -> Step:
    """Training; a run that is continued takes its network from the checkpoint."""
    arguments = ["-m", "piper_train", "fit"]
    if not start.continues:
        arguments += [*architecture.arguments, "--model.sample_rate", str(architecture.config.sample_rate)]
        arguments += ["--model.num_speakers", str(architecture.config.num_speakers)]
    arguments += [
        *("--data.config_path", str(places.config)),
        *("--data.voice_name", places.project),
        *("--data.csv_path", str(source.csv_path)),
        *(("--data.audio_dir", str(source.audio_dir)) if source.audio_dir is not None else ()),
        *("--data.cache_dir", str(places.cache)),
        *("--data.espeak_voice", voice),
        *("--data.batch_size", str(options.batch_size)),
        *("--data.num_workers", str(options.num_workers)),
        *("--trainer.default_root_dir", str(places.results)),
        *("--trainer.max_epochs", str(options.max_epochs)),
        *("--trainer.accelerator", _ACCELERATORS.get(options.device, options.device)),
        *("--trainer.devices", str(options.num_gpus)),
        *("--trainer.precision", PRECISIONS[options.precision]),
        *("--seed_everything", str(options.seed)),
    ]
    if options.num_gpus > 1:
        arguments += ["--trainer.strategy", STRATEGY]
    if options.gradient_accumulation_steps > 1:
        arguments += ["--trainer.accumulate_grad_batches", str(options.gradient_accumulation_steps)]
    if options.learning_rate is not None:
        arguments += ["--model.learning_rate", f"{options.learning_rate:g}"]
    if options.log_every_n_steps is not None:
        arguments += ["--trainer.log_every_n_steps", str(options.log_every_n_steps)]
    return Step("train", [*arguments, *start.arguments()])


def export_step(options: argparse.Namespace, places: Places, after_training: bool = False) -> Step:
    """The voice; of which checkpoint is settled when it runs, since training may make one."""
    arguments = ["-m", "piper_train.export_onnx", "--output-file", str(places.voice)]

    def checkpoint() -> list[str]:
        return ["--checkpoint", str(to_export(options, places))]

    if after_training:
        return Step("export", arguments, late=checkpoint)
    return Step("export", [*arguments, *checkpoint()])
