"""What a preparation counted: what there is to train on, what was left out and why."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from piper_train.phonemes.ids import describe_missing
from piper_train.voice_config import VoiceConfig

from .index import Index
from .left_out import LeftOut

log = logging.getLogger(__name__)

RECORD = "prepared.json"  # in the cache: what the last preparation counted
_MANY_PERCENT = 10  # of the rows left out are worth a loud word


@dataclass(frozen=True)
class Prepared:
    """What there is to train on, and what was counted on the way."""

    index: Index
    config: VoiceConfig
    rows: int
    seconds: float
    made: int  # sounds made in this run
    kept: int  # sounds that were there
    left_out: LeftOut
    missing: Counter[str]  # phonemes without an id
    phonemes: str  # what made them
    hints: list[str]

    def lines(self) -> list[str]:
        """What a person should read, most important first."""
        clips = len(self.index)
        lines = [
            f"{clips} of {self.rows} rows can be trained on, {self.seconds / 60:.1f} minutes; sounds: {self.made} made, "
            f"{self.kept} kept; phonemes: {self.phonemes}"
        ]
        if self.left_out.total:
            share = 100 * self.left_out.total / max(1, self.rows)
            lines.append(f"left out {self.left_out.total} of {self.rows} rows ({share:.1f} %):")
            lines.extend(f"  {line}" for line in self.left_out.lines())
        if self.missing:
            lines.append(f"phonemes that the table lacks are left out: {describe_missing(self.missing)}")
        return [*lines, *self.hints]

    def log_lines(self) -> None:
        """Say them; as warnings where a person should look."""
        first, *rest = self.lines()
        log.info("%s", first)
        for line in rest:
            log.warning("%s", line)
        if 100 * self.left_out.total >= _MANY_PERCENT * self.rows > 0:
            log.warning("MANY ROWS ARE LEFT OUT: %d of %d; see the reasons above", self.left_out.total, self.rows)

    def to_mapping(self) -> dict[str, Any]:
        """For the record in the cache."""
        return {
            "rows": self.rows,
            "clips": len(self.index),
            "seconds": round(self.seconds, 3),
            "made": self.made,
            "kept": self.kept,
            "left_out": self.left_out.to_mapping(),
            "speakers": dict(self.config.speaker_id_map),
            "missing_phonemes": dict(self.missing.most_common()),
            "phonemes": self.phonemes,
            "hints": self.hints,
        }


def read_record(cache_dir: Path) -> Mapping[str, Any]:
    """What the last preparation counted; {} if there was none."""
    try:
        value = json.loads((cache_dir / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
