"""One optimizer step: the same gradient however it is split, less memory when it runs out, and the clip that broke it."""

from __future__ import annotations

import contextlib
import functools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fish_speech.build_dataset import build
from fish_speech.datasets.datamodule import SemanticDataModule
from fish_speech.errors import UserError
from fish_speech.out_of_memory import is_out_of_memory
from fish_speech.training import module as module_file
from fish_speech.training import probe as probe_file
from fish_speech.training.coverage import CoverageMeter
from fish_speech.training.memory import activation_bytes, choose_micro_batch
from fish_speech.training.module import TextToSemantic, count_steps
from fish_speech.training.parallel import clip_gradients
from fish_speech.training.probe import probe_longest
from fish_speech.training.self_checks import explain_non_finite, losses_of, shuffled_frames


@pytest.fixture()
def batch(golden):
    arrays = golden("train_batch.npz")
    one = {name: torch.from_numpy(arrays[name]) for name in ("inputs", "labels", "attention_masks")}
    shorter = {name: values.clone() for name, values in one.items()}
    shorter["attention_masks"][:, -5:] = True  # other rows, so that parts have other numbers of labels
    shorter["labels"][..., -5:] = -100
    return {name: torch.cat([one[name], shorter[name]]) for name in one}


@pytest.fixture()
def make_module(golden_dual_ar):
    """A module that runs without a trainer."""

    def make(**options) -> TextToSemantic:
        optimizer = functools.partial(torch.optim.AdamW, lr=1e-3)
        schedule = functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1.0)
        module = TextToSemantic(golden_dual_ar().train(), optimizer, schedule, **options)
        module.manual_backward = lambda loss: loss.backward()
        module._trainer = SimpleNamespace(
            global_rank=0, precision_plugin=SimpleNamespace(forward_context=contextlib.nullcontext), optimizers=[]
        )
        return module

    return make


def gradients_of(module, batch):
    parts = module.step_gradients(batch, number=3)
    return parts, [p.grad.clone() for p in module.parameters()]


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 5])
def test_a_step_has_one_gradient_however_it_is_split(make_module, batch, micro_batch):
    whole, expected = gradients_of(make_module(), batch)
    parts, found = gradients_of(make_module(micro_batch=micro_batch), batch)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_shares_of_two_processes_add_up_to_the_step_of_one(make_module, batch, monkeypatch):
    module = make_module()
    whole, expected = gradients_of(module, batch)
    counts = module_file.label_counts(module.model, batch["labels"])
    rows = len(batch["inputs"])
    totals, gradients = [], [torch.zeros_like(p) for p in module.parameters()]
    for rank in range(2):
        share = {name: values[rank:rows:2] for name, values in batch.items()}
        module.zero_grad()
        totals.append(module._run_micro_batches(share, counts, 3))
        for total, parameter in zip(gradients, module.parameters(), strict=True):
            total += parameter.grad
    loss = module_file.LossSums(*sum(totals).unbind()).means().loss
    torch.testing.assert_close(loss, whole.loss, rtol=1e-5, atol=1e-6)
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def out_of_memory_above(limit, module, monkeypatch):
    """Let each forward pass over more than `limit` samples fail as torch's CPU allocator does."""
    real = module_file.dual_ar_sums
    tried = []

    def limited(model, inputs, labels, mask):
        tried.append(len(inputs))
        if len(inputs) > limit:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:128] data. DefaultCPUAllocator: can't allocate memory")
        return real(model, inputs, labels, mask)

    monkeypatch.setattr(module_file, "dual_ar_sums", limited)
    return tried


def test_out_of_memory_gives_the_gradient_of_smaller_batches_from_the_start(make_module, batch, monkeypatch, caplog):
    rows = len(batch["inputs"])
    small = make_module(micro_batch=rows // 4)
    _, expected = gradients_of(small, batch)
    module = make_module(micro_batch=rows)
    tried = out_of_memory_above(rows // 4, module, monkeypatch)
    _, found = gradients_of(module, batch)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert tried[:3] == [rows, rows // 2, rows // 4] and module.micro_batch == rows // 4
    assert caplog.text.count("out of memory (") == 2 and "the same result" in caplog.text


def test_where_one_sample_does_not_fit_activations_are_recomputed_and_then_it_is_an_error(
    make_module, batch, monkeypatch
):
    module = make_module(micro_batch=2)
    out_of_memory_above(0, module, monkeypatch)
    with pytest.raises(UserError, match="does not suffice for a single sample"):
        module.step_gradients(batch, number=0)
    assert module.micro_batch == 1 and module.model.recompute_activations


def test_the_loss_before_training_is_that_of_all_clips_and_needs_memory_for_one(make_module, data, monkeypatch):
    module = make_module().eval()
    batch = data.batch_of([(0, (clip,)) for clip in (0, 5, 11)])
    with torch.no_grad():
        whole = module.sums(batch).means()
        out_of_memory_above(1, module, monkeypatch)
        found = losses_of(module, batch)
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("kept", "said"), [(None, "recomputed already"), (False, "kept, as gradient_checkpointing says")]
)
def test_the_error_says_why_no_more_memory_can_be_saved(make_module, batch, monkeypatch, caplog, kept, said):
    module = make_module(micro_batch=2, gradient_checkpointing=kept)
    out_of_memory_above(0, module, monkeypatch)
    with pytest.raises(UserError, match=said):
        module.step_gradients(batch, number=0)
    assert "done again with 1 sample at once" in caplog.text


@pytest.mark.parametrize(("step", "advised"), [(1, False), (2, True)])
def test_more_steps_are_advised_only_where_the_run_reached_its_end(make_module, data, caplog, step, advised):
    trainer = SimpleNamespace(datamodule=data, global_step=step, max_steps=2, is_global_zero=True)
    data.batches_done = 1
    meter = CoverageMeter()
    meter.on_train_start(trainer, make_module())
    meter.on_train_end(trainer, make_module())
    assert "never trained on" in caplog.text and ("more --max-steps" in caplog.text) is advised


def test_short_epochs_that_are_alike_share_a_line(make_module, data, caplog):
    caplog.set_level("INFO")
    data.batch_size, module = 1000, make_module()  # one step is an epoch
    module.log = lambda *arguments, **options: None
    trainer = SimpleNamespace(datamodule=data, log_every_n_steps=3, is_global_zero=True)
    meter = CoverageMeter()
    meter.on_train_start(trainer, module)
    for _ in range(8):
        data.batches_done += 1
        meter.on_train_batch_end(trainer, module, None, None, 0)
    lines = [line.split(" of ")[0] for line in caplog.messages if "trained on" in line]
    assert lines == [f"{which} trained on 12" for which in ("epoch 1", "epochs 2 to 4 each", "epochs 5 to 7 each")]


def test_other_errors_are_not_taken_for_a_lack_of_memory(make_module, batch, monkeypatch):
    module = make_module()

    def broken(*arguments):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(module_file, "dual_ar_sums", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        module.step_gradients(batch, number=0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5.93 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_says_that_memory_ran_out(error, expected):
    assert is_out_of_memory(error) is expected


def test_the_estimate_halves_the_micro_batch_before_it_recomputes(golden_dual_ar, monkeypatch):
    config = golden_dual_ar().config
    per_sample = activation_bytes(config, 100)
    for free, expected in ((1e9, (4, False)), (3.5 * per_sample, (2, False)), (0.5 * per_sample, (1, True))):
        monkeypatch.setattr("fish_speech.training.memory.free_bytes", lambda device, free=free: free)
        assert choose_micro_batch(config, 4, 100, "cpu")[:2] == expected
    monkeypatch.setattr("fish_speech.training.memory.free_bytes", lambda device: None)
    assert choose_micro_batch(config, 4, 100, "cpu")[:2] == (4, False)


@pytest.fixture()
def data(tmp_path, tokenizer, golden_dual_ar):
    """Twelve clips of the golden model's codebooks."""
    config = golden_dual_ar().config
    folder = tmp_path / "data/anna"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(12):
        codes = rng.integers(2, config.codebook_size, (config.num_codebooks, 5 + number), dtype=np.int32)
        np.save(folder / f"{number:02d}.npy", codes)
        (folder / f"{number:02d}.lab").write_text(f"Words number {number}.", encoding="utf-8")
    build(tmp_path / "data", tmp_path / "protos")
    made = SemanticDataModule([tmp_path / "protos"], tokenizer, 512, batch_size=4, pack_length=60, val_share=0)
    made.setup("fit")
    return made


def test_the_probe_takes_the_longest_samples_and_leaves_no_gradient(make_module, data):
    module = make_module(micro_batch=2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    probe = probe_longest(module, data)
    lengths = sorted(
        (sum(data.train_lengths[clip] for clip in sample) for sample in data.stream().plan(0)), reverse=True
    )
    assert (probe.samples, probe.micro_batch, probe.tokens) == (2, 2, sum(lengths[:2]))
    assert probe.seconds > 0 and all(p.grad is None for p in module.parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_the_probe_computes_in_the_precision_of_training(make_module, data, monkeypatch):
    module, real, autocast = make_module(), module_file.dual_ar_sums, []
    module.trainer.precision_plugin.forward_context = lambda: torch.autocast("cpu", dtype=torch.bfloat16)

    def noted(*arguments):
        autocast.append(torch.is_autocast_enabled("cpu"))
        return real(*arguments)

    monkeypatch.setattr(module_file, "dual_ar_sums", noted)
    probe_longest(module, data)
    assert autocast and all(autocast)


def test_the_probe_of_a_resumed_run_holds_no_memory_for_averages_that_are_there(make_module, data, monkeypatch):
    real, held = torch.empty_like, []
    monkeypatch.setattr(probe_file.torch, "empty_like", lambda p, **options: held.append(p) or real(p, **options))
    module = make_module()
    optimizer = torch.optim.AdamW(module.parameters())
    module._trainer.optimizers = [optimizer]
    for expected in (2 * len(list(module.parameters())), 0):
        held.clear()
        probe_longest(module, data)
        assert sum(isinstance(p, torch.nn.Parameter) for p in held) == expected
        for parameter in module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("largest", [None, 0, 0.0, -1.0])
def test_without_a_largest_norm_gradients_stay_as_they_are(largest):
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([30.0, 40.0])
    assert clip_gradients([parameter], largest) == 50 and parameter.grad.tolist() == [30, 40]
    assert clip_gradients([parameter], 1.0) == 50
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]))


def test_a_probe_that_does_not_fit_leaves_a_smaller_micro_batch(make_module, data, monkeypatch):
    module = make_module(micro_batch=4)
    out_of_memory_above(1, module, monkeypatch)
    assert probe_longest(module, data).micro_batch == module.micro_batch == 1


def test_the_clip_whose_loss_is_no_number_is_named(make_module, data):
    module = make_module()
    code = 1  # in no clip but this one
    clip = next(clip for sample in data.stream().samples_at(0)[1] for clip in sample)
    data.dataset.clips.codes_of(clip)[0, 2] = code
    with torch.no_grad():
        module.model.codebook_embeddings.weight[code] = float("nan")
    error = str(explain_non_finite(module, data, 0, float("nan"), float("nan")))
    name = data.dataset.clips.name_of(clip)
    assert repr(name) in error and "1 of the step's" in error and "step 1 is nan" in error


def test_the_only_clip_of_a_step_is_told_from_broken_weights_by_other_clips(make_module, data):
    data.batch_size, data.pack_length = 1, 1
    module, code = make_module(), 1  # in no clip but this one
    ((clip,),) = data.stream().samples_at(0)[1]
    data.dataset.clips.codes_of(clip)[0, 2] = code
    with torch.no_grad():
        module.model.codebook_embeddings.weight[code] = float("nan")
    error = str(explain_non_finite(module, data, 0, float("nan"), float("nan")))
    assert repr(data.dataset.clips.name_of(clip)) in error and "1 of the step's 1 clips" in error


def test_weights_that_left_the_range_are_told_from_a_bad_clip(make_module, data):
    module = make_module()
    with torch.no_grad():
        module.model.norm.weight.fill_(float("inf"))
    error = str(explain_non_finite(module, data, 0, float("nan"), float("nan")))
    assert "the weights have left the range" in error and "lower --learning-rate" in error


def test_shuffling_frames_keeps_the_text_and_every_frame(make_module, data):
    module = make_module()
    items = [(0, (clip,)) for clip in (0, 5, 11)]
    batch = data.batch_of(items)
    shuffled = shuffled_frames(batch, module.model)
    first, last = module.model.semantic_begin_id, module.model.semantic_end_id
    for row in range(3):
        for name in ("inputs", "labels"):
            old, new = batch[name][row], shuffled[name][row]
            frames = (old[0] >= first) & (old[0] <= last)
            assert torch.equal(old[:, ~frames], new[:, ~frames])
            assert sorted(map(tuple, old[:, frames].T.tolist())) == sorted(map(tuple, new[:, frames].T.tolist()))
        assert not torch.equal(batch["labels"][row], shuffled["labels"][row])
        frames = (shuffled["labels"][row, 0] >= first) & (shuffled["labels"][row, 0] <= last)
        where = frames.nonzero()[:, 0]
        assert torch.equal(shuffled["labels"][row][:, where], shuffled["inputs"][row][:, where + 1])


def test_a_run_that_optimized_automatically_is_counted_on_from_its_step():
    def checkpoint(manual):
        progress = {"total": {"ready": manual, "completed": manual}, "current": {"ready": manual, "completed": manual}}
        loops = {"fit_loop": {"epoch_loop.manual_optimization.optim_step_progress": progress}}
        return {"global_step": 13, "loops": loops}

    for manual, expected in ((0, 13), (9, 9)):
        content = checkpoint(manual)
        count_steps(content)
        total = content["loops"]["fit_loop"]["epoch_loop.manual_optimization.optim_step_progress"]["total"]
        assert total == {"ready": expected, "completed": expected}
    count_steps({"global_step": 3})  # another tool's: nothing to set
