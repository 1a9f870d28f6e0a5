"""The measure of agreement itself: equal models agree wholly, and a known difference gives the known figures."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from .conftest import REPO

sys.path.insert(0, str(REPO))  # benchmarks is no part of the installed package
from benchmarks import agreement, heard

FLAGS = ["--random", "tiny", "--prompts", "2", "--frames", "4"]


def test_equal_logits_agree_wholly_and_a_shift_of_all_changes_nothing():
    logits = [torch.randn(7, 11, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    for row in agreement.compare([logits], [[part + 3 for part in logits]], "x", "same"):
        assert (row.top1, row.drawn) == (1, 1)
        assert row.divergence == pytest.approx(0, abs=1e-6) and row.error == pytest.approx(0, abs=1e-6)


def test_figures_are_those_worked_by_hand():
    first, second = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[1.0, 2.0, 0.0]])
    token, codes = agreement.compare([[first, first]], [[second, first]], "x", "swapped")
    assert (token.places, codes.places) == (1, 1)
    assert (token.top1, codes.top1) == (0, 1)
    z = math.e**2 + math.e + 1
    assert token.divergence == pytest.approx((math.e**2 - math.e) / z, rel=1e-4)
    assert token.error == pytest.approx(math.sqrt((2 / 3) / 1.0), rel=1e-4)  # variance of 0, 1, 2 is 1


@pytest.mark.parametrize("version", agreement.SCALES["tiny"])
def test_led_logits_of_the_decode_path_are_those_of_the_whole_forward_pass(version):
    scale = agreement.SCALES["tiny"][version]
    model = agreement.random(scale, "fp32")
    prompt = agreement.random_prompt(scale, 5, 5, torch.Generator().manual_seed(0))
    passage = agreement.own_passages(model, [prompt], 5)[1]
    led = agreement.led_logits(model, passage)
    with torch.no_grad():
        out = model(torch.cat([passage.prompt, passage.columns], dim=1)[None])
    ids, at = agreement._allowed_ids(model), slice(passage.prompt.size(1) - 1, -1)
    torch.testing.assert_close(led[0], out.token_logits[0, at][:, ids], rtol=0, atol=1e-5)  # order of float32 sums
    codes = out.codebook_logits
    codes = codes[0, at] if codes.dim() == 4 else codes[-passage.columns.size(1) :]  # S1's are of frames only
    for number in range(1, model.config.num_codebooks):
        drawn = codes[:, number, : model.config.residual_codes]
        torch.testing.assert_close(led[number], drawn, rtol=0, atol=1e-5)


@pytest.mark.parametrize("version", agreement.SCALES["tiny"])
def test_the_table_is_the_same_each_time_and_int8_stays_close(version, capsys):
    tables = []
    for _ in range(2):
        assert agreement.main([*FLAGS, "--model-version", version]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]
    int8 = [line.split() for line in tables[0].splitlines() if " int8 " in line]
    assert len(int8) == 4  # two materials, tokens and codes
    for line in int8:
        assert float(line[-2]) < 1e-3 and float(line[-1]) < 5  # nats, % of the logits' spread


def test_a_folder_that_is_no_model_is_a_wrong_request(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        agreement.main(["--model-path", str(tmp_path / "nothing")])
    assert stopped.value.code == 2
    assert "is not a model folder" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_heard_of_float32_is_what_is_heard_of_it_again():
    for package in ("pocketsphinx", "jiwer"):
        pytest.importorskip(package)
    folder = REPO / "checkpoints" / "minnow"
    if not (folder / "model.pth").is_file():
        pytest.skip("checkpoints/minnow is not here")
    texts = ["Please try again."]
    lines = list(heard.compare_heard(lambda _: agreement.load(folder, "fp32"), ["again"], folder, texts))
    assert lines[0].startswith("1 texts") and len(lines) == 5
    assert lines[2].split()[1:] == lines[4].split()[1:]
    assert lines[4].split()[-1] == "0.000"  # against what is heard of float32
