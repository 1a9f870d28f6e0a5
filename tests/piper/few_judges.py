"""`python -m piper_train` with few small discriminators, and these: 0.1 instead of 47 million weights for each test to train.

What training does with discriminators does not depend on how large they are; test_training_processes, the golden steps and
the tests of the whole pipeline train the real ones.
"""

import sys
from pathlib import Path

from torch import nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from piper_train.models.discriminators import MultiPeriodDiscriminator, ResolutionDiscriminator
from piper_train.training import module


class FewJudges(MultiPeriodDiscriminator):
    """Two small discriminators of spectrograms in place of six large ones of samples."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.discriminators = nn.ModuleList(
            ResolutionDiscriminator(*sizes, channels=8) for sizes in ((512, 50, 240), (256, 64, 256))
        )


if __name__ == "__main__":
    from fish_speech.errors import run
    from piper_train.cli import main

    module.MultiPeriodDiscriminator = FewJudges
    run(main)
