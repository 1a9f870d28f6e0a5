"""Models made as shapes alone have the names and shapes of real ones, and do not load torch's compiler."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from fish_speech.models.shapes import shapes_only

from ..conftest import REPO

NORMS = [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm]


def made(norm, dim):
    return norm(nn.Conv1d(3, 5, 7), dim=dim)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("norm", NORMS)
def test_weight_normalised_layers_have_the_shapes_of_real_ones(norm, dim):
    with shapes_only():
        bare = made(norm, dim)
    real = {name: tensor.shape for name, tensor in made(norm, dim).state_dict().items()}
    assert {name: tensor.shape for name, tensor in bare.state_dict().items()} == real
    assert all(tensor.is_meta for tensor in bare.state_dict().values())
    bare.load_state_dict(made(norm, dim).state_dict(), assign=True)
    assert bare(torch.zeros(1, 3, 9)).shape == (1, 5, 3)


@pytest.mark.parametrize("config", ["modded_dac_vq", "firefly_gan_vq"])
def test_a_codec_made_as_shapes_does_not_load_the_compiler(config):
    code = f"""if True:
        import sys
        from fish_speech.models.codec_loading import ARCHITECTURES, codec_config, make_codec_config
        from fish_speech.models.shapes import shapes_only
        before = set(sys.modules)
        values = codec_config({config!r})
        with shapes_only():
            codec = ARCHITECTURES[values.get("architecture", "firefly")].codec(make_codec_config(values, "it"))
        assert sum(tensor.numel() for tensor in codec.state_dict().values()) > 1e7
        print([name for name in ("torch._refs", "sympy") if name in set(sys.modules) - before])
    """
    ran = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, timeout=120)
    assert (ran.stdout.strip(), ran.returncode) == ("[]", 0), ran.stderr
