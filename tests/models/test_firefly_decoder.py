"""The folded decoder follows its codec: new weights, rows of a batch, lengths, precision."""

from __future__ import annotations

import copy

import pytest
import torch

from fish_speech.models import FireflyCodec, FireflyConfig, folded_conv, load_codec

from ..conftest import REPO


@pytest.fixture()
def codec(golden, fill) -> FireflyCodec:
    return fill(FireflyCodec(FireflyConfig.from_mapping(golden("codec_tiny.json")["config"]))).eval()


@pytest.fixture()
def codes(codec) -> torch.Tensor:
    shape = (2, codec.codebooks, 21)
    return torch.randint(0, codec.codebook_size, shape, generator=torch.Generator().manual_seed(3))


def by_modules(codec: FireflyCodec, codes: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return codec.head(codec.quantizer.decode(codes))


@pytest.mark.parametrize("way", ["in place", "loaded", "replaced", "copied", "trained"])
def test_new_weights_are_heard_at_once(codec, codes, way):
    before = codec.decode(codes)
    weight = codec.head.ups[0].conv.parametrizations.weight
    if way == "in place":
        with torch.no_grad():
            weight.original0.mul_(1.5)
    elif way == "loaded":
        codec.load_state_dict({name: 1.1 * tensor for name, tensor in codec.state_dict().items()})
    elif way == "replaced":
        weight.original0 = torch.nn.Parameter(weight.original0.detach() * 1.5)
    elif way == "copied":
        codec = copy.deepcopy(codec)
        with torch.no_grad():
            codec.quantizer.upsample[0][1].dwconv.conv.weight.mul_(3)
            codec.head.conv_post.conv.bias.add_(0.1)
    else:
        optimizer = torch.optim.SGD(codec.head.parameters(), lr=0.1)
        codec.head(codec.quantizer.decode(codes)).square().sum().backward()
        optimizer.step()
    after = codec.decode(codes)
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(after, by_modules(codec, codes), rtol=0, atol=1e-5)


def test_weights_are_folded_once(codec, codes):
    assert codec.piece_decoder().weights is codec.piece_decoder().weights
    assert not any("folded" in name for name in codec.state_dict())


def test_rows_of_a_batch_are_decoded_up_to_their_lengths(codec, codes):
    lengths = torch.tensor([21, 9])
    made, whole = codec.decode(codes, lengths), codec.decode(codes)
    end = 9 * codec.samples_per_frame
    assert torch.equal(made[0], whole[0]) and not made[1, :, end:].any()
    torch.testing.assert_close(made[1, :, :end], whole[1, :, :end], rtol=0, atol=1e-5)
    assert codec.decode(codes[..., :0]).shape == (2, 1, 0)


def test_decoding_works_in_and_out_of_inference_mode(codec, codes):
    with torch.inference_mode():
        inside = codec.decode(codes)
    assert torch.equal(codec.decode(codes), inside)
    with torch.inference_mode():
        made = FireflyCodec(codec.config).eval()
        made.load_state_dict(codec.state_dict())
    assert torch.equal(made.decode(codes), inside)


def test_without_packed_weights_the_sound_is_the_same(codec, codes, monkeypatch):
    packed = codec.decode(codes)
    monkeypatch.setattr(folded_conv, "_has_packing", lambda weight: False)
    plain = copy.deepcopy(codec)
    assert not plain.piece_decoder().weights.pre.packed
    torch.testing.assert_close(plain.decode(codes), packed, rtol=0, atol=1e-5)


def test_bfloat16_is_taken_only_when_asked_for_and_is_near():
    codec = load_codec(REPO / "checkpoints/minnow/codec.pth")
    codes = torch.randint(0, codec.codebook_size, (1, codec.codebooks, 24), generator=torch.Generator().manual_seed(1))
    exact = codec.decode(codes)
    codec.head_dtype = torch.bfloat16
    error = codec.decode(codes) - exact
    assert 0 < error.square().mean() < 1e-3 * exact.square().mean()  # 43 dB below the sound, as measured
    codec.head_dtype = torch.float32
    assert torch.equal(codec.decode(codes), exact)
