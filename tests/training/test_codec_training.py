"""Codec training: gradients pass the rounding, a clip can be learned, a resumed run equals one that never stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fish_speech.errors import UserError
from fish_speech.models import FireflyCodec, FireflyConfig, load_codec
from fish_speech.models.discriminators import Discriminators
from fish_speech.models.fsq import FiniteScalarQuantizer
from fish_speech.train_codec import main
from fish_speech.training.codec_data import CodecDataModule, ExcerptStream, find_recordings
from fish_speech.training.codec_losses import MelLoss, StftLoss, adversarial_loss, discriminator_loss, feature_loss
from fish_speech.training.codec_module import CodecTraining, new_codec

from ..conftest import REPO

TINY = {
    "spec_transform": {"sample_rate": 16000, "n_mels": 20, "n_fft": 512, "hop_length": 200, "win_length": 400},
    "backbone": {"input_channels": 20, "depths": [1, 1], "dims": [16, 32], "drop_path_rate": 0.0},
    "quantizer": {"input_dim": 32, "n_groups": 4, "downsample_factor": [2, 2], "normalize_groups": True},
    "head": {
        "hop_length": 200, "upsample_rates": [10, 10, 2], "upsample_kernel_sizes": [20, 20, 4], "num_mels": 32,
        "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3]], "upsample_initial_channel": 64,
        "pre_conv_kernel_size": 7, "post_conv_kernel_size": 7,
    },
}  # fmt: skip


@pytest.fixture()
def codec() -> FireflyCodec:
    return new_codec(FireflyConfig.from_mapping(TINY), seed=3)


@pytest.fixture()
def recordings(tmp_path) -> Path:
    """Two folders, `train` and `held_out`, of short harmonic sounds at two sample rates."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 4), ("held_out", 2)):
        (tmp_path / name).mkdir()
        for number in range(count):
            rate = (16000, 22050)[number % 2]
            time = np.arange(int(rate * rng.uniform(0.6, 1.4))) / rate
            pitch = rng.uniform(90, 250) * (1 + 0.1 * np.sin(7 * time))
            phase = 2 * np.pi * np.cumsum(pitch) / rate
            sound = sum(np.sin(k * phase) / k for k in range(1, 8)) * 0.2
            soundfile.write(tmp_path / name / f"{number}.wav", sound, rate)
    return tmp_path


@given(levels=st.lists(st.integers(2, 9), min_size=1, max_size=4), normalize=st.booleans(), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_the_training_path_gives_what_encoding_and_decoding_give_and_its_gradients_pass(levels, normalize, seed):
    torch.manual_seed(seed)
    quantizer = FiniteScalarQuantizer(6, tuple(levels), normalize)
    x = torch.randn(2, 5, 6, requires_grad=True)
    made, codes = quantizer(x)
    assert torch.equal(codes, quantizer.encode(x))
    torch.testing.assert_close(made, quantizer.decode(codes), rtol=1e-5, atol=1e-5)
    made.square().sum().backward()
    assert quantizer.project_in.weight.grad.abs().sum() > 0


def test_a_codec_in_training_sounds_as_it_does_in_use(codec):
    waveform = torch.randn(2, 1, 8000) * 0.1
    made, codes = codec(waveform)
    assert made.shape == waveform.shape
    encoded, _ = codec.encode(waveform, torch.tensor([8000, 8000]))
    assert torch.equal(codes, encoded)
    torch.testing.assert_close(made, codec.decode(codes), rtol=1e-4, atol=1e-5)


def test_losses_of_a_sound_with_itself_are_nothing_and_grow_with_the_difference():
    torch.manual_seed(0)
    sound = torch.randn(2, 1, 4000) * 0.1
    for loss in (MelLoss(16000, [512, 256], [40, 20]), StftLoss([[512, 128, 512], [256, 64, 256]])):
        assert loss(sound, sound).item() == pytest.approx(0, abs=1e-6)
        little, much = loss(sound * 0.9, sound), loss(sound * 0.3, sound)
        assert 0 < little < much


def test_discriminators_learn_to_tell_noise_from_tones():
    torch.manual_seed(0)
    judges = Discriminators((2, 3), 4, [(256, 64, 256)], 4)
    time = torch.arange(800) / 16000
    real = torch.stack([torch.sin(2 * torch.pi * f * time) for f in (200, 300, 440, 700)])[:, None] * 0.3
    optimizer = torch.optim.AdamW(judges.parameters(), lr=2e-3)
    losses = []
    for _ in range(30):
        made = torch.randn_like(real) * 0.2
        loss = discriminator_loss(judges(real), judges(made))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 < losses[0]
    made = torch.randn_like(real) * 0.2
    assert adversarial_loss(judges(made)) > adversarial_loss(judges(real))
    assert feature_loss(judges(real), judges(real)).item() == 0
    assert feature_loss(judges(real), judges(made)).item() > 0.1


def test_a_batch_is_a_function_of_the_seed_and_its_number(recordings):
    found = find_recordings(recordings / "train")
    stream = ExcerptStream([(found, 1.0)], 16000, 4000, 3, (-6, 3), seed=5)
    again = ExcerptStream([(found, 1.0)], 16000, 4000, 3, (-6, 3), seed=5, start=2)
    batches = [batch for batch, _ in zip(stream, range(3), strict=False)]
    assert torch.equal(batches[2], next(iter(again)))
    assert not torch.equal(batches[0], batches[1])
    assert batches[0].shape == (3, 1, 4000) and batches[0].dtype == torch.float32
    assert batches[0].abs().max() <= 1
    other = ExcerptStream([(found, 1.0)], 16000, 4000, 3, (-6, 3), seed=5, rank=1)
    assert not torch.equal(batches[0], next(iter(other)))


def test_sources_get_the_share_of_their_weight(tmp_path):
    for name, level in (("loud", 0.8), ("soft", 0.1)):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", np.full(16000, level), 16000)
    sources = [(find_recordings(tmp_path / "loud"), 3.0), (find_recordings(tmp_path / "soft"), 1.0)]
    batch = next(iter(ExcerptStream(sources, 16000, 160, 400, (0, 0), seed=1)))
    assert (batch.mean(dim=(1, 2)) > 0.5).float().mean().item() == pytest.approx(0.75, abs=0.06)


def test_an_excerpt_of_another_rate_keeps_its_pitch(tmp_path):
    rate = 22050
    soundfile.write(tmp_path / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate)
    excerpt = find_recordings(tmp_path)[0].excerpt(0.2, 0.5, 16000)
    assert len(excerpt) == 8000
    peak = np.argmax(np.abs(np.fft.rfft(excerpt))) * 16000 / len(excerpt)
    assert peak == pytest.approx(440, abs=3)


def test_held_out_recordings_that_are_trained_on_are_refused(recordings):
    with pytest.raises(UserError, match="both trained on and held out"):
        CodecDataModule([recordings / "train"], 16000, 800, validation=[recordings / "train"])


def arguments(recordings: Path, project: str, steps: int, *more: str) -> list[str]:
    shape = recordings / "tiny.yaml"
    shape.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return [
        f"project={project}", f"codec_config={shape}", f"data.train=[{recordings / 'train'}]",
        f"data.validation=[{recordings / 'held_out'}]", "data.batch_size=2", "data.segment_seconds=0.1",
        f"paths.run_dir={recordings / project}", f"trainer.max_steps={steps}", "trainer.val_check_interval=2",
        "model.discriminators.periods=[2,3]", "model.discriminators.period_channels=4",
        "model.discriminators.resolutions=[[256,64,256]]", "model.discriminators.resolution_channels=4", "device=cpu",
        "model.mel_loss.windows=[512,256]", "model.mel_loss.n_mels=[40,20]", *more,
    ]  # fmt: skip


def exported(recordings: Path, project: str) -> FireflyCodec:
    return load_codec(recordings / project / "codec" / "codec.pth")


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_resumed_run_equals_one_that_never_stopped(recordings):
    schedule = ["model.lr_scheduler.lr_lambda.num_training_steps=6", "model.lr_scheduler.lr_lambda.num_warmup_steps=1"]
    schedule.append("model.adversarial_from=2")
    assert main(arguments(recordings, "whole", 6, *schedule)) == 0
    assert main(arguments(recordings, "parts", 3, *schedule)) == 0
    assert main(arguments(recordings, "parts", 6, *schedule)) == 0
    assert same_weights(exported(recordings, "whole"), exported(recordings, "parts"))
    one, other = (
        torch.load(recordings / name / "checkpoints" / "step_000000006.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "parts")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_training_learns_the_sounds_and_uses_the_codes(recordings, capsys):
    options = ["model.adversarial_from=null", "model.optimizer.lr=2e-3", "model.ema_decay=0.9"]
    options.append("model.lr_scheduler.lr_lambda.num_warmup_steps=5")
    assert main(arguments(recordings, "short", 2, *options)) == 0
    assert main(arguments(recordings, "long", 80, *options, "trainer.val_check_interval=40")) == 0
    data = CodecDataModule([recordings / "train"], 16000, 800, validation=[recordings / "held_out"])
    clips = [data.held_out_clip(n) for n in range(2)]

    def distance(codec: FireflyCodec) -> float:
        with torch.no_grad():
            made = [codec(clip)[0] for clip in clips]
        mels = [(codec.log_mel(m) - codec.log_mel(c)).abs().mean().item() for m, c in zip(made, clips, strict=True)]
        return float(np.mean(mels))

    learned = exported(recordings, "long")
    assert distance(learned) < 0.7 * distance(exported(recordings, "short"))
    codes = learned.encode_clips([clip[0, 0] for clip in clips])
    used = [len(row.unique()) for row in torch.cat(codes, dim=1)]
    assert min(used) > 1 and sum(used) > 8


def test_a_frozen_encoder_keeps_every_code_while_the_sound_changes(recordings):
    assert main(arguments(recordings, "first", 2)) == 0
    weights = recordings / "first" / "codec" / "codec.pth"
    more = [f"pretrained_ckpt_path={weights}", "codec_config=null", "model.freeze_encoder=true"]
    assert main(arguments(recordings, "head", 4, *more, "model.lr_scheduler.lr_lambda.num_warmup_steps=0")) == 0
    before, after = exported(recordings, "first"), exported(recordings, "head")
    clip = torch.randn(8000) * 0.1
    assert torch.equal(before.encode_clips([clip])[0], after.encode_clips([clip])[0])
    for one, other in zip(before.encoder_parameters(), after.encoder_parameters(), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(before.head.conv_post.conv.bias, after.head.conv_post.conv.bias)


def test_a_new_head_keeps_the_codes_and_needs_nothing_else_to_change(recordings):
    assert main(arguments(recordings, "first", 2)) == 0
    weights, wide = recordings / "first" / "codec" / "codec.pth", recordings / "wide.yaml"
    head = {**TINY["head"], "upsample_rates": [10, 20], "upsample_kernel_sizes": [20, 40]}
    wide.write_text(yaml.safe_dump({**TINY, "head": head}), encoding="utf-8")
    more = [f"pretrained_ckpt_path={weights}", f"codec_config={wide}", "new_head=true", "model.freeze_encoder=true"]
    assert main(arguments(recordings, "second", 2, *more)) == 0
    before, after = exported(recordings, "first"), exported(recordings, "second")
    clip = torch.randn(8000) * 0.1
    assert torch.equal(before.encode_clips([clip])[0], after.encode_clips([clip])[0])
    assert after.config.head.upsample_rates == (10, 20)
    other = {**TINY, "head": head, "quantizer": {**TINY["quantizer"], "n_groups": 8}}
    wide.write_text(yaml.safe_dump(other), encoding="utf-8")
    with pytest.raises(UserError, match="head does not fit"):
        main(arguments(recordings, "third", 2, *more))


def test_a_frozen_encoder_makes_the_codes_that_it_makes_in_use():
    """Stochastic depth would give the head codes in training that it never meets later."""
    shape = {**TINY, "backbone": {**TINY["backbone"], "drop_path_rate": 0.9}}
    codec = new_codec(FireflyConfig.from_mapping(shape), seed=0)
    losses = MelLoss(16000, [256], [20]), StftLoss([[256, 64, 256]])
    judges = Discriminators((2,), 2, [], 2)
    training = CodecTraining(codec, judges, *losses, torch.optim.AdamW, None, {}, freeze_encoder=True).train()
    sound = torch.randn(4, 1, 8000)
    assert torch.equal(training.generator(sound)[1], training.generator(sound)[1])
    assert training.generator.head.training


def test_the_log_mel_is_the_same_under_autocast(codec):
    sound = torch.randn(1, 1, 8000)
    plain = codec.log_mel(sound)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.log_mel(sound), plain)


def test_worker_processes_read_the_same_batches(recordings):
    found = find_recordings(recordings / "train")
    stream = ExcerptStream([(found, 1.0)], 16000, 800, 2, (-6, 3), seed=5)
    alone = [batch for batch, _ in zip(stream, range(4), strict=False)]
    loader = iter(torch.utils.data.DataLoader(stream, batch_size=None, num_workers=2))
    assert all(torch.equal(batch, next(loader)) for batch in alone)


def test_grown_data_is_not_passed_off_as_the_same_run(recordings):
    assert main(arguments(recordings, "run", 1)) == 0
    soundfile.write(recordings / "train" / "more.wav", np.zeros(8000), 16000)
    with pytest.raises(UserError, match="other settings"):
        main(arguments(recordings, "run", 2))


def test_a_run_that_is_done_can_end_well(recordings):
    assert main(arguments(recordings, "run", 1)) == 0
    with pytest.raises(UserError, match="reached step 1"):
        main(arguments(recordings, "run", 1))
    assert main(arguments(recordings, "run", 1, "reached_is_done=true")) == 0


def test_other_settings_than_the_checkpoints_are_refused(recordings):
    assert main(arguments(recordings, "run", 2)) == 0
    with pytest.raises(UserError, match="other settings"):
        main(arguments(recordings, "run", 4, "model.optimizer.lr=1e-5"))


def test_exports_in_half_precision_load(recordings):
    assert main(arguments(recordings, "half", 2, "callbacks.export.dtype=float16")) == 0
    stored = torch.load(recordings / "half" / "codec" / "codec.pth", weights_only=True)
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    assert exported(recordings, "half").sample_rate == 16000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.train=[nowhere]", "no folder nowhere"),
        ("data.train=nowhere", "no folder nowhere"),
        ("data.validation=[nowhere]", "no folder nowhere"),
        ("data.train=[{folder: x}]", "keys folder"),
        ("data.train=[{path: samples, weight: -1}]", "weight of samples"),
        ("data.train=[]", "nothing to train"),
        ("codec_config=unknown", "unknown codec config"),
        ("codec_config=modded_dac_vq", "its architecture is modded_dac; firefly codecs alone are trained"),
        ("pretrained_ckpt_path=nothing.pth", "nothing.pth"),
    ],
)
def test_bad_requests_are_one_clear_message(recordings, change, words, monkeypatch):
    monkeypatch.chdir(REPO)
    with pytest.raises(UserError, match=words):
        main(arguments(recordings, "bad", 2, change))


def test_a_codec_of_another_architecture_is_not_trained(recordings, small_s1_base, monkeypatch):
    monkeypatch.chdir(REPO)
    weights = f"pretrained_ckpt_path={small_s1_base / 'codec.pth'}"
    with pytest.raises(UserError, match=r"(?s)codec\.pth cannot be trained here.*modded_dac"):
        main(arguments(recordings, "bad", 2, weights, "codec_config=null"))
    with pytest.raises(UserError, match=r"(?s)codec\.pth cannot be trained here.*modded_dac"):
        main(arguments(recordings, "bad", 2, weights, "new_head=true"))


@pytest.mark.slow()
def test_the_released_shape_trains_from_given_weights(recordings):
    """The full-size codec: one step on the CPU, from a file in the released format."""
    from fish_speech.models import codec_config

    codec = new_codec(FireflyConfig.from_mapping(codec_config("firefly_gan_vq")), seed=0)
    torch.save(codec.state_dict(), recordings / "released.pth")
    more = [f"pretrained_ckpt_path={recordings / 'released.pth'}", "codec_config=null", "data.batch_size=1"]
    assert main(arguments(recordings, "full", 1, *more, "data.validation=[]", "trainer.val_check_interval=1")) == 0
    assert exported(recordings, "full").sample_rate == 44100
