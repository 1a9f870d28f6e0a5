"""The training whose checkpoints compete: what they say of it, where its parts are, and what a result depends on."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import CheckpointFile, record_of, sha256
from ..errors import UserError
from .measure import Listening
from .systems import codec_beside


@dataclass(frozen=True)
class Run:
    """The training whose checkpoints compete, as these recorded it."""

    base: Path
    codec: Path
    record: Mapping[str, Any]  # of the newest checkpoint that can be read
    shards: Sequence[Path]
    data: Path | None  # the data set that the shards were packed from, if it is still there

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the run noted of seed, held-out share and so on."""
        settings = self.record.get("settings")
        return settings if isinstance(settings, Mapping) else {}


def name_of(checkpoint: CheckpointFile) -> str:
    """A checkpoint's name in tables."""
    return f"step {checkpoint.step}"


def read_records(checkpoints: Sequence[CheckpointFile], base_hash: str | None) -> tuple[dict[str, Any], dict[str, str]]:
    """What each readable checkpoint says of its run, and why others cannot take part, by name.

    `base_hash` is that of the base's weights; a checkpoint that was trained on others is left out.
    """
    records: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for checkpoint in checkpoints:
        name = name_of(checkpoint)
        try:
            record = record_of(checkpoint.path)
        except UserError as error:
            left_out[name] = error.why
            continue
        settings = record.get("settings")
        trained_on = settings.get("base weights") if isinstance(settings, Mapping) else None
        known = isinstance(trained_on, str) and trained_on != "new" and base_hash is not None
        if known and not str(base_hash).startswith(str(trained_on)):
            left_out[name] = f"it was trained on other base weights ({trained_on}...; these have {str(base_hash)[:16]})"
        else:
            records[name] = dict(record)
    return records, left_out


def base_of(given: argparse.Namespace, records: Mapping[str, Any]) -> Path:
    """The base model's folder: --base, else what a checkpoint says. Raises UserError if it is not there."""
    if given.base is not None:
        return given.base
    named = [record["base"] for record in records.values() if isinstance(record.get("base"), str)]
    if named and Path(named[-1]).is_dir():
        return Path(named[-1])
    raise UserError(
        "the base model is not known",
        f"the checkpoints name {named[-1]}, which is not there" if named else "the checkpoints do not name it",
        "add --base with the model folder that was trained on",
    )


def choose_run(given: argparse.Namespace, records: Mapping[str, Any], base: Path) -> Run:
    """Put together what was trained from the records of the checkpoints (the newest last) and the flags."""
    record = list(records.values())[-1]
    data, shards = given.data_dir, [Path("results") / given.project / "protos"]
    recorded = record.get("data")
    if isinstance(recorded, list) and recorded and all(isinstance(path, str) for path in recorded):
        shards = [Path(path) for path in recorded]
    elif data is None and isinstance(recorded, str) and Path(recorded).is_dir():
        data = Path(recorded)
    return Run(base, given.codec or codec_beside(base), record, shards, data)


def describe_inputs(
    given: argparse.Namespace, checkpoints: list[CheckpointFile], run: Run, listening: Listening
) -> dict[str, Any]:
    """All that the result depends on, as results.json keeps it: the same again means that there is nothing to do."""
    from ..models.loading import weights_path

    index = [path / "index.json" if path.is_dir() else path for path in run.shards]
    return {
        "base": _stamp(weights_path(run.base)),
        "codec": _stamp(run.codec),
        "data": str(run.data) if run.data else None,
        "packed": [_stamp(path) for path in index],
        "texts": _stamp(given.texts) if given.texts else None,
        "num_texts": given.num_texts,
        "reference": not given.no_reference,
        "seed": given.seed,
        "measures": sorted(listening.measures),
        "asr": listening.asr if "intelligibility" in listening.measures else None,
        "whisper_model": listening.whisper_model,
        "language": listening.language,
        "checkpoints": [
            {"name": c.path.name, "step": c.step, "bytes": c.size, "modified": c.modified} for c in checkpoints
        ],
    }


def _stamp(path: Path) -> dict[str, Any]:
    try:
        status = path.stat()
    except OSError:
        return {"path": str(path), "bytes": None, "modified": None}
    return {"path": str(path), "bytes": status.st_size, "modified": status.st_mtime}


def base_hash(base: Path) -> str | None:
    """SHA-256 of a base's weights; None for a base without any, from which only training from scratch starts."""
    from ..models.loading import weights_path

    path = weights_path(base)
    return sha256(path) if path.is_file() else None
