"""Parts of a Piper model with the weights of the golden answers."""

from __future__ import annotations

from fill import fill_state_dict
from torch import nn


def fill_part(module: nn.Module, prefix: str, golden: dict) -> nn.Module:
    """Give `module`, which is called `prefix` in the whole model, its golden weights; ready to be asked, not trained."""
    state = fill_state_dict(
        {f"{prefix}{name}": value for name, value in module.state_dict().items()}, golden["fill_seed"]
    )
    for name, factor in golden["post_fill_scale"].items():
        if name in state:
            state[name] = state[name] * factor
    module.load_state_dict({name.removeprefix(prefix): value for name, value in state.items()})
    return module.eval()
