"""Which of a run's processes this is, as its environment says before anything is loaded."""

from __future__ import annotations

import os

# What torchrun, SLURM and Lightning number a run's processes and nodes with; the first has 0 wherever one is set.
RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")


def is_first_process() -> bool:
    """Whether this process is the one that locks, writes and talks: the only one, or the first of several."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)
