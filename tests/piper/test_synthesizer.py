"""The generator as a whole: padding changes nothing, draws are in order, gradients go where they should, memory is kept."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from piper_train.models.config import VitsConfig
from piper_train.models.synthesizer import Draws, Noise, Synthesizer

EXACT = {"rtol": 0, "atol": 5e-6}  # float32: matrix products of another size are summed in another order


@pytest.fixture(scope="module")
def config(small_piper_config) -> VitsConfig:
    return VitsConfig.from_mapping({**small_piper_config, "num_symbols": 40, "segment_size": 2048})


def make(config: VitsConfig, seed: int = 0) -> Synthesizer:
    """A generator with random weights, its flows among them, whose durations are a few frames."""
    torch.manual_seed(seed)
    model = Synthesizer(config).eval()
    for step in model.flow.flows[::2]:
        torch.nn.init.normal_(step.post.weight, 0.0, 0.2)
    for name, weight in model.dp.named_parameters():
        if name.endswith("proj.weight") and "flows" in name:
            torch.nn.init.normal_(weight, 0.0, 0.3)
    return model


def batch(config: VitsConfig, seed: int = 1) -> tuple[tuple, Draws]:
    """Three clips of different lengths as forward takes them, and draws for them."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, config.num_symbols, (3, 11), generator=rng)
    spec = torch.rand(3, config.spec_channels, 30, generator=rng)
    draws = Draws(
        torch.randn(3, config.inter_channels, 30, generator=rng),
        torch.randn(3, 2, 11, generator=rng),
        torch.rand(3, generator=rng),
    )
    return (ids, torch.tensor([11, 7, 4]), spec, torch.tensor([30, 22, 13])), draws


@torch.no_grad()
def test_a_clip_trains_alike_alone_and_in_a_padded_batch(config):
    model = make(config)
    (ids, ids_lengths, spec, spec_lengths), draws = batch(config)
    together = model(ids, ids_lengths, spec, spec_lengths, draws=draws)
    for row in range(3):
        symbols, frames = int(ids_lengths[row]), int(spec_lengths[row])
        own = slice(row, row + 1)
        alone = model(
            ids[own, :symbols],
            ids_lengths[own],
            spec[own, :, :frames],
            spec_lengths[own],
            draws=Draws(draws.posterior[own, :, :frames], draws.durations[own, :, :symbols], draws.slices[own]),
        )
        assert torch.equal(together.path[own, :frames, :symbols], alone.path)
        assert torch.equal(together.ids_slice[own], alone.ids_slice)
        assert_close(together.y_hat[own], alone.y_hat, **EXACT)
        assert_close(together.l_length[own], alone.l_length, rtol=1e-5, atol=1e-5)
        for name in ("z", "z_p", "m_p", "logs_p", "m_q", "logs_q", "y_mask"):
            whole = getattr(together, name)[own]
            assert_close(whole[:, :, :frames], getattr(alone, name), **EXACT)
            assert not whole[:, :, frames:].any(), name


@torch.no_grad()
def test_a_sentence_is_spoken_alike_alone_and_in_a_padded_batch(config):
    model = make(config)
    ids, lengths = torch.randint(0, 40, (2, 9)), torch.tensor([9, 5])
    noise = Noise(torch.randn(2, 2, 9), torch.randn(2, config.inter_channels, 4000))
    together = model.infer(ids, lengths, length_scale=5.0, noise=noise)
    own = Noise(noise.durations[1:, :, :5], noise.prior[1:])
    alone = model.infer(ids[1:, :5], lengths[1:], length_scale=5.0, noise=own)
    frames = alone.dec_in.size(2)
    assert 12 < frames < together.dec_in.size(2)
    assert torch.equal(together.durations[1:, :5], alone.durations)
    assert not together.durations[1, 5:].any()
    assert_close(together.dec_in[1:, :, :frames], alone.dec_in, **EXACT)
    assert not together.dec_in[1, :, frames:].any()
    settled = (frames - 12) * config.hop_length  # the decoder masks nothing and sees a few frames past the end
    assert_close(together.wave[1:, :, :settled], alone.wave[:, :, :settled], **EXACT)


@torch.no_grad()
def test_the_wave_is_as_long_as_its_durations_and_stays_in_range(config):
    spoken = make(config).infer(torch.randint(0, 40, (2, 6)), torch.tensor([6, 3]))
    frames = spoken.durations.sum(1)
    assert spoken.y_mask.sum((1, 2)).tolist() == frames.tolist()
    assert spoken.wave.shape == (2, 1, int(frames.max()) * config.hop_length)
    assert spoken.wave.abs().max() <= 1


@torch.no_grad()
def test_scales_stretch_durations_and_silence_noise(config):
    model, ids, lengths = make(config), torch.randint(0, 40, (1, 6)), torch.tensor([6])
    still = model.infer(ids, lengths, noise_scale=0.0, noise_scale_w=0.0)
    again = model.infer(ids, lengths, noise_scale=torch.tensor(0.0), noise_scale_w=torch.tensor(0.0))
    slower = model.infer(ids, lengths, 0, 0.0, length_scale=3.0, noise_scale_w=0.0)
    assert torch.equal(still.wave, again.wave)
    assert torch.equal(slower.durations, torch.ceil(3 * still.logw.exp()).squeeze(1).long())
    none = model.infer(ids, lengths, length_scale=0.0)
    assert none.wave.shape == (1, 1, config.hop_length)  # one frame at least


@torch.no_grad()
def test_sound_ends_at_the_most_frames_that_it_may_have(config):
    model, ids, lengths = make(config), torch.randint(0, 40, (2, 6)), torch.tensor([6, 1])
    noise = Noise(torch.zeros(2, 2, 6), torch.randn(2, config.inter_channels, 999))
    free = model.infer(ids, lengths, length_scale=9.0, noise=noise)
    cut = model.infer(ids, lengths, length_scale=9.0, noise=noise, max_frames=5)
    assert free.z_p.size(2) > 5 and cut.wave.size(2) == 5 * config.hop_length
    assert torch.equal(cut.z_p, free.z_p[:, :, :5])


@torch.no_grad()
def test_pinned_noise_that_is_too_short_is_refused(config):
    noise = Noise(prior=torch.zeros(1, config.inter_channels, 2))
    with pytest.raises(ValueError, match="has 2 frames, but the sound has"):
        make(config).infer(torch.zeros(1, 6).long(), torch.tensor([6]), length_scale=9.0, noise=noise)


@torch.no_grad()
@pytest.mark.parametrize("use_sdp", [True, False])
def test_what_is_not_given_is_drawn_in_the_golden_order(small_piper_config, use_sdp):
    config = VitsConfig.from_mapping({**small_piper_config, "num_symbols": 40, "use_sdp": use_sdp})
    model, (given, _) = make(config), batch(config)
    torch.manual_seed(5)
    drawn = model(*given)
    torch.manual_seed(5)
    posterior = torch.randn(3, config.inter_channels, 30)
    durations = torch.randn(3, 2, 11) if use_sdp else None
    pinned = model(*given, draws=Draws(posterior, durations, torch.rand(3)))
    for name, value in drawn._asdict().items():
        assert torch.equal(value, getattr(pinned, name)), name


def test_gradients_reach_every_weight(small_piper_config):
    config = VitsConfig.from_mapping({**small_piper_config, "num_speakers": 3, "gin_channels": 5, "num_symbols": 40})
    model, (given, draws) = make(config).train(), batch(config)
    made = model(*given, torch.tensor([0, 2, 1]), draws)
    kl = made.logs_p - made.logs_q + (made.z_p - made.m_p) ** 2 * torch.exp(-2 * made.logs_p)
    (made.y_hat.square().mean() + made.l_length.sum() + kl.mean()).backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


def test_the_loss_of_durations_teaches_the_durations_alone(config):
    model, (given, draws) = make(config).train(), batch(config)
    model(*given, draws=draws).l_length.sum().backward()
    taught = {name.split(".")[0] for name, weight in model.named_parameters() if weight.grad is not None}
    assert taught == {"dp"}


@torch.no_grad()
def test_clips_shorter_than_a_segment_make_a_whole_segment(config):
    model = make(config)
    given = (torch.zeros(2, 3).long(), torch.tensor([3, 2]), torch.rand(2, 513, 5), torch.tensor([5, 4]))
    made = model(*given)
    assert made.y_hat.shape == (2, 1, config.segment_size)
    assert made.ids_slice.tolist() == [0, 0]


@torch.no_grad()
def test_a_voice_of_several_speakers_asks_who_speaks_and_sounds_accordingly(small_piper_config):
    config = VitsConfig.from_mapping({**small_piper_config, "num_speakers": 2, "gin_channels": 5})
    model, ids, lengths = make(config), torch.randint(0, 40, (1, 5)), torch.tensor([5])
    one, other = (model.infer(ids, lengths, torch.tensor([sid]), 0.0, 1.0, 0.0, max_frames=4) for sid in (0, 1))
    assert not torch.equal(one.dec_in, other.dec_in)
    with pytest.raises(ValueError, match="2 speakers"):
        model.infer(ids, lengths)
    for_all = model.infer(ids.repeat(2, 1), lengths.repeat(2), torch.tensor([1]), 0.0, 1.0, 0.0, max_frames=4)
    assert_close(for_all.dec_in[:1], other.dec_in, **EXACT)


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation makes, in numbers; views make none."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, torch.Tensor):
                self.numbers = max(self.numbers, made.untyped_storage().nbytes() // made.element_size())
        return result


def test_training_never_holds_channels_by_frames_by_symbols(small_piper_config):
    """Aligning 200 symbols with 600 frames for 32 channels takes one number for each pair, not one for each channel too."""
    config = VitsConfig.from_mapping({**small_piper_config, "num_symbols": 40, "segment_size": 256})
    model, symbols, frames = make(config).train(), 200, 600
    given = (
        torch.zeros(2, symbols).long(),
        torch.tensor([200, 150]),
        torch.rand(2, 513, frames),
        torch.tensor([600, 400]),
    )
    with LargestTensor() as largest:
        model(*given).y_hat.sum().backward()
    assert largest.numbers <= 2 * max(513 * frames, frames * symbols * 2)  # the spectrogram; pairs, and room for a pad
    assert largest.numbers * 4 < 2 * config.inter_channels * frames * symbols


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains_with_durations_and_alignment_in_single(config, dtype):
    model, (given, draws) = make(config), batch(config)
    single = model(*given, draws=draws)
    with torch.autocast("cpu", dtype):
        half = model(*given, draws=draws)
    assert half.y_hat.dtype == dtype and half.path.dtype == half.l_length.dtype == half.m_p.dtype == torch.float32
    half.l_length.sum().backward()
    assert all(torch.isfinite(value.float()).all() for value in half)
    assert all(weight.grad is None or torch.isfinite(weight.grad).all() for weight in model.parameters())
    assert_close(half.y_hat.float(), single.y_hat, rtol=0, atol=0.1)


@pytest.mark.slow
def test_the_exported_graph_has_one_ceil_and_two_noises_and_speaks_text_of_any_length(small_piper_config):
    onnx = pytest.importorskip("onnx", reason="the extra 'piper' is not installed")
    import onnxruntime

    class Spoken(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = make(VitsConfig.from_mapping(small_piper_config))

        def forward(self, ids, lengths, scales):
            return self.model.infer(ids, lengths, None, scales[0], scales[1], scales[2]).wave

    file, spoken = io.BytesIO(), Spoken().eval()
    example = (torch.randint(0, 40, (1, 8)), torch.tensor([8]), torch.tensor([0.667, 1.0, 0.8]))
    axes = {"ids": {0: "batch", 1: "symbols"}, "lengths": {0: "batch"}}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            spoken, example, file, opset_version=15, dynamo=False, input_names=[*axes, "scales"], dynamic_axes=axes
        )
    nodes = [node.op_type for node in onnx.load_from_string(file.getvalue()).graph.node]
    assert (nodes.count("Ceil"), nodes.count("RandomNormalLike")) == (1, 2)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for symbols in (1, 3, 21):
        ids = torch.randint(0, 40, (2, symbols))
        given = (ids, torch.tensor([symbols, 1]), torch.tensor([0.0, 1.3, 0.0]))
        (wave,) = session.run(None, dict(zip([*axes, "scales"], (value.numpy() for value in given))))
        with torch.no_grad():
            assert_close(torch.from_numpy(wave), spoken(*given), **EXACT)
