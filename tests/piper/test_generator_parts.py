"""Parts of the generator: attention by distance, masks, the flow's inverse, segments. What is padding changes nothing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from piper_train.models.attention import WINDOW, RelativeSelfAttention, collect_near, spread_near
from piper_train.models.config import VitsConfig
from piper_train.models.flow import Flow
from piper_train.models.masks import path_of_durations, sequence_mask
from piper_train.models.posterior import PosteriorEncoder
from piper_train.models.segments import cut_segments, segment_starts
from piper_train.models.text_encoder import TextEncoder
from piper_train.models.wavenet import WaveNet

EXACT = {"rtol": 0, "atol": 2e-6}  # float32: matrix products of another size are summed in another order


@pytest.fixture(scope="module")
def config(small_piper_config) -> VitsConfig:
    return VitsConfig.from_mapping({**small_piper_config, "num_symbols": 40, "num_speakers": 3, "gin_channels": 6})


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 13), st.integers(0, 1000))
def test_scores_by_distance_and_by_position_are_each_other(tokens, seed):
    near = torch.randn(2, 3, tokens, 2 * WINDOW + 1, generator=torch.Generator().manual_seed(seed))
    full = spread_near(near)
    assert full.shape == (2, 3, tokens, tokens)
    for query in range(tokens):
        for key in range(tokens):
            distance = key - query
            expected = near[..., query, WINDOW + distance] if abs(distance) <= WINDOW else torch.zeros(2, 3)
            assert torch.equal(full[..., query, key], expected)
    inside = spread_near(torch.ones_like(near))
    assert torch.equal(spread_near(collect_near(full)), full * inside)


@pytest.mark.parametrize("tokens", [1, 3, 5, 11])
def test_attention_is_the_sum_over_keys_that_its_formula_says(tokens):
    torch.manual_seed(tokens)
    attention = RelativeSelfAttention(12, 3, 0.0).double()
    x = torch.randn(2, 12, tokens).double()
    query, key, value = (
        conv(x).view(2, 3, 4, tokens) for conv in (attention.conv_q, attention.conv_k, attention.conv_v)
    )
    attended = torch.zeros(2, 3, 4, tokens).double()
    for i in range(tokens):
        scores, values = [], []
        for j in range(tokens):
            near = abs(j - i) <= WINDOW
            rel_k = attention.emb_rel_k[0, j - i + WINDOW] if near else torch.zeros(4)
            rel_v = attention.emb_rel_v[0, j - i + WINDOW] if near else torch.zeros(4)
            scores.append((query[..., i] * (key[..., j] + rel_k)).sum(-1) / 2)
            values.append(value[..., j] + rel_v)
        weights = torch.stack(scores, -1).softmax(-1)  # (batch, heads, tokens)
        attended[..., i] = (torch.stack(values, -1) * weights[..., None, :]).sum(-1)
    expected = attention.conv_o(attended.flatten(1, 2))
    assert_close(attention(x, torch.ones(2, 1, tokens).double()), expected)


def test_padding_of_ids_does_not_change_what_text_means(config):
    torch.manual_seed(0)
    encoder = TextEncoder(config).eval()
    ids = torch.randint(1, 40, (2, 9))
    padded = torch.cat([ids, torch.randint(0, 40, (2, 5))], dim=1)  # whatever stands there
    alone, together = encoder(ids, torch.tensor([9, 6])), encoder(padded, torch.tensor([9, 6]))
    shorter = encoder(ids[1:, :6], torch.tensor([6]))
    for name in ("x", "m", "logs"):
        assert_close(getattr(together, name)[:, :, :9], getattr(alone, name), **EXACT)
        assert_close(getattr(alone, name)[1:, :, :6], getattr(shorter, name), **EXACT)
        assert not getattr(alone, name)[1, :, 6:].any()
        assert not getattr(together, name)[:, :, 9:].any()


def test_padding_of_frames_changes_neither_the_posterior_nor_the_flow(config):
    torch.manual_seed(0)
    encoder, flow = PosteriorEncoder(config).eval(), with_shifts(Flow(config))
    spec, noise, g = torch.rand(2, 513, 12), torch.randn(2, 32, 12), torch.randn(2, 6, 1)
    lengths = torch.tensor([12, 7])
    long = encoder(torch.cat([spec, torch.rand(2, 513, 4)], 2), lengths, g, torch.cat([noise, noise[..., :4]], 2))
    batch, alone = encoder(spec, lengths, g, noise), encoder(spec[1:, :, :7], lengths[1:], g[1:], noise[1:, :, :7])
    for name in ("z", "m", "logs"):
        assert_close(getattr(long, name)[:, :, :12], getattr(batch, name), **EXACT)
        assert_close(getattr(batch, name)[1:, :, :7], getattr(alone, name), **EXACT)
        assert not getattr(batch, name)[1, :, 7:].any()
    mapped, mapped_alone = flow(batch.z, batch.y_mask, g), flow(alone.z, alone.y_mask, g[1:])
    assert_close(mapped[1:, :, :7], mapped_alone, **EXACT)
    assert not mapped[1, :, 7:].any()


def test_the_posterior_draws_from_the_distribution_that_it_says(config):
    torch.manual_seed(0)
    posterior = PosteriorEncoder(config)(torch.rand(2, 513, 5), torch.tensor([5, 5]), torch.randn(2, 6, 1))
    drawn = (posterior.z - posterior.m) / posterior.logs.exp()
    assert 0.8 < drawn.std() < 1.2 and drawn.mean().abs() < 0.2  # 320 draws
    torch.manual_seed(0)
    again = PosteriorEncoder(config)(torch.rand(2, 513, 5), torch.tensor([5, 5]), torch.randn(2, 6, 1))
    assert torch.equal(again.z, posterior.z)


def with_shifts(flow: Flow) -> Flow:
    """A new flow shifts nothing; make it move what it is given."""
    for step in flow.flows[::2]:
        torch.nn.init.normal_(step.post.weight, 0.0, 0.3)
    return flow.eval()


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 20), st.integers(0, 1000), st.booleans())
def test_the_flow_backwards_undoes_the_flow(small_piper_config, frames, seed, speakers):
    torch.manual_seed(seed)
    extra = {"num_speakers": 2, "gin_channels": 5} if speakers else {}
    flow = with_shifts(Flow(VitsConfig.from_mapping({**small_piper_config, **extra}))).double()
    mask = sequence_mask(torch.tensor([frames, max(1, frames - 3)]), frames).double()
    x = torch.randn(2, 32, frames).double() * mask
    g = torch.randn(2, 5, 1).double() if speakers else None
    mapped = flow(x, mask, g)
    assert not torch.allclose(mapped, x)
    assert_close(flow(mapped, mask, g, reverse=True), x, rtol=0, atol=1e-10)


def test_a_new_flow_passes_latents_on_and_every_channel_gets_shifted_later(config):
    torch.manual_seed(0)
    flow, x, mask = Flow(config), torch.randn(1, 32, 5), torch.ones(1, 1, 5)
    assert torch.equal(flow(x, mask, torch.randn(1, 6, 1)), x)  # four flips are none
    moved = (with_shifts(flow)(x, mask, torch.zeros(1, 6, 1)) - x).abs().amax((0, 2))
    assert (moved > 0).all()


def test_the_flow_keeps_volume():
    torch.manual_seed(0)
    flow = with_shifts(Flow(VitsConfig(hidden_channels=8, inter_channels=4, filter_channels=8, n_layers=1))).double()
    x, mask = torch.randn(1, 4, 3).double(), torch.ones(1, 1, 3).double()
    jacobian = torch.autograd.functional.jacobian(lambda value: flow(value, mask), x).view(12, 12)
    assert_close(jacobian.det().abs(), torch.tensor(1.0).double())


def test_a_wavenet_hears_its_speaker_and_silences_masked_frames():
    torch.manual_seed(0)
    block, mask = WaveNet(6, 3, gin_channels=4), sequence_mask(torch.tensor([9, 4]), 9).float()
    x = torch.randn(2, 6, 9) * mask
    one, other = block(x, mask, torch.zeros(2, 4, 1)), block(x, mask, torch.ones(2, 4, 1))
    assert not torch.allclose(one[0], other[0])
    assert not one[1, :, 4:].any()


def test_durations_lay_symbols_out_one_after_the_other():
    durations = torch.tensor([[2.0, 0.0, 1.0, 3.0], [1.0, 1.0, 0.0, 0.0]])
    path = path_of_durations(durations, 5)
    assert path[0].int().tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert path[1].int().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0] * 4, [0] * 4, [0] * 4]


@settings(deadline=None)
@given(st.floats(0, 1, exclude_max=True, width=32), st.integers(1, 200), st.integers(1, 40))
def test_a_segment_lies_within_its_clip_or_starts_with_it(uniform, length, frames):
    start = int(segment_starts(torch.tensor([uniform]), torch.tensor([length]), frames))
    assert 0 <= start <= max(0, length - frames)


def test_segments_of_latents_and_audio_are_the_same_stretch():
    frames = torch.arange(10.0).view(1, 1, 10).repeat(2, 3, 1)
    audio = frames[:, :1].repeat_interleave(4, dim=2)  # a hop of 4 samples
    starts = torch.tensor([6, 0])
    latents, samples = cut_segments(frames, starts, 3), cut_segments(audio, starts * 4, 12)
    assert latents[0].tolist() == [[6, 7, 8]] * 3 and latents[1].tolist() == [[0, 1, 2]] * 3
    assert torch.equal(samples, latents[:, :1].repeat_interleave(4, dim=2))


def test_a_segment_beyond_the_end_is_filled_with_zeros():
    x = torch.arange(1.0, 5.0).view(1, 1, 4).repeat(2, 1, 1)
    assert cut_segments(x, torch.tensor([0, 2]), 6)[:, 0].tolist() == [[1, 2, 3, 4, 0, 0], [3, 4, 0, 0, 0, 0]]
