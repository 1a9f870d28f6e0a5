"""Parts of training: draws, starts with other weights, options, processes. The runs themselves are in test_training_runs."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.errors import UserError
from piper_train.checkpoints import RECORD, read_checkpoint
from piper_train.cli import main
from piper_train.data.batch import Clip, collate
from piper_train.models.config import VitsConfig
from piper_train.training.continuing import newest_checkpoint, options_of, refuse_changes, refuse_reached
from piper_train.training.draws import VALIDATION, draws_of
from piper_train.training.module import VitsModule
from piper_train.training.objective import Counts, losses_of, means, weighted
from piper_train.training.processes import SummedGradients, choose_strategy, count_processes
from piper_train.training.resuming import CLIPS, fit_position
from piper_train.training.warm_start import VOCODER, refuse_other_quality, warm_start

from .test_checkpoints import write_published

pytestmark = pytest.mark.usefixtures("few_judges")


def clip(number, ids=9, frames=23, rate_of_noise=0.1):
    generator = torch.Generator().manual_seed(number)
    audio = rate_of_noise * torch.randn(frames * 256, generator=generator)
    spec = torch.rand(513, frames, generator=generator)
    return Clip(number, torch.randint(1, 50, (ids,), generator=generator), spec, audio, None)


def batch_of(*clips):
    return collate(clips, 2048)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=5, unique=True), st.integers(0, 3), st.integers(1, 60))
@settings(max_examples=30, deadline=None)
def test_a_clip_draws_the_same_in_whatever_batch_it_comes(numbers, epoch, longest):
    clips = [clip(number, 3 + number % 5, 8 + number % 11) for number in numbers]
    together = draws_of(batch_of(*clips, clip(900, 20, 20 + longest)), 6, 7, epoch)
    order = batch_of(*clips, clip(900, 20, 20 + longest)).clips.tolist()
    for one in clips:
        alone, row = draws_of(batch_of(one), 6, 7, epoch), order.index(one.number)
        frames, ids = one.spec.size(1), len(one.ids)
        assert torch.equal(together.posterior[row, :, :frames], alone.posterior[0, :, :frames])
        assert torch.equal(together.durations[row, :, :ids], alone.durations[0, :, :ids])
        assert together.slices[row] == alone.slices[0]


def test_draws_differ_by_clip_epoch_and_seed_and_are_standard_normal():
    batch = batch_of(clip(1, 40, 300), clip(2, 40, 300))
    first = draws_of(batch, 16, 0, 0)
    assert not torch.equal(first.posterior[0], first.posterior[1])
    for other in (draws_of(batch, 16, 0, 1), draws_of(batch, 16, 1, 0), draws_of(batch, 16, 0, VALIDATION)):
        assert not torch.equal(first.posterior, other.posterior) and not torch.equal(first.slices, other.slices)
    assert abs(first.posterior.mean()) < 0.05 and abs(first.posterior.std() - 1) < 0.05  # 9600 draws: 5 deviations


@pytest.fixture(scope="module")
def module(small_piper_config, few_judges):
    torch.manual_seed(5)
    return VitsModule(**small_piper_config, segment_size=2048).eval()


def test_the_losses_of_parts_of_a_batch_add_up_to_those_of_the_whole(module):
    batch = batch_of(clip(1, 5, 30), clip(2, 9, 40), clip(3, 4, 21))
    parts = [batch_of(clip(2, 9, 40)), batch_of(clip(1, 5, 30), clip(3, 4, 21))]
    counts = Counts.of(batch)

    def losses(part, counts):
        with torch.no_grad():
            found = losses_of(module.model_g, module.judges, part, draws_of(part, 32, 0, 0), module.config, counts)
        return {**found.generator, **found.discriminator}

    whole = losses(batch, counts)
    split = [losses(part, counts) for part in parts]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in split), value, rtol=2e-5, atol=1e-6)  # order of sums
    sums = [losses(part, Counts.of(part).ones()) for part in parts]
    for name, value in means({n: sums[0][n] + sums[1][n] for n in whole}, counts).items():
        torch.testing.assert_close(value, whole[name], rtol=2e-5, atol=1e-6)


def test_the_generator_loss_reaches_the_generator_alone_and_the_other_its_judges(module):
    batch = batch_of(clip(1, 5, 30))
    losses = losses_of(module.model_g, module.judges, batch, draws_of(batch, 32, 0, 0), module.config, Counts.of(batch))
    generator, judges = list(module.model_g.parameters()), list(module.model_d.parameters())
    weighted(losses.generator, 45.0, 1.0).backward(inputs=generator, retain_graph=True)
    assert all(weight.grad is None for weight in judges) and any(weight.grad is not None for weight in generator)
    before = [None if weight.grad is None else weight.grad.clone() for weight in generator]
    weighted(losses.discriminator, 45.0, 1.0).backward(inputs=judges)
    assert all(weight.grad is not None for weight in judges)
    assert all(old is None or torch.equal(old, weight.grad) for old, weight in zip(before, generator))
    module.zero_grad(set_to_none=True)


def test_resblock_1_as_a_number_or_as_text_is_the_large_decoder(small_piper_config):
    high = {**small_piper_config, "resblock_dilation_sizes": ((1, 3, 5),)}
    for value in (1, "1"):
        made = VitsModule(**high, resblock=value)
        assert made.config.resblock == "1" and made.hparams["resblock"] == "1"
        assert any(".convs1." in name for name in made.model_g.state_dict())


def test_a_published_checkpoint_starts_a_voice_but_for_what_it_lacks(tmp_path, small_piper_config, module):
    path = write_published(tmp_path / "a.ckpt", small_piper_config)
    line = warm_start(module, read_checkpoint(path))
    state = read_checkpoint(path).state_dict
    for name, tensor in state.items():
        assert torch.equal(module.state_dict()[name], tensor), name
    assert "epoch 0" in line and "new here: model_d" in line


def test_a_voice_of_several_speakers_starts_from_one_and_says_what_is_left_out(tmp_path, small_piper_config):
    path = write_published(tmp_path / "a.ckpt", small_piper_config)
    several = VitsModule(**small_piper_config, num_speakers=3)
    line = warm_start(several, read_checkpoint(path))
    assert "1 speaker there, 3 speakers here" in line
    for part in ("emb_g", "dec.cond", "dp.cond", "enc_q.enc", "flow.flows"):
        assert part in line, part
    one = write_published(tmp_path / "b.ckpt", small_piper_config, num_speakers=3)
    line = warm_start(VitsModule(**small_piper_config), read_checkpoint(one))
    assert "3 speakers there, 1 speaker here" in line and "not used from there: " in line and "emb_g" in line


def test_a_vocoder_start_leaves_text_and_durations_alone(tmp_path, small_piper_config, module):
    path = write_published(tmp_path / "a.ckpt", small_piper_config)
    state = read_checkpoint(path).state_dict
    with torch.no_grad():
        for weight in module.model_g.parameters():
            weight.add_(0.125)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    line = warm_start(module, read_checkpoint(path), VOCODER)
    assert "decoder, posterior encoder and flow" in line
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name] if name.startswith(VOCODER) else before[name]), name


@pytest.mark.parametrize(
    ("ours", "theirs", "named"),
    [
        (VitsConfig(), VitsConfig(sample_rate=16000), ("low (16000 Hz)", "medium (22050 Hz)", "low.yaml")),
        (VitsConfig(), VitsConfig(upsample_initial_channel=512), ("decoder 512", "medium (22050 Hz)")),
    ],
)
def test_a_checkpoint_of_another_quality_is_an_error_that_names_both(tmp_path, small_piper_config, ours, theirs, named):
    checkpoint = read_checkpoint(write_published(tmp_path / "a.ckpt", small_piper_config))
    with pytest.raises(UserError) as error:
        refuse_other_quality(ours, theirs, checkpoint)
    for text in named:
        assert text in str(error.value)


def test_broken_weights_are_not_started_from(tmp_path, small_piper_config, module):
    path = write_published(tmp_path / "a.ckpt", small_piper_config)
    content = torch.load(path, weights_only=False)
    content["state_dict"]["model_g.dec.conv_pre.weight"][0, 0, 0] = float("nan")
    torch.save(content, path)
    with pytest.raises(UserError, match="NaN"):
        warm_start(module, read_checkpoint(path))


@pytest.mark.parametrize(
    "options",
    [
        {"grad_clip": 1.0}, {"warmup_epochs": 3}, {"use_spectral_norm": True}, {"n_layers_q": 4},
        {"mos_metric": "other"}, {"learning_rate": 0.0}, {"betas": (0.9, 1.0)}, {"hop_length": 300},
        {"lr_decay": float("nan")}, {"num_speakers": 0},
    ],
)  # fmt: skip
def test_options_that_do_nothing_or_cannot_train_are_refused_by_name(options):
    with pytest.raises(UserError, match=next(iter(options))):
        VitsModule(**options)


def own(tmp_path, small, **record):
    path = write_published(tmp_path / "own.ckpt", small, epoch=3, extra={"learning_rate": 2e-4})
    content = torch.load(path, weights_only=False)
    torch.save({**content, RECORD: {"epochs_done": 4, **record}}, path)
    return read_checkpoint(path)


def test_an_own_checkpoint_brings_all_its_options_and_refuses_others(tmp_path, small_piper_config):
    checkpoint = own(tmp_path, small_piper_config)
    stored = options_of(checkpoint)
    assert stored["learning_rate"] == 2e-4 and stored["hidden_channels"] == 32
    with pytest.raises(UserError, match=r"model\.learning_rate: 0\.0002 there, 0\.001 here"):
        refuse_changes(checkpoint, stored, {**stored, "learning_rate": 0.001})
    refuse_changes(checkpoint, stored, {**stored, "resblock": 2, "warmstart_ckpt": "x", "batch_size": 3})


@pytest.mark.parametrize("limits", [{"max_epochs": 4}, {"max_epochs": 2}, {"max_epochs": None, "max_steps": 1000}])
def test_a_checkpoint_that_has_reached_the_end_is_an_error(tmp_path, small_piper_config, limits):
    with pytest.raises(UserError, match="behind it"):
        refuse_reached(own(tmp_path, small_piper_config), limits)


def test_a_checkpoint_before_the_end_goes_on(tmp_path, small_piper_config):
    for limits in ({"max_epochs": 5, "max_steps": -1}, {"max_epochs": -1}, {"max_epochs": None, "max_steps": 9999999}):
        refuse_reached(own(tmp_path, small_piper_config), limits)


def test_last_is_the_newest_run_of_the_folder(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        newest_checkpoint({"default_root_dir": str(tmp_path)})
    for number in (3, 10):
        path = tmp_path / "lightning_logs" / f"version_{number}" / "checkpoints" / "last.ckpt"
        path.parent.mkdir(parents=True)
        path.touch()
    import os

    os.utime(path, (1, 1))
    assert "version_3" in str(newest_checkpoint({"default_root_dir": str(tmp_path)}))


class PiperDataModule:
    """Stands where the checkpoint's position belongs to."""


def test_an_epoch_broken_off_begins_anew_only_where_its_batches_are_others():
    settings_then = {"seed": 0, CLIPS: 8, "precision": "32-true", "data set": "x"}

    def checkpoint():
        progress = {
            "total": {"ready": 5, "started": 5, "processed": 4},
            "current": {"ready": 5, "started": 5, "processed": 4},
        }
        batches = {"current": {"ready": 2, "started": 2, "processed": 2, "completed": 1}}
        return {
            RECORD: {"epochs_done": 4, "batches_done": 2, "settings": settings_then},
            "PiperDataModule": {"epoch": 4, "batches_done": 2},
            "loops": {"fit_loop": {"epoch_progress": progress, "epoch_loop.batch_progress": batches}},
        }

    for changed in ({}, {"precision": "bf16-mixed"}):
        same = checkpoint()
        fit_position(same, {**settings_then, **changed}, PiperDataModule())
        assert same == checkpoint()
    other = checkpoint()
    fit_position(other, {**settings_then, CLIPS: 4}, PiperDataModule())
    assert other["PiperDataModule"] == {"epoch": 4, "batches_done": 0}
    loops = other["loops"]["fit_loop"]
    assert loops["epoch_progress"]["current"]["ready"] == 4
    assert set(loops["epoch_loop.batch_progress"]["current"].values()) == {0}


def test_every_kind_of_ddp_becomes_ours_and_one_process_needs_none():
    for name in ("ddp", "ddp_find_unused_parameters_true", "auto"):
        assert isinstance(choose_strategy(name, "cpu", 2), SummedGradients)
        assert choose_strategy(name, "cpu", 1) == "auto"
    for name in ("fsdp", "deepspeed", "ddp_spawn"):
        with pytest.raises(UserError, match="cannot train a voice"):
            choose_strategy(name, "cpu", 2)


@pytest.mark.parametrize(("devices", "count"), [("auto", 1), (3, 3), ("2", 2), (-1, 1), ([0, 1], 2), ("0,1", 2)])
def test_devices_are_counted_as_they_are_written(devices, count):
    assert count_processes("cpu", devices) == count


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told():
    with pytest.raises(UserError, match="no GPU"):
        count_processes("gpu", 2)


def test_help_is_short_and_imports_no_torch():
    code = "import sys; from piper_train.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "python -m piper_train fit" in done.stdout


def test_an_unknown_command_is_an_error():
    with pytest.raises(UserError, match="unknown command train"):
        main(["train"])


def test_speakers_that_are_numbered_otherwise_are_refused():
    from piper_train.training.resuming import refuse_other_speakers

    there = {"speaker_id_map": {"anna": 0, "ben": 1}}
    refuse_other_speakers(there, {"speaker_id_map": {"anna": 0, "ben": 1, "carl": 2}})
    refuse_other_speakers(None, there)
    for here in ({"ben": 0, "anna": 1}, {"anna": 0}):
        with pytest.raises(UserError, match="numbers its speakers otherwise"):
            refuse_other_speakers(there, {"speaker_id_map": here})
