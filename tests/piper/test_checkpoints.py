"""Checkpoints of Piper voices: published ones are read as they are, and nothing in a file runs."""

import inspect
import os
import pathlib
import pickle
import zipfile
from argparse import Namespace

import pytest
import torch

from fish_speech.errors import UserError
from piper_train.checkpoints import RECORD, VOICE_CONFIG, plain, read_checkpoint
from piper_train.models.config import VitsConfig
from piper_train.models.synthesizer import Synthesizer
from piper_train.training.continuing import defaults_of, options_of, refuse_changes
from piper_train.training.module import VitsModule
from piper_train.training.warm_start import describe

# What the old trainer stored beside the model's own values (piper.md 5).
OLD_EXTRAS = {
    "sample_bytes": 2, "channels": 1, "seed": 1234, "num_workers": 1, "num_test_examples": 5, "validation_split": 0.0,
    "max_phoneme_ids": None, "quality": "medium", "checkpoint_epochs": 1, "resume_from_single_speaker_checkpoint": None,
    "accelerator": "gpu", "devices": "1", "precision": "32", "max_epochs": 10000, "strategy": None, "logger": True,
    "checkpoint_callback": None, "gradient_clip_val": None,
}  # fmt: skip


def write_published(path, small, epoch=2164, extra=None, **model):
    """A small checkpoint as the old trainer wrote it: paths in its hyperparameters, two optimizers, Lightning 1.7."""
    config = VitsConfig.from_mapping({**small, **model})
    torch.manual_seed(3)
    state = {f"model_g.{name}": tensor for name, tensor in Synthesizer(config).state_dict().items()}
    stored = {
        name: value
        for name, value in config.to_mapping().items()
        if name not in ("mel_channels", "use_sdp")  # not all of ours are there
    }
    torch.save(
        {
            "epoch": epoch,
            "global_step": 1355540,
            "pytorch-lightning_version": "1.7.7",
            "state_dict": state,
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "/home/x/last.ckpt"}},
            "optimizer_states": [],
            "lr_schedulers": [],
            "hparams_name": "kwargs",
            "hyper_parameters": {
                **stored,
                **OLD_EXTRAS,
                "dataset": [pathlib.PosixPath("/home/x/dataset.jsonl")],
                "dataset_dir": pathlib.PosixPath("/home/x/training"),
                "default_root_dir": pathlib.PurePosixPath("/home/x"),
                **(extra or {}),
            },
        },
        path,
    )
    return path


@pytest.fixture()
def published(tmp_path, small_piper_config):
    return write_published(tmp_path / "epoch=2164-step=1355540.ckpt", small_piper_config)


def test_a_published_checkpoint_is_read_with_its_paths_as_text(published, small_piper_config):
    checkpoint = read_checkpoint(published)
    assert checkpoint.hyper_parameters["dataset"] == ["/home/x/dataset.jsonl"]
    assert checkpoint.hyper_parameters["dataset_dir"] == "/home/x/training"
    assert type(checkpoint.hyper_parameters["dataset_dir"]) is str
    assert checkpoint.epoch == 2164 and checkpoint.global_step == 1355540
    assert not checkpoint.is_own and checkpoint.epochs_done == 0 and checkpoint.voice_config is None
    assert checkpoint.model_config() == VitsConfig.from_mapping(small_piper_config)


def test_the_generator_of_a_published_checkpoint_loads_strictly(published):
    checkpoint = read_checkpoint(published)
    model = Synthesizer(checkpoint.model_config())
    model.load_state_dict(checkpoint.generator())


def test_a_checkpoint_without_hyperparameters_tells_its_sizes_by_its_shapes(tmp_path, small_piper_config):
    config = VitsConfig.from_mapping({**small_piper_config, "num_speakers": 3, "n_layers": 3, "num_symbols": 77})
    state = {f"model_g.{name}": tensor for name, tensor in Synthesizer(config).state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "bare.ckpt")
    checkpoint = read_checkpoint(tmp_path / "bare.ckpt")
    found = checkpoint.model_config()
    for name in ("num_speakers", "n_layers", "num_symbols", "hidden_channels", "upsample_initial_channel", "resblock"):
        assert getattr(found, name) == getattr(config, name), name
    assert not checkpoint.knows_sample_rate


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class EvilPath:
    """Builds a real pathlib.Path and reads by it, under the cover of an allowed class."""

    def __reduce__(self):
        return getattr, (pathlib.PosixPath, "touch")


@pytest.mark.parametrize("place", ["hyper_parameters", "state_dict", "callbacks"])
def test_a_malicious_checkpoint_is_refused_and_never_run(tmp_path, published, place):
    content = torch.load(published, weights_only=False)
    content[place]["evil"] = Evil(tmp_path / "run")
    torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="is refused"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "run").exists()


def test_attributes_of_allowed_classes_cannot_be_reached(tmp_path, published):
    content = torch.load(published, weights_only=False)
    content["hyper_parameters"]["evil"] = EvilPath()
    torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="is refused"):
        read_checkpoint(tmp_path / "evil.ckpt")


def test_other_classes_than_paths_are_refused(tmp_path, published):
    content = torch.load(published, weights_only=False)
    content["hyper_parameters"]["arguments"] = Namespace(batch_size=3)
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="is refused"):
        read_checkpoint(tmp_path / "other.ckpt")


def test_the_leave_for_paths_ends_with_the_reading(published):
    read_checkpoint(published)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(published, weights_only=True)


def test_paths_of_windows_and_of_python_3_13_are_read_everywhere(tmp_path, published):
    content = torch.load(published, weights_only=False)
    content["hyper_parameters"]["dataset_dir"] = "STAND-IN"
    torch.save(content, tmp_path / "text.ckpt", _use_new_zipfile_serialization=True)
    for module, name in (
        ("pathlib", "WindowsPath"),
        ("pathlib._local", "PosixPath"),
        ("pathlib._local", "WindowsPath"),
    ):
        # the text's place takes a pickled call of the class with two parts
        call = b"c" + f"{module}\n{name}\n".encode() + b"(X\x01\x00\x00\x00aX\x01\x00\x00\x00btR"
        old = b"X\x08\x00\x00\x00STAND-IN"
        target = tmp_path / f"{module}-{name}.ckpt"
        with zipfile.ZipFile(tmp_path / "text.ckpt") as source, zipfile.ZipFile(target, "w") as made:
            for entry in source.namelist():
                data = source.read(entry)
                if entry.endswith("data.pkl"):
                    assert data.count(old) == 1
                    data = data.replace(old, call)
                made.writestr(entry, data)
        separator = "\\" if name == "WindowsPath" else "/"
        assert read_checkpoint(target).hyper_parameters["dataset_dir"] == f"a{separator}b"


def test_a_checkpoint_of_ours_brings_its_record_and_the_voice(tmp_path, published):
    content = torch.load(published, weights_only=False)
    content |= {RECORD: {"epochs_done": 7}, VOICE_CONFIG: {"audio": {"sample_rate": 16000}}}
    del content["hyper_parameters"]["sample_rate"]
    torch.save(content, tmp_path / "own.ckpt")
    checkpoint = read_checkpoint(tmp_path / "own.ckpt")
    assert checkpoint.is_own and checkpoint.epochs_done == 7
    assert checkpoint.model_config().sample_rate == 16000


@pytest.mark.parametrize("count", ["4", -4, None, [4], torch.ones(2)])
def test_what_a_checkpoint_says_of_itself_may_be_nonsense(tmp_path, published, count):
    content = torch.load(published, weights_only=False)
    content |= {RECORD: {"epochs_done": count}, VOICE_CONFIG: {"audio": [16000]}, "epoch": count}
    torch.save(content, tmp_path / "odd.ckpt")
    checkpoint = read_checkpoint(tmp_path / "odd.ckpt")
    assert checkpoint.is_own and checkpoint.epochs_done == checkpoint.epoch == 0
    assert checkpoint.model_config().sample_rate == 22050


def test_values_in_each_other_without_end_are_cut_off():
    endless = [1]
    endless.append({"again": endless})
    found = str(plain(endless))
    assert found.startswith("[1, {'again': [1, {'again':") and len(found) < 1000


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"state_dict": {"encoder.w": torch.zeros(2)}}, [1, 2]])
def test_files_that_are_no_checkpoint_of_a_voice_are_told_so(tmp_path, content):
    torch.save(content, tmp_path / "x.ckpt")
    with pytest.raises(UserError):
        read_checkpoint(tmp_path / "x.ckpt")


def test_torn_and_missing_files_are_told_so(tmp_path, published):
    data = published.read_bytes()
    (tmp_path / "torn.ckpt").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.ckpt").write_text("no checkpoint", encoding="utf-8")
    for name in ("torn.ckpt", "text.ckpt", "missing.ckpt"):
        with pytest.raises(UserError):
            read_checkpoint(tmp_path / name)


def test_weights_that_are_no_generator_are_told_so(tmp_path):
    torch.save({"state_dict": {"model_g.enc_p.emb.weight": torch.zeros(3, 4)}}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match="not a checkpoint of a Piper voice"):
        read_checkpoint(tmp_path / "x.ckpt").model_config()


def test_options_that_differ_from_a_foreign_checkpoint_are_named(published):
    checkpoint = read_checkpoint(published)
    stored = options_of(checkpoint)
    with pytest.raises(UserError, match=r"model\.hidden_channels: 32 there, 192 here"):
        refuse_changes(checkpoint, stored, {**stored, "hidden_channels": 192})
    refuse_changes(checkpoint, stored, {**stored, "num_speakers": 4, "segment_size": 2048})


def test_a_checkpoint_brings_its_architecture_as_defaults(published):
    defaults = defaults_of(options_of(read_checkpoint(published)), inspect.signature(VitsModule).parameters)
    assert defaults["model.hidden_channels"] == 32 and defaults["data.num_symbols"] == 256
    assert "model.num_symbols" not in defaults and "model.sample_bytes" not in defaults


def test_qualities_are_described_by_name():
    assert describe(VitsConfig()) == "medium (22050 Hz)"
    assert describe(VitsConfig(sample_rate=16000)) == "low (16000 Hz)"
