"""A monotonic curve from [-5, 5] to itself, made of rational-quadratic pieces (neural spline flows, arXiv:1906.04032).

Outside it is the identity. Every point has its own curve, given by three sets of free numbers: widths and heights of
the bins before softmax, slopes at the inner edges before softplus. The outermost slopes are 1, as of the identity.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TAIL_BOUND = 5.0
MIN_BIN = 1e-3  # least share of a bin in the whole, in width and in height
MIN_SLOPE = 1e-3
EDGE_SLACK = 1e-6  # raises the last edge, so that the bound itself falls into the last bin


def spline(x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """Map `x` of any shape through its curves -> (y, log |dy/dx|), both of the shape of `x`.

    widths, heights: (*x.shape, bins) free numbers; slopes: (*x.shape, bins - 1) free numbers
    inverse: map y back to x, and return log |dx/dy|
    """
    x_edges, bin_widths = _edges(widths)
    y_edges, bin_heights = _edges(heights)
    one = torch.ones_like(slopes[..., :1])
    edge_slopes = torch.cat([one, MIN_SLOPE + F.softplus(slopes), one], dim=-1)  # (..., bins + 1)

    inside = (x >= -TAIL_BOUND) & (x <= TAIL_BOUND)
    point = x.clamp(-TAIL_BOUND, TAIL_BOUND)
    index = _bin_of(point, y_edges if inverse else x_edges)

    def chosen(values: Tensor) -> Tensor:
        return values.gather(-1, index)[..., 0]

    left, bottom = chosen(x_edges), chosen(y_edges)
    width, height = chosen(bin_widths), chosen(bin_heights)
    slope = height / width  # of the straight line through the bin's corners
    first, last = chosen(edge_slopes), chosen(edge_slopes[..., 1:])
    bend = first + last - 2 * slope

    if inverse:
        rise = point - bottom
        a = rise * bend + height * (slope - first)
        b = height * first - rise * bend
        c = -slope * rise
        root = (b.square() - 4 * a * c).clamp(min=0).sqrt()  # below 0 by rounding only
        share = 2 * c / (-b - root)  # of the bin's width, 0 to 1
        y = share * width + left
    else:
        share = (point - left) / width
        y = bottom + height * (slope * share.square() + first * share * (1 - share)) / (
            slope + bend * share * (1 - share)
        )
    denominator = slope + bend * share * (1 - share)
    numerator = slope.square() * (
        last * share.square() + 2 * slope * share * (1 - share) + first * (1 - share).square()
    )
    log_slope = numerator.log() - 2 * denominator.log()
    if inverse:
        log_slope = -log_slope
    return torch.where(inside, y, x), torch.where(inside, log_slope, torch.zeros_like(x))


def _edges(free: Tensor) -> tuple[Tensor, Tensor]:
    """Free numbers (..., bins) -> edges (..., bins + 1) from -5 to 5, and the distances between them (..., bins)."""
    shares = MIN_BIN + (1 - MIN_BIN * free.size(-1)) * torch.softmax(free, dim=-1)
    inner = 2 * TAIL_BOUND * shares.cumsum(-1)[..., :-1] - TAIL_BOUND
    end = torch.full_like(free[..., :1], TAIL_BOUND)  # pinned: a sum of shares is 1 but for rounding
    edges = torch.cat([-end, inner, end], dim=-1)
    return edges, edges[..., 1:] - edges[..., :-1]


def _bin_of(point: Tensor, edges: Tensor) -> Tensor:
    """Number of the bin that holds each point, (..., 1)."""
    slack = torch.cat([edges[..., :-1], edges[..., -1:] + EDGE_SLACK], dim=-1)
    return (point[..., None] >= slack).sum(-1, keepdim=True) - 1
