"""The benchmarks run at a tiny size and print every figure; how fast they are is not a test's business."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch

from .conftest import REPO

pytest.importorskip("psutil")
sys.path.insert(0, str(REPO))  # benchmarks is no part of the installed package
from benchmarks import released, released_codecs, sizes
from benchmarks.__main__ import Row, side_by_side
from fish_speech.synthesis.generation import generate_columns
from fish_speech.synthesis.sampling import SamplingConfig
from fish_speech.training.losses import dual_ar_loss

VERSIONS = list(sizes.SCALES["tiny"])


@pytest.mark.slow
def test_tiny_benchmarks_print_a_finite_figure_in_every_row(tmp_path):
    file = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--scale", "tiny", "--quick", "--json", str(file)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    for part in (
        "train 1 x 256",
        "train 4 x 512",
        "merge",
        "codec: extraction",
        "codec: decoding",
        "generate",
        "prepare",
        "piper: train",
        "piper: align",
        "piper: medium",
    ):
        versions = {row["version"] for row in rows if row["what"].startswith(part)}
        assert versions == ({""} if part.startswith(("prepare", "piper")) else {"1.5", "s1-mini"}), part
    for row in rows:
        assert row["what"] in done.stdout
        assert math.isfinite(row["value"]) and row["value"] > 0, row
        assert row["baseline"] is None or math.isfinite(row["baseline"]), row


def test_an_unknown_part_is_a_wrong_request():
    command = [sys.executable, "-m", "benchmarks", "--only", "train,merg"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 2
    assert "unknown: merg" in done.stderr


@pytest.mark.parametrize("version", VERSIONS)
def test_the_baseline_of_training_computes_the_same_loss(version):
    scale = sizes.SCALES["tiny"][version]
    model, batch = sizes.random_model(scale), sizes.training_batch(scale, scale.batches["4x512"])
    with torch.no_grad():
        expected = dual_ar_loss(model, batch["inputs"], batch["labels"], batch["attention_masks"]).loss
        found = released.training_loss(model, batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_baseline_of_generation_makes_the_same_columns(version):
    scale = sizes.SCALES["tiny"][version]
    model = sizes.random_model(scale)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():  # as initialised the layers hardly change what they are given
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=rng) + (parameter == 1))
    prompt = sizes.random_prompt(scale, 6, 4, rng)
    best = SamplingConfig(temperature=0, top_p=1, repetition_penalty=1)
    found = torch.stack(list(released.StaticGenerator(model).columns(prompt, 8, best, rng)))
    torch.testing.assert_close(found, torch.stack(list(generate_columns(model, prompt, 8, best))), rtol=0, atol=0)
    assert len(found.unique(dim=0)) > 2


@pytest.mark.parametrize("version", VERSIONS)
def test_the_baseline_of_the_codec_makes_the_same_codes_and_sound(version):
    scale = sizes.SCALES["tiny"][version]
    codec = sizes.random_codec(scale)
    (clip,) = sizes.random_clips(scale, (0.1,))
    clip = clip[: len(clip) // codec.samples_per_frame * codec.samples_per_frame]
    with torch.no_grad():
        codes = released_codecs.encode(codec, clip[None, None], torch.tensor([len(clip)]))
        torch.testing.assert_close(codes[0], codec.encode_clips([clip])[0], rtol=0, atol=0)
        torch.testing.assert_close(released_codecs.decode(codec, codes), codec.decode(codes), rtol=0, atol=1e-5)


def test_versions_stand_side_by_side_where_both_were_measured():
    rows = [Row("a", 2.0, "s", version="1.5"), Row("b", 1.0, "s", version="1.5"), Row("c", 5.0, "s")]
    header, line = side_by_side([*rows, Row("a", 3.0, "s", version="s1-mini")], ("1.5", "s1-mini"))
    assert header.split() == ["1.5", "s1-mini", "s1-mini", "/", "1.5"]
    assert line.split() == ["a", "2.000", "3.000", "s", "1.50"]
