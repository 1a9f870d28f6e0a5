"""A model trained from nothing learns three clips by heart, through the stage that users train with."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from fish_speech.checkpoint import newest_of, read_state_dict
from fish_speech.models import load_dual_ar
from fish_speech.synthesis.generation import generate
from fish_speech.text import speech_prompt

from ..conftest import write_model_folder, write_s1_model
from .scripts import run

TEXTS = ("Good morning.", "The number is nine.", "Please hold the line.")
FRAMES = 160  # of the shortest clip
CODEBOOKS = 4


@pytest.fixture()
def one_thread():
    """A model this small is ten times faster without threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "fast", "floor"),
    [
        # Each clip's last column is labelled 0 where the published model gives constant logits: no training goes below.
        (write_model_folder, {}, math.log(1024) / (FRAMES + len(TEXTS))),
        # Runs its fast part on semantic labels alone.
        (write_s1_model, {"fast_dim": 60, "fast_intermediate_size": 120}, 0.0),
    ],
    ids=["1.5", "s1-mini"],
)
def test_three_clips_are_learnt_to_a_loss_below_a_twentieth_and_spoken_exactly(
    tmp_path, one_thread, write, fast, floor
):
    write(tmp_path / "base", num_codebooks=CODEBOOKS, dim=64, intermediate_size=128, dropout=0.0, **fast)
    (tmp_path / "data/anna").mkdir(parents=True)
    rng = np.random.default_rng(0)
    clips = [rng.integers(0, 1000, (CODEBOOKS, FRAMES + number), dtype=np.int32) for number in range(len(TEXTS))]
    for number, (text, codes) in enumerate(zip(TEXTS, clips)):
        np.save(tmp_path / f"data/anna/{number}.npy", codes)
        (tmp_path / f"data/anna/{number}.lab").write_text(text, encoding="utf-8")
    run("build_dataset", "--input", "data", "--output", "results/learn/protos", cwd=tmp_path)
    said = run(
        "train",
        *("project=learn", "pretrained_ckpt_path=base", "model.model.load_weights=false", "device=cpu"),
        *("data.pack_length=1", "data.batch_size=3", "data.val_share=0"),  # each clip a sample, all in each batch
        *("trainer.max_steps=200", "model.optimizer.lr=3e-3", "trainer.log_every_n_steps=50"),
        cwd=tmp_path,
    ).stderr
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", said)]
    assert losses[0] > 10
    assert floor < losses[-1] < 0.05

    model = load_dual_ar(tmp_path / "base", load_weights=False)
    model.load_state_dict(read_state_dict(newest_of(tmp_path / "results/learn/checkpoints")))
    for text, codes in zip(TEXTS, clips):
        prompt = speech_prompt(model.tokenizer, text, CODEBOOKS)
        spoken = generate(model, prompt, 2 * FRAMES, temperature=0, top_p=1.0, repetition_penalty=1.0)
        np.testing.assert_array_equal(spoken.numpy(), codes)
