"""The model versions this toolkit knows: one row each. A new version is a row here, never an `if` in a script."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.pth"
TOKENIZER_FILE = "tokenizer.tiktoken"
SPECIAL_TOKENS_FILE = "special_tokens.json"
VOICE_FILE = "voice.json"
_MOST_VOICE_BYTES = 8 << 20  # a larger voice.json is nobody's
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
class ModelVersion:
    """Names and formats of one model version. Paths are relative to the folder the user works in."""

    name: str
    hub_id: str  # repository on the Hugging Face hub; empty: none, the files come with this repository
    folder: Path  # where its files are looked for and downloaded to
    codec_file: str  # codec weights inside the folder
    codec_config: str  # name of a yaml in configs/codec
    prompt_format: str  # module of fish_speech.text that lays out its prompts
    revision: str = "main"  # branch, tag or commit; hub.py holds a folder to the commit that its first download saw
    recipe: Recipe = Recipe()
    uses_reference: bool = True  # whether a merged voice opens its prompts with the reference clip that it brings
    markers: bool = False  # whether it obeys markers of mood and tone in its text (text/markers.py)
    made_by: str = ""  # the page that says how to make its files anew, where no hub has them

    @property
    def files(self) -> tuple[str, ...]:
        """Every file a run needs; special_tokens.json is written by us and never read."""
        return (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, self.codec_file)

    def codec_in(self, *folders: Path) -> Path | None:
        """The codec weights in the first of `folders` that has them, else in the version's own folder, else None."""
        places = (folder / self.codec_file for folder in (*folders, self.folder))
        return next((path for path in places if path.is_file()), None)

    def config_of(self, codec: Path) -> str:
        """The config of codec weights: the yaml beside them, which a codec of another shape has, else the version's."""
        beside = codec.with_suffix(".yaml")
        return str(beside) if beside.is_file() else self.codec_config

    @property
    def how_to_get(self) -> str:
        """What to do about missing files, in a phrase."""
        if self.hub_id:
            return f"hf download {self.hub_id} --local-dir {self.folder}"
        return f"work in a full checkout (git checkout -- {self.folder}), or make them anew: {self.made_by}"


VERSIONS: dict[str, ModelVersion] = {
    "1.5": ModelVersion(
        name="1.5",
        hub_id="fishaudio/fish-speech-1.5",
        folder=Path("checkpoints/fish-speech-1.5"),
        codec_file="firefly-gan-vq-fsq-8x1024-21hz-generator.pth",
        codec_config="firefly_gan_vq",
        prompt_format="prompt",
    ),
    "minnow": ModelVersion(
        name="minnow",
        hub_id="",
        folder=Path("checkpoints/minnow"),
        codec_file="codec.pth",
        codec_config="minnow",
        prompt_format="prompt",
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


def config_of_codec(codec: Path, model_version: str = DEFAULT_VERSION) -> str:
    """The config of codec weights: beside them, else of the version that names its codec so, else of `model_version`."""
    asked = VERSIONS[model_version]
    named = (version for version in (asked, *VERSIONS.values()) if version.codec_file == codec.name)
    return next(named, asked).config_of(codec)


def read_voice(folder: Path) -> dict[str, Any]:
    """What voice.json in a model folder says; nothing where there is none, as in a base, or one that is torn or odd."""
    path = folder / VOICE_FILE
    try:
        voice = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= _MOST_VOICE_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return voice if isinstance(voice, dict) else {}


def named_codec(folder: Path) -> Path | None:
    """The codec weights in a model folder that its voice.json names; None if it names none: a base has no such file."""
    name = read_voice(folder).get("codec")
    if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
        return None
    return folder / name
