"""Lightning's view of a data set: the `data.*` options of `fit`, preparation on rank 0, the same batches on any ranks."""

from __future__ import annotations

import functools
import hashlib
import logging
import signal
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from torch.utils.data import DataLoader

from fish_speech.errors import UserError
from piper_train.voice_config import VoiceConfig

from .batch import Batch, collate
from .clips import Clips
from .index import Index, index_path
from .prepare import prepare
from .prepared import Prepared
from .request import PrepareRequest
from .sampler import EpochSampler
from .split import Split, split_clips

log = logging.getLogger(__name__)


class SpokenSentence(NamedTuple):
    """What is spoken into TensorBoard at each validation."""

    text: str
    ids: list[int]
    speaker: int | None  # speaker id


def leave_ctrl_c(worker: int) -> None:
    """Let a loader's worker overhear Ctrl+C, which reaches the whole group: the parent ends its step first, and then them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _ResumableLoader(DataLoader):
    """A loader whose position the data module keeps; with these methods Lightning knows that it can be resumed."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the sampler asks the data module."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing: the sampler asks the data module."""


class PiperDataModule(lightning.LightningDataModule):
    """Clips of one voice, from a metadata.csv or from a folder of prepare_dataset.py.

    Args:
        csv_path: metadata.csv (`file|text`, with several speakers `file|speaker|text`), or a prepared data set's folder
        cache_dir: where prepared sounds and the index are kept
        espeak_voice: language of the phonemes, such as ru or en-us
        config_path: the voice's config.json, written at the start
        voice_name: name of the data set in config.json
        sample_rate: Hz of the voice; recordings are resampled
        audio_dir: folder of the recordings; without it that of csv_path, and its wavs/
        alignments_dir: has no effect, and is refused
        num_symbols: rows of the phoneme embedding
        num_speakers: speakers of the voice
        batch_size: clips of a batch in each process
        validation_split: share of clips that is held out, 0 for none
        num_test_examples: sentences spoken into TensorBoard at each validation
        filter_length: samples of an STFT window
        hop_length: samples from frame to frame
        win_length: samples of the Hann window
        segment_size: samples of a training slice
        num_workers: processes that read clips; 0 reads them in the training process
        trim_silence: cut silence at both ends
        keep_seconds_before_silence: seconds kept before speech
        keep_seconds_after_silence: seconds kept after speech
        phoneme_type: espeak or text (code points are phonemes)
        dataset_type: text, or phoneme_ids where the last column holds ids
        phonemes_path: JSON table of phonemes with their ids, in place of Piper's
        vowel_clusters: JSON lists of phonemes that are one together
        phoneme_source: what makes phonemes: auto, piper (the installed piper-tts) or espeak-ng (the program)
        min_seconds: shorter clips are left out; a training slice by default
        max_seconds: longer clips are left out
        max_phoneme_ids: clips with more are left out; no limit by default
        prepare_workers: processes that prepare recordings; as many as are of use by default
        quality: x-low, low, medium or high, for config.json
        seed: of the order and of what is held out
    """

    def __init__(
        self,
        csv_path: str | Path,
        cache_dir: str | Path,
        espeak_voice: str,
        config_path: str | Path,
        voice_name: str,
        sample_rate: int = 22050,
        audio_dir: str | Path | None = None,
        alignments_dir: str | Path | None = None,
        num_symbols: int = 256,
        num_speakers: int = 1,
        batch_size: int = 32,
        validation_split: float = 0.1,
        num_test_examples: int = 5,
        filter_length: int = 1024,
        hop_length: int = 256,
        win_length: int = 1024,
        segment_size: int = 8192,
        num_workers: int = 1,
        trim_silence: bool = True,
        keep_seconds_before_silence: float = 0.25,
        keep_seconds_after_silence: float = 0.25,
        phoneme_type: str | None = None,
        dataset_type: str = "text",
        phonemes_path: str | Path | None = None,
        vowel_clusters: str | None = None,
        phoneme_source: str = "auto",
        min_seconds: float | None = None,
        max_seconds: float = 30.0,
        max_phoneme_ids: int | None = None,
        prepare_workers: int | None = None,
        quality: str | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if alignments_dir is not None:
            raise UserError("alignments_dir has no effect", "alignments are found while training", "leave it out")
        if batch_size < 1 or num_workers < 0 or num_test_examples < 0 or not 0 <= validation_split <= 0.5:
            raise UserError(
                "the options of the data set do not fit",
                f"batch_size is {batch_size}, num_workers {num_workers}, num_test_examples {num_test_examples}, "
                f"validation_split {validation_split}",
                "use at least 1, 0 and 0, and for the split 0 to 0.5",
            )
        self.request = PrepareRequest(
            csv_path=Path(csv_path),
            cache_dir=Path(cache_dir),
            config_path=Path(config_path),
            espeak_voice=espeak_voice,
            voice_name=voice_name,
            audio_dir=None if audio_dir is None else Path(audio_dir),
            sample_rate=sample_rate,
            num_symbols=num_symbols,
            num_speakers=num_speakers,
            filter_length=filter_length,
            hop_length=hop_length,
            segment_size=segment_size,
            trim_silence=trim_silence,
            keep_seconds_before_silence=keep_seconds_before_silence,
            keep_seconds_after_silence=keep_seconds_after_silence,
            phoneme_type=phoneme_type,
            dataset_type=dataset_type,
            phonemes_path=None if phonemes_path is None else Path(phonemes_path),
            vowel_clusters=vowel_clusters,
            phoneme_source=phoneme_source,
            min_seconds=min_seconds,
            max_seconds=max_seconds,
            max_phoneme_ids=max_phoneme_ids,
            quality=quality,
            workers=prepare_workers,
        )
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self.validation_split, self.num_test_examples = validation_split, num_test_examples
        self.win_length, self.segment_size = win_length, segment_size
        self.epoch = self.batches_done = 0  # the training module counts them, checkpoints keep them
        self.prepared: Prepared | None = None  # in the process that prepared
        self._clips: Clips | None = None
        self._config: VoiceConfig | None = None
        self._split = Split([], [])

    def prepare_data(self) -> None:
        """Prepare the data set; Lightning calls it in one process of each machine. Raises UserError."""
        self.prepared = prepare(self.request)
        self.prepared.log_lines()

    def setup(self, stage: str | None = None) -> None:
        """Read what was prepared, in every process. Raises UserError if it is not there."""
        if self._clips is not None:
            return
        path = index_path(self.request.cache_dir, self.request.key())
        index = Index.read(path)
        if index is None or not len(index):
            raise UserError(
                f"the data set is not prepared: no usable {path}",
                "it is written before training starts",
                "start the command again; with several machines --data.cache_dir is one folder for all, or one on each",
            )
        stft = (self.request.filter_length, self.request.hop_length, self.win_length)
        clips = Clips(index, self.request.cache_dir, self.request.preparation, *stft)
        contents = [row.tobytes() for row in index.arrays["content"]]
        self._split = split_clips(contents, index.arrays["speaker"].tolist(), self.validation_split, self.seed)
        self._config = VoiceConfig.from_file(self.request.config_path)
        self._clips = clips
        self._check_agreement()

    def _check_agreement(self) -> None:
        """All processes must see the same clips, or their batches would not fit together."""
        if self.trainer is None or self.trainer.world_size == 1:
            return
        mine, strategy = self.fingerprint(), self.trainer.strategy
        if not strategy.reduce_boolean_decision(strategy.broadcast(mine) == mine):  # every process ends, none waits
            raise UserError(
                "the processes have different data",
                f"{self.request.cache_dir} was prepared anew in between, or differs between the machines",
                "start the command again, with the same data on every machine",
            )

    @property
    def clips(self) -> Clips:
        """All usable clips; setup is done if it was not."""
        self.setup()
        assert self._clips is not None
        return self._clips

    @property
    def split(self) -> Split:
        """Positions of the clips that are trained on and of those held out."""
        self.setup()
        return self._split

    @property
    def voice_config(self) -> VoiceConfig:
        """What config.json says."""
        self.setup()
        assert self._config is not None
        return self._config

    @property
    def has_validation(self) -> bool:
        """Whether any clip is held out."""
        return bool(self.split.held_out)

    def fingerprint(self) -> str:
        """Stands for what is trained on and in what order: other data or another split give another one."""
        parts = [self.clips.index.fingerprint(), self.win_length, self.seed, self.validation_split]
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    def describe(self) -> str:
        """Say in a line what is trained on, what is held out and by which rule."""
        train, held_out = self.split
        seconds = self.seconds_of(train)
        line = f"{len(train)} clips are trained on, {seconds / 60:.1f} minutes; "
        if held_out:
            line += f"{len(held_out)} are held out for validation ({100 * self.validation_split:g} % of each speaker's"
            line += ", at least one), never trained on"
        else:
            line += "none is held out" + ("" if self.validation_split == 0 else ": there are fewer than 5")
        if self.clips.index.arrays["speaker"].max() >= 0:
            line += f"; {len(Counter(self.clips.index.arrays['speaker'].tolist()))} speakers"
        return line

    def seconds_of(self, positions: list[int]) -> float:
        """How long clips are together, in seconds."""
        return float(self.clips.index.arrays["samples"][positions].sum()) / self.request.sample_rate

    def test_sentences(self) -> list[SpokenSentence]:
        """Sentences to speak while training: held-out ones first, then ones that are trained on."""
        index, (train, held_out) = self.clips.index, self.split
        sentences = []
        for position in [*held_out, *train][: self.num_test_examples]:
            clip = index[position]
            sentences.append(SpokenSentence(clip.text, list(clip.ids), None if clip.speaker < 0 else clip.speaker))
        return sentences

    def _place(self) -> tuple[int, int]:
        """Rank and number of processes."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def train_dataloader(self) -> DataLoader:
        """The batches of epoch `epoch` behind the `batches_done` first ones; its length is that of a whole epoch."""
        return self._loader(
            EpochSampler(
                self.split.train, self.batch_size, self._place, self.seed, lambda: (self.epoch, self.batches_done)
            )
        )

    def val_dataloader(self) -> DataLoader | list:
        """Held-out clips in fixed order; an empty list if there are none."""
        held_out = self.split.held_out
        return self._loader(EpochSampler(held_out, self.batch_size, self._place, shuffle=False)) if held_out else []

    def _loader(self, batches: EpochSampler) -> DataLoader:
        return _ResumableLoader(
            self.clips,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=functools.partial(collate, segment_size=self.segment_size, hop_length=self.request.hop_length),
            persistent_workers=self.num_workers > 0,
            prefetch_factor=4 if self.num_workers > 0 else None,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=leave_ctrl_c,
        )

    def batch_of(self, positions: list[int]) -> Batch:
        """The batch of these clips."""
        return collate([self.clips[position] for position in positions], self.segment_size, self.request.hop_length)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the position in the data."""
        return {"epoch": self.epoch, "batches_done": self.batches_done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue behind the batches that a checkpoint has seen."""
        self.epoch, self.batches_done = int(state_dict["epoch"]), int(state_dict["batches_done"])
