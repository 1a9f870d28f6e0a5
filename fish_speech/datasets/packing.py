"""Which clips a training step sees: clips packed whole into samples, samples into batches, by seed and number alone.

An epoch visits every clip exactly once. A sample holds clips of one speaker, laid one after another along time, as many
as fit into `max_length` tokens. Batch i of a run is a pure function of (seed, i), so resuming is starting there.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence

from torch.utils.data import Sampler

_OPEN_SAMPLES = 64  # samples that may still take clips; bounds the cost of packing a speaker with very many

Sample = tuple[int, ...]  # clips, in order
Item = tuple[int, Sample]  # epoch and sample: what a data set is asked for


def too_long(lengths: Mapping[int, int], max_length: int) -> list[int]:
    """Return the clips that no sample of `max_length` tokens can hold."""
    return [clip for clip, length in lengths.items() if length > max_length]


def epoch_plan(
    speakers: Sequence[str], lengths: Mapping[int, int], max_length: int, seed: int, epoch: int
) -> list[Sample]:
    """Return the samples of one epoch in their order: every clip of `lengths` (clip -> tokens) once, never cut.

    Clips are packed up to `max_length` tokens; a longer one is a sample alone.
    """
    rng = random.Random(int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest(), "big"))
    clips_of: dict[str, list[int]] = {}
    for clip in sorted(lengths):
        clips_of.setdefault(speakers[clip], []).append(clip)
    samples: list[Sample] = []
    for clips in clips_of.values():
        rng.shuffle(clips)
        samples += _pack(clips, lengths, max_length)
    rng.shuffle(samples)
    return samples


def _pack(clips: Sequence[int], lengths: Mapping[int, int], max_length: int) -> Iterator[Sample]:
    """Put each clip into the first open sample with room; with too many open ones the fullest is closed."""
    open_samples: list[tuple[list[int], int]] = []  # clips and the room left
    for clip in clips:
        for i, (sample, room) in enumerate(open_samples):
            if lengths[clip] <= room:
                sample.append(clip)
                open_samples[i] = (sample, room - lengths[clip])
                break
        else:
            if len(open_samples) == _OPEN_SAMPLES:
                fullest = min(range(_OPEN_SAMPLES), key=lambda i: open_samples[i][1])
                yield tuple(open_samples.pop(fullest)[0])
            open_samples.append(([clip], max_length - lengths[clip]))
    yield from (tuple(sample) for sample, _ in open_samples)


class BatchStream(Sampler[list[Item]]):
    """Endless batches over epochs, from batch number `start` on; a batch sampler for DataLoader.

    A batch is what one optimizer step sees: `batch_size * world_size` samples in the order of the epoch's plan, of
    which this rank takes each `world_size`-th from its own number on. The last batch of an epoch may be short, so that
    a rank may get an empty one; no clip comes twice in an epoch.
    """

    def __init__(
        self,
        speakers: Sequence[str],
        lengths: Mapping[int, int],
        max_length: int,
        batch_size: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        if not lengths:
            raise ValueError("there are no clips to make batches of")
        self._speakers, self._lengths, self._max_length, self._seed = speakers, lengths, max_length, seed
        self._rank, self._world_size, self._step_size = rank, world_size, batch_size * world_size
        self.start = start
        self._ends: list[int] = []  # number of the first batch after each epoch that was asked for
        self._latest: tuple[int, list[Sample]] = (-1, [])

    def plan(self, epoch: int) -> list[Sample]:
        """Return the samples of an epoch."""
        if self._latest[0] != epoch:
            plan = epoch_plan(self._speakers, self._lengths, self._max_length, self._seed, epoch)
            self._latest = (epoch, plan)
        return self._latest[1]

    def batches_in(self, epoch: int) -> int:
        """Return how many batches an epoch has, for each rank the same number."""
        return -(-len(self.plan(epoch)) // self._step_size)

    def place(self, number: int) -> tuple[int, int]:
        """Return the epoch of a batch and its number in that epoch."""
        while not self._ends or number >= self._ends[-1]:
            self._ends.append(sum(self._ends[-1:]) + self.batches_in(len(self._ends)))
        epoch = bisect.bisect_right(self._ends, number)
        return epoch, number - (self._ends[epoch - 1] if epoch else 0)

    def samples_at(self, number: int) -> tuple[int, list[Sample]]:
        """Return the epoch of a batch and its samples, those of all ranks."""
        epoch, batch = self.place(number)
        return epoch, self.plan(epoch)[batch * self._step_size : (batch + 1) * self._step_size]

    def items_at(self, number: int) -> list[Item]:
        """Return this rank's share of a batch."""
        epoch, samples = self.samples_at(number)
        return [(epoch, sample) for sample in samples[self._rank :: self._world_size]]

    def __iter__(self) -> Iterator[list[Item]]:
        return map(self.items_at, itertools.count(self.start))
