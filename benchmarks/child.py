"""One measurement in a process of its own: `python -m benchmarks.child NAME --scale full ...` prints a line of JSON."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fish_speech.training.losses import dual_ar_loss
from fish_speech.training.memory import activation_bytes, free_bytes

from . import decoding, generating, released, sizes
from .sizes import Scale

FREE_SHARE = 0.9  # of the free memory that activations may take


def seconds(*works: Callable[[], Any], warmups: int, repeats: int) -> list[float]:
    """Median time of each of `works`, run in turns so that a change of the machine's load hits all alike."""
    for _ in range(warmups):
        for work in works:
            work()
    times: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, found in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def train(scale: Scale, lengths: tuple[int, ...], as_released: bool, recompute: bool, repeats: int) -> dict[str, float]:
    """Time of one optimizer step on LoRA weights with their dropout; the whole padded batch if `as_released`.

    Attention dropout is off for both, as a run on the CPU has it.

    `recompute` makes activations again in the backward pass, as the released configuration has it. Where kept ones
    would not fit into the free memory, nothing is measured.
    """
    torch.manual_seed(0)
    model = sizes.random_model(scale, lora=True).train()
    model.set_dropout(0.0)
    model.recompute_activations = recompute or as_released
    needed, free = activation_bytes(model.config, sum(lengths)), free_bytes("cpu")
    if not model.recompute_activations and free is not None and needed > FREE_SHARE * free:
        return {"too_large_bytes": needed}
    batch = sizes.training_batch(scale, lengths)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), eps=1e-5, weight_decay=0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        if as_released:
            loss = released.training_loss(model, batch)
        else:
            loss = dual_ar_loss(model, batch["inputs"], batch["labels"], batch["attention_masks"]).loss
        loss.backward()
        optimizer.step()

    (median,) = seconds(step, warmups=1, repeats=repeats)
    return {"step_s": median, "tokens_per_s": sum(lengths) / median}


def main() -> None:
    """Measure what the command line names and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [
        "train",
        "encode",
        "decode",
        "bandwidth",
        "generate",
        "first-sound",
        "codec-memory",
        "write-model",
        "merge-as-released",
    ]
    parser.add_argument("name", choices=names)
    parser.add_argument("--scale", choices=sorted(sizes.SCALES), required=True)
    parser.add_argument("--model-version", choices=sorted(sizes.SCALES["full"]), default="1.5")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--batch", help="name of a training batch")
    parser.add_argument("--as-released", action="store_true", help="train the way of the baseline")
    parser.add_argument("--recompute", action="store_true", help="train with activations made again to save memory")
    parser.add_argument("--folder", type=Path, help="model folder to write or to read")
    parser.add_argument(
        "--way", choices=[*generating.WAYS, *decoding.MEMORY_WAYS], help="how to generate, encode or decode"
    )
    parser.add_argument("--output", type=Path, help="merged folder to write")
    given = parser.parse_args()
    scale = sizes.SCALES[given.scale][given.model_version]
    figures: dict[str, Any] = {}
    if given.name == "train":
        figures = train(scale, scale.batches[given.batch], given.as_released, given.recompute, given.repeats)
    elif given.name == "write-model":
        sizes.write_model_folder(scale, given.folder)
    elif given.name == "merge-as-released":
        released.merge(scale, given.folder, given.output)
    elif given.name == "codec-memory":
        figures = decoding.memory(scale, given.way)
    elif given.name == "bandwidth":
        figures = generating.bandwidth(scale)
    elif given.name in ("generate", "first-sound"):
        measure = generating.generate if given.name == "generate" else generating.first_sound
        figures = measure(scale, given.way, given.folder, given.repeats)
    else:
        figures = {"encode": decoding.encode, "decode": decoding.decode}[given.name](scale, given.repeats)
    print(json.dumps({**figures, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
