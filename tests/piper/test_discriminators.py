"""The judges have the published parameters, and judge sounds of any length."""

from __future__ import annotations

import pytest
import torch

from piper_train.models.discriminators import (
    PERIODS,
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    PeriodDiscriminator,
    ScaleDiscriminator,
)


def test_parameters_have_the_published_names_and_shapes(piper_golden):
    for judges, prefix, golden in (
        (MultiPeriodDiscriminator(), "model_d.", piper_golden("params_d.json")),
        (MultiResolutionDiscriminator(), "model_mrd.", piper_golden("tiny_multi_high.json")["params_mrd"]),
    ):
        golden = golden.get("params", golden)
        shapes = {prefix + name: list(value.shape) for name, value in judges.state_dict().items()}
        assert shapes == golden
        if prefix == "model_d.":
            assert sum(parameter.numel() for parameter in judges.parameters()) == 46_747_132


@pytest.mark.parametrize("samples", [2000, 2001, 2310])
@torch.no_grad()
def test_a_period_judge_sees_every_sample_in_its_column(samples):
    """A change of sample n changes only the scores of column n mod period."""
    waveform = torch.randn(1, 1, samples)
    for period in PERIODS:
        judge = PeriodDiscriminator(period)
        before = judge(waveform)
        changed = waveform.clone()
        changed[..., 1000] += 1
        after = judge(changed)
        moved = (after.score != before.score).view(-1, period).any(0).nonzero().flatten().tolist()
        assert moved == [1000 % period]
        assert [feature.shape[-1] for feature in before.features] == [period] * 6


@torch.no_grad()
def test_scores_are_flat_and_features_end_with_the_score():
    real, fake = torch.randn(3, 1, 4096), torch.randn(2, 1, 4096)
    judges = MultiResolutionDiscriminator()
    judged = judges(real, fake)
    assert [score.shape[0] for score in judged.real_scores] == [3, 3, 3]
    assert [score.shape[0] for score in judged.fake_scores] == [2, 2, 2]
    for scores, features in ((judged.real_scores, judged.real_features), (judged.fake_scores, judged.fake_features)):
        for score, layers in zip(scores, features, strict=True):
            assert len(layers) == 6
            torch.testing.assert_close(layers[-1].flatten(1), score, rtol=0, atol=0)
    alone = judges(fake, real)
    torch.testing.assert_close(alone.real_scores, judged.fake_scores, rtol=0, atol=1e-6)


def test_a_frozen_judge_still_teaches_the_maker():
    for judge in (ScaleDiscriminator(), PeriodDiscriminator(3)):
        judge.requires_grad_(False)
        fake = torch.randn(1, 1, 2000, requires_grad=True)
        judge(fake).score.square().mean().backward()
        assert fake.grad is not None and fake.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in judge.parameters())


def test_silence_has_finite_gradients():
    """The magnitude of a spectrum has no slope at zero."""
    fake = torch.zeros(1, 1, 4096, requires_grad=True)
    verdicts = MultiResolutionDiscriminator()(fake, fake)
    sum(score.square().mean() for score in verdicts.fake_scores).backward()
    assert fake.grad is not None and fake.grad.isfinite().all()
