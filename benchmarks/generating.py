"""Speed of generation on the CPU beside what the memory can give: measurements that `child` runs, each in a process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fish_speech.device import probe_hardware
from fish_speech.models import DualAR
from fish_speech.models.int8_kernels import best_kernel
from fish_speech.models.loading import load_dual_ar
from fish_speech.synthesis.codec_stream import sound_of
from fish_speech.synthesis.engine import drawn_output
from fish_speech.synthesis.generation import generate_columns
from fish_speech.synthesis.sampling import SamplingConfig

from . import released, sizes
from .sizes import Scale

SAMPLING = SamplingConfig(temperature=0.7, top_p=0.7, repetition_penalty=1.2)
WAYS = ("fp32", "fp32-all-tokens", "bf16", "int8", "released")
BASELINE_SHARE = 4  # the baseline makes this many times fewer frames: each costs it the same, first or last


def ways_here() -> list[str]:
    """Those of WAYS that this CPU has instructions for."""
    missing = set() if probe_hardware().cpu_bf16 else {"bf16"}
    if best_kernel() is None:
        missing.add("int8")
    return [way for way in WAYS if way not in missing]


def bandwidth(scale: Scale) -> dict[str, Any]:
    """Bytes per second that all threads together read from memory, by the best of a few ways and tries.

    Also the ways of generating that there are here, so that who asks needs no torch.
    """
    matrix = torch.ones(scale.memory_mb * 256 // 4, 1024)  # float32, far larger than the caches of most processors
    vector, chunk = torch.ones(1024), matrix.view(-1)
    ways: dict[str, Callable[[], Any]] = {
        "sum": chunk.sum,
        "largest": chunk.amax,
        "product with a vector": lambda: torch.mv(matrix, vector),
    }
    best = {}
    for name, way in ways.items():
        times = []
        for _ in range(6):
            start = time.perf_counter()
            way()
            times.append(time.perf_counter() - start)
        best[name] = matrix.nbytes / min(times)
    way = max(best, key=lambda name: best[name])
    return {"bytes_per_s": best[way], "way": way, "ways": ways_here()}


def generate(scale: Scale, way: str, folder: Path, repeats: int) -> dict[str, float]:
    """Load as cli_tts does and measure one of WAYS: loading, first frame, first sound, frames per second after the first."""
    start = time.perf_counter()
    dtype = torch.bfloat16 if way == "bf16" else torch.float32
    model = load_dual_ar(folder, dtype=dtype, quantize=way == "int8")
    loaded = time.perf_counter() - start
    rng = torch.Generator()
    prompt = sizes.random_prompt(scale, scale.prompt_tokens, 0, torch.Generator().manual_seed(5))
    if way == "released":
        columns = released.StaticGenerator(model).columns
        frames = max(2, scale.frames // BASELINE_SHARE)
    else:
        frames, speech_only = scale.frames, way != "fp32-all-tokens"

        def columns(prompt: Tensor, count: int, sampling: SamplingConfig, rng: torch.Generator) -> Iterator[Tensor]:
            return generate_columns(model, prompt, count, sampling, rng, speech_only, min_frames=count)

    firsts, rates = [], []
    for repeat in range(1 + repeats):
        rng.manual_seed(5)
        start = time.perf_counter()
        times = [time.perf_counter() for _ in columns(prompt, frames if repeat else 2, SAMPLING, rng)]
        if repeat:  # the first round is the warm-up
            firsts.append(times[0] - start)
            rates.append((len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else float("nan"))
    return {
        "load_s": loaded,
        "first_s": statistics.median(firsts),
        "frames_per_s": statistics.median(rates),
        "codebooks": model.config.num_codebooks,
        "bytes_per_frame": bytes_per_frame(model, all_tokens=way in ("released", "fp32-all-tokens")),
    }


def first_sound(scale: Scale, way: str, folder: Path, repeats: int) -> dict[str, float]:
    """Seconds from the prompt to the first decoded samples, model and codec loaded and warm."""
    model = load_dual_ar(folder, dtype=torch.bfloat16 if way == "bf16" else torch.float32, quantize=way == "int8")
    codec, count = sizes.random_codec(scale), max(16, scale.frames)
    prompt = sizes.random_prompt(scale, scale.prompt_tokens, 0, torch.Generator().manual_seed(5))
    times = []
    for _ in range(1 + repeats):
        rng = torch.Generator().manual_seed(5)
        start = time.perf_counter()
        columns = generate_columns(model, prompt, count, SAMPLING, rng, speech_only=True, min_frames=count)
        sound = sound_of(codec, (column[1:] for column in columns))
        next(sound)
        times.append(time.perf_counter() - start)
        sound.close()  # type: ignore[attr-defined]
    return {"first_sound_s": statistics.median(times[1:])}


def bytes_per_frame(model: DualAR, all_tokens: bool) -> int:
    """Bytes of weights that one frame has to read: slow layers once, fast layers once per code after the first.

    Of the fast output the rows of codes that are drawn from count, of the projection to the vocabulary those of semantic
    tokens and the end token, or all; logits are computed from float32 weights, in bfloat16 too. Norms, embedded rows, and
    cached keys and values, all below 1 %, do not count.
    """
    config = model.config
    passes = config.num_codebooks - 1
    slow = sum(_weight_bytes(module) for module in model.layers.modules())
    fast = sum(_weight_bytes(module) for module in model.fast_layers.modules())
    fast += _weight_bytes(drawn_output(model)) * (2 if model.norm.weight.dtype == torch.bfloat16 else 1)
    rows = config.vocab_size if all_tokens else min(config.codebook_size, model.tokenizer.num_semantic) + 1
    return slow + passes * fast + rows * config.dim * 4


def _weight_bytes(module: Any) -> int:
    if type(module) is nn.Linear:
        return module.weight.nbytes
    if hasattr(module, "out_features") and hasattr(module, "in_features"):  # packed: a byte a weight
        return module.out_features * module.in_features
    return 0
