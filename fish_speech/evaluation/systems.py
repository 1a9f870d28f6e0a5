"""What is compared: systems, each a list of clips: a checkpoint's speech, recordings, or what a codec leaves of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .. import log
from ..audio import MAX_CLIP_S, AudioError, find_audio, read_audio, write_wav
from ..errors import UserError
from ..prepare.transcripts import Transcripts
from ..versions import DEFAULT_VERSION, VERSIONS, config_of_codec, named_codec, version_of_folder

if TYPE_CHECKING:
    from ..synthesis.sampling import SamplingConfig
    from ..synthesis.speak import Speaker
    from ..synthesis.voices import PackedReference, Reference

logger = logging.getLogger(__name__)

Kind = Literal["checkpoint", "recordings", "codec"]


@dataclass
class Clip:
    """One piece of speech, and what is known about it before it is measured."""

    name: str  # unique in its system; also the name of its WAV file
    text: str | None  # what should be said; None: unknown
    sound: Path | None  # what is measured; None: the model said nothing
    source: Path | None = None  # of a codec's clip: the recording that went in
    known: dict[str, Any] = field(default_factory=dict)
    failure: str | None = None  # why it cannot be measured


@dataclass
class System:
    """Something that speaks, and its clips."""

    name: str
    kind: Kind
    source: Path
    clips: list[Clip]
    record: dict[str, str] = field(default_factory=dict)  # what else tells which weights these are


def find_recordings(folder: Path) -> list[Path]:
    """List the audio files below `folder` by absolute path, sorted; raise UserError if there are none."""
    fix = "check the path"
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "recordings are read from it", fix)
    try:
        paths = find_audio(folder.resolve())  # however a folder is named, its clips have one name
    except AudioError as error:
        raise UserError(f"cannot search {folder}", str(error), "make the folder readable") from None
    if not paths:
        raise UserError(f"no audio file in {folder}", "recordings are read from it", fix)
    return paths


def read_recordings(name: str, folder: Path, limit: int | None = None) -> System:
    """Take the recordings below `folder`, in order of their paths, with the transcripts beside them."""
    paths = find_recordings(folder)
    transcripts, clips = Transcripts(), []
    names: set[str] = set()
    for path in paths[:limit]:
        label = "_".join(path.relative_to(folder.resolve()).with_suffix("").parts)
        label = label.encode("utf-8", "replace").decode("utf-8")  # POSIX names may be any bytes
        while label.lower() in names:
            label += "_"
        names.add(label.lower())
        clips.append(Clip(label, transcripts.read(path).text, path))
    without = sum(clip.text is None for clip in clips)
    if without:
        logger.info("%s: %d of %d recordings have no transcript: no error rates for these", name, without, len(clips))
    return System(name, "recordings", folder, clips)


def copy_sound(system: System, folder: Path) -> None:
    """Write the system's recordings as WAV files into `folder`, for listening; a broken one gets its failure noted."""
    for clip in log.progress(system.clips, f"copy {system.name}", unit="clip"):
        assert clip.sound is not None
        try:
            waveform, rate = read_audio(clip.sound, max_duration_s=MAX_CLIP_S)
        except AudioError as error:
            clip.failure = error.reason
            logger.warning("failed: %s", error)
            continue
        write_wav(folder / f"{clip.name}.wav", waveform, rate)


def codec_beside(folder: Path) -> Path:
    """The codec weights of a model folder: those that voice.json names, else those of a known model version."""
    named = named_codec(folder)
    if named is not None:
        return named
    version = version_of_folder(folder)
    known = [it for it in VERSIONS.values() if version is None or it.family == version.family]
    for places in ((folder,), ()):  # in the folder before a version's own place
        for it in known:
            found = it.codec_in(*places)
            if found is not None and (not places or found.parent == folder):
                return found
    raise UserError(
        f"{folder} has no codec",
        f"expected one of these there: {', '.join(it.codec_file for it in known)}",
        "copy the codec weights of its model version into the folder",
    )


def usual_sampling(folder: Path) -> SamplingConfig:
    """How cli_tts draws tokens from a model folder where nobody says: as its version does."""
    from ..synthesis.sampling import SamplingConfig

    version = version_of_folder(folder) or VERSIONS[DEFAULT_VERSION]
    return SamplingConfig(**asdict(version.sampling))


def load_voice(folder: Path, device: str) -> Speaker:
    """Load a model folder with its codec as cli_tts does."""
    from ..models import codec_config
    from ..synthesis.loading import load_speaker

    if not folder.is_dir():
        raise UserError(f"there is no model folder {folder}", "it was given as --checkpoint", "check the path")
    codec = codec_beside(folder)
    return load_speaker(folder, codec, codec_config(config_of_codec(codec)), device=device)


def model_hash(folder: Path) -> str:
    """SHA-256 of the model's weights."""
    from ..checkpoint import sha256
    from ..models.loading import weights_path

    return sha256(weights_path(folder))


def packed_prompt(folder: Path) -> PackedReference | None:
    """The reference that a merged folder speaks with, if it does; raises UserError for one that is damaged."""
    from ..synthesis.voices import packed_reference

    packed = packed_reference(folder)
    return packed if packed is not None and packed.used else None


def read_prompts(paths: Sequence[Path], speaker: Speaker, packed: PackedReference | None = None) -> list[Reference]:
    """Read reference codes (.npy), each with its words in the .txt beside it; those of a merged folder know theirs."""
    from ..synthesis.voices import Reference, read_codes

    config, references = speaker.model.config, list[Reference]()
    if packed is not None:
        references.append(Reference(packed.text, read_codes(packed.codes, config.num_codebooks, config.codebook_sizes)))
    for path in paths:
        codes = read_codes(path, config.num_codebooks, config.codebook_sizes)
        words = path.with_suffix(".txt")
        if not words.is_file():
            raise UserError(
                f"there is no {words}",
                "a reference needs the words spoken in it",
                "make both with cli_tts.py --create-reference AUDIO OUT.npy --prompt-text TEXT",
            )
        try:
            references.append(Reference(words.read_text(encoding="utf-8-sig").strip(), codes))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {words}", str(error), "give a UTF-8 text file") from None
    return references


def speak_texts(
    name: str,
    source: Path,
    speaker: Speaker,
    texts: Sequence[str],
    folder: Path,
    sampling: SamplingConfig,
    seed: int,
    references: Sequence[Reference] = (),
) -> System:
    """Speak each text into `folder`; note whether the model ended each by itself. Text number n is drawn by seed + n."""
    import numpy as np

    from ..synthesis.speak import SpeechRequest

    clips = []
    quiet = logging.getLogger("fish_speech.synthesis.speak")
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # the result tells of every sentence what it would warn of
    try:
        for number, text in enumerate(log.progress(texts, f"speak {name}", total=len(texts), unit="sentence")):
            clip = Clip(f"{number + 1:04d}", text, None)
            before = speaker.unfinished
            parts = list(speaker.segments(SpeechRequest(text, references, sampling, seed=seed + number)))
            clip.known["ends_by_itself"] = speaker.unfinished == before
            if parts:
                clip.sound = folder / f"{clip.name}.wav"
                write_wav(clip.sound, np.concatenate(parts), speaker.codec.sample_rate)
            clips.append(clip)
    finally:
        quiet.setLevel(level)
    return System(name, "checkpoint", source, clips)


def reconstruct(name: str, weights: Path, originals: System, folder: Path, device: str) -> System:
    """Encode and decode the clips of `originals` into `folder`; note the mel distance of each."""
    import torch

    from ..models import codec_config, load_codec

    if not weights.is_file():
        raise UserError(f"there are no codec weights {weights}", f"they were given as --codec {name}", "check the path")
    codec = load_codec(weights, codec_config(config_of_codec(weights)), device)
    clips = []
    for original in log.progress(originals.clips, f"reconstruct {name}", unit="clip"):
        assert original.sound is not None
        clip = Clip(original.name, original.text, None, original.sound)
        clips.append(clip)
        try:
            samples, _ = read_audio(original.sound, codec.sample_rate, max_duration_s=MAX_CLIP_S)
        except AudioError as error:
            clip.failure = error.reason
            continue
        if len(samples) < codec.config.least_samples:
            clip.failure = f"too short: {len(samples) / codec.sample_rate:.3f} s"
            continue
        waveform = torch.from_numpy(samples).to(codec.device)  # (samples,)
        decoded = codec.decode(codec.encode_clips([waveform])[0][None])[0, 0, : len(samples)]
        clip.known["mel_l1"] = float(codec.log_mel.distance(waveform[None, : len(decoded)], decoded[None]))
        clip.sound = folder / f"{clip.name}.wav"
        write_wav(clip.sound, decoded.cpu().numpy(), codec.sample_rate)
    return System(name, "codec", weights, clips)
