"""The model versions this toolkit knows: one row each. A new version is a row here, never an `if` in a script."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import UserError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.pth"
TOKENIZER_FILE = "tokenizer.tiktoken"
SPECIAL_TOKENS_FILE = "special_tokens.json"
VOICE_FILE = "voice.json"
_MOST_JSON_BYTES = 8 << 20  # a larger voice.json or config.json is nobody's
CODEC_RECORD = ".codec.json"  # in a data folder: the codec that its codes were made with


@dataclass(frozen=True)
class Recipe:
    """How finetune_tts.py trains where the user does not say, and beyond what it warns."""

    lora_config: str = "r_8_alpha_16"  # a name in configs/lora, or none: all weights
    learning_rate: float = 5e-5
    max_steps: int = 300
    max_epochs: int | None = None  # if that ends sooner
    max_length: int | None = None  # tokens of a packed sample; None: 4096, 1024 without CUDA
    safe_learning_rate: float = 5e-5  # above, noise or collapse is seen after 300 steps
    safe_steps: int | None = 300  # more risk overfitting; None: no such number is known


@dataclass(frozen=True)
class SamplingDefaults:
    """How tokens are drawn where nobody says: what the released system of a version does."""

    temperature: float = 0.7
    top_p: float = 0.7
    repetition_penalty: float = 1.2


# A family is an architecture with its special tokens and prompts; versions of a family differ in size and weights only.
FISH, S1 = "fish", "s1"  # minnow is of the first
FAMILIES = {FISH: "Fish Speech 1.5", S1: "OpenAudio S1-mini"}  # as messages call them
S1_KEYS = frozenset(
    ("attention_o_bias", "attention_qk_norm", "fast_attention_o_bias", "fast_attention_qk_norm")
)  # in config.json of that family alone


@dataclass(frozen=True)
class ModelVersion:
    """Names and formats of one model version. Paths are relative to the folder the user works in."""

    name: str
    hub_id: str  # repository on the Hugging Face hub; empty: none, the files come with this repository
    folder: Path  # where its files are looked for and downloaded to
    codec_file: str  # codec weights inside the folder
    codec_config: str  # name of a yaml in configs/codec
    family: str  # FISH or S1: which model, tokenizer and prompts
    optional_files: tuple[str, ...] = ()  # downloaded with the others, and not missed where they are not
    gated: bool = False  # whether the hub gives it only to those who accepted its terms
    revision: str = "main"  # branch, tag or commit; hub.py holds a folder to the commit that its first download saw
    recipe: Recipe = Recipe()
    sampling: SamplingDefaults = SamplingDefaults()
    uses_reference: bool = True  # whether a merged voice opens its prompts with the reference clip that it brings
    markers: bool = False  # whether it obeys markers of mood and tone in its text (text/markers.py)
    made_by: str = ""  # the page that says how to make its files anew, where no hub has them

    @property
    def files(self) -> tuple[str, ...]:
        """Every file a run needs."""
        return (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, self.codec_file)

    def codec_in(self, *folders: Path) -> Path | None:
        """The codec weights in the first of `folders` that has them, else in the version's own folder, else None."""
        places = (folder / self.codec_file for folder in (*folders, self.folder))
        return next((path for path in places if path.is_file()), None)

    @property
    def how_to_get(self) -> str:
        """What to do about missing files, in a phrase."""
        if self.hub_id:
            terms = (
                f"accept the terms on https://huggingface.co/{self.hub_id}, then hf auth login and "
                if self.gated
                else ""
            )
            return f"{terms}hf download {self.hub_id} --local-dir {self.folder}"
        return f"work in a full checkout (git checkout -- {self.folder}), or make them anew: {self.made_by}"


VERSIONS: dict[str, ModelVersion] = {
    "1.5": ModelVersion(
        name="1.5",
        hub_id="fishaudio/fish-speech-1.5",
        folder=Path("checkpoints/fish-speech-1.5"),
        codec_file="firefly-gan-vq-fsq-8x1024-21hz-generator.pth",
        codec_config="firefly_gan_vq",
        family=FISH,
    ),
    "s1-mini": ModelVersion(
        name="s1-mini",
        hub_id="fishaudio/openaudio-s1-mini",
        folder=Path("checkpoints/openaudio-s1-mini"),
        codec_file="codec.pth",
        codec_config="modded_dac_vq",
        family=S1,
        optional_files=(SPECIAL_TOKENS_FILE,),
        gated=True,
        sampling=SamplingDefaults(0.8, 0.8, 1.1),
        markers=True,
    ),
    "minnow": ModelVersion(
        name="minnow",
        hub_id="",
        folder=Path("checkpoints/minnow"),
        codec_file="codec.pth",
        codec_config="minnow",
        family=FISH,
        # So small a base has no room to spare: adapters hardly change its voice, and it was trained on short samples.
        # Held-out loss is lowest after five passes over ten minutes of speech; the voice is nearer after some more.
        recipe=Recipe(
            lora_config="none",
            learning_rate=1.5e-4,
            max_epochs=12,
            max_length=384,
            safe_learning_rate=1.5e-4,
            safe_steps=None,
        ),
        # Fine-tuned, 30 held-out texts: behind a reference a text has 0.17 +- 0.05 more word errors, similarity stays.
        uses_reference=False,
        made_by="docs/minnow.md",
    ),
}
DEFAULT_VERSION = "1.5"


def family_of(config: Mapping[str, Any]) -> str:
    """The family of a model by the keys of its config.json: each family's tools write their own."""
    return S1 if S1_KEYS & set(config) and "share_codebook_embeddings" not in config else FISH


def family_of_folder(folder: Path) -> str | None:
    """The family of the model in `folder`; None if it has no config.json that can be read."""
    config = _read_object(Path(folder) / CONFIG_FILE)
    return family_of(config) if config else None


def version_of_folder(folder: Path) -> ModelVersion | None:
    """The version of a model folder: what its voice.json says, else the first of its family whose codec it has.

    None if it has no config.json; a folder without codec is taken for the first version of its family.
    """
    family = family_of_folder(folder)
    if family is None:
        return None
    named = VERSIONS.get(str(read_voice(folder).get("model_version")))
    if named is not None and named.family == family:
        return named
    candidates = [version for version in VERSIONS.values() if version.family == family]
    having = (version for version in candidates if (Path(folder) / version.codec_file).is_file())
    return next(having, candidates[0])


def settle_version(asked: str | None, folder: Path | None) -> ModelVersion:
    """The version asked for, else that of the model `folder`, else the default.

    Raises UserError if the folder's model is of another family than the version asked for.
    """
    found = None if folder is None else version_of_folder(folder)
    version = VERSIONS[asked] if asked is not None else found or VERSIONS[DEFAULT_VERSION]
    if found is not None and found.family != version.family:
        raise UserError(
            f"{folder} is no model of version {version.name}",
            f"its config.json is that of {found.name}",
            f"use --model-version {found.name}, or leave it out: the folder says which it is",
        )
    return version


def config_of_codec(codec: Path, model_version: str | None = None) -> str:
    """The config of codec weights: the yaml beside them, else that of `model_version` if its codec is called so, else of
    the version that the model beside them has, else of the first that calls its codec so, else of `model_version`.
    """
    if codec.with_suffix(".yaml").is_file():
        return str(codec.with_suffix(".yaml"))
    asked, beside = VERSIONS.get(str(model_version)), version_of_folder(codec.parent)
    named = (version for version in (asked, beside, *VERSIONS.values()) if version and version.codec_file == codec.name)
    return next(named, asked or VERSIONS[DEFAULT_VERSION]).codec_config


def read_voice(folder: Path) -> dict[str, Any]:
    """What voice.json in a model folder says; nothing where there is none, as in a base, or one that is torn or odd."""
    return _read_object(folder / VOICE_FILE)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= _MOST_JSON_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def named_codec(folder: Path) -> Path | None:
    """The codec weights in a model folder that its voice.json names; None if it names none: a base has no such file."""
    name = read_voice(folder).get("codec")
    if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
        return None
    return folder / name
