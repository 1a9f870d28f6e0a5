"""Batches: what is held out, the order on any number of processes, resuming, padding, and Lightning's own loop."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tracemalloc
from itertools import chain
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from fish_speech.audio import write_wav
from fish_speech.errors import UserError
from piper_train.data.batch import Clip, collate
from piper_train.data.datamodule import PiperDataModule
from piper_train.data.sampler import EpochSampler, global_batches
from piper_train.data.split import split_clips
from piper_train.models.spectrogram import linear_spectrogram

from .data_sets import RATE, text_of, tone, write_data_set

REPO = Path(__file__).parents[2]


def contents(count: int) -> list[bytes]:
    return [hashlib.blake2b(str(number).encode(), digest_size=16).digest() for number in range(count)]


def ctrl_c_is_ignored(items: list) -> bool:
    return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def module_for(csv_path, **options) -> PiperDataModule:
    folder = csv_path.parent
    given = {
        "csv_path": csv_path,
        "cache_dir": folder / ".cache",
        "config_path": folder / "config.json",
        "espeak_voice": "en-us",
        "voice_name": "test",
        "phoneme_type": "text",
        "trim_silence": False,
        "num_workers": 0,
        "prepare_workers": 1,
    }
    data = PiperDataModule(**{**given, **options})
    data.prepare_data()
    return data


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 4), st.floats(0, 0.5), st.integers(0, 9))
def test_every_clip_is_trained_on_or_held_out_and_never_both(count, speakers, share, seed):
    whose = [number % speakers for number in range(count)]
    train, held_out = split_clips(contents(count), whose, share, seed)
    assert sorted([*train, *held_out]) == list(range(count))
    assert train, "nothing is left to train on"
    assert len(held_out) <= max(share * count, speakers)
    for speaker in range(speakers):
        if whose.count(speaker) >= 10 and share > 0:
            assert any(whose[position] == speaker for position in held_out)


@pytest.mark.parametrize(("count", "expected"), [(1, 0), (4, 0), (5, 1), (8, 1), (10, 1), (20, 2), (206, 20)])
def test_a_small_data_set_is_not_eaten(count, expected):
    assert len(split_clips(contents(count), [-1] * count, 0.1, 0).held_out) == expected


def test_held_out_clips_stay_held_out_in_another_order_and_beside_new_ones():
    before = contents(60)
    held = {before[position] for position in split_clips(before, [-1] * 60, 0.1, 0).held_out}
    moved = before[::-1]
    assert {moved[position] for position in split_clips(moved, [-1] * 60, 0.1, 0).held_out} == held
    more = contents(64)
    now = {more[position] for position in split_clips(more, [-1] * 64, 0.1, 0).held_out}
    assert len(now & held) >= len(held) - 2
    assert split_clips(before, [-1] * 60, 0.1, 1).held_out != split_clips(before, [-1] * 60, 0.1, 0).held_out


def test_a_share_beyond_half_is_refused():
    with pytest.raises(ValueError, match="validation_split"):
        split_clips(contents(3), [-1] * 3, 0.6, 0)


@given(st.integers(0, 200), st.integers(1, 20), st.integers(1, 5))
def test_global_batches_hold_every_item_once_and_are_of_like_size(count, size, world):
    batches = global_batches(list(range(count)), size, world)
    assert list(dict.fromkeys(chain.from_iterable(batches))) == list(range(count))
    if batches:
        sizes = [len(batch) for batch in batches]
        assert max(sizes) <= size * world and max(sizes) - min(sizes) <= 1 and min(sizes) >= world
        if count // len(batches) >= world:
            assert sum(sizes) == count, "only batches with fewer clips than processes repeat some"


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_any_number_of_processes_sees_the_same_global_batches(world):
    def samplers(size: int, processes: int) -> list[list[list[int]]]:
        return [
            list(EpochSampler(range(25), size, lambda rank=rank: (rank, processes), 3, lambda: (2, 0)))
            for rank in range(processes)
        ]

    (alone,) = samplers(12, 1)
    shares = samplers(12 // world, world)
    assert len({len(batches) for batches in shares}) == 1
    for step, batch in enumerate(alone):
        assert sorted(chain.from_iterable(share[step] for share in shares)) == sorted(batch)
        assert all(share[step] for share in shares)


def test_a_resumed_epoch_is_the_rest_of_it():
    whole = list(EpochSampler(range(23), 4, lambda: (0, 1), 0, lambda: (5, 0)))
    resumed = EpochSampler(range(23), 4, lambda: (0, 1), 0, lambda: (5, 2))
    assert list(resumed) == whole[2:]
    assert len(resumed) == len(whole) == 6, "the length is that of the epoch"


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [
        tuple(chain.from_iterable(EpochSampler(range(40), 4, lambda: (0, 1), seed, lambda epoch=epoch: (epoch, 0))))
        for seed in (0, 1)
        for epoch in (0, 1)
    ]
    assert len(set(orders)) == 4 and all(sorted(order) == list(range(40)) for order in orders)


def clip(number: int, frames: int, ids: int = 3, speaker: int | None = None) -> Clip:
    samples = frames * 4
    values = torch.full((samples,), float(number + 1))
    return Clip(number, torch.arange(1, ids + 1), torch.full((5, frames), float(number + 1)), values, speaker)


def test_collate_sorts_by_length_and_pads_with_zeros():
    batch = collate([clip(7, 10), clip(2, 20, 5), clip(1, 10, 4)], segment_size=8, hop_length=4)
    assert batch.clips.tolist() == [2, 1, 7]  # equal ones by number
    assert batch.specs.shape == (3, 5, 20) and batch.audio.shape == (3, 1, 80) and batch.ids.shape == (3, 5)
    assert batch.spec_lengths.tolist() == [20, 10, 10]
    assert batch.audio_lengths.tolist() == [80, 40, 40]
    assert batch.id_lengths.tolist() == [5, 4, 3]
    assert batch.ids[2].tolist() == [1, 2, 3, 0, 0]
    assert batch.specs[1, :, 10:].abs().sum() == 0 and batch.audio[1, 0, 40:].abs().sum() == 0
    assert batch.speaker_ids is None and len(batch) == 3


def test_a_batch_of_short_clips_is_as_long_as_a_training_slice():
    batch = collate([clip(0, 3, speaker=4), clip(1, 5, speaker=2)], segment_size=40, hop_length=4)
    assert batch.audio.shape == (2, 1, 40) and batch.specs.shape == (2, 5, 10)
    assert batch.audio_lengths.tolist() == [20, 12]
    assert batch.speaker_ids.tolist() == [2, 4]


def test_a_clip_with_half_a_frame_too_much_is_padded_to_a_whole_slice():
    short = Clip(0, torch.arange(1, 4), torch.ones(5, 1), torch.ones(7), None)  # 7 samples: one frame of 4
    batch = collate([short], segment_size=40, hop_length=4)
    assert batch.audio.shape == (1, 1, 40) and batch.specs.shape == (1, 5, 10)


def test_a_batch_moves_as_one():
    moved = collate([clip(0, 3)], 8).to("meta")
    assert moved.specs.device.type == moved.clips.device.type == "meta" and moved.speaker_ids is None


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    """The metadata.csv of 24 prepared clips; read only."""
    return write_data_set(tmp_path_factory.mktemp("data") / "set", 24)


def test_batches_hold_what_was_prepared(data_set):
    data = module_for(data_set, batch_size=5)
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 5
    assert {len(batch) for batch in batches} <= {4, 5}
    numbers = sorted(chain.from_iterable(batch.clips.tolist() for batch in batches))
    held_out = sorted(chain.from_iterable(batch.clips.tolist() for batch in data.val_dataloader()))
    assert sorted([*numbers, *held_out]) == list(range(1, 25)) and len(held_out) == 2
    batch = batches[0]
    audio = batch.audio[1, 0, : batch.audio_lengths[1]]
    spec = batch.specs[1, :, : batch.spec_lengths[1]]
    torch.testing.assert_close(spec, linear_spectrogram(audio, 1024, 256, 1024), rtol=0, atol=0)
    assert batch.spec_lengths[1] == len(audio) // 256
    assert batch.ids.dtype == torch.int64 and batch.ids[0, 0] == 1


def test_worker_processes_give_the_same_batches(data_set):
    alone = list(module_for(data_set, batch_size=8).train_dataloader())
    worked = list(module_for(data_set, batch_size=8, num_workers=2).train_dataloader())
    for one, other in zip(alone, worked, strict=True):
        torch.testing.assert_close(one.specs, other.specs, rtol=0, atol=0)
        assert one.clips.tolist() == other.clips.tolist()


def test_ctrl_c_is_not_for_worker_processes(data_set):
    loader = module_for(data_set, batch_size=8, num_workers=1).train_dataloader()
    answers = DataLoader(range(2), num_workers=1, worker_init_fn=loader.worker_init_fn, collate_fn=ctrl_c_is_ignored)
    assert list(answers) == [True, True]
    assert not ctrl_c_is_ignored([])


def test_clips_reach_a_spawned_process_whole(data_set):
    clips = module_for(data_set).clips
    copied = pickle.loads(pickle.dumps(clips))
    torch.testing.assert_close(copied[3].spec, clips[3].spec, rtol=0, atol=0)
    assert copied.index[3] == clips.index[3]


def test_a_checkpoint_keeps_the_position(data_set):
    data = module_for(data_set, batch_size=5)
    data.epoch, data.batches_done = 3, 2
    resumed = module_for(data_set, batch_size=5)
    resumed.load_state_dict(data.state_dict())
    rest = [batch.clips.tolist() for batch in resumed.train_dataloader()]
    data.batches_done = 0
    assert rest == [batch.clips.tolist() for batch in data.train_dataloader()][2:]


def test_a_process_that_prepared_nothing_sees_the_same(data_set):
    first = module_for(data_set)
    second = PiperDataModule(**_options(data_set))
    second.setup("fit")
    assert second.fingerprint() == first.fingerprint()
    assert second.voice_config == first.prepared.config
    assert second.split == first.split


def _options(csv_path):
    folder = csv_path.parent
    return {
        "csv_path": csv_path,
        "cache_dir": folder / ".cache",
        "config_path": folder / "config.json",
        "espeak_voice": "en-us",
        "voice_name": "test",
        "phoneme_type": "text",
        "trim_silence": False,
    }


def test_setup_without_preparation_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match="is not prepared"):
        PiperDataModule(**_options(tmp_path / "metadata.csv")).setup("fit")


def test_test_sentences_are_held_out_ones_first(data_set):
    data = module_for(data_set)
    sentences = data.test_sentences()
    held_out = [data.clips.index[position].text for position in data.split.held_out]
    assert [sentence.text for sentence in sentences][: len(held_out)] == held_out
    assert len(sentences) == 5 and len(data.split.train) == 22, "they take nothing away"
    assert sentences[0].ids[0] == 1 and sentences[0].speaker is None
    assert module_for(data_set, num_test_examples=0).test_sentences() == []


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_tiny_data_set_still_trains_and_says_how_it_is_split(tmp_path, count):
    data = module_for(write_data_set(tmp_path / "set", count), batch_size=4)
    trained = sorted(chain.from_iterable(batch.clips.tolist() for batch in data.train_dataloader()))
    assert len(trained) == (count if count < 5 else count - 1)
    assert data.has_validation == (count >= 5)
    assert ("none is held out: there are fewer than 5" in data.describe()) == (count < 5)


def test_several_speakers_have_numbers_in_the_batch(tmp_path):
    data = module_for(write_data_set(tmp_path / "set", 9, speakers=3), num_speakers=3, validation_split=0)
    batch = next(iter(data.train_dataloader()))
    assert [(number - 1) % 3 for number in batch.clips.tolist()] == batch.speaker_ids.tolist()
    assert data.voice_config.speaker_id_map == {"speaker0": 0, "speaker1": 1, "speaker2": 2}


def test_a_sound_that_vanishes_while_training_is_made_again(tmp_path):
    path = write_data_set(tmp_path / "set", 6)
    data = module_for(path)
    before = data.clips[2]
    shutil.rmtree(path.parent / ".cache" / "audio")
    torch.testing.assert_close(data.clips[2].audio, before.audio, rtol=0, atol=0)
    write_wav(path.parent / "wavs" / "003.wav", tone(0.9, 99), RATE)
    with pytest.raises(UserError, match="has changed"):
        data.clips[3]


def test_reading_an_epoch_holds_a_batch_not_the_data(tmp_path):
    data = module_for(write_data_set(tmp_path / "set", 40, seconds=2.0), batch_size=2)
    total = 40 * 2.2 * RATE * 4

    data.setup()
    tracemalloc.start()
    for _ in data.train_dataloader():
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < total / 5


def test_options_that_make_no_sense_are_refused(tmp_path):
    for wrong in ({"batch_size": 0}, {"validation_split": 0.9}, {"num_workers": -1}, {"alignments_dir": "x"}):
        with pytest.raises(UserError):
            PiperDataModule(**{**_options(tmp_path / "metadata.csv"), **wrong})


def test_lightning_trains_on_the_batches_and_resumes_in_the_middle_of_an_epoch(data_set, tmp_path):
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    class Seen(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.seen = []

        def training_step(self, batch, number):
            self.seen.append(batch.clips.tolist())
            data = self.trainer.datamodule
            data.batches_done += 1
            if data.batches_done == len(data.train_dataloader()):
                data.epoch, data.batches_done = data.epoch + 1, 0
            return self.weight.sum() * batch.audio.mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(max_steps: int, checkpoint=None, workers: int = 0):
        module, data = Seen(), module_for(data_set, batch_size=4, num_workers=workers)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        every = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = lightning.Trainer(
            max_steps=max_steps, max_epochs=-1, callbacks=every, use_distributed_sampler=False, **quiet
        )
        trainer.fit(module, data, ckpt_path=checkpoint)
        return module.seen

    whole = fit(14)  # six batches an epoch
    for step, workers in ((2, 0), (6, 0), (8, 1), (12, 0)):
        assert fit(14, tmp_path / f"step={step}.ckpt", workers) == whole[step:]


def test_the_texts_of_the_index_are_those_of_the_data_set(data_set):
    index = module_for(data_set).clips.index
    assert [clip.text for clip in index] == [text_of(number) for number in range(24)]


_TWO_PROCESSES = """
import json, sys
from pathlib import Path
import lightning, torch
from piper_train.data.datamodule import PiperDataModule

class Seen(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.validated = [], []

    def training_step(self, batch, number):
        self.seen.append(batch.clips.tolist())
        data = self.trainer.datamodule
        data.batches_done += 1
        if data.batches_done == len(self.trainer.train_dataloader):
            data.epoch, data.batches_done = data.epoch + 1, 0
        return self.weight.sum() * batch.audio.mean()

    def validation_step(self, batch, number):
        self.validated.append(batch.clips.tolist())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

if __name__ == "__main__":
    folder, out, processes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    data = PiperDataModule(folder / "metadata.csv", out / "cache", "en-us", out / "config.json", "x", num_workers=0,
                           phoneme_type="text", trim_silence=False, batch_size=6 // processes)
    trainer = lightning.Trainer(accelerator="cpu", devices=processes, max_epochs=2, logger=False,
        strategy="ddp" if processes > 1 else "auto", enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, num_sanity_val_steps=0)
    module = Seen()
    trainer.fit(module, data)
    said = {"seen": module.seen, "validated": module.validated, "fingerprint": data.fingerprint()}
    (out / f"{processes}-{trainer.global_rank}.json").write_text(json.dumps(said))
"""


@pytest.mark.slow
def test_two_real_processes_train_on_the_batches_of_one(tmp_path):
    path = write_data_set(tmp_path / "set", 25)
    script = tmp_path / "two_processes.py"
    script.write_text(_TWO_PROCESSES, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(REPO)}

    def said(processes: int) -> list[dict]:
        out = tmp_path / str(processes)  # a cache of its own: the second rank reads what the first has just made
        out.mkdir()
        command = [sys.executable, str(script), str(path.parent), str(out), str(processes)]
        subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
        return [json.loads((out / f"{processes}-{rank}.json").read_text()) for rank in range(processes)]

    (alone,), (first, second) = said(1), said(2)
    assert first["fingerprint"] == second["fingerprint"] == alone["fingerprint"]
    for kind in ("seen", "validated"):
        assert [sorted(a + b) for a, b in zip(first[kind], second[kind], strict=True)] == [
            sorted(x) for x in alone[kind]
        ]
    assert len(alone["seen"]) == 2 * 4
