"""Measurements of Piper voices, each in a process of its own: `python -m benchmarks.piper NAME ...` prints a line of JSON."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from piper_train.data.batch import Batch, Clip, collate
from piper_train.models.alignment import maximum_path
from piper_train.models.config import VitsConfig
from piper_train.models.synthesizer import Synthesizer
from piper_train.quality import QUALITIES
from piper_train.training.module import VitsModule

from . import piper_plain
from .child import seconds

# Clips of a training batch, (frames, ids): 4.6 to 2.6 s at 22050 Hz; and a sentence that is spoken.
BATCH = {"full": ((400, 161), (340, 141), (280, 111), (220, 91)), "tiny": ((50, 21), (40, 17))}
SENTENCE = {"full": 121, "tiny": 21}  # ids
# Without noise of the durations an untrained voice gives each id exp(0) = 1 frame; 3.5 makes 4, near to speech.
SCALES = (0.667, 3.5, 0.0)
TINY = {
    "hidden_channels": 32, "inter_channels": 32, "filter_channels": 64, "n_layers": 2, "upsample_initial_channel": 32,
    "resblock": "2", "resblock_kernel_sizes": (3,), "resblock_dilation_sizes": ((1, 2),),
    "upsample_rates": (8, 8, 4), "upsample_kernel_sizes": (16, 16, 8),
}  # fmt: skip
TEXT = (
    "The night watchman opened the kitchen window. It was late in the evening, and nobody was in the narrow street. "
    "A friendly pilot had lost a pair of gloves near the harbour. He asked three simple questions! Who found them?"
)


def options_of(quality: str, scale: str) -> dict[str, Any]:
    """`model.*` values of a quality; a small network in its place for scale tiny."""
    return {**QUALITIES[quality], **(TINY if scale == "tiny" else {})}


def random_batch(scale: str, config: VitsConfig) -> Batch:
    """Clips of noise."""
    rng = torch.Generator().manual_seed(0)
    clips = []
    for number, (frames, ids) in enumerate(BATCH[scale]):
        spec = torch.rand(config.filter_length // 2 + 1, frames, generator=rng)
        audio = 0.1 * torch.randn(frames * config.hop_length, generator=rng)
        clips.append(Clip(number, torch.randint(1, 160, (ids,), generator=rng), spec, audio, None))
    return collate(clips, config.segment_size)


class SameBatch(L.LightningDataModule):
    """One batch over and over, behind what the module asks of its data."""

    epoch = batches_done = 0

    def __init__(self, batch: Batch, steps: int):
        super().__init__()
        self.batches = [batch] * steps

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.batches, batch_size=None)  # type: ignore[arg-type]


class StepTimes(L.Callback):
    """Measures each step from when its batch is there."""

    def __init__(self) -> None:
        self.found: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self._start = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.found.append(time.perf_counter() - self._start)


def train(scale: str, way: str, repeats: int) -> dict[str, float]:
    """Median time of a training step at medium by Lightning's trainer, as `fit` does it or the plain way."""
    torch.manual_seed(0)
    module = (piper_plain.PlainModule if way == "plain" else VitsModule)(**options_of("medium", scale))
    times = StepTimes()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="piper-bench-") as folder:
        trainer = L.Trainer(
            accelerator="cpu", max_epochs=1, callbacks=[times], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(module, datamodule=SameBatch(random_batch(scale, module.config), 1 + repeats))
    return {"step_s": float(np.median(times.found[1:]))}


def align(scale: str, repeats: int) -> dict[str, float]:
    """Time of aligning a training batch, and a batch of long clips."""
    figures: dict[str, float] = {}
    long = ((1000, 401),) * len(BATCH[scale]) if scale == "full" else BATCH["tiny"]
    for name, sizes in (("batch", BATCH[scale]), ("long", long)):
        frames, ids = (torch.tensor(lengths) for lengths in zip(*sizes))
        values = torch.randn(len(sizes), int(frames.max()), int(ids.max()), generator=torch.Generator().manual_seed(0))
        ours, plain = seconds(
            partial(maximum_path, values, frames, ids),
            partial(piper_plain.maximum_path, values, frames, ids),
            warmups=1,
            repeats=repeats,
        )
        figures |= {f"{name}_s": ours, f"{name}_plain_s": plain}
    return figures


def export(quality: str, scale: str, output: Path) -> dict[str, float]:
    """Write an untrained voice of a quality, with its config; return the size of its file."""
    from fish_speech.files import write_json
    from piper_train.onnx_graph import SpokenVoice, write_graph
    from piper_train.phonemes.ids import default_table

    generator = random_generator(quality, scale)
    write_graph(SpokenVoice(generator), output)
    config = {
        "audio": {"sample_rate": generator.config.sample_rate},
        "espeak": {"voice": "en-us"},
        "num_symbols": generator.config.num_symbols,
        "num_speakers": 1,
        "phoneme_id_map": {name: list(ids) for name, ids in default_table().items()},
        "inference": dict(zip(("noise_scale", "length_scale", "noise_w"), SCALES)),
    }
    write_json(output.with_name(f"{output.name}.json"), config)
    return {"bytes": output.stat().st_size}


def random_generator(quality: str, scale: str, folded: bool = True) -> Synthesizer:
    """An untrained generator that is to speak, its decoder's norms folded or not."""
    torch.manual_seed(0)
    generator = Synthesizer(VitsConfig.from_mapping(options_of(quality, scale))).eval()
    if folded:
        generator.dec.remove_weight_norm()
    return generator


def speak(quality: str, scale: str, path: Path, threads: int, repeats: int) -> dict[str, float]:
    """Seconds of sound per second of computing: the .onnx, torch, and torch with its decoder's norms not folded."""
    from piper_train.speech.session import open_session, run_session

    torch.set_num_threads(threads)
    session = open_session(path, threads=threads, seed=0)
    ids = torch.randint(1, 160, (SENTENCE[scale],), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([len(ids)])
    made = len(run_session(session, ids.tolist(), SCALES, None))

    def by_torch(generator: Synthesizer) -> Callable[[], Any]:
        def run() -> int:
            with torch.inference_mode():
                return generator.infer(ids[None], lengths, None, *SCALES).wave.numel()

        assert run() == made
        return run

    ways = {
        "onnx": lambda: run_session(session, ids.tolist(), SCALES, None),
        "torch": by_torch(random_generator(quality, scale)),
        "unfolded": by_torch(random_generator(quality, scale, folded=False)),
    }
    rate = QUALITIES[quality]["sample_rate"]
    times = seconds(*ways.values(), warmups=2, repeats=repeats)
    return {name: made / rate / time_s for name, time_s in zip(ways, times)} | {"sound_s": made / rate}


def first_sound(path: Path, threads: int, repeats: int) -> dict[str, float]:
    """Time from a text of five sentences to the first one's sound, and to all of it; voice and phonemizer are ready."""
    from piper_train.speech.voice import OnnxVoice

    start = time.perf_counter()
    with closing(OnnxVoice.load(path, threads=threads, seed=0)) as voice:
        next(voice.speak(TEXT))
        ready = time.perf_counter() - start
        first, whole = seconds(
            lambda: next(voice.speak(TEXT)), lambda: list(voice.speak(TEXT)), warmups=1, repeats=repeats
        )
    return {"ready_s": ready, "first_s": first, "whole_s": whole}


def phonemes(repeats: int) -> dict[str, float | str]:
    """Phonemes per second of 200 sentences by one phonemizer; and of five with a phonemizer started for each."""
    from piper_train.phonemes.phonemizer import open_phonemizer
    from piper_train.quick_start_texts import sentences

    texts = sentences("en-us", 200, 0)

    @contextmanager
    def opened() -> Iterator[Any]:
        phonemizer = open_phonemizer("espeak", "en-us")
        try:
            yield phonemizer
        finally:
            phonemizer.close()

    def alone() -> None:
        for text in texts[:5]:
            with opened() as phonemizer:
                phonemizer.sentences(text)

    with opened() as phonemizer:
        (many,) = seconds(lambda: list(phonemizer.many(texts)), warmups=1, repeats=repeats)
        counts = [sum(map(len, phonemizer.sentences(text))) for text in texts]
        source = phonemizer.source
    (few,) = seconds(alone, warmups=0, repeats=repeats)
    return {"per_s": sum(counts) / many, "alone_per_s": sum(counts[:5]) / few, "source": source}


def main() -> None:
    """Measure what the command line names and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=["train", "align", "export", "speak", "first-sound", "phonemes"])
    parser.add_argument("--scale", choices=sorted(BATCH), required=True)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--way", choices=["fit", "plain"], default="fit")
    parser.add_argument("--quality", choices=sorted(QUALITIES), default="medium")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--voice", type=Path, help=".onnx to write or to read")
    given = parser.parse_args()
    measure: dict[str, Callable[[], Any]] = {
        "train": lambda: train(given.scale, given.way, given.repeats),
        "align": lambda: align(given.scale, given.repeats),
        "export": lambda: export(given.quality, given.scale, given.voice),
        "speak": lambda: speak(given.quality, given.scale, given.voice, given.threads, given.repeats),
        "first-sound": lambda: first_sound(given.voice, given.threads, given.repeats),
        "phonemes": lambda: phonemes(given.repeats),
    }
    print(json.dumps(measure[given.name]()))


if __name__ == "__main__":
    main()
