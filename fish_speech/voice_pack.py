"""What a merged folder holds besides the model: the reference it speaks with, figures, licences. A pack works alone.

`complete` adds it to a folder that merge_lora has written, and changes only what is not as it should be: the reference
is chosen anew when the data, the clip asked for, or the means of choosing have changed. `voice.json` is written last.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import list_checkpoints, newest_of, read_file, sha256
from .datasets.sources import Clip, find_clips
from .errors import UserError
from .files import remove_leftovers, write_json, write_text
from .licences import NOTICE_FILES, licence_notes
from .prepare.manifest import MANIFEST
from .reference_clip import PackReference, can_compare, choose_reference
from .synthesis.voices import (
    MOST_CHARACTERS,
    REFERENCE_FILE,
    encode_reference,
    packed_reference,
    read_codes,
    write_reference,
)
from .tournament_record import RESULTS, is_same, read_record, recorded_checkpoints
from .versions import CODEC_RECORD, VERSIONS, VOICE_FILE, config_of_codec, named_codec

_MOST_METRICS = 64
_CHOICE = 1  # raised when the way of choosing changes, so that packs get the better one
_DEFAULT_FRAME_RATE = 44100 / 2048  # of the released codecs
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """Which reference the user wants in the pack."""

    wanted: bool = True
    clip: Path | None = None  # codes or a recording, the words beside it
    data: Path | None = None  # where to choose from; None: where the checkpoint was trained
    speaker: str | None = None  # None: the one with the most seconds
    again: bool = False  # choose even if nothing has changed


@dataclass(frozen=True)
class Codes:
    """What codes the pack's model speaks, and the codec that makes them."""

    codebook_sizes: tuple[int, ...]
    codec: Path | None  # weights in the pack
    codec_config: dict[str, Any] | None

    @property
    def codebooks(self) -> int:
        """Codes per frame."""
        return len(self.codebook_sizes)

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        from .models import make_codec_config

        if self.codec_config is None:
            return _DEFAULT_FRAME_RATE
        return make_codec_config(self.codec_config, self.codec).frame_rate


def check_wish(wish: Wish, base: Path | None = None) -> None:
    """Raise UserError for wishes that exclude each other, a clip without words, and a data folder that is not there.

    With the model folder `base` codes that are given must be such that its model knows. Ask before anything is merged.
    """
    if wish.clip is not None and (wish.data is not None or wish.speaker is not None):
        raise UserError(
            "--reference goes without --data-dir and --reference-speaker",
            "it names the clip itself",
            "drop one of them",
        )
    if not wish.wanted and (wish.clip is not None or wish.data is not None or wish.speaker is not None):
        raise UserError(
            "--no-reference goes with no other flag about the reference", "they contradict", "drop one of them"
        )
    if wish.data is not None and not wish.data.is_dir():
        raise UserError(f"there is no data folder {wish.data}", "a reference is chosen from it", "check --data-dir")
    if wish.clip is not None:
        words_of(wish.clip)
        if base is not None and wish.clip.suffix.lower() == ".npy":
            from .models import read_config

            config = read_config(base)
            read_codes(wish.clip, config.num_codebooks, config.codebook_sizes)


def words_of(clip: Path) -> str:
    """The words spoken in a clip: in the .txt or .lab beside it."""
    if not clip.is_file():
        raise UserError(f"there is no reference {clip}", "the file does not exist", "check --reference")
    for path in (clip.with_suffix(".txt"), clip.with_suffix(".lab")):
        try:
            words = path.read_text(encoding="utf-8-sig").strip() if path.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read {path}", str(error), "save it as UTF-8 text") from None
        if len(words) > MOST_CHARACTERS:
            raise UserError(
                f"{path} is too long", f"a clip's words have at most {MOST_CHARACTERS} characters", "check it"
            )
        if words:
            return words
    name = clip.with_suffix(".txt")
    raise UserError(
        f"there are no words for {clip}", "a reference needs what is spoken in it", f"write them into {name}"
    )


def complete(output: Path, voice: Mapping[str, Any], checkpoint: Path, base: Path, version: str, wish: Wish) -> None:
    """Add reference, metrics and licence notes to the merged folder `output`, whose voice.json says `voice`.

    Raises UserError for a wish that cannot be had; a data set without any usable clip gives a pack without reference.
    """
    remove_leftovers(output)
    checkpoint = newest_of(checkpoint)
    content = read_file(checkpoint)
    content = content if isinstance(content, Mapping) else {}
    data = wish.data or data_folder(content.get("fish_speech"))
    reference, made_from = settle_reference(output, voice, codes_of(output, version), wish, data)
    metrics: dict[str, Any] = {**numbers(content.get("metrics"))}
    if row := tournament_row(checkpoint, voice.get("step")):
        metrics["tournament"] = row
    notes, notices = licence_notes(version, base, data, output)
    for name, text in notices.items():
        if not (output / name).is_file() or (output / name).read_bytes() != text.encode():
            write_text(output / name, text)
            log.info("%s: the notice to keep with every copy", output / name)
    packed = {
        **voice,
        "model_version": version,
        "reference": reference,
        "reference_from": made_from,
        "use_reference": wish.clip is not None or VERSIONS[version].uses_reference,
        "metrics": metrics,
        "licences": notes,
    }
    if packed != voice:
        write_json(output / VOICE_FILE, packed)
    stale = [name for name in NOTICE_FILES if name not in notices]
    stale += [] if reference else [REFERENCE_FILE, str(Path(REFERENCE_FILE).with_suffix(".txt"))]
    for name in stale:
        (output / name).unlink(missing_ok=True)


def codes_of(output: Path, version: str) -> Codes:
    """The codes of the model and the codec in a merged folder."""
    from .models import codec_config, read_config

    model, codec = read_config(output), named_codec(output)
    shape = codec_config(config_of_codec(codec, version)) if codec else None
    return Codes(model.codebook_sizes, codec, shape)


def data_folder(record: Any) -> Path | None:
    """The folder of clips that a checkpoint's record says it was trained on, if it is here."""
    data = record.get("data") if isinstance(record, Mapping) else None
    if not isinstance(data, str) or not data or "\0" in data:
        return None
    if Path(data).is_dir():
        return Path(data)
    log.warning("no data folder %s: --data-dir says where it is now", data)
    return None


def settle_reference(
    output: Path, voice: Mapping[str, Any], codes: Codes, wish: Wish, data: Path | None
) -> tuple[dict[str, Any] | None, str | None]:
    """What voice.json says of the pack's reference, kept or written now, and a digest of all that decided it."""
    old, old_digest = voice.get("reference"), voice.get("reference_from")
    kept = old is not None and _is_whole(output)
    if not wish.wanted:
        return None, None
    clips: Sequence[Clip] = ()
    if wish.clip is not None:
        digest = _digest("given", [sha256(wish.clip), words_of(wish.clip)])
    elif data is None:
        if kept:
            return old, old_digest  # chosen while the data was here
        log.warning("the voice gets no reference; --data-dir or --reference gives it one")
        return None, None
    elif _of_another_codec(data, codes):
        log.warning("the voice gets no reference: the codes in %s are of another codec", data)
        return None, None
    else:
        clips = find_clips([data], [".lab"])[0]
        means = "similarity" if can_compare() else "health"
        digest = _digest("chosen", [_CHOICE, means, wish.speaker, _state_of(data / MANIFEST), *_states_of(clips)])
    if digest == old_digest and (kept or old is None) and not wish.again:
        return old, digest
    if wish.clip is not None:
        reference: PackReference | None = read_reference(wish.clip, codes)
    else:
        assert data is not None
        reference = choose_reference(data, codes.codebooks, codes.codebook_sizes, codes.frame_rate, wish.speaker, clips)
    if reference is None:
        return None, digest
    write_reference(output / REFERENCE_FILE, reference.codes, reference.text)
    log.info("reference: %s, %.1f s, %s: %s", reference.source, reference.seconds, reference.why, reference.text[:80])
    return {
        "file": REFERENCE_FILE,
        "sha256": sha256(output / REFERENCE_FILE),
        **{name: value for name, value in vars(reference).items() if name != "codes"},
    }, digest


def _digest(kind: str, parts: Iterable[object]) -> str:
    digest = hashlib.sha256(kind.encode())
    for part in parts:
        digest.update(b"\0" + str(part).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _states_of(clips: Iterable[Clip]) -> Iterator[str]:
    return (line for clip in clips for line in clip.fingerprint())


def _state_of(path: Path) -> str:
    """The hash of a file, not its time: preparation writes the manifest anew even if nothing has changed."""
    return sha256(path) if path.is_file() else ""


def _is_whole(output: Path) -> bool:
    """Whether the reference that voice.json names is there as it was packed."""
    try:
        return packed_reference(output) is not None
    except UserError:
        return False


def _of_another_codec(data: Path, codes: Codes) -> bool:
    """Whether extraction noted another codec than the pack's; codes without a note are taken as fitting."""
    try:
        noted = json.loads((data / CODEC_RECORD).read_text(encoding="utf-8"))["codec_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    return codes.codec is not None and noted != sha256(codes.codec)


def read_reference(clip: Path, codes: Codes) -> PackReference:
    """A clip that the user names: codes (.npy), or a recording, which the pack's codec encodes. Raises UserError."""
    if clip.suffix.lower() == ".npy":
        array = read_codes(clip, codes.codebooks, codes.codebook_sizes)
    elif codes.codec is None:
        raise UserError(f"{clip} cannot be encoded", "the pack has no codec", "give codes (.npy), or --codec")
    else:
        from .models import load_codec

        array = encode_reference(load_codec(codes.codec, codes.codec_config), clip)
    seconds = round(array.shape[1] / codes.frame_rate, 3)
    return PackReference(words_of(clip), array.astype(np.int32), clip.name, None, seconds, "as given")


def numbers(values: Any) -> dict[str, float | int]:
    """The finite numbers of a mapping by name; what else is in it is left out."""
    if not isinstance(values, Mapping):
        return {}
    plain = {
        name: value
        for name, value in values.items()
        if isinstance(name, str) and len(name) <= 100 and type(value) in (int, float) and math.isfinite(value)
    }
    return dict(list(plain.items())[:_MOST_METRICS])


def tournament_row(checkpoint: Path, step: Any) -> dict[str, float | int]:
    """What the tournament beside the checkpoints' folder measured of this very checkpoint; empty if there was none."""
    folder = checkpoint.resolve().parent
    record = read_record(folder.parent / "tournament" / RESULTS)
    known = recorded_checkpoints(record).get(checkpoint.name)
    if not any(file.path.name == checkpoint.name and is_same(file, known) for file in list_checkpoints(folder)):
        return {}
    systems = record.get("systems")
    rows = [row for row in systems if isinstance(row, dict)] if isinstance(systems, list) else []
    found = [row.get("summary", row) for row in rows if type(step) is int and row.get("step") == step]
    return numbers(found[0]) if len(found) == 1 else {}
