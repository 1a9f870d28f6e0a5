"""Lightning's view of the packed data: which clips are trained on, which are held out, and the stream of batches."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..codes import largest_of_rows, row_too_large, sizes_of_rows
from ..errors import UserError
from ..text import Tokenizer, check_example_format, packed_sample
from ..text.encoded import Clip, Example
from .collate import Collate
from .packing import BatchStream, Item, too_long
from .semantic import Clips, hold_out, in_turn, load_clips
from .shards import INDEX_FILE, find_shards, read_index

log = logging.getLogger(__name__)

FRAME_RATE = 44100 / 2048  # frames per second of the codecs of 1.5 and S1-mini, for data that does not say its own
_LISTED = 5  # left-out clips named in the coverage line


class PackedClips(Dataset[Example]):
    """Makes the training example of a sample, (epoch, clips), when a worker asks for it."""

    def __init__(self, clips: Clips, tokenizer: Tokenizer, example_format: str = "default"):
        self.clips, self.tokenizer, self.example_format = clips, tokenizer, example_format

    def __getitem__(self, item: Item) -> Example:
        epoch, sample = item
        clips: list[Clip] = [(self.clips.text_of(clip, epoch), self.clips.codes_of(clip)) for clip in sample]
        return packed_sample(self.tokenizer, clips, self.example_format)

    def length_of(self, clip: int) -> int:
        """Return the tokens of a clip, with the longest of its spellings."""
        return max(self[epoch, (clip,)][0].shape[1] for epoch in range(len(self.clips.texts[clip])))


class SemanticDataModule(lightning.LightningDataModule):
    """Batches for fine-tuning, from shards or folders of them.

    train_files: shards, or folders that hold some
    tokenizer: a Tokenizer, or the path of one
    max_length: tokens of a sample at most; clips are never cut
    pack_length: tokens up to which clips are packed; a longer clip is a sample alone; None packs up to max_length
    batch_size: samples of an optimizer step in each process; as many held-out clips make a batch of validation
    num_workers: data worker processes; 0 makes batches in the training process
    val_share: share of each speaker's clips that is held out, 0 for none
    num_codebooks: rows of codes that the model reads; None takes what the data has
    codebook_size: the model's codes, one number for all codebooks or one for each; larger ones in the data are an error
    frame_rate: frames per second, for figures in seconds; None takes what the data says
    clips: train on these instead of the shards' ones, for a plan before anything is packed
    estimated: how those were guessed
    processes: how many processes will train together, until a trainer says so
    example_format: how clips are laid out, by a name that the tokenizer's family knows (text/prompts.py)

    A batch is what one optimizer step sees. `batches_done` counts the batches consumed; the training module raises it,
    checkpoints keep it, and the training stream starts there.
    """

    def __init__(
        self,
        train_files: Sequence[str | Path] | str | Path,
        tokenizer: Tokenizer | str | Path,
        max_length: int = 4096,
        batch_size: int = 4,
        num_workers: int = 0,
        seed: int = 42,
        val_share: float = 0.05,
        num_codebooks: int | None = None,
        codebook_size: int | Sequence[int] | None = None,
        frame_rate: float | None = None,
        pack_length: int | None = None,
        clips: Clips | None = None,
        estimated: str | None = None,
        processes: int = 1,
        example_format: str = "default",
    ):
        super().__init__()
        if not 0 <= val_share <= 0.5:
            raise ValueError(f"val_share is {val_share}; use 0 to hold nothing out, 0.05 for a twentieth, 0.5 at most")
        if batch_size < 1 or max_length < 1:
            raise ValueError(f"batch_size is {batch_size}, max_length {max_length}; both are at least 1")
        self.train_files = [train_files] if isinstance(train_files, str | Path) else list(train_files)
        self.tokenizer = tokenizer if isinstance(tokenizer, Tokenizer) else Tokenizer(tokenizer)
        check_example_format(self.tokenizer, example_format)
        self.example_format = example_format
        self.max_length, self.batch_size, self.num_workers = max_length, batch_size, num_workers
        self.seed, self.val_share, self.num_codebooks = seed, val_share, num_codebooks
        self.frame_rate, self.codebook_size = frame_rate or self._rate_of_data(), codebook_size
        self.pack_length = min(pack_length or max_length, max_length)
        self.processes, self.batches_done = processes, 0
        self._given, self.estimated = clips, estimated
        self.dataset: PackedClips | None = None
        self.train_lengths: dict[int, int] = {}  # clip -> tokens
        self.held_out: list[int] = []
        self.left_out: list[int] = []  # clips longer than max_length
        self._left_out_before: list[tuple[str, str]] = []  # name and reason, by packing

    def setup(self, stage: str | None = None) -> None:
        """Load the shards and decide what is trained on. Raises UserError if that is nothing."""
        if self.dataset is not None:
            return
        clips = self._given or load_clips(find_shards(self.train_files), self.num_codebooks)
        self._check_codes(clips)
        self.num_codebooks = clips.codebooks
        dataset = PackedClips(clips, self.tokenizer, self.example_format)
        lengths = {clip: dataset.length_of(clip) for clip in range(len(clips))}
        self.left_out = too_long(lengths, self.max_length)
        usable = [clip for clip in lengths if lengths[clip] <= self.max_length]
        self.held_out = hold_out(clips, usable, self.val_share, self.seed)
        aside = {*self.held_out, *self.left_out}
        self.train_lengths = {clip: length for clip, length in lengths.items() if clip not in aside}
        self._left_out_before = [*self._left_out_by_packing(), *clips.unusable]
        if not self.train_lengths:
            longest = max(lengths.values(), default=0)
            raise UserError(
                "there is nothing to train on",
                f"{len(clips)} clips are packed; the longest has {longest} tokens, a sample holds {self.max_length}",
                "cut the recordings into shorter clips, or raise max_length" if lengths else "pack some clips first",
            )
        self.dataset = dataset

    def _check_codes(self, clips: Clips) -> None:
        first, *others = sizes_of_rows(clips.codebooks, self.codebook_size or self.tokenizer.num_semantic)
        sizes = (min(first, self.tokenizer.num_semantic), *others)
        for clip in range(len(clips)):
            largest = largest_of_rows(clips.codes_of(clip))
            row = row_too_large(largest, sizes)
            if row is not None:
                raise UserError(
                    f"the clip {clips.name_of(clip)!r} has the code {largest[row]} in codebook {row}",
                    f"this model's codes there are 0 to {sizes[row] - 1}",
                    "extract the codes with this model's codec and pack them again",
                )

    def _indexes(self) -> Iterator[dict[str, Any]]:
        for folder in (Path(path) for path in self.train_files):
            for path in sorted(folder.rglob(INDEX_FILE)) if folder.is_dir() else []:
                yield read_index(path.parent) or {}

    def _left_out_by_packing(self) -> list[tuple[str, str]]:
        """Return what build_dataset could not use, from the indexes of the folders."""
        return [(str(name), str(reason)) for index in self._indexes() for name, reason in index.get("left_out", [])]

    def _rate_of_data(self) -> float:
        """Frames per second as the first index that knows it says."""
        rates = (index.get("frame_rate") for index in self._indexes())
        return next((float(rate) for rate in rates if isinstance(rate, int | float) and rate > 0), FRAME_RATE)

    @property
    def has_validation(self) -> bool:
        """Whether any clip is held out; known after setup."""
        return bool(self.held_out)

    def _ready(self) -> PackedClips:
        self.setup()
        assert self.dataset is not None
        return self.dataset

    def coverage(self) -> str:
        """Say what share of the clips and seconds an epoch visits, what is held out, and what is left out and why."""
        clips = self._ready().clips
        reasons = [(clips.name_of(clip), f"longer than {self.max_length} tokens") for clip in self.left_out]
        reasons = [*self._left_out_before, *reasons]
        offered = [*self.train_lengths, *self.left_out]
        seconds, all_seconds = self.seconds_of(self.train_lengths), self.seconds_of(offered)
        count, all_count = len(self.train_lengths), len(offered) + len(self._left_out_before)
        text = f"each epoch visits {count} of {all_count} clips ({_percent(count, all_count)})"
        text += f", {seconds:.1f} of {all_seconds:.1f} s ({_percent(seconds, all_seconds)})"
        text += f"; held out {len(self.held_out)} clips, {self.seconds_of(self.held_out):.1f} s"
        if reasons:
            named = "; ".join(f"{name} ({reason})" for name, reason in reasons[:_LISTED])
            text += f"; left out {len(reasons)}: {named}" + ("; ..." if len(reasons) > _LISTED else "")
        return text

    def seconds_of(self, clips: Iterable[int]) -> float:
        """Return how long clips are together, in seconds."""
        store = self._ready().clips
        return sum(store.frames_of(clip) for clip in clips) / self.frame_rate

    def batches_per_epoch(self, epoch: int = 0) -> int:
        """Return how many optimizer steps an epoch has; it may differ a little between epochs."""
        return self.stream().batches_in(epoch)

    def _place(self) -> tuple[int, int]:
        """Rank and number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, self.processes)

    def stream(self, start: int = 0) -> BatchStream:
        """Return the training batches of this process from number `start` on: which clips each step sees."""
        speakers = self._ready().clips.speakers
        settings = (speakers, self.train_lengths, self.pack_length, self.batch_size, self.seed)
        return BatchStream(*settings, start, *self._place())

    def longest_batch(self, samples: int) -> dict[str, Tensor]:
        """Return a batch of the longest samples of the first epoch, `samples` of them if there are so many."""
        plan = self.stream().plan(0)
        longest = sorted(plan, key=lambda sample: -sum(self.train_lengths[clip] for clip in sample))[:samples]
        return self.batch_of([(0, sample) for sample in longest])

    def batch_of(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return the batch that a loader would make of these items."""
        return self._collate()([self._ready()[item] for item in items])

    def _collate(self) -> Collate:
        return Collate(self.tokenizer.end_of_text_id, self.max_length)

    def train_dataloader(self) -> DataLoader:
        """Endless batches from number `batches_done` on."""
        return self._loader(self.stream(self.batches_done))

    def val_dataloader(self) -> DataLoader | list:
        """Held-out clips, one a sample, in fixed order, the speakers in turn; an empty list if there are none.

        So the first batches are of all speakers, where a run validates with those alone. With several processes each
        gets the same number of batches, of which the last may be empty.
        """
        if not self.held_out:
            log.info("no speaker has enough clips to hold some out: there is no validation")
            return []
        rank, world = self._place()
        count = -(-len(self.held_out) // (world * self.batch_size))
        order = in_turn(self._ready().clips, self.held_out)
        items: list[Item] = [(0, (clip,)) for clip in order[rank::world]]
        batches = [items[i * self.batch_size : (i + 1) * self.batch_size] for i in range(count)]
        return self._loader(batches)

    def _loader(self, batches: Any) -> DataLoader:
        return DataLoader(
            self._ready(),
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=self._collate(),
            persistent_workers=self.num_workers > 0,
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: how many batches were consumed."""
        return {"batches_done": self.batches_done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue behind the batches that a checkpoint has seen."""
        self.batches_done = int(state_dict["batches_done"])


def _percent(part: float, whole: float) -> str:
    """Share in percent, rounded down so that only all is 100."""
    return f"{int(1000 * (part / whole)) / 10 if whole else 0:g} %"
