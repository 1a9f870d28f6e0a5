"""Where a Piper project keeps what: results/PROJECT, training_data/PROJECT, checkpoints/PROJECT-piper."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """The folders and files of a project."""

    project: str

    @property
    def results(self) -> Path:
        """Everything that training makes; Lightning's lightning_logs lies in it."""
        return Path("results") / self.project

    @property
    def logs(self) -> Path:
        """What the steps said, a file each."""
        return self.results / "logs"

    @property
    def cache(self) -> Path:
        """Phonemes and sounds of the data set."""
        return self.results / "cache"

    @property
    def config(self) -> Path:
        """The voice's config.json."""
        return self.results / "config.json"

    @property
    def record(self) -> Path:
        """What the project was started from."""
        return self.results / "piper_run.json"

    @property
    def data(self) -> Path:
        """The data set that is made for the project: of recordings, by a teacher, or for a test."""
        return Path("training_data") / self.project

    @property
    def voice(self) -> Path:
        """The finished voice; its config lies beside it with .json added."""
        return Path("checkpoints") / f"{self.project}-piper" / f"{self.project}.onnx"
