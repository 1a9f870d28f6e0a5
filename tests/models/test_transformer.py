"""Attention of few positions, heads that share keys, and norms of queries and keys are what the plain formulas say."""

import pytest
import torch
from torch.nn import functional

from fish_speech.models.transformer import Attention, RotaryTable, rotate


def by_formula(attention, x, rope):
    """The attention of (batch, tokens, dim) written out head by head."""
    heads, kv_heads, size = attention.heads, attention.kv_heads, attention.head_dim
    q, k, v = attention.wqkv(x).split([heads * size, kv_heads * size, kv_heads * size], dim=-1)
    q, k, v = (part.unflatten(-1, (-1, size)) for part in (q, k, v))
    if attention.qk_norm:
        q, k = (
            functional.rms_norm(part, (size,), norm.weight, norm.eps)
            for part, norm in ((q, attention.q_norm), (k, attention.k_norm))
        )
    q, k = rotate(q, *rope), rotate(k, *rope)
    out = torch.empty_like(q)
    for head in range(heads):
        keys, values = (part[:, :, head // (heads // kv_heads)] for part in (k, v))
        scores = q[:, :, head] @ keys.transpose(1, 2) / size**0.5
        future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
        out[:, :, head] = scores.float().masked_fill(future, float("-inf")).softmax(-1).to(values.dtype) @ values
    return attention.wo(out.flatten(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
@pytest.mark.parametrize("tokens", [3, 10, 40])
@pytest.mark.parametrize("norm_eps", [None, 1e-5])
def test_attention_and_its_gradients_are_those_of_the_formula(dtype, kv_heads, tokens, norm_eps):
    torch.manual_seed(0)
    attention = Attention(24, 6, kv_heads, True, 0.0, head_dim=10, o_bias=True, norm_eps=norm_eps).to(dtype).train()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(5, tokens, 24, dtype=dtype)
    rope = RotaryTable(10, 10000).first(tokens, x.device)
    results = []
    for compute in (attention, lambda x, rope: by_formula(attention, x, rope)):
        attention.zero_grad()
        out = compute(x, rope)
        out.float().square().mean().backward()
        results.append([out.detach().float(), *(p.grad.float() for p in attention.parameters())])
    for found, expected in zip(*results, strict=True):
        tolerance = (1e-4 if dtype == torch.float32 else 5e-2) * max(1.0, expected.abs().max().item())
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_no_frames_are_attended_to():
    attention = Attention(24, 6, 2, False, 0.0)
    rope = RotaryTable(4, 10000).first(10, torch.device("cpu"))
    assert attention(torch.zeros(0, 10, 24), rope).shape == (0, 10, 24)
