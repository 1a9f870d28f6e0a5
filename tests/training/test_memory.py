"""The estimate of what a backward pass keeps is near what torch keeps."""

import pytest
import torch

from fish_speech.models import DualAR, DualARConfig
from fish_speech.training.losses import IGNORED, dual_ar_loss
from fish_speech.training.memory import activation_bytes

BOTH = {
    "vocab_size": 1200, "n_layer": 6, "n_head": 8, "n_local_heads": 2, "dim": 128, "intermediate_size": 384,
    "tie_word_embeddings": False, "n_fast_layer": 2, "codebook_size": 500, "num_codebooks": 6,
}  # fmt: skip
WIDE_HEADS = {"head_dim": 32, "fast_head_dim": 32, "attention_qk_norm": True, "fast_attention_qk_norm": False}


def bytes_kept(model, grid):
    """Bytes of the tensors that the loss of `grid` (1, 1 + codebooks, tokens) keeps for its gradient, but for weights."""
    labels = torch.cat([grid[..., 1:], torch.full_like(grid[..., :1], IGNORED)], dim=-1)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = []

    def keep(tensor):
        kept.append(tensor)  # alive, so that no other tensor gets its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        dual_ar_loss(model, grid, labels, torch.zeros_like(grid[:, 0], dtype=torch.bool))
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    return sum(size for place, size in storages.items() if place not in weights)


@pytest.mark.parametrize("special", [{}, WIDE_HEADS])
@pytest.mark.parametrize("text", [0, 90])  # tokens of 120 that are no frames
def test_the_estimate_is_what_is_kept_where_all_positions_are_frames_and_above_elsewhere(special, text):
    config = DualARConfig.from_mapping({**BOTH, **special})
    model = DualAR(config, 600).train()
    model.reset_parameters(torch.Generator().manual_seed(0))
    codes = torch.randint(1, config.codebook_size, (1, config.num_codebooks, 120))
    codes[..., :text] = 0
    ids = codes[:, :1] + 600
    ids[..., :text] = 5
    kept, estimate = bytes_kept(model, torch.cat([ids, codes], dim=1)), activation_bytes(config, 120)
    assert 0.85 * estimate < kept < 1.15 * estimate if text == 0 else kept < 0.7 * estimate
