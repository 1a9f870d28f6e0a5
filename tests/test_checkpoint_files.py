"""Weights files that are torn, wherever they were cut."""

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fish_speech.checkpoint import read_file
from fish_speech.errors import UserError


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(min_value=0, max_value=0.999))
@example(share=5000 / 81000)  # torch gives OSError EINVAL here, without a file's name
def test_a_checkpoint_cut_anywhere_is_refused_with_a_message(tmp_path, share):
    whole = tmp_path / "whole.ckpt"
    torch.save({"weights": torch.arange(20000.0), "step": 3}, whole)
    content = whole.read_bytes()
    torn = tmp_path / "torn.ckpt"
    torn.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"torn or not a torch file|could run code"):
        read_file(torn)
