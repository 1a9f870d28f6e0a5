"""Which clips a training step sees: clips packed whole into samples, samples into batches, by seed and number alone.

An epoch visits every clip exactly once. A sample holds clips of one speaker, laid one after another along time, as many
as fit into `max_length` tokens. Batch i of a run is a pure function of (seed, i), so resuming is starting there.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Iterator, Mapping, Sequence

from torch.utils.data import Sampler

log = logging.getLogger(__name__)

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

    A global batch is `batch_size * world_size` samples in the order of the epoch's plan; this rank takes each
    `world_size`-th from its own number on. The last batch of an epoch may be short. It never goes below one sample a
    rank: then samples from the beginning of the epoch come a second time, which is logged.
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
        self._batch_size, self._rank, self._world_size = batch_size, rank, world_size
        self.start = start

    def plan(self, epoch: int) -> list[Sample]:
        """Return the samples of an epoch."""
        return epoch_plan(self._speakers, self._lengths, self._max_length, self._seed, epoch)

    def batches_in(self, epoch: int) -> int:
        """Return how many batches an epoch has, for each rank the same number."""
        return self._count(self.plan(epoch))

    def _count(self, plan: Sequence[Sample]) -> int:
        return -(-len(plan) // (self._batch_size * self._world_size))

    def __iter__(self) -> Iterator[list[Item]]:
        epoch, skip = 0, self.start
        while True:
            plan = self.plan(epoch)
            for batch in range(skip, self._count(plan)):
                yield [(epoch, sample) for sample in self._share(plan, batch)]
            skip = max(0, skip - self._count(plan))
            epoch += 1

    def _share(self, plan: list[Sample], batch: int) -> list[Sample]:
        size = self._batch_size * self._world_size
        samples = plan[batch * size : (batch + 1) * size]
        missing = self._world_size - len(samples)
        if missing > 0:
            log.info(
                "the epoch's last batch lacks %d samples for %d processes: repeating some", missing, self._world_size
            )
            samples += [plan[i % len(plan)] for i in range(missing)]
        return samples[self._rank :: self._world_size]
