"""The order of clips: the same global batches on any number of processes, and the rest of an epoch after a restart.

An epoch visits every clip once, in an order drawn from (seed, epoch). It is cut into as few global batches as fit in
batch_size clips for each process, of sizes that differ by one at most: nothing is dropped and no batch is tiny. Each
process takes every world-th clip of a global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler


def global_batches(order: Sequence[int], size: int, world: int) -> list[list[int]]:
    """Cut `order` into global batches of at most `size * world` items.

    A batch has an item for every process at least: where there are fewer items than processes, some come twice.
    """
    count = -(-len(order) // (size * world))
    edges = [len(order) * number // count for number in range(count + 1)] if count else []
    batches = [list(order[start:end]) for start, end in zip(edges, edges[1:])]
    return [batch if len(batch) >= world else (batch * world)[:world] for batch in batches]


class EpochSampler(Sampler[list[int]]):
    """Batches of clip positions for one process.

    clips: positions to visit
    batch_size: clips of a batch in one process, at most
    place: rank and number of processes, asked for at each epoch
    position: (epoch, batches that are done in it), asked for when an epoch begins: the batches behind are skipped
    shuffle: without, every epoch has the order of `clips`
    """

    def __init__(
        self,
        clips: Sequence[int],
        batch_size: int,
        place: Callable[[], tuple[int, int]],
        seed: int = 0,
        position: Callable[[], tuple[int, int]] = lambda: (0, 0),
        shuffle: bool = True,
    ):
        self.clips, self.batch_size, self.seed, self.shuffle = clips, batch_size, seed, shuffle
        self.place, self.position = place, position

    def __len__(self) -> int:
        """Batches of a whole epoch, the same for every process, wherever it was resumed."""
        return -(-len(self.clips) // (self.batch_size * self.place()[1]))

    def __iter__(self) -> Iterator[list[int]]:
        rank, world = self.place()
        epoch, done = self.position()
        for batch in global_batches(self._order(epoch), self.batch_size, world)[done:]:
            yield batch[rank::world]

    def _order(self, epoch: int) -> list[int]:
        if not self.shuffle:
            return list(self.clips)
        drawn = np.random.default_rng([self.seed, epoch]).permutation(len(self.clips))
        return [self.clips[number] for number in drawn]
