"""A process of test_cache.py: reads, writes and clears one cache as fast as it can, and checks all that it gets.

python hammer_cache.py FOLDER LIMIT SEED COUNT [clear] prints how many reads found something; COUNT 0 never ends.
"""

import hashlib
import itertools
import random
import sys
from pathlib import Path

import numpy as np


def columns_of(key: str) -> np.ndarray:
    """Columns (3, frames) that belong to a key and to no other."""
    frames = 1 + int(key[:3], 16) % 500
    return (np.arange(3 * frames).reshape(3, frames) * 7 + int(key[3:7], 16)) % 100_000


def main() -> None:
    from fish_speech.synthesis.cache import TokenCache

    folder, limit, seed, count = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    cache, rng, hits = TokenCache(folder, limit), random.Random(seed), 0
    keys = [hashlib.sha256(bytes([number])).hexdigest() for number in range(40)]
    for turn in itertools.count() if count == 0 else range(count):
        key = rng.choice(keys)
        if rng.random() < 0.5:
            cache.put(key, columns_of(key))
        else:
            found = cache.get(key)
            assert found is None or np.array_equal(found, columns_of(key)), key
            hits += found is not None
        if "clear" in sys.argv and turn % 50 == 49:
            cache.clear()
        if turn == 10:
            print("going", flush=True)
    print(hits)


if __name__ == "__main__":
    main()
