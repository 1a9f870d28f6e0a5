"""Where one text's sound goes, by -o, --play and --stream: files, stdout, a pipe, a player, or a file and a player."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..errors import UserError
from ..files import TEMPORARY_PREFIX
from .players import find_player, find_stream_player, play_file, player_sink
from .sinks import Sink, Tee
from .targets import STDOUT, Target, output_target

FOLDER = Path("output")


class Places:
    """The places for each sample of a request, checked before anything is generated. Raises UserError."""

    def __init__(self, options: argparse.Namespace):
        self._options = options
        self._target = None if options.output is None else output_target(options.output, options.format)
        streams = self._target is not None and self._target.is_stream
        # --stream plays, unless -o leads to a stream of its own.
        self._live = find_stream_player() if options.stream and not streams else None
        if streams and options.play:
            raise UserError(f"--play and -o {options.output} are given", "the sound goes where -o says",
                            "give one of them")  # fmt: skip
        if streams and options.num_samples > 1:
            raise UserError("several samples cannot go into one stream", f"-o {options.output} is no file",
                            "drop --num-samples, or give a file")  # fmt: skip
        suffix = ".wav" if self._target is None else self._target.path.suffix
        self._player = find_player(suffix) if options.play else None
        self._files: dict[int, Path] = {}  # by the number of the sample

    def open(self, number: int, sample_rate: int) -> Sink:
        """Open the places of sample `number`, from 0."""
        sinks: list[Sink] = [] if self._live is None else [player_sink(self._live, sample_rate)]
        target = self._target_of(number)
        if target is not None:
            sinks.append(target.open(sample_rate))
        if target is not None and not target.is_stream:
            self._files[number] = target.path
        return sinks[0] if len(sinks) == 1 else Tee(sinks)

    def finish(self, number: int) -> None:
        """Say which file was written, and play it if asked to. Raises PlayerFailed."""
        path = self.tell(number)
        if path is not None and self._player is not None:
            play_file(self._player, path)

    def tell(self, number: int) -> Path | None:
        """Say which file was written, once, and return it."""
        path = self._files.pop(number, None)
        if path is not None:
            sys.stdout.write(f"{path}\n")
            sys.stdout.flush()
        return path

    def _target_of(self, number: int) -> Target | None:
        """The file or stream of sample `number`: -o, numbered if there are several, or the next free name in output/."""
        options = self._options
        if self._target is None:
            if self._live is not None:  # heard at once: nobody asked for a file
                return None
            free = (FOLDER / f"speech_{index:03d}.wav" for index in range(1, 1_000_000))
            return Target(next(path for path in free if not _is_taken(path)), is_stream=False)
        if options.num_samples == 1 or self._target.path == STDOUT:
            return self._target
        path = self._target.path
        return Target(path.with_name(f"{path.stem}_{number + 1}{path.suffix}"), is_stream=False)


def _is_taken(path: Path) -> bool:
    """Whether a file is there, or another process is writing it."""
    return path.exists() or any(path.parent.glob(f"{TEMPORARY_PREFIX}*-{path.name}"))
