"""Self-check of extraction: clips decoded from their codes must sound like themselves, not like any other clip.

A wrong codec file or config loads without an error where its shapes fit, and everything trained on its codes is noise.
The log-mel distance of a decoded clip to its own sound is then as large as to the sound of other clips. Measured on
real speech, minnow's codec: 0.57 to 0.63 to the own sound, 1.62 to 1.97 to others; a codec of random weights: equal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from . import files
from .audio import AudioError, stream_audio, write_wav
from .datasets.sources import UnusableClip, read_codes

if TYPE_CHECKING:
    import torch

    from .models import Codec

T = TypeVar("T")
CLIPS = 3
_LONGEST_S = 5.0  # of each clip: enough to tell clips apart
_CLEARLY = 0.75  # own distance over that to others, at most: see above, a good codec has a third
_SILENT = 1e-3  # peak, -60 dBFS
_CHECK = "check that the codec's weights and config belong together and are those of the model version"


class Tripped(NamedTuple):
    """What a decoded clip is like. Distances are mean absolute differences of log-mels; nan where there is none."""

    name: str
    own: float  # to its own sound
    others: float  # to the sound of the other clips, on average
    silent: bool


@dataclass(frozen=True)
class RoundTrip:
    """The outcome of the check."""

    clips: tuple[Tripped, ...]
    skipped: str = ""  # why there is none

    @property
    def own(self) -> float:
        """Mean distance of the decoded clips to their own sound."""
        return _mean([clip.own for clip in self.clips])

    @property
    def others(self) -> float:
        """Mean distance of the decoded clips to the other clips' sound; nan for a clip alone."""
        return _mean([clip.others for clip in self.clips])

    def __str__(self) -> str:
        if self.skipped:
            return f"codec round trip skipped: {self.skipped}"
        count = f"{len(self.clips)} clip{'s' if len(self.clips) > 1 else ''}"
        others = "" if math.isnan(self.others) else f" (to other clips {self.others:.2f})"
        return f"codec round trip of {count}: mel distance {self.own:.2f}{others}"

    def problems(self) -> list[str]:
        """What is wrong, a line each, with what to check; [] if each clip is clearly nearest to itself."""
        found = []
        for clip in self.clips:
            if clip.silent:
                found.append(f"{clip.name} is silent: check the recording; its codes are those of silence")
            elif not math.isfinite(clip.own):
                found.append(f"the codec decodes {clip.name} to NaN: {_CHECK}")
            elif len(self.clips) > 1 and not clip.own < _CLEARLY * clip.others:
                found.append(
                    f"decoded from its codes, {clip.name} is hardly nearer to its own sound ({clip.own:.2f}) than to "
                    f"other clips ({clip.others:.2f}): {_CHECK}; if they are, that the clips differ"
                )
        return found

    def as_dict(self) -> dict[str, Any]:
        """The figures, to keep; null for what there is not."""
        figures = [{"own": _finite(c.own), "others": _finite(c.others)} for c in self.clips]
        clips = [{"clip": clip.name, **found} for clip, found in zip(self.clips, figures)]
        return {"own": _finite(self.own), "others": _finite(self.others), "clips": clips, "problems": self.problems()}


def spread(items: Sequence[T], count: int) -> list[T]:
    """Return `count` items, as evenly spread as they can be; all if there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[(2 * number + 1) * len(items) // (2 * count)] for number in range(count)]


def round_trip(clips: Sequence[tuple[str, Path, Path]], codec: Codec, folder: Path | None = None) -> RoundTrip:
    """Decode each clip (name, sound, codes), at most its first seconds, and compare it with all of their sounds.

    Clips that cannot be read are passed over. With `folder`, what was compared is kept there: N_original.wav,
    N_decoded.wav and round_trip.json. Costs the decoding of five seconds for each clip.
    """
    import torch

    try:
        read = {name: pair for name, audio, codes in clips if (pair := _read(audio, codes, codec)) is not None}
        decoded = {name: codec.decode(codes[None])[0, 0] for name, (_, codes) in read.items()}  # (samples,) each
        sounds = {name: sound[: len(decoded[name])] for name, (sound, _) in read.items()}
        tripped = tuple(_compare(name, decoded[name], sounds, codec) for name in read)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        return RoundTrip((), "the codec's decoder does not fit into memory beside what is there")
    if not tripped:
        return RoundTrip((), "no clip is long enough")
    result = RoundTrip(tripped)
    if folder is not None:
        for number, name in enumerate(read, 1):
            for what, sound in (("original", sounds[name]), ("decoded", decoded[name])):
                samples = torch.nan_to_num(sound).clamp(-1, 1).cpu().numpy()
                write_wav(folder / f"{number}_{what}.wav", samples, codec.sample_rate)
        files.write_json(folder / "round_trip.json", result.as_dict())
    return result


def _read(audio: Path, codes: Path, codec: Codec) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return sound (samples,) and codes (codebooks, frames) of the beginning of a clip; None if there is too little."""
    import torch

    try:
        grid = read_codes(codes)[:, : int(_LONGEST_S * codec.frame_rate)]
        with stream_audio(audio, codec.sample_rate, _LONGEST_S) as blocks:
            sound = np.concatenate(list(blocks))
    except (AudioError, UnusableClip):
        return None
    frames = min(grid.shape[1], len(sound) // codec.samples_per_frame)
    samples = frames * codec.samples_per_frame
    if samples < codec.config.least_samples:
        return None
    codes_there = torch.from_numpy(grid[:, :frames].astype(np.int64))
    return torch.from_numpy(sound[:samples]).to(codec.device), codes_there.to(codec.device)


def _compare(name: str, decoded: torch.Tensor, sounds: dict[str, torch.Tensor], codec: Codec) -> Tripped:
    others = [_distance(decoded, sound, codec) for other, sound in sounds.items() if other != name]
    silent = float(sounds[name].abs().max()) < _SILENT
    return Tripped(name, _distance(decoded, sounds[name], codec), _mean(others), silent)


def _distance(one: torch.Tensor, other: torch.Tensor, codec: Codec) -> float:
    samples = min(len(one), len(other))
    return float(codec.log_mel.distance(one[None, :samples], other[None, :samples]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _finite(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
