"""What processes tell each other: two of them, over gloo, give what one gives; what cannot work is refused."""

from __future__ import annotations

import contextlib
import datetime
import functools
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from fish_speech.device import DeviceChoice
from fish_speech.errors import UserError
from fish_speech.training import module as module_file
from fish_speech.training import parallel, strategies
from fish_speech.training.module import TextToSemantic
from fish_speech.training.processes import end_of, is_lost_peer
from fish_speech.training.sharded import ShardedTextToSemantic, part_of, shard, whole
from fish_speech.training.strategies import make_strategy

CPU, CUDA = DeviceChoice("cpu", "fp32", "a test"), DeviceChoice("cuda", "fp32", "a test")
DDP = {"_target_": "fish_speech.training.strategies.SummedGradients", "process_group_backend": None}
LAUNCHED_BY = (
    "TORCHELASTIC_RUN_ID",
    "WORLD_SIZE",
    "SLURM_NTASKS",
    "SLURM_JOB_NAME",
    "SLURM_STEP_ID",
    "MASTER_ADDR",
    "NODE_RANK",
)


def make_module(kind, model, rank: int, **options):
    """A module that runs without a trainer."""
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-3)
    schedule = functools.partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1.0)
    module = kind(model.train(), optimizer, schedule, **options)
    module.manual_backward = lambda loss: loss.backward()
    module._trainer = SimpleNamespace(
        global_rank=rank, precision_plugin=SimpleNamespace(forward_context=contextlib.nullcontext)
    )
    return module


def share_of(batch, rows):
    return {name: values[rows] for name, values in batch.items()}


def gradients(module):
    return [whole(p.grad, True) if p.requires_grad else None for p in module.parameters()]


def work(rank: int, folder: Path) -> None:
    """What each of two processes does; its findings go to folder/RANK.pt."""
    dist.init_process_group(
        "gloo", f"file://{folder / 'meeting'}", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=120)
    )
    given = torch.load(folder / "given.pt", weights_only=False)
    batch, found = given["batch"], {}

    found["world"] = parallel.world_size()
    found["summed"] = parallel.summed(torch.tensor([1.0 + rank, 5.0]))
    asked = (False, rank == 1, True)
    found["any"] = [parallel.any_process(flag, torch.device("cpu")) for flag in asked]

    parallel._BUCKET_BYTES = 16  # so that there are several
    parameters = [torch.nn.Parameter(torch.zeros(size, dtype=kind)) for size, kind in given["shapes"]]
    parameters.append(torch.nn.Parameter(torch.zeros(2), requires_grad=False))
    for number, parameter in enumerate(parameters[:-1]):
        if number != 1 or rank == 1:  # one has no gradient in the first process
            parameter.grad = torch.full_like(parameter, 10.0 * rank + number)
    parallel.sum_gradients(parameters)
    found["gradients"] = [parameter.grad for parameter in parameters]

    rows = slice(rank, None, 2)
    module = make_module(TextToSemantic, given["model"](), rank, micro_batch=2)
    real = module_file.dual_ar_sums

    def tight(model, inputs, labels, mask):
        if rank == 1 and len(inputs) > 1:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:128] DefaultCPUAllocator: can't allocate memory")
        return real(model, inputs, labels, mask)

    module_file.dual_ar_sums = tight
    parts = module.step_gradients(share_of(batch, rows), number=3)
    module_file.dual_ar_sums = real
    found["tight"] = (parts.loss.detach(), gradients(module), module.micro_batch)

    mesh = dist.device_mesh.init_device_mesh("cpu", (2,))
    for name in ("all weights", "adapters"):
        model = given[name]()
        module = make_module(ShardedTextToSemantic, model, rank, micro_batch=1)
        shard(model, mesh)
        module._any_clip = lambda: share_of(batch, slice(0, 1))
        own = slice(None) if rank == 0 else slice(0, 0)  # all samples are the first process's
        parts = module.step_gradients(share_of(batch, own), number=3)
        collected = gradients(module)
        norm = parallel.clip_gradients(module.parameters(), 0.5)
        clipped = parallel.clip_gradients(module.parameters(), None)
        found[name] = (parts.loss.detach(), collected, norm, clipped)
    state = {name: tensor for name, tensor in model.state_dict().items() if "lora" in name}
    kept = whole({"list": [state]}, keep=rank == 0)
    found["kept"] = kept
    tensor = torch.arange(10.0).reshape(5, 2)
    spread = dist.tensor.distribute_tensor(torch.zeros(5, 2), mesh, [dist.tensor.Shard(0)])
    found["part"], found["again"] = part_of(tensor, spread).to_local(), whole(part_of(tensor, spread), True)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def models(golden, golden_folder):
    """Makers of the golden model that other processes can be given, and a batch of different samples."""
    from fish_speech.models import DualARConfig

    manifest = golden("manifest.json")["llama"]
    config = DualARConfig.from_mapping(manifest["configs"]["base"]["given"])
    make = functools.partial(filled_model, config, manifest["semantic_begin_id"])
    arrays = golden("train_batch.npz")
    one = {name: torch.from_numpy(arrays[name]) for name in ("inputs", "labels", "attention_masks")}
    shorter = {name: values.clone() for name, values in one.items()}
    shorter["attention_masks"][:, -5:] = True
    shorter["labels"][..., -5:] = -100
    batch = {name: torch.cat([one[name], shorter[name]]) for name in one}
    return SimpleNamespace(make=make, batch=batch)


def filled_model(config, semantic_begin_id, adapters: bool = False):
    from fish_speech.models import DualAR, LoraConfig, install_lora

    model = DualAR(config, semantic_begin_id)
    model.reset_parameters(torch.Generator().manual_seed(0))
    if adapters:
        torch.manual_seed(0)
        install_lora(model, LoraConfig(4, 8, 0.0))
    return model


@pytest.fixture(scope="module")
def found(models, tmp_path_factory):
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("two")
    shapes = [(3, torch.float32), (5, torch.float32), (4, torch.bfloat16), (1, torch.float32)]
    made = {"model": models.make, "all weights": models.make, "adapters": functools.partial(models.make, adapters=True)}
    torch.save({**made, "batch": models.batch, "shapes": shapes}, folder / "given.pt")
    torch.multiprocessing.spawn(work, (folder,), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def expected_of(models, adapters: bool = False):
    """Loss and gradients of one process that has all the samples, with what they have in common."""
    module = make_module(TextToSemantic, models.make(adapters=adapters), 0)
    parts = module.step_gradients(models.batch, number=3)
    return parts.loss.detach(), gradients(module)


def assert_same_gradients(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)  # sums in another order


@pytest.mark.slow
def test_sums_and_agreements_are_of_all_processes(found):
    for one in found:
        assert one["world"] == 2 and one["summed"].tolist() == [3.0, 10.0]
        assert one["any"] == [False, True, True]


@pytest.mark.slow
def test_gradients_add_up_whatever_their_kind_and_wherever_one_is_missing(found):
    for one in found:
        *trained, frozen = one["gradients"]
        assert [set(g.tolist()) for g in trained] == [{10.0}, {11.0}, {14.0}, {16.0}] and frozen is None
        assert [g.dtype for g in trained] == [torch.float32, torch.float32, torch.bfloat16, torch.float32]


@pytest.mark.slow
def test_out_of_memory_in_one_process_makes_all_redo_the_step_with_the_same_result(found, models):
    loss, expected = expected_of(models)
    for one in found:
        own_loss, own, micro_batch = one["tight"]
        assert micro_batch == 1
        torch.testing.assert_close(own_loss, loss, rtol=1e-5, atol=1e-6)
        assert_same_gradients(own, expected)


@pytest.mark.slow
@pytest.mark.parametrize("trained", ["all weights", "adapters"])
def test_a_sharded_model_has_the_gradients_of_a_whole_one_even_where_a_process_has_no_samples(found, models, trained):
    loss, expected = expected_of(models, adapters=trained == "adapters")
    norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in expected if g is not None]))
    for one in found:
        own_loss, own, own_norm, clipped = one[trained]
        torch.testing.assert_close(own_loss, loss, rtol=1e-5, atol=1e-6)
        assert_same_gradients(own, expected)
        torch.testing.assert_close(own_norm, norm, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(clipped, own_norm.clamp(max=0.5), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_first_process_keeps_whole_weights_for_a_checkpoint_and_the_others_nothing(found, models):
    state = models.make(adapters=True).state_dict()
    kept = found[0]["kept"]["list"][0]
    assert set(kept) == {name for name in state if "lora" in name}
    assert all(torch.equal(tensor, state[name]) for name, tensor in kept.items())
    assert all(value is None for value in found[1]["kept"].get("list", [{}])[0].values())


@pytest.mark.slow
def test_parts_of_a_whole_tensor_make_it_again(found):
    tensor = torch.arange(10.0).reshape(5, 2)
    assert torch.equal(torch.cat([one["part"] for one in found]), tensor)
    assert all(torch.equal(one["again"], tensor) for one in found)


def test_one_process_sums_nothing():
    values = torch.ones(2)
    assert parallel.world_size() == 1 and parallel.summed(values) is values
    assert parallel.any_process(True, values.device) and not parallel.any_process(False, values.device)
    parameter = torch.nn.Parameter(values)
    parallel.sum_gradients([parameter])
    assert parameter.grad is None


@pytest.fixture()
def alone(monkeypatch):
    """An environment in which nobody has started several processes."""
    for name in LAUNCHED_BY:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_the_request_selects_the_strategy(alone):
    assert make_strategy("ddp", DDP, CPU, 1, 1) is None
    chosen = make_strategy("ddp", DDP, CPU, 2, 1)
    assert type(chosen) is strategies.SummedGradients and chosen.process_group_backend == "gloo"
    sharded = make_strategy("fsdp", DDP, CPU, 2, 1)
    assert type(sharded) is strategies.Sharded and sharded.process_group_backend == "gloo"


@pytest.mark.parametrize(("platform", "backend"), [("linux", "nccl"), ("win32", "gloo")])
def test_cuda_speaks_nccl_under_linux_and_gloo_elsewhere(monkeypatch, platform, backend):
    monkeypatch.setattr(sys, "platform", platform)
    assert strategies.backend_of(CUDA) == backend and strategies.backend_of(CPU) == "gloo"


@pytest.mark.parametrize(
    ("request_", "gpus", "message"),
    [
        (("deepspeed", CPU, 2, 1), 0, "deepspeed is unknown"),
        (("fsdp", CPU, 1, 1), 0, "needs several processes"),
        (("ddp", CUDA, 4, 1), 2, "4 GPUs are asked for on each machine, 2 are there"),
        (("ddp", DeviceChoice("mps", "fp32", "a test"), 2, 1), 0, "MPS trains in one process"),
        (("ddp", CPU, 2, 2), 0, "which of the 2 machines"),
    ],
)
def test_what_cannot_work_is_refused(alone, request_, gpus, message):
    alone.setattr(torch.cuda, "device_count", lambda: gpus)
    name, device, devices, nodes = request_
    with pytest.raises(UserError, match=message):
        make_strategy(name, DDP, device, devices, nodes)


def test_sharding_over_cuda_needs_linux(alone):
    alone.setattr(torch.cuda, "device_count", lambda: 2)
    alone.setattr(sys, "platform", "win32")
    with pytest.raises(UserError, match="needs NCCL"):
        make_strategy("fsdp", DDP, CUDA, 2, 1)


@pytest.mark.parametrize("given", [{"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4"}, {"SLURM_NTASKS": "4"}])
def test_another_number_of_processes_than_was_started_is_refused(alone, given):
    for name, value in given.items():
        alone.setenv(name, value)
    with pytest.raises(UserError, match="4 processes were started for a run of 1 x 2"):
        make_strategy("ddp", DDP, CPU, 2, 1)
    assert make_strategy("ddp", DDP, CPU, 2, 2) is not None


def test_a_single_process_inside_a_slurm_job_of_several_tasks_is_fine_unless_srun_started_it_so_often(alone):
    alone.setenv("SLURM_NTASKS", "4")
    assert make_strategy("ddp", DDP, CPU, 1, 1) is None
    alone.setenv("SLURM_STEP_ID", "0")
    with pytest.raises(UserError, match="4 processes were started for a run of 1 x 1"):
        make_strategy("ddp", DDP, CPU, 1, 1)


def test_of_what_a_process_said_the_message_it_ended_with_is_shown():
    assert end_of("step 1\nerror: no disk\n  why: full\n") == "error: no disk\n  why: full"
    assert end_of("error: first\n") == "error: first"
    assert end_of("a\nTraceback (most recent call last)\n  x\nValueError: y\n").endswith("ValueError: y")
    assert end_of("\n".join(map(str, range(100)))).split("\n") == [str(number) for number in range(70, 100)]


def test_the_error_of_a_collective_whose_peer_is_gone_is_told_from_others():
    assert is_lost_peer(RuntimeError("[../gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"))
    assert not is_lost_peer(RuntimeError("shape mismatch")) and not is_lost_peer(ValueError("connection"))
