"""The flags of speaking, shared by cli_tts.py and the server: one name, one meaning, one default. Imports nothing heavy."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from .. import arguments as flags
from ..checkpoint import record_of
from ..errors import UserError
from ..marker_names import MARKERS
from ..versions import VERSIONS, ModelVersion, family_of_folder, settle_version
from .batch_line import MAX_SEED
from .loading import QUANTIZATIONS, VoiceSettings, check_folder
from .references import VOICES_FOLDER, ReferenceChoice

if TYPE_CHECKING:
    from ..synthesis.cache import TokenCache
    from ..synthesis.effects import Effects
    from ..synthesis.sampling import SamplingConfig

log = logging.getLogger(__name__)


def add_model(group: argparse._ActionsContainer) -> None:
    """Add which weights speak, and where and how they compute."""
    flags.add_model_version(group)
    group.add_argument(
        "--model-path", type=Path, help="model folder (default: the checkpoint's base, else the version's)"
    )
    group.add_argument("--checkpoint", type=Path, help="a step_N.ckpt, used without merging")
    group.add_argument("--codec", type=Path, help="codec weights (default: those in the model folder)")
    flags.add_device(group)
    flags.add_force_mps(group)
    flags.add_precision(group)
    group.add_argument(
        "--quantize", choices=QUANTIZATIONS, default="none", help="int8: weights in 8 bits, on the CPU (default: none)"
    )
    flags.add_offline(group)


def settle_model(options: argparse.Namespace) -> ModelVersion:
    """Fill in the model version, and how tokens are drawn where nobody says. Raises UserError where flags contradict.

    A folder that is not there is refused at once: what it does not say would be taken for 1.5's.
    """
    if options.checkpoint and options.model_path is None and options.model_version is None:
        options.model_path, options.model_version = _base_of(options.checkpoint)
    if options.model_path:
        check_folder(options.model_path)
    version = settle_version(options.model_version, options.model_path)
    options.model_version = version.name
    for name, value in asdict(version.sampling).items():
        if getattr(options, name, value) is None:
            setattr(options, name, value)
    return version


def _base_of(checkpoint: Path) -> tuple[Path | None, str | None]:
    """The base that a checkpoint was trained on: its folder if that is there, else a version of its family, if known."""
    record = record_of(checkpoint)
    base, family = record.get("base"), record.get("family")
    if isinstance(base, str) and family_of_folder(Path(base)) is not None:
        log.info("base: %s, which the checkpoint was trained on", base)
        return Path(base), None
    return None, next((version.name for version in VERSIONS.values() if version.family == family), None)


def voice_settings(options: argparse.Namespace) -> VoiceSettings:
    """What add_model's flags say."""
    if options.quantize != "none" and options.precision != "fp32":
        raise UserError(
            f"--quantize {options.quantize} and --precision {options.precision} are given",
            "each says in which numbers the weights are held",
            "give one of them",
        )
    return VoiceSettings(
        options.model_version,
        options.model_path,
        options.checkpoint,
        options.codec,
        options.device,
        options.force_mps,
        options.precision,
        options.quantize,
        options.offline,
    )


def add_voices_folder(group: argparse._ActionsContainer) -> None:
    """Add where named voices are."""
    group.add_argument("--voices-dir", type=Path, default=VOICES_FOLDER, metavar="DIR",
                       help=f"where voices are: NAME.npy with NAME.txt (default: {VOICES_FOLDER})")  # fmt: skip


def add_own_reference(group: argparse._ActionsContainer) -> None:
    """Add the switch against the model folder's own reference."""
    group.add_argument("--no-reference", action="store_true",
                       help="do not use the reference that a merged voice brings along")  # fmt: skip


def add_reference(group: argparse._ActionsContainer) -> None:
    """Add the voice to imitate."""
    group.add_argument("--voice", metavar="NAME", help="a voice of --voices-dir")
    add_voices_folder(group)
    group.add_argument("--prompt-tokens", type=Path, action="append", default=[], metavar="NPY",
                       help="codes of a recording to imitate; repeatable, each with its --prompt-text")  # fmt: skip
    group.add_argument("--prompt-text", action="append", default=[], metavar="TEXT", help="the words spoken in it")
    group.add_argument("--prompt-tokens-file", type=Path, metavar="FILE",
                       help="a file that lists references: a line NPY|TEXT each")  # fmt: skip
    group.add_argument("--reference-audio", type=Path, metavar="AUDIO",
                       help="a recording to imitate, with its --prompt-text")  # fmt: skip
    add_own_reference(group)


def uses_own_reference(options: argparse.Namespace) -> bool:
    """Whether the model folder's own reference may be used: not that of the base under a checkpoint."""
    return not options.no_reference and not options.checkpoint


def check_seed(last: int) -> None:
    """Raise UserError where `last`, the highest seed of a request, is beyond what torch takes."""
    if last > MAX_SEED:
        raise UserError(f"the seed {last} is too large", f"seeds go up to {MAX_SEED}", "give a smaller --seed")


def reference_choice(options: argparse.Namespace) -> ReferenceChoice:
    """What add_reference's flags say."""
    return ReferenceChoice(
        tuple(options.prompt_tokens),
        tuple(options.prompt_text),
        options.prompt_tokens_file,
        options.reference_audio,
        options.voice,
        options.voices_dir,
        own=uses_own_reference(options),
    )


def add_sampling(group: argparse._ActionsContainer) -> None:
    """Add how tokens are drawn and how long a segment may be."""
    for flag, what in (
        ("--temperature", "0-2; 0 takes the likeliest"),
        ("--top-p", "share of probability kept"),
        ("--repetition-penalty", "1 is none"),
    ):
        default = flags.version_default("sampling", flag[2:].replace("-", "_"))
        group.add_argument(flag, type=float, help=f"{what} ({default})")
    group.add_argument("--max-new-tokens", type=flags.non_negative_int, metavar="N",
                       help="frames per segment; 0: the model's limit (default: by its text)")  # fmt: skip
    group.add_argument("--chunk-length", type=flags.positive_int, default=200, metavar="N",
                       help="bytes of text per segment, which ends with a sentence if possible (default: 200)")  # fmt: skip
    flags.add_seed(group)


def sampling_config(temperature: float, top_p: float, repetition_penalty: float) -> SamplingConfig:
    """Check how tokens are drawn."""
    from ..synthesis.sampling import SamplingConfig

    try:
        return SamplingConfig(temperature, top_p, repetition_penalty)
    except ValueError as error:
        raise UserError("the sampling settings do not make sense", str(error), "correct the flag") from error


def add_effects(group: argparse._ActionsContainer) -> None:
    """Add what is done to the sound."""
    group.add_argument("--speed", type=float, default=1.0, metavar="FACTOR",
                       help="0.5-2: how fast, at the same pitch (default: 1)")  # fmt: skip
    group.add_argument("--pitch", type=float, default=0.0, metavar="SEMITONES",
                       help="-12 to 12: how much higher, at the same speed (default: 0)")  # fmt: skip
    group.add_argument("--volume", type=float, default=0.0, metavar="DB",
                       help="-40 to 20: how much louder, without clipping (default: 0)")  # fmt: skip


def effects(speed: float, pitch: float, volume: float) -> Effects:
    """Check what is done to the sound."""
    from ..synthesis.effects import Effects

    try:
        return Effects(speed, pitch, volume)
    except ValueError as error:
        raise UserError("the sound cannot be changed so", str(error), "correct the flag") from error


def add_markers(group: argparse._ActionsContainer) -> None:
    """Add moods, tones and sounds, for versions that obey markers, with all their names."""
    obeyed = "; ".join(version.name for version in VERSIONS.values() if version.markers)
    for kind, names in MARKERS.items():
        group.add_argument(f"--{kind}", metavar="NAME", help=f"{obeyed} only: {', '.join(names)}")


def marker_of(options: argparse.Namespace) -> str:
    """What add_markers' flags put before each segment. Raises UserError where the version does not obey them."""
    from ..text.markers import check_markers, with_marker

    asked = {kind: getattr(options, kind) for kind in MARKERS}
    check_markers(options.model_version, VERSIONS[options.model_version].markers, asked)
    return "".join(with_marker("", kind, name) for kind, name in asked.items() if name is not None)


def warn_of_markers(text: str, model_version: str) -> bool:
    """Warn if `text` has markers in it that the version does not obey; return whether it has."""
    from ..text.markers import markers_in

    unknown = [] if VERSIONS[model_version].markers else markers_in(text)
    if unknown:
        log.warning("version %s knows no markers: (%s) will be read aloud", model_version, unknown[0])
    return bool(unknown)


def add_cache(group: argparse._ActionsContainer) -> None:
    """Add whether speech is remembered."""
    group.add_argument("--no-cache", action="store_true", help="generate anew even what was said before")


def cache_opener(options: argparse.Namespace) -> Callable[[], TokenCache] | None:
    """What opens the cache; None with --no-cache."""
    if options.no_cache:
        return None

    def open_cache() -> TokenCache:
        from ..synthesis.cache import TokenCache

        return TokenCache()

    return open_cache
