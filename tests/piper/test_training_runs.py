"""Whole trainings of a small voice with small discriminators through the command line.

Sounds are generated, phonemes are the text's code points, and 7 of 8 clips make 2 batches of an epoch.
"""

import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from fish_speech.errors import UserError
from piper_train.cli import main
from piper_train.training import command as fit_command
from piper_train.training import module as training_module
from piper_train.training.callbacks import ProgressLines
from piper_train.training.module import VitsModule

from .sung import SMALL, command, write_sung
from .test_checkpoints import write_published

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_judges")]

REPOSITORY = Path(__file__).parents[2]
EPOCHS = "--trainer.max_epochs=2"


@pytest.fixture(scope="module")
def sung(tmp_path_factory):
    return write_sung(tmp_path_factory.mktemp("sung"), 8)


@pytest.fixture()
def root(tmp_path):
    """Where a run writes; its checkpoints go when the test is over."""
    yield tmp_path / "run"
    shutil.rmtree(tmp_path, ignore_errors=True)


def fit(csv, root, *more, small=SMALL):
    return main(command(csv, root, "--data.batch_size=4", *more, small=small))


def last_of(root, version=None):
    found = (root / "lightning_logs").glob(f"version_{'*' if version is None else version}/checkpoints/last.ckpt")
    return max(found, key=lambda path: path.stat().st_mtime)


def read(path):
    return torch.load(path, weights_only=True, mmap=True)


@pytest.fixture(scope="module")
def whole(sung, few_judges, tmp_path_factory):
    """Folder of a run of two epochs that never stopped."""
    root = tmp_path_factory.mktemp("whole")

    def offline(*arguments):
        raise OSError("training needs no network")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", offline)
        assert go_on(sung, root) == 0
    yield root
    shutil.rmtree(root, ignore_errors=True)


def go_on(sung, root, *more):
    return fit(sung, root, EPOCHS, "--model.lr_decay=0.5", "--model.lr_decay_d=0.25", *more)


def assert_equal_runs(left, right):
    """Weights, optimizers, schedulers, position in the data and counters, bit for bit."""
    a, b = read(left), read(right)
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, tensor in a["state_dict"].items():
        assert torch.equal(tensor, b["state_dict"][name]), name
    for one, other in zip(a["optimizer_states"], b["optimizer_states"], strict=True):
        assert one["param_groups"] == other["param_groups"]
        for number, state in one["state"].items():
            for name, tensor in state.items():
                assert torch.equal(tensor, other["state"][number][name]), (number, name)
    for name in ("lr_schedulers", "epoch", "global_step", "piper_train", "PiperDataModule", "voice_config"):
        assert a[name] == b[name], name


def test_a_run_leaves_its_config_logs_and_checkpoints(whole, sung):
    folder = whole / "lightning_logs" / "version_0"
    assert {path.name for path in folder.iterdir()} >= {"config.yaml", "hparams.yaml", "checkpoints"}
    assert yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))["data"]["espeak_voice"] == "en"
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names[-1] == "last.ckpt" and len(names) == 3
    for epoch, name in enumerate(names[:2]):
        assert name.startswith(f"epoch={epoch}-val_mel=")
    content = read(folder / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 8 and content["epoch"] == 1  # two steps of each of four batches
    assert (
        content["voice_config"]["audio"]["sample_rate"] == 22050 and content["voice_config"]["espeak"]["voice"] == "en"
    )
    assert content["hyper_parameters"]["hidden_channels"] == 32
    assert (sung.parent / "config.json").is_file()


def test_learning_rates_decay_once_an_epoch(whole):
    content = read(last_of(whole))
    rates = [state["param_groups"][0]["lr"] for state in content["optimizer_states"]]
    assert rates == [2e-4 * 0.5**2, 1e-4 * 0.25**2]
    assert [state["last_epoch"] for state in content["lr_schedulers"]] == [2, 2]


def test_tensorboard_shows_scalars_and_audio_of_a_tiny_data_set(whole, sung):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(whole / "lightning_logs" / "version_0"), {"audio": 0, "scalars": 0})
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert scalars >= {
        "loss_g", "loss_d", "learning_rate", "learning_rate_d", "val_loss",
        *(f"{stage}_{name}" for stage in ("train", "val") for name in ("mel", "kl", "dur", "fm", "gen", "disc")),
    }  # fmt: skip
    assert len(events.Scalars("train_mel")) == 2 and len(events.Scalars("val_mel")) == 2
    assert [event.value for event in events.Scalars("learning_rate")] == pytest.approx([2e-4, 1e-4])
    tags = events.Tags()["audio"]
    assert len(tags) == 2 and all(tag in sung.read_text(encoding="utf-8") for tag in tags)
    assert all(event.sample_rate == 22050 and event.length_frames > 0 for event in events.Audio(tags[0]))


def test_a_run_resumed_after_an_epoch_equals_one_that_never_stopped(sung, whole, root):
    assert go_on(sung, root, "--trainer.max_epochs=1") == 0
    assert go_on(sung, root, "--ckpt_path", str(last_of(root))) == 0
    assert_equal_runs(last_of(root, 1), last_of(whole))


def test_a_run_limited_by_steps_resumes_exactly_too(sung, whole, root):
    assert go_on(sung, root, "--trainer.max_steps=2") == 0
    assert read(last_of(root))["piper_train"]["batches_done"] == 1
    assert go_on(sung, root, "--trainer.max_steps=4", "--ckpt_path=last", "--data.num_workers=1") == 0
    assert read(last_of(root))["piper_train"]["epochs_done"] == 1
    assert go_on(sung, root, "--ckpt_path=last") == 0
    assert_equal_runs(last_of(root), last_of(whole))


@pytest.mark.parametrize("batch", [0, 1])
def test_a_run_stopped_within_an_epoch_is_saved_and_goes_on_exactly(sung, whole, root, monkeypatch, batch):
    """Whether Ctrl+C comes in the first batch of the first epoch or in its last."""
    watch = VitsModule._watch

    def interrupted(self, values):
        if (self.data.epoch, self.data.batches_done) == (0, batch):
            signal.raise_signal(signal.SIGINT)
        return watch(self, values)

    with monkeypatch.context() as patch:
        patch.setattr(VitsModule, "_watch", interrupted)
        assert go_on(sung, root) == 130
    record = read(last_of(root))["piper_train"]
    assert (record["epochs_done"], record["batches_done"]) == ((0, 1) if batch == 0 else (1, 0))
    assert go_on(sung, root, "--ckpt_path", "last") == 0
    assert_equal_runs(last_of(root, 1), last_of(whole))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process on SIGTERM")
def test_sigterm_ends_a_run_with_a_checkpoint_and_code_130(sung, whole, root):
    words = command(sung, root, "--data.batch_size=4", EPOCHS, "--model.lr_decay=0.5", "--model.lr_decay_d=0.25")
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tests/piper/few_judges.py"), *words],
        cwd=sung.parent, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith("epoch 0"):
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            break
    said += process.communicate(timeout=300)[1]
    assert process.returncode == 130, said
    assert "stopped in epoch" in said and "Traceback" not in said
    assert go_on(sung, root, "--ckpt_path", "last") == 0
    assert_equal_runs(last_of(root, 1), last_of(whole))


def test_a_run_that_has_reached_its_epochs_is_an_error_before_anything_is_prepared(sung, whole, root):
    with pytest.raises(UserError, match=r"has 2 epochs behind it, and --trainer\.max_epochs is 2"):
        go_on(sung, root, "--ckpt_path", str(last_of(whole)))
    words = command(
        sung, root, EPOCHS, "--model.lr_decay=0.5", "--model.lr_decay_d=0.25", "--ckpt_path", str(last_of(whole))
    )
    done = subprocess.run([sys.executable, "-m", "piper_train", *words], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 2 and "use --trainer.max_epochs 3 or more" in done.stderr
    assert "Traceback" not in done.stderr and not root.exists()


@pytest.mark.parametrize("quality", ["x-low", "low", "medium", "high"])
def test_a_quality_s_yaml_makes_that_voice(tmp_path, monkeypatch, quality):
    from piper_train.quality import quality_of
    from piper_train.training.command import Fit

    monkeypatch.setattr(Fit, "fit", lambda self, **options: None)
    config = REPOSITORY / "configs" / "piper" / f"{quality}.yaml"
    fitting = Fit(command(tmp_path / "no.csv", tmp_path, "--config", str(config), small=()))
    assert quality_of(fitting.model.config) == fitting.datamodule.request.quality == quality
    assert fitting.datamodule.request.sample_rate == fitting.model.config.sample_rate


@pytest.mark.parametrize("joined", [True, False])
def test_the_guide_s_command_is_understood_with_either_spelling(tmp_path, joined):
    """All its keys but for the two GPUs; the data set is not there, which is found after the model is made."""
    options = {
        "data.config_path": tmp_path / "config.json", "data.voice_name": "my_voice", "data.csv_path": tmp_path / "no.csv",
        "data.audio_dir": tmp_path / "wavs", "model.sample_rate": 22050, "data.espeak_voice": "ru",
        "data.cache_dir": tmp_path / ".cache", "data.batch_size": 80, "trainer.devices": 1, "trainer.accelerator": "cpu",
        "trainer.strategy": "ddp_find_unused_parameters_true", "trainer.default_root_dir": tmp_path,
    }  # fmt: skip
    words = [[f"--{name}={value}"] if joined else [f"--{name}", str(value)] for name, value in options.items()]
    with pytest.raises(UserError, match=r"there is no .*no\.csv"):
        main(["fit", *(word for pair in words for word in pair)])


def test_other_options_than_the_checkpoint_s_are_an_error(sung, whole, root):
    small = tuple(word for word in SMALL if "n_layers" not in word)
    with pytest.raises(UserError, match=r"model\.n_layers: 2 there, 3 here"):
        fit(sung, root, "--model.n_layers=3", "--ckpt_path", str(last_of(whole)), small=small)
    with pytest.raises(UserError, match=r"model\.lr_decay: 0\.5 there, 0\.9 here"):
        fit(sung, root, "--model.lr_decay=0.9", "--ckpt_path", str(last_of(whole)))


def test_a_resumed_run_needs_no_model_options_and_no_start(sung, whole, root):
    gone = ("--model.warmstart_ckpt", "deleted.ckpt")
    assert fit(sung, root, "--trainer.max_epochs=3", "--ckpt_path", str(last_of(whole)), *gone, small=()) == 0
    content = read(last_of(root))
    assert content["hyper_parameters"]["lr_decay"] == 0.5 and content["piper_train"]["epochs_done"] == 3


def test_another_batch_size_begins_the_broken_off_epoch_anew(sung, root, monkeypatch, caplog):
    watch = VitsModule._watch

    def interrupted(self, values):
        signal.raise_signal(signal.SIGINT)
        return watch(self, values)

    with monkeypatch.context() as patch:
        patch.setattr(VitsModule, "_watch", interrupted)
        assert fit(sung, root, EPOCHS) == 130
    messages = told(monkeypatch)
    assert fit(sung, root, "--trainer.max_epochs=1", "--data.batch_size=3", "--ckpt_path=last") == 0
    assert any("clips of a batch 3 instead of 4" in line for line in messages)
    assert any("epoch 0, which was broken off, begins anew" in line for line in messages)
    record = read(last_of(root))["piper_train"]
    assert (record["epochs_done"], record["batches_done"]) == (1, 0)
    assert read(last_of(root))["global_step"] == 2 + 2 * 3  # one batch of before, three of the whole epoch


def told(monkeypatch):
    """The log's lines from here on."""
    import logging

    messages = []

    class Listener(logging.Handler):
        def emit(self, record):
            messages.append(record.getMessage())

    listener = Listener()
    monkeypatch.setattr("piper_train.training.command.setup", lambda: None)
    for name in ("piper_train", "fish_speech"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "handlers", [listener])
        monkeypatch.setattr(logger, "level", logging.INFO)
        logger.manager._clear_cache()
    return messages


def test_training_without_an_end_says_so(sung, root, monkeypatch):
    messages = told(monkeypatch)
    watch = VitsModule._watch

    def interrupted(self, values):
        signal.raise_signal(signal.SIGINT)
        return watch(self, values)

    monkeypatch.setattr(VitsModule, "_watch", interrupted)
    assert fit(sung, root) == 130
    assert any("training has no end" in line for line in messages)


def test_a_rate_that_drives_the_weights_away_ends_with_a_clear_message(sung, root):
    with pytest.raises(UserError, match=r"run out of numbers|no numbers any more") as error:
        fit(sung, root, EPOCHS, "--model.learning_rate=1e30")
    assert "--model.learning_rate" in error.value.fix


@pytest.mark.parametrize("who", ["generator", "discriminators"])
def test_gradients_that_are_no_numbers_never_reach_the_weights(sung, root, monkeypatch, who):
    """A root at 0: the loss is finite, its slope is not."""
    losses_of, states = training_module.losses_of, []

    def steep(generator, judges, *others):
        losses = losses_of(generator, judges, *others)
        network = generator if who == "generator" else judges[""]
        states.append((network, {name: tensor.clone() for name, tensor in network.state_dict().items()}))
        side, name = (losses.generator, "mel") if who == "generator" else (losses.discriminator, "disc")
        side[name] = side[name] + (next(network.parameters()) * 0).sum().sqrt()
        return losses

    monkeypatch.setattr(training_module, "losses_of", steep)
    with pytest.raises(UserError, match=f"epoch 0, batch 0: the gradient of the {who} is nan"):
        fit(sung, root, EPOCHS)
    network, before = states[0]
    assert len(states) == 1 and all(torch.equal(before[name], now) for name, now in network.state_dict().items())
    assert not list(root.rglob("*.ckpt"))


def test_memory_that_runs_out_is_told_and_what_was_learnt_is_saved(sung, whole, root, monkeypatch):
    losses_of = training_module.losses_of
    calls = []

    def too_large(*arguments):
        calls.append(1)
        if len(calls) == 5:  # two batches and a validation, a batch, and now: the second batch of the second epoch
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return losses_of(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training_module, "losses_of", too_large)
        with pytest.raises(UserError, match="memory ran out in epoch 1, batch 1") as error:
            go_on(sung, root)
    assert "lower --data.batch_size" in error.value.fix and str(last_of(root)) in error.value.fix
    assert read(last_of(root))["piper_train"]["batches_done"] == 1
    assert go_on(sung, root, "--ckpt_path=last") == 0
    assert_equal_runs(last_of(root, 1), last_of(whole))


def test_a_full_disk_leaves_the_last_checkpoint_whole(sung, whole, root, monkeypatch):
    import errno

    from fish_speech import checkpoint

    write, written = checkpoint._WholeWriter.write, []
    checkpoint_size = last_of(whole).stat().st_size

    def full(self, data):
        written.append(len(memoryview(data).cast("B")))
        if sum(written) > 1.5 * checkpoint_size:  # in the middle of the second checkpoint
            self.error = OSError(errno.ENOSPC, "No space left on device")
            raise self.error
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint._WholeWriter, "write", full)
        with pytest.raises(OSError, match="No space left"):
            go_on(sung, root)
    assert read(last_of(root))["piper_train"]["epochs_done"] == 1
    assert {path.name for path in last_of(root).parent.iterdir() if path.name.startswith(".partial")} == set()
    assert go_on(sung, root, "--ckpt_path=last") == 0
    assert_equal_runs(last_of(root, 1), last_of(whole))


def test_a_published_checkpoint_by_ckpt_path_is_a_start_from_epoch_0(sung, root, small_piper_config, monkeypatch):
    path = write_published(root.parent / "published.ckpt", small_piper_config)
    messages = told(monkeypatch)
    assert fit(sung, root, "--trainer.max_epochs=1", "--ckpt_path", str(path), small=SMALL[-1:]) == 0
    assert any("not made by this training" in line for line in messages)
    assert any(line.startswith("warm start from") for line in messages)
    content = read(last_of(root))
    assert content["epoch"] == 0 and content["global_step"] == 4
    assert content["hyper_parameters"]["hidden_channels"] == 32
    start = read_published(path)
    moved = [(content["state_dict"][name] - tensor).abs().max() for name, tensor in start.items()]
    assert max(moved) <= 2 * 2e-4 * 1.5  # two steps of at most about the learning rate each


def read_published(path):
    return torch.load(path, weights_only=False)["state_dict"]


def test_a_checkpoint_of_another_quality_is_refused_by_either_way(sung, root, small_piper_config):
    path = write_published(root.parent / "published.ckpt", small_piper_config, upsample_initial_channel=64)
    for way in ("--ckpt_path", "--model.warmstart_ckpt"):
        with pytest.raises(UserError, match=r"decoder 64.* decoder 32"):
            fit(sung, root, "--trainer.max_epochs=1", way, str(path))


def test_bfloat16_training_is_finite_and_close_to_float32(sung, whole, root):
    assert go_on(sung, root, "--trainer.max_epochs=1", "--trainer.precision=bf16-mixed") == 0
    content = read(last_of(root))
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in content["state_dict"].values())
    mel = [float(name.split("val_mel=")[1][:6]) for name in sorted(
        path.name for path in [*last_of(root).parent.glob("epoch=0*"), *last_of(whole).parent.glob("epoch=0*")]
    )]  # fmt: skip
    assert abs(mel[0] - mel[1]) < 0.05 * mel[1]  # bfloat16 keeps 8 bits: 0.4 % of each value


def test_gathered_batches_make_one_step_near_that_of_all_their_clips(sung, root, monkeypatch):
    """Seven clips at once, or three and then four: the guide's answer to lack of memory."""
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, p=0.5, training=True, inplace=False: x)
    one = "--trainer.max_epochs=1"
    assert fit(sung, root / "a", one, "--data.batch_size=7") == 0
    assert fit(sung, root / "b", one, "--data.batch_size=4", "--trainer.accumulate_grad_batches=2") == 0
    a, b = (read(last_of(root / name)) for name in ("a", "b"))
    assert a["global_step"] == b["global_step"] == 2
    assert a["piper_train"]["batches_done"] == b["piper_train"]["batches_done"] == 0
    for network, rate in (("model_g.", 2e-4), ("model_d.", 1e-4)):
        names = [name for name in a["state_dict"] if name.startswith(network)]
        apart = sum(float((a["state_dict"][name] - b["state_dict"][name]).abs().sum()) for name in names)
        # Clips weigh 1/6 and 1/8 instead of 1/7. The first step of AdamW is the gradient's sign: 2 rates where it turns.
        assert apart / rate / sum(a["state_dict"][name].numel() for name in names) < 0.4


def test_four_clips_train_without_any_held_out(tmp_path, root):
    csv = write_sung(tmp_path / "few", 4)
    assert fit(csv, root, "--trainer.max_epochs=1") == 0
    assert [path.name for path in last_of(root).parent.iterdir()] == ["last.ckpt"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(root / "lightning_logs" / "version_0"))
    events.Reload()
    assert len(events.Tags()["audio"]) == 2 and "val_mel" not in events.Tags()["scalars"]


def test_several_speakers_and_spectrogram_judges_train(tmp_path, root):
    csv = write_sung(tmp_path / "several", 6, speakers=2)
    more = ("--model.num_speakers=2", "--model.use_mrd=true", "--model.gin_channels=16")
    assert fit(csv, root, "--trainer.max_epochs=1", *more) == 0
    content = read(last_of(root))
    assert content["state_dict"]["model_g.emb_g.weight"].shape == (2, 16)
    assert any(name.startswith("model_mrd.") for name in content["state_dict"])
    assert content["voice_config"]["num_speakers"] == 2 and len(content["voice_config"]["speaker_id_map"]) == 2


def test_one_batch_typed_as_1_is_one_batch_and_nothing_is_saved_where_that_is_asked_for(sung, root, monkeypatch):
    messages = told(monkeypatch)
    monkeypatch.setattr(fit_command, "ProgressLines", functools.partial(ProgressLines, every_s=0.0))
    one = ("--trainer.limit_train_batches=1", "--trainer.enable_checkpointing=false", EPOCHS)
    assert fit(sung, root, *one, "--trainer.callbacks=lightning.pytorch.callbacks.LearningRateMonitor") == 0
    assert not list(root.rglob("*.ckpt")) and "nothing was saved" in messages
    ends = [line for line in messages if "  step " in line]
    assert [line.split("  ")[:2] for line in ends] == [["epoch 0", "step 2"], ["epoch 1", "step 4"]]
    within = [line for line in messages if "  batch 1/1  " in line]
    assert len(within) == 2 and ends[1].endswith("0:00:00 left")
    assert all(line.endswith(" left") and "batches/s" in line for line in [*ends, *within])


def test_a_quick_try_leaves_nothing_and_an_earlier_run_s_torn_files_go(sung, root):
    torn = root / "lightning_logs" / "version_0" / "checkpoints" / ".partial-999999999-last.ckpt"
    torn.parent.mkdir(parents=True)
    torn.touch()
    assert fit(sung, root, "--trainer.fast_dev_run=true") == 0
    assert [path for path in root.rglob("*") if path.is_file()] == ([torn] if sys.platform == "win32" else [])


def test_a_run_without_a_log_ends_when_its_time_is_up_and_says_so_when_resumed(sung, root):
    timed = (EPOCHS, "--trainer.logger=false", "--trainer.max_time=00:00:00:01")
    slow = pytest.MonkeyPatch()
    with slow.context() as patch:
        watch = VitsModule._watch
        patch.setattr(VitsModule, "_watch", lambda self, values: (time.sleep(1.1), watch(self, values))[1])
        assert fit(sung, root, *timed) == 0
    last = root / "checkpoints" / "last.ckpt"
    assert read(last)["piper_train"]["batches_done"] == 1
    with pytest.raises(UserError, match="max_time is used up"):
        fit(sung, root, *timed, "--ckpt_path=last")


@pytest.mark.parametrize(
    ("option", "told_why"),
    [
        ("--trainer.val_check_interval=1000", "less than or equal to the number of the training batches"),
        ("--trainer.accumulate_grad_batches=0", "a step needs a batch"),
        ("--trainer.max_epochs=-5", "max_epochs"),
    ],
)
def test_trainer_options_that_cannot_be_are_errors_of_a_line(sung, root, option, told_why):
    with pytest.raises(UserError, match=told_why):
        fit(sung, root, option)


def test_16_mixed_leaves_out_steps_whose_gradients_are_too_large_and_goes_on(sung, root, monkeypatch):
    """The way of a GPU, with torch's CPU scaler: a scale so large that the first steps overflow. Resumed, it is kept."""
    from lightning.pytorch.plugins import MixedPrecision

    make = fit_command.Fit._instantiate_trainer
    scalers = []

    def with_scaler(self, config, callbacks):
        scalers.append(torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-20))
        config["plugins"] = [*config["plugins"], MixedPrecision("16-mixed", "cpu", scalers[-1])]
        return make(self, config, callbacks)

    monkeypatch.setattr(fit_command.Fit, "_instantiate_trainer", with_scaler)
    assert go_on(sung, root / "whole") == 0
    content = read(last_of(root / "whole"))
    assert scalers[0].get_scale() < 2.0**40  # a step was left out
    assert all(tensor.isfinite().all() for tensor in content["state_dict"].values())
    assert all(len(state["state"]) > 0 for state in content["optimizer_states"])  # and another was made, by both
    assert content["MixedPrecision"]["scale"] == scalers[0].get_scale()
    assert go_on(sung, root / "parts", "--trainer.max_epochs=1") == 0
    assert go_on(sung, root / "parts", "--ckpt_path", str(last_of(root / "parts"))) == 0
    assert_equal_runs(last_of(root / "parts", 1), last_of(root / "whole"))
    assert read(last_of(root / "parts", 1))["MixedPrecision"] == content["MixedPrecision"]
