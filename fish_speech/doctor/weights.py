"""The base model's files: there, whole by the hashes on record, readable, and of the shapes that their config says."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..checkpoint import read_state_dict, sha256
from ..errors import UserError
from ..hub import RECORD_FILE, WORK_FOLDER, read_record
from ..versions import (
    CONFIG_FILE,
    TOKENIZER_FILE,
    VERSIONS,
    VOICE_FILE,
    WEIGHTS_FILE,
    ModelVersion,
    config_of_codec,
    read_voice,
)
from .findings import Finding, guarded

_SHOWN = 12  # letters of a hash


@dataclass(frozen=True)
class Recorded:
    """What is known of a file, and which file says so."""

    sha256: str
    size: int | None  # bytes
    source: str


@dataclass(frozen=True)
class Base:
    """The files of a base model: the version's own folder, or another, a merged voice say."""

    version: ModelVersion
    folder: Path

    @classmethod
    def of(cls, model_version: str, folder: Path | None) -> Base:
        """The folder that the user names, else the version's."""
        version = VERSIONS[model_version]
        return cls(version, version.folder if folder is None else folder)

    @property
    def is_own(self) -> bool:
        """Whether it is the version's own folder, whose files can be fetched."""
        return self.folder.resolve() == self.version.folder.resolve()

    @property
    def weights(self) -> Path:
        """The language model's weights; `model.safetensors` where only that is there."""
        path = self.folder / WEIGHTS_FILE
        other = path.with_suffix(".safetensors")
        return other if other.is_file() and not path.exists() else path

    @property
    def codec(self) -> Path:
        """The codec that a run takes with this base; where it should be, if there is none."""
        return self.version.codec_in(self.folder) or self.folder / self.version.codec_file

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of a run."""
        optional = [path for name in self.version.optional_files if (path := self.folder / name).is_file()]
        return (self.folder / CONFIG_FILE, self.weights, self.folder / TOKENIZER_FILE, self.codec, *optional)

    @property
    def how_to_get(self) -> str:
        """What to do about a file that is missing or damaged."""
        if self.is_own:
            return self.version.how_to_get
        return f"check the path {self.folder}; copy it again from where it came, or merge again (--merge-weights)"


def look_at_files(base: Base) -> Iterator[Finding]:
    """Presence, size and hash of each file."""
    if not base.folder.is_dir():
        yield Finding("weights", "wrong", f"there is no folder {base.folder} with the base model", base.how_to_get)
        return
    for folder in dict.fromkeys(path.parent for path in base.files):  # the codec may be in the version's own
        yield from _look_at_files_in(folder, base)
    parts = list((base.folder / WORK_FOLDER).glob("*.part"))
    if parts:
        size = sum(part.stat().st_size for part in parts) / 1e6
        yield Finding("download", "note", f"one was begun in {base.folder}, {size:.1f} MB of it are there",
                      "the next run continues it, or: " + base.how_to_get)  # fmt: skip


def _look_at_files_in(folder: Path, base: Base) -> Iterator[Finding]:
    hashes: dict[str, Recorded] = {}
    try:
        hashes = recorded_hashes(folder)
    except UserError as error:  # the files can be looked at all the same
        yield Finding("hashes", "wrong", f"{error.what}: {error.why}", error.fix)
    for path in (path for path in base.files if path.parent == folder):

        def look(path: Path = path) -> list[Finding]:
            return [look_at_file(path, hashes.get(path.name), base)]

        yield from guarded(path.name, look)


def recorded_hashes(folder: Path) -> dict[str, Recorded]:
    """What is on record of the files in a folder, by their names; UserError for a record that is damaged.

    `.revision.json` is of the download, `voice.json` of the merge that made the folder.
    """
    entries = read_record(folder).get("files", {}).items()
    found = {name: Recorded(str(entry["sha256"]), int(entry["size"]), RECORD_FILE) for name, entry in entries}
    merged = read_voice(folder).get("model_sha256")
    if not found and isinstance(merged, str):
        found = {WEIGHTS_FILE: Recorded(merged, None, VOICE_FILE)}
    return found


def look_at_file(path: Path, recorded: Recorded | None, base: Base) -> Finding:
    """One file, compared with what is on record."""
    if not path.is_file():
        return Finding(path.name, "wrong", f"{path} is missing", base.how_to_get)
    size = path.stat().st_size
    found = f"{path}, {size / 1e6:.1f} MB" if size >= 1e5 else f"{path}, {size} bytes"
    fix = f"delete {path}, then: {base.how_to_get}"
    if size == 0:
        return Finding(path.name, "wrong", f"{path} is empty", fix)
    if recorded is None:
        with path.open("rb") as file:
            file.read(1)  # there, but readable?
        return Finding(path.name, "good", f"{found}; no hash of it is on record")
    source = recorded.source
    if recorded.size not in (None, size):
        return Finding(path.name, "wrong", f"{path} is torn: {size} bytes, {source} says {recorded.size}", fix)
    actual = sha256(path)
    if actual != recorded.sha256:
        hashes = f"SHA-256 {actual[:_SHOWN]}..., {source} says {recorded.sha256[:_SHOWN]}..."
        return Finding(path.name, "wrong", f"{path} was changed or damaged: {hashes}", fix)
    return Finding(path.name, "good", f"{found}; SHA-256 as {source} says")


def look_at_model(base: Base) -> Iterator[Finding]:
    """Config and tokenizer can be read, and the weights have the names and shapes of the config, and no NaN.

    Weights stay mapped in their own dtype, so that a file of any size takes little memory.
    """
    if not base.folder.is_dir():
        return  # look_at_files says so
    try:
        yield from _look_into_model(base)
    except UserError as error:
        yield Finding("model", "wrong", f"{error.what}: {error.why}", f"{error.fix}: {base.how_to_get}")


def _look_into_model(base: Base) -> Iterator[Finding]:
    import torch

    from ..models import load_dual_ar, read_config

    if not base.files[0].is_file():
        return
    config = read_config(base.folder)
    found = f"{config.n_layer}+{config.n_fast_layer} layers, width {config.dim}, {config.num_codebooks} codebooks"
    yield Finding("model config", "good", f"{found}, {config.max_seq_len} tokens at most")
    if not all(path.is_file() for path in base.files[:3]):
        return
    tensors = [tensor for tensor in read_state_dict(base.weights).values() if tensor.is_floating_point()]
    dtype = max(tensors, key=torch.numel).dtype if tensors else torch.float32
    model = load_dual_ar(base.folder, dtype=dtype)
    count = sum(parameter.numel() for parameter in model.parameters())
    shown = str(dtype).removeprefix("torch.")
    yield Finding("model", "good", f"{count / 1e6:.1f} M weights in {shown}, names and shapes fit, all finite")
    yield Finding("tokenizer", "good", f"{model.tokenizer.vocab_size} ids, the model knows {config.vocab_size}")


def look_at_codec(base: Base) -> Iterator[Finding]:
    """The codec's weights fit its config, and its codes are such that the model knows."""
    from ..models import codec_config, load_codec, read_config

    if not base.codec.is_file():
        return  # look_at_files says so
    name = config_of_codec(base.codec, base.version.name)
    try:
        codec = load_codec(base.codec, codec_config(name))
    except UserError as error:
        yield Finding("codec", "wrong", f"{error.what}: {error.why}", f"{error.fix}: {base.how_to_get}")
        return
    sizes = Counter(codec.codebook_sizes)
    made = " and ".join(f"{count} codebooks of {size} codes" for size, count in sizes.items())
    found = f"{made}, {codec.frame_rate:.1f} frames/s"
    with contextlib.suppress(UserError):  # no config, or a damaged one: look_at_model says so
        known = read_config(base.folder)
        if codec.codebooks != known.num_codebooks or codec.codebook_size > known.codebook_size:
            found += f"; the model reads {known.num_codebooks} codebooks of {known.codebook_size}"
            yield Finding("codec", "wrong", f"{base.codec} does not fit the model: {found}", base.how_to_get)
            return
    yield Finding("codec", "good", f"{found}, names and shapes fit {Path(name).name}, all finite")
