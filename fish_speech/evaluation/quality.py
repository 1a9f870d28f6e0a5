"""Sound quality without a reference: DNSMOS P.835 and P.808 (arXiv:2110.01763), whose models are in speechmos' wheel.

Scores imitate listeners' marks from 1 to 5: `overall`, `signal` (the speech itself), `background` (free of noise), and
`p808`, another model's mark for the whole.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from ..extras import require
from ..recognition import SAMPLE_RATE, resample

_NAMES = {"ovrl_mos": "overall", "sig_mos": "signal", "bak_mos": "background", "p808_mos": "p808"}


def dnsmos(samples: np.ndarray, sample_rate: int) -> dict[str, float] | None:
    """Score mono float (samples,); None for a clip without samples. About 0.3 s for a clip under 10 s.

    The models hear 9 s at a time: a shorter clip is repeated until it fills them.
    """
    samples = np.clip(resample(samples, sample_rate), -1, 1)
    if not len(samples):
        return None
    scores = _scorer()(samples, SAMPLE_RATE, False)
    return {name: float(scores[key]) for key, name in _NAMES.items()}


@cache
def _scorer():
    module = require("speechmos.dnsmos", "DNSMOS")
    runtime = require("onnxruntime", "DNSMOS")

    class OneThread(module.DNSMOS):  # type: ignore[misc, name-defined]
        """The package's own sessions take every core, in each worker process."""

        def __init__(self, models: Path):
            options = runtime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            self.onnx_sess = runtime.InferenceSession(str(models / "sig_bak_ovr.onnx"), options)
            self.p808_onnx_sess = runtime.InferenceSession(str(models / "model_v8.onnx"), options)

    return OneThread(Path(module.__file__).parent / "dnsmos_models")
