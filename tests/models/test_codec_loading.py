"""Codecs of every architecture keep to one protocol, and files of codecs are known for what they are."""

from __future__ import annotations

import gc
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from fish_speech.errors import UserError
from fish_speech.models import FireflyCodec, FireflyConfig, codec_config, codec_loading, load_codec, make_codec_config
from fish_speech.models.codec_loading import ARCHITECTURES, architecture_of
from fish_speech.models.shapes import shapes_only
from fish_speech.versions import VERSIONS

from ..conftest import CODEC_FILE, REPO, SMALL_CODEC, SMALL_S1_CODEC

SHAPES = {"firefly": SMALL_CODEC, "modded_dac": SMALL_S1_CODEC}


@pytest.fixture()
def weights(small_base, small_s1_base):
    """Weights of a small codec of each architecture, with a yaml beside them."""
    return {"firefly": small_base / CODEC_FILE, "modded_dac": small_s1_base / "codec.pth"}


def test_every_architecture_has_a_small_codec_here_and_every_version_a_config():
    assert set(SHAPES) == set(ARCHITECTURES)
    for version in VERSIONS.values():
        config = make_codec_config(codec_config(version.codec_config), version.codec_config)
        assert architecture_of(config).config is type(config)


@pytest.mark.parametrize(
    ("name", "sizes", "frames"),
    [
        ("firefly_gan_vq", (1000,) * 8, {2047: 0, 2048: 1, 44100: 21}),
        ("minnow", (1000,) * 6, {799: 0, 800: 1, 16000: 20}),
        ("modded_dac_vq", (4096, *[1024] * 9), {1: 1, 2048: 1, 2049: 2, 44100: 22}),
    ],
)
def test_a_config_tells_what_its_codes_are(name, sizes, frames):
    config = make_codec_config(codec_config(name), name)
    assert (config.codebook_sizes, config.codebooks) == (sizes, len(sizes))
    assert {samples: config.frames_of(samples) for samples in frames} == frames
    assert config.frame_rate == config.sample_rate / config.samples_per_frame
    assert type(config).from_mapping(config.to_mapping()) == config
    assert make_codec_config(yaml.safe_load(yaml.safe_dump(plain(config.to_mapping()))), name) == config


def plain(value):
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return list(map(plain, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("kind", SHAPES)
def test_a_codec_keeps_to_the_protocol(weights, kind):
    codec = load_codec(weights[kind])
    config = codec.config
    assert architecture_of(config).name == kind and codec.codebook_size == max(codec.codebook_sizes)
    for name in ("sample_rate", "samples_per_frame", "frame_rate", "codebooks", "codebook_sizes"):
        assert getattr(codec, name) == getattr(config, name)
    draw = torch.Generator().manual_seed(0)
    clips = [0.2 * torch.randn(size, generator=draw) for size in (config.least_samples, 5000, 16001)]
    together = codec.encode_clips(clips)
    for clip, codes in zip(clips, together, strict=True):
        assert codes.dtype == torch.int64 and codes.shape == (codec.codebooks, config.frames_of(len(clip)))
        assert torch.equal(codec.encode_clips([clip])[0], codes)
        assert codes.min() >= 0 and (codes.max(dim=1).values < torch.tensor(codec.codebook_sizes)).all()
        sound = codec.decode(codes[None])
        assert sound.shape == (1, 1, codes.size(1) * codec.samples_per_frame) and sound.dtype == torch.float32
        size = min(len(clip), sound.size(2))
        assert torch.isfinite(codec.log_mel.distance(clip[None, :size], sound[0, :, :size]))
    decoder, codes = codec.piece_decoder(), together[-1][None]
    pieces = torch.cat([decoder(piece) for piece in codes.split(5, dim=2)], dim=1)
    torch.testing.assert_close(pieces, codec.decode(codes)[:, 0], rtol=0, atol=2e-4)  # as the golden answers allow
    assert codec.piece_frames > 0 and codec.head_dtype == torch.float32


@pytest.mark.parametrize("kind", SHAPES)
def test_a_device_that_a_codec_has_left_keeps_no_folded_weights_of_it(weights, kind):
    codec = load_codec(weights[kind])
    decoder = codec.piece_decoder()
    folded = weakref.ref(decoder.weights)
    codec.to("cpu")
    assert codec.piece_decoder().weights is decoder.weights  # nothing moved, nothing is made anew
    codec.to("meta")
    del decoder
    gc.collect()
    assert folded() is None


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("wrap", ["state_dict", "generator", "both"])
def test_full_checkpoints_and_stored_tables_are_read_as_the_plain_weights(weights, tmp_path, kind, wrap):
    plain_weights = torch.load(weights[kind], weights_only=True)
    content = dict(plain_weights)
    if wrap != "state_dict":
        content = {f"generator.{name}": tensor for name, tensor in content.items()}
        content["discriminator.weight"] = torch.zeros(3)
    content = {"state_dict": content, "step": 7} if wrap != "generator" else content
    torch.save(content, tmp_path / "wrapped.pth")
    loaded = load_codec(tmp_path / "wrapped.pth", SHAPES[kind]).state_dict()
    assert set(loaded) <= set(plain_weights) and not any(name.endswith(("freqs_cis", "mask")) for name in loaded)
    for name, tensor in loaded.items():
        assert torch.equal(tensor, plain_weights[name])


@pytest.mark.parametrize("kind", SHAPES)
def test_weights_without_a_yaml_are_known_by_their_names(weights, tmp_path, monkeypatch, kind):
    row = replace(ARCHITECTURES[kind], usual=str(weights[kind].with_suffix(".yaml")))  # the released one is large
    monkeypatch.setitem(codec_loading.ARCHITECTURES, kind, row)
    monkeypatch.setattr(codec_loading, "FIREFLY", codec_loading.ARCHITECTURES["firefly"])
    shutil.copyfile(weights[kind], tmp_path / "codec.pth")
    assert architecture_of(load_codec(tmp_path / "codec.pth").config).name == kind


@pytest.mark.parametrize("kind", SHAPES)
def test_weights_of_another_architecture_are_named_as_what_they_are(weights, tmp_path, kind):
    (other,) = set(SHAPES) - {kind}
    alone = shutil.copyfile(weights[kind], tmp_path / "codec.pth")
    with pytest.raises(UserError, match="does not fit the codec config") as caught:
        load_codec(alone, SHAPES[other])
    assert caught.value.why == f"these are weights of a {kind} codec, the config describes a {other} one"


@pytest.mark.parametrize("config", ["firefly_gan_vq", "modded_dac_vq"])
def test_the_yaml_beside_weights_is_named_where_another_config_was_given(config):
    with pytest.raises(UserError) as caught:
        load_codec(REPO / "checkpoints/minnow/codec.pth", codec_config(config))
    beside = str(REPO / "checkpoints/minnow/codec.yaml")
    assert caught.value.why == f"these are the weights of the codec {beside}" and beside in caught.value.fix


def test_weights_of_a_released_codec_are_named_with_their_model_version(tmp_path):
    with shapes_only():
        released = FireflyCodec(FireflyConfig())
    shapes = {name: torch.zeros(tensor.shape, dtype=torch.int8) for name, tensor in released.state_dict().items()}
    torch.save(shapes, tmp_path / "codec.pth")
    for config in (codec_config("minnow"), SMALL_S1_CODEC):
        with pytest.raises(UserError) as caught:
            load_codec(tmp_path / "codec.pth", config)
        assert caught.value.why == "these are the weights of the codec firefly_gan_vq, of model version 1.5"


def test_weights_of_the_same_architecture_and_unknown_shape_are_told_by_their_tensors(weights, tmp_path):
    for kind, config in (("firefly", "minnow"), ("modded_dac", "modded_dac_vq")):
        alone = shutil.copyfile(weights[kind], tmp_path / f"{kind}.pth")
        with pytest.raises(UserError, match="does not fit the codec config") as caught:
            load_codec(alone, codec_config(config))
        assert "shape" in caught.value.why


def test_a_text_to_semantic_model_is_no_codec(small_base, small_s1_base):
    for folder in (small_base, small_s1_base):
        for config in (None, SMALL_CODEC, SMALL_S1_CODEC):
            with pytest.raises(UserError) as caught:
                load_codec(folder / "model.pth", config)
            assert caught.value.why == "it holds a text-to-semantic model, no codec"


@pytest.mark.parametrize("kind", SHAPES)
def test_weights_with_nan_are_refused(weights, tmp_path, kind):
    state = torch.load(weights[kind], weights_only=True)
    name = next(name for name in state if name.startswith("quantizer.") and name.endswith("bias"))
    state[name][0] = np.nan
    torch.save(state, tmp_path / "codec.pth")
    with pytest.raises(UserError, match="NaN"):
        load_codec(tmp_path / "codec.pth", SHAPES[kind])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("architecture: encodec\n", "its architecture is 'encodec'; known: firefly, modded_dac"),
        ("architecture: [modded_dac]\n", "known: firefly, modded_dac"),
        ("- a\n", "it holds no keys"),
        ("", "it holds no keys"),
        ("a: [\n", "not readable yaml"),
        ("architecture: modded_dac\nencoder_rates: [2, 4]\n", "does not describe a modded_dac codec"),
        ("architecture: modded_dac\nbackbone: {}\n", "does not describe a modded_dac codec"),
        ("encoder_rates: [2, 4, 8, 8]\n", "does not describe a firefly codec"),
        ("quantizer: {n_groups: 7}\n", "does not describe a firefly codec"),
        ("quantizer: 3\n", "does not describe a firefly codec"),
        ("architecture: modded_dac\nquantizer: 3\n", "does not describe a modded_dac codec"),
    ],
)
def test_a_yaml_that_describes_no_codec_is_refused_by_name(tmp_path, content, said):
    (tmp_path / "odd.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        codec_config(tmp_path / "odd.yaml")
    assert "odd.yaml" in str(caught.value) and said in str(caught.value)
