"""The plan of a run against numbers worked by hand, a saved checkpoint, and the guide's safe ranges."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from fish_speech.build_dataset import build
from fish_speech.datasets.datamodule import SemanticDataModule
from fish_speech.device import DeviceChoice
from fish_speech.models import LoraConfig
from fish_speech.train import compose_config
from fish_speech.training import plan as planning
from fish_speech.training.plan import plan_run, render, warnings_of
from fish_speech.training.run import process_count
from fish_speech.versions import VERSIONS

CPU = DeviceChoice("cpu", "fp32", "asked for")
RATE = 20.0  # frames a second


@dataclass(frozen=True)
class Probe:
    """A step as training/probe.py measures it."""

    samples: int = 4
    tokens: int = 100
    micro_batch: int = 2
    seconds: float = 2.0
    peak_bytes: int | None = None
    recompute: bool = False


@pytest.fixture()
def planned(tmp_path, make_clips, tokenizer, golden_dual_ar, monkeypatch):
    """Plan a run on 12 clips of 3 to 9 frames, each a sample alone, 2 a batch; returns (plan, data, model)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").mkdir()
    (tmp_path / "base/model.pth").write_bytes(bytes(7000))

    def make(*overrides, probe=None, lora=True, clips=12, start=0, device=CPU, estimated=None):
        model = golden_dual_ar("base", lora={"r": 4, "lora_alpha": 8.0, "lora_dropout": 0.0} if lora else None)
        folder = tmp_path / f"protos{clips}"
        if not folder.exists():
            build(make_clips(tmp_path / f"data{clips}", {"anna": clips}, model.config.num_codebooks), folder)
        chosen = ["+lora@model.model.lora_config=r_4_alpha_8"] if lora else []
        given = ["project=voice", "data.batch_size=2", "pretrained_ckpt_path=base", "trainer.max_steps=30"]
        given += ["trainer.val_check_interval=10", *chosen, *overrides]
        config = compose_config("text2semantic_finetune", given)
        samples, processes = 2 * config.trainer.accumulate_grad_batches, process_count(config)
        data = SemanticDataModule(
            folder, tokenizer, batch_size=samples, pack_length=1, frame_rate=RATE, processes=processes
        )
        data.setup()
        return plan_run(config, data, model, device, probe, start, estimated), data, model

    return make


def frames(number: int) -> int:
    return 3 + number % 7


def test_steps_and_epochs_follow_from_samples_batches_accumulation_and_processes(planned):
    plan, *_ = planned()
    assert (plan.clips, plan.held_out, plan.speakers) == (11, 1, 1)
    assert plan.steps_per_epoch == 6 and plan.epochs == 5  # 11 samples, 2 a step; 30 steps
    plan, *_ = planned("trainer.accumulate_grad_batches=2")
    assert plan.steps_per_epoch == 3 and plan.epochs == 10
    plan, *_ = planned("trainer.accumulate_grad_batches=2", "trainer.devices=2", "trainer.num_nodes=2")
    assert (plan.processes, plan.steps_per_epoch, plan.epochs) == (4, 1, 30)  # 16 samples a step, 11 there


def test_seconds_and_tokens_are_those_of_the_clips(planned, tokenizer):
    plan, data, _ = planned()
    (held,) = data.held_out
    assert plan.held_out_seconds == frames(held) / RATE
    assert plan.seconds == pytest.approx(sum(frames(n) for n in range(12) if n != held) / RATE)
    words = len(tokenizer.encode("anna says 0."))
    overhead = data.dataset.length_of(0) - words - frames(0)
    expected = [len(tokenizer.encode(f"anna says {n}.")) + frames(n) + overhead for n in range(12) if n != held]
    assert plan.tokens == sum(expected) and plan.longest == max(expected)
    assert plan.step_tokens == sum(expected) / 6 and plan.held_out_share == 1 / 12


def test_a_checkpoint_is_as_large_as_planned(planned, tmp_path):
    for lora in (True, False):
        plan, _, model = planned(lora=lora)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained)
        for parameter in trained:
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        kept = {name: p for name, p in model.state_dict().items() if not lora or "lora_" in name}
        torch.save({"state_dict": kept, "optimizer": optimizer.state_dict()}, tmp_path / "saved.ckpt")
        size = (tmp_path / "saved.ckpt").stat().st_size
        names = 3 * len(trained) * 700  # names, headers and padding of three entries of each weight
        assert plan.checkpoint_bytes <= size <= plan.checkpoint_bytes + names + 20_000
        assert plan.lora == (LoraConfig(4, 8, 0.01) if lora else None)
        assert plan.trained == sum(p.numel() for p in trained)
        assert plan.weights == sum(p.numel() for p in model.parameters()) - (plan.trained if lora else 0)


def test_memory_is_weights_gradients_two_averages_and_activations(planned):
    plan, _, model = planned(lora=False)
    size = 4 * sum(p.numel() for p in model.parameters())
    assert (plan.weight_bytes, plan.gradient_bytes, plan.optimizer_bytes) == (size, size, 2 * size)
    c = model.config
    slow = c.n_layer * (10 * c.dim + 4 * c.intermediate_size)
    fast = c.num_codebooks * (c.n_fast_layer * (10 * c.fast_dim + 4 * c.fast_intermediate_size) + 3 * c.codebook_size)
    assert plan.activation_bytes == 2 * plan.longest * (slow + fast) * 4
    one, *_ = planned(lora=False, probe=Probe(micro_batch=1))
    assert one.activation_bytes == plan.activation_bytes / 2
    less, *_ = planned(lora=False, probe=Probe(recompute=True))
    assert less.activation_bytes < plan.activation_bytes and less.recompute


def test_half_the_weights_precision_is_half_their_memory(planned, golden_dual_ar):
    plan, data, model = planned()
    half = model.to(torch.bfloat16)
    config = compose_config("text2semantic_finetune", ["project=voice", "+lora@model.model.lora_config=r_4_alpha_8"])
    assert plan_run(config, data, half, CPU, None).weight_bytes == plan.weight_bytes / 2


def test_time_is_that_of_the_probe_per_token(planned):
    plan, data, _ = planned(probe=Probe(tokens=100, seconds=2.0))
    assert plan.step_s == pytest.approx(2.0 * (plan.tokens / 6) / 100)
    held = data.dataset.length_of(data.held_out[0])
    assert plan.validation_s == pytest.approx(0.02 * held / 2)  # with adapters a step is about two passes
    assert plan.validations == 3  # steps 10, 20, 30
    assert plan.total_s == pytest.approx(30 * plan.step_s + 3 * plan.validation_s)
    later, *_ = planned(probe=Probe(tokens=100, seconds=2.0), start=10)
    assert later.total_s == pytest.approx(20 * plan.step_s + 2 * plan.validation_s) and later.epochs == plan.epochs
    full, *_ = planned(probe=Probe(tokens=100, seconds=2.0), lora=False)
    assert full.validation_s == pytest.approx(0.02 * held / 3)
    two, *_ = planned("trainer.devices=2", probe=Probe(tokens=100, seconds=2.0))
    assert two.step_s == pytest.approx(2.0 * (plan.tokens / 3) / 2 / 100)  # each process has half of a step of four


def test_disk_is_the_kept_checkpoints_one_more_and_the_merged_folder(planned, tmp_path):
    plan, *_ = planned()
    assert plan.kept == 3 and plan.merged_bytes == 7000  # steps 10, 20, 30; base/model.pth
    assert plan.disk_bytes == 4 * plan.checkpoint_bytes + 7000
    many, *_ = planned("trainer.max_steps=500")
    assert many.kept == 5 + 1  # the newest and the best
    folder = tmp_path / "results/voice/checkpoints"
    folder.mkdir(parents=True)
    (folder / "step_000000010.ckpt").write_bytes(bytes(1000))
    assert planned()[0].disk_bytes == plan.disk_bytes - 1000


def test_planning_writes_nothing(planned, tmp_path):
    planned()
    before = sorted(tmp_path.rglob("*"))
    render(planned(probe=Probe())[0])
    assert sorted(tmp_path.rglob("*")) == before and not (tmp_path / "results").exists()


def test_the_plan_is_a_dozen_aligned_lines_with_the_figures(planned):
    plan, *_ = planned(
        "trainer.accumulate_grad_batches=2", probe=Probe(peak_bytes=3_200_000_000), estimated="from lengths"
    )
    lines = render(plan).splitlines()
    assert lines[0] == "plan of voice" and 10 <= len(lines) <= 14
    assert all(re.match(r"  \S.{12}  ?\S", line) for line in lines[1:])
    text = "\n".join(lines)
    for fact in (
        f"11 clips of 1 speaker, {plan.seconds:.1f} s", f"{plan.tokens} tokens", "1 clip (8.3 %)", "from lengths",
        "10.0 epochs", "2 samples x 2 batches", "adapters r 4, alpha 8", "0.0001 after 10 warm-up steps", "fp32",
        "measured 3.2 GB", "3 validations", "3 checkpoints", "merged folder 0.0 MB",
    ):  # fmt: skip
        assert fact in text, fact
    assert text.isascii()


MIB = 1 << 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"learning_rate": 1e-4}, ("0.0001 is above 5e-05", "--learning-rate 5e-05")),
        ({"steps": 301, "steps_per_epoch": 100}, ("301 steps are more than 300", "--max-steps 300")),
        ({"seconds": 500.0, "held_out_seconds": 90.0}, ("9.8 minutes", "add recordings")),
        ({"steps": 306, "steps_per_epoch": 6, "version": VERSIONS["minnow"]}, ("51 times", "--max-steps 300")),
        ({"held_out": 0}, ("nothing is held out", "10 clips")),
        ({"weight_bytes": 300 * MIB, "room_bytes": 200 * MIB}, ("209.7 MB are there", "--batch-size")),
        ({"micro_batch": 1}, ("computed by 1", "--gradient-accumulation-steps 2")),
        ({"merged_bytes": 1 << 60}, ("are free at", "another disk")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_not_safe_is_told_with_what_to_change(planned, change, said):
    safe = replace(
        planned()[0], learning_rate=5e-5, seconds=570.0, held_out_seconds=30.0, steps=300, steps_per_epoch=6,
        room_bytes=1 << 40, free_disk_bytes=1 << 40,
    )  # fmt: skip
    assert warnings_of(safe) == []
    (warning,) = warnings_of(replace(safe, **change))
    assert all(part in warning for part in said), warning


def test_a_step_that_went_well_counts_more_than_the_estimate(planned):
    plan = replace(planned()[0], weight_bytes=300 * MIB, room_bytes=200 * MIB)
    assert any("are there" in warning for warning in warnings_of(plan))
    assert not any("are there" in warning for warning in warnings_of(replace(plan, peak_bytes=MIB)))


def test_limits_are_those_of_the_version_that_is_trained(planned, monkeypatch):
    assert planned()[0].version.name == "1.5"
    assert planned("model_version='minnow'")[0].version.name == "minnow"
    folder = Path(__file__).parents[2] / VERSIONS["minnow"].folder
    named = replace(VERSIONS["minnow"], folder=folder)
    monkeypatch.setitem(planning.VERSIONS, "minnow", named)
    assert planned(f"pretrained_ckpt_path='{folder.as_posix()}'")[0].version is named
