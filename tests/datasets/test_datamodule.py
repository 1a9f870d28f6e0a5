"""The data module: what is trained on, in which order, and where a resumed run continues."""

import itertools
import pickle

import lightning
import numpy as np
import pytest
import torch

from fish_speech.build_dataset import build
from fish_speech.datasets.datamodule import SemanticDataModule
from fish_speech.datasets.semantic import in_turn
from fish_speech.errors import UserError
from fish_speech.text import packed_example


@pytest.fixture
def packed(make_clips, tmp_path):
    build(make_clips(tmp_path / "data", {"anna": 24, "bob": 5}), tmp_path / "protos")
    return tmp_path / "protos"


def module(packed, tokenizer, **options):
    data = SemanticDataModule([str(packed)], tokenizer, **{"max_length": 200, "batch_size": 2} | options)
    data.setup("fit")
    return data


def take(batches, count):
    return list(itertools.islice(iter(batches), count))


def assert_same(one, two):
    assert len(one) == len(two)
    for first, second in zip(one, two):
        for name in ("inputs", "attention_masks", "labels"):
            torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)


def test_an_epoch_holds_the_whole_example_of_every_training_clip_and_no_held_out_one(packed, tokenizer):
    data = module(packed, tokenizer)
    clips = data.dataset.clips
    batches = take(data.train_dataloader(), data.batches_per_epoch())
    laid_out = b"".join(
        batch["inputs"][i, :, ~batch["attention_masks"][i]].T.contiguous().numpy().tobytes()
        for batch in batches
        for i in range(len(batch["inputs"]))
    )

    def example(clip):
        tokens, _ = packed_example(tokenizer, clips.text_of(clip), clips.codes_of(clip))
        return np.ascontiguousarray(tokens.T).tobytes()

    assert data.held_out and len(data.train_lengths) + len(data.held_out) == 29
    assert all(laid_out.count(example(clip)) == 1 for clip in data.train_lengths)
    assert not any(example(clip) in laid_out for clip in data.held_out)


def test_a_resumed_module_continues_with_exactly_the_next_batch(packed, tokenizer):
    whole = take(module(packed, tokenizer).train_dataloader(), 12)
    first = module(packed, tokenizer)
    first.batches_done = 7
    second = module(packed, tokenizer)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    assert_same(take(second.train_dataloader(), 5), whole[7:])


def test_validation_is_the_held_out_clips_in_fixed_order(packed, tokenizer):
    data = module(packed, tokenizer, batch_size=1, val_share=0.2)
    assert data.has_validation and len(data.held_out) == 5
    batches = list(data.val_dataloader())
    assert_same(batches, list(data.val_dataloader()))
    for clip, batch in zip(data.held_out, batches, strict=True):
        tokens, _ = packed_example(tokenizer, data.dataset.clips.text_of(clip), data.dataset.clips.codes_of(clip))
        np.testing.assert_array_equal(batch["inputs"][0].numpy(), tokens)


def test_the_first_batches_of_validation_are_of_all_speakers(make_clips, tmp_path, tokenizer):
    build(make_clips(tmp_path / "data", {"anna": 20, "ben": 10, "carl": 40}), tmp_path / "protos")
    data = module(tmp_path / "protos", tokenizer, batch_size=3, val_share=0.2)
    order = in_turn(data.dataset.clips, data.held_out)
    spoken = "".join(data.dataset.clips.speakers[clip][0] for clip in order)
    assert spoken == "abc" * 2 + "ac" * 2 + "c" * 4 and sorted(order) == data.held_out
    batch = data.batch_of([(0, (clip,)) for clip in order[:3]])
    assert_same([next(iter(data.val_dataloader()))], [batch])


def test_without_held_out_clips_there_is_no_validation_and_a_line_says_so(packed, tokenizer, caplog):
    caplog.set_level("INFO")
    data = module(packed, tokenizer, val_share=0.0)
    assert data.val_dataloader() == [] and not data.has_validation
    assert "no validation" in caplog.text


def test_coverage_is_whole_and_counts_seconds(packed, tokenizer):
    data = module(packed, tokenizer, frame_rate=10.0)
    frames = [data.dataset.clips.frames_of(clip) for clip in data.train_lengths]
    text = data.coverage()
    assert "28 of 28 clips (100 %)" in text and f"{sum(frames) / 10:.1f} s (100 %)" in text
    assert "held out 1 clips" in text and "left out" not in text


def test_coverage_names_clips_that_are_too_long_or_were_not_packed(make_clips, tmp_path, tokenizer):
    data = make_clips(tmp_path / "data", {"anna": 5})
    np.save(data / "anna" / "0001.npy", np.zeros((3, 500), np.int32))
    (data / "anna" / "0001.lab").write_text("She says all that fits into 23 seconds. " * 8, encoding="utf-8")
    (data / "anna" / "0002.lab").unlink()
    build(data, tmp_path / "protos")
    text = module(tmp_path / "protos", tokenizer).coverage()
    assert "3 of 5 clips (60 %)" in text and "left out 2" in text
    assert (
        "anna/0002 (no transcript (.lab))" in text
        and "(longer than 200 tokens)" in text
        and "anna: She says all that" in text
    )


def test_workers_change_nothing(packed, tokenizer):
    alone = take(module(packed, tokenizer).train_dataloader(), 5)
    assert_same(take(module(packed, tokenizer, num_workers=2).train_dataloader(), 5), alone)


def test_the_data_set_and_its_collate_can_go_to_a_spawned_worker(packed, tokenizer):
    loader = module(packed, tokenizer).train_dataloader()
    dataset, collate = pickle.loads(pickle.dumps((loader.dataset, loader.collate_fn)))
    items = next(iter(loader.batch_sampler))
    assert_same([collate([dataset[item] for item in items])], [next(iter(loader))])


@pytest.mark.slow
def test_spawned_workers_change_nothing(packed, tokenizer):
    alone = take(module(packed, tokenizer).train_dataloader(), 5)
    loader = module(packed, tokenizer, num_workers=2).train_dataloader()
    loader.multiprocessing_context = "spawn"
    assert_same(take(loader, 5), alone)


class Probe(lightning.LightningModule):
    """Counts batches as training does, and keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, _):
        self.seen.append(batch)
        self.trainer.datamodule.batches_done += 1
        return self.weight * 1.0

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("val_share", [0.05, 0.0])
def test_a_checkpoint_of_lightning_carries_the_place_in_the_stream(packed, tokenizer, tmp_path, val_share):
    def fit(steps, checkpoint=None):
        probe = Probe()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = lightning.Trainer(
            max_steps=steps, accelerator="cpu", val_check_interval=3, check_val_every_n_epoch=None, **quiet
        )
        data = SemanticDataModule([packed], tokenizer, max_length=200, batch_size=2, val_share=val_share)
        trainer.fit(probe, datamodule=data, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        return probe.seen

    whole = fit(9)
    assert_same(fit(4) + fit(9, tmp_path / "last.ckpt"), whole)


def test_nothing_that_fits_is_a_wrong_request(packed, tokenizer):
    with pytest.raises(UserError, match="nothing to train on"):
        module(packed, tokenizer, max_length=20)


def test_codes_of_another_codec_are_a_wrong_request(packed, tokenizer, make_clips, tmp_path):
    with pytest.raises(UserError, match="3 codebooks instead of 8"):
        module(packed, tokenizer, num_codebooks=8)
    data = make_clips(tmp_path / "other", {"anna": 1})
    np.save(data / "anna" / "0000.npy", np.full((3, 4), 1024))
    build(data, tmp_path / "others")
    with pytest.raises(UserError, match="code 1024"):
        module(tmp_path / "others", tokenizer)


def test_missing_shards_are_a_wrong_request(tmp_path, tokenizer):
    with pytest.raises(UserError, match="build_dataset"):
        module(tmp_path / "nowhere", tokenizer)


@pytest.mark.parametrize("options", [{"val_share": 1.0}, {"batch_size": 0}])
def test_wrong_settings_fail_at_once(packed, tokenizer, options):
    with pytest.raises(ValueError):
        module(packed, tokenizer, **options)


def test_a_sample_holds_several_clips_of_one_voice_and_never_of_two(make_clips, tmp_path, tokenizer):
    build(make_clips(tmp_path / "data", {"anna": 24, "bob": 9, "cleo": 15}), tmp_path / "protos")
    data = module(tmp_path / "protos", tokenizer, pack_length=150, val_share=0.0)
    speakers, start = data.dataset.clips.speakers, tokenizer.encode("<|im_start|>system\n")
    samples = [sample for batch in take(data.stream(), data.batches_per_epoch()) for _, sample in batch]
    assert all(len({speakers[clip] for clip in sample}) == 1 for sample in samples)
    assert sorted(clip for sample in samples for clip in sample) == list(range(48))
    assert max(map(len, samples)) > 1
    first = next(iter(data.train_dataloader()))["inputs"][0, 0].tolist()
    begins = [i for i in range(len(first)) if first[i : i + len(start)] == start]
    assert len(begins) == len(next(iter(data.stream()))[0][1])


def test_seconds_are_counted_at_the_frame_rate_that_extraction_noted(make_clips, tmp_path, tokenizer):
    folder = make_clips(tmp_path / "data", {"anna": 5})
    (folder / ".codec.json").write_text('{"codec_sha256": "x", "frame_rate": 20.0}', encoding="utf-8")
    build(folder, tmp_path / "protos")
    assert module(tmp_path / "protos", tokenizer).frame_rate == 20.0
    (folder / ".codec.json").write_text("{}", encoding="utf-8")
    build(folder, tmp_path / "protos", force=True)
    assert module(tmp_path / "protos", tokenizer).frame_rate == pytest.approx(21.533, abs=1e-3)
