"""The codec equals the released one: mel, codes, waveforms, quantizer tables."""

import pytest
import torch

from fish_speech.models import FireflyCodec, FireflyConfig
from fish_speech.models.fsq import FiniteScalarQuantizer
from fish_speech.models.mel import mel_filterbank

MEL = {"rtol": 0, "atol": 1e-3}  # limits of the golden README: FFT and filter bank may differ
WAVE = {"rtol": 0, "atol": 2e-5}


def build(golden, fill, name):
    info = golden(f"{name}.json")
    return fill(FireflyCodec(FireflyConfig.from_mapping(info["config"]))).eval(), info, golden(f"{name}.npz")


def waveform(answer):
    return torch.from_numpy(answer["wave"]).float()[:, None] / 32768


def test_tiny_codec_equals_the_golden_one(golden, fill):
    codec, info, answer = build(golden, fill, "codec_tiny")
    assert [[name, list(t.shape)] for name, t in codec.state_dict().items()] == info["params"]
    wave, lengths = waveform(answer), torch.tensor(info["audio_lengths"])
    mel = codec.log_mel(wave)
    torch.testing.assert_close(mel, torch.from_numpy(answer["mel"]), **MEL)
    with torch.no_grad():
        latents = codec.latents(mel, codec.log_mel.frames(lengths))
        codes, frames = codec.encode(wave, lengths)
        upsampled = codec.quantizer.decode(codes)
    torch.testing.assert_close(latents, torch.from_numpy(answer["backbone"]), **MEL)
    assert torch.equal(codes, torch.from_numpy(answer["codes"]).long()) and codes.dtype == torch.int64
    assert frames.tolist() == answer["feature_lengths"].tolist()
    torch.testing.assert_close(upsampled, torch.from_numpy(answer["upsampled"]), rtol=0, atol=1e-5)
    decoded = codec.decode(codes, frames)
    torch.testing.assert_close(decoded, torch.from_numpy(answer["decoded"]), **WAVE)
    assert (frames * codec.samples_per_frame).tolist() == info["decoded_lengths"]


def test_filter_bank_and_normed_weights_equal_the_golden_ones(golden, fill):
    codec, _, _ = build(golden, fill, "codec_tiny")
    answer = golden("codec_tiny_weights.npz")
    torch.testing.assert_close(
        mel_filterbank(16000, 512, 20), torch.from_numpy(answer["mel_filterbank"]), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(torch.hann_window(512), torch.from_numpy(answer["window"]))
    torch.testing.assert_close(codec.head.conv_pre.conv.weight.data, torch.from_numpy(answer["head.conv_pre"]))
    torch.testing.assert_close(codec.head.ups[0].conv.weight.data, torch.from_numpy(answer["head.ups.0"]))


def test_quantizer_tables_and_rounding_equal_the_golden_ones(golden, fill):
    answer = golden("fsq.npz")
    codec, _, _ = build(golden, fill, "codec_tiny")
    quantizer: FiniteScalarQuantizer = codec.quantizer.residual_fsq.rvqs[0]
    codes = torch.from_numpy(answer["codes"]).long()
    torch.testing.assert_close(quantizer.values(codes), torch.from_numpy(answer["levels"]))
    z = torch.from_numpy(answer["z"])
    with torch.no_grad():
        torch.testing.assert_close(quantizer.project_in(z), torch.from_numpy(answer["projected"]))
        index = quantizer.encode(z)
        torch.testing.assert_close(quantizer.decode(index), torch.from_numpy(answer["quantized"]), rtol=0, atol=1e-5)
    assert torch.equal(index, torch.from_numpy(answer["index"])[..., 0].long())


def test_codes_of_a_clip_do_not_depend_on_its_batch(golden, fill):
    codec, _, answer = build(golden, fill, "codec_tiny")
    long, short = waveform(answer)[0, 0], waveform(answer)[0, 0, 500:2300]
    together = codec.encode_clips([long, short])
    for clip, codes in zip((long, short), together, strict=True):
        alone, frames = codec.encode(clip[None, None], torch.tensor([clip.numel()]))
        assert torch.equal(codes, alone[0, :, : frames[0]])


def test_the_future_does_not_change_the_past(golden, fill):
    codec, _, answer = build(golden, fill, "codec_tiny")
    codes = torch.from_numpy(answer["codes"]).long()
    changed = codes.clone()
    changed[..., 9:] = (changed[..., 9:] + 1) % codec.codebook_size
    known = 9 * codec.samples_per_frame
    assert torch.equal(codec.decode(codes)[..., :known], codec.decode(changed)[..., :known])


@pytest.mark.slow
def test_full_size_codec_equals_the_golden_one(golden, fill):
    codec, info, answer = build(golden, fill, "codec_full")
    assert [[name, list(t.shape)] for name, t in codec.state_dict().items()] == golden("codec_full_params.json")
    wave, lengths = waveform(answer), torch.tensor(info["audio_lengths"])
    mel = codec.log_mel(wave)
    torch.testing.assert_close(mel[:, ::8, ::4], torch.from_numpy(answer["mel_slice"]), **MEL)
    codes, frames = codec.encode(wave, lengths)
    assert torch.equal(codes, torch.from_numpy(answer["codes"]).long())
    decoded = codec.decode(codes, frames)[0, 0]
    torch.testing.assert_close(decoded[:4096], torch.from_numpy(answer["decoded_first4096"]), **WAVE)
    torch.testing.assert_close(decoded[::97], torch.from_numpy(answer["decoded_every97"]), **WAVE)
