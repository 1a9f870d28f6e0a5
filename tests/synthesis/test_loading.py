"""A speaker computes in float32 throughout unless less is asked for."""

from dataclasses import replace

import pytest
import torch

from fish_speech import device
from fish_speech.models.quantize import Int8Linear
from fish_speech.synthesis import loading
from fish_speech.synthesis.loading import load_speaker

from ..conftest import REPO

MINNOW = REPO / "checkpoints" / "minnow"


def load(**options):
    return load_speaker(MINNOW, MINNOW / "codec.pth", **options)


def test_nothing_is_rounded_unless_it_is_asked_for():
    speaker = load()
    assert speaker.codec.head_dtype == torch.float32
    assert all(p.dtype == torch.float32 for part in (speaker.model, speaker.codec) for p in part.parameters())


@pytest.mark.parametrize("has_bf16", [True, False])
def test_quantized_speech_takes_bfloat16_for_the_codecs_head_where_the_cpu_has_it(monkeypatch, has_bf16):
    hardware = replace(device.probe_hardware(), cpu_bf16=has_bf16)
    monkeypatch.setattr(loading, "probe_hardware", lambda: hardware)
    speaker = load(int8=True)
    assert speaker.codec.head_dtype == (torch.bfloat16 if has_bf16 else torch.float32)
    assert any(isinstance(module, Int8Linear) for module in speaker.model.modules())
    assert all(p.dtype == torch.float32 for p in speaker.codec.parameters())
