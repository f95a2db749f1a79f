r"""The reductions in plain torch: rows of the kernel matrix made a few at a time, used, and dropped.

The exponents of all pairs are one product of two thin matrices, since

.. math::
    -\frac{|x_i - x_j|^2}{s \rho_i \rho_j} = \frac{(2 x_i, -|x_i|^2, -1)}{\rho_i} \cdot
    \frac{(x_j, 1, |x_j|^2)}{s \rho_j}

so that BLAS does the work in any number of dimensions, and autograd finds every derivative. The squares cost
digits (about 1e-16 times the squared extent of the data in bandwidths), hence float64 inside, whatever comes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ["by_rows", "kernel_product", "nearest", "softmax_average"]

#: Bytes of a block of rows: on a CPU it should stay in the cache (the fastest of 1 to 64 MiB in 3 dimensions, without
#: and with derivatives); on a GPU fewer and larger blocks are better.
CACHED, WATCHED, LARGE, MOST = 2**20, 2**22, 2**26, 2**28


def kernel_product(x: Tensor, rho_x: Tensor, points: Tensor, rho: Tensor, values: Tensor, scale: float) -> Tensor:
    """See :func:`manifoldkit.reductions.kernel_product`."""
    left, right = _factors(x, rho_x, points, rho, scale, None)
    return _reduce(lambda rows, right, values: (rows @ right.T).exp_() @ values, left, right, values)


def softmax_average(
    x: Tensor,
    rho_x: Tensor,
    points: Tensor,
    rho: Tensor,
    log_weights: Tensor,
    values: Tensor,
    scale: float,
    anchor: Tensor | None,
) -> Tensor:
    """See :func:`manifoldkit.reductions.softmax_average`."""
    left, right = _factors(x, rho_x, points, rho, scale, anchor)
    left = torch.cat([left, torch.ones_like(left[:, :1])], dim=1)
    right = torch.cat([right, log_weights.double()[:, None]], dim=1)
    return _reduce(lambda rows, right, values: torch.softmax(rows @ right.T, dim=1) @ values, left, right, values)


def nearest(x: Tensor, points: Tensor, k: int) -> Tensor:
    """Indices (B, k) of the nearest points, see :func:`manifoldkit.reductions.nearest`."""
    x, points = x.detach().double(), points.detach().double()
    centre = points.mean(dim=0)
    x, points = x - centre, points - centre
    squares = points.square().sum(dim=1)

    def block(rows: Tensor) -> Tensor:
        score = torch.addmm(squares, rows, points.T, alpha=-2)  # |x - x_j|^2 less |x|^2
        return score.topk(k, largest=False).indices

    return by_rows(block, (x,), (), 8 * len(points))


def _factors(
    x: Tensor, rho_x: Tensor, points: Tensor, rho: Tensor, scale: float, anchor: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Matrices (B, D + 2) and (n, D + 2) whose product holds the exponents, counted from those of `anchor`."""
    centre = points.detach().double().mean(dim=0)  # squares of centred coordinates are small
    x, points, rho_x, rho = x.double() - centre, points.double() - centre, rho_x.double(), rho.double()
    if anchor is None:
        own = x.square().sum(dim=1, keepdim=True)
    else:
        a = anchor.double() - centre
        own = (a * (2 * x - a)).sum(dim=1, keepdim=True)  # |x|^2 - |x - a|^2
    squares = points.square().sum(dim=1, keepdim=True)
    left = torch.cat([2 * x, -own, -torch.ones_like(own)], dim=1) / rho_x[:, None]
    right = torch.cat([points, torch.ones_like(squares), squares], dim=1) / (rho * scale)[:, None]
    return left, right


def _reduce(block: Callable[..., Tensor], left: Tensor, right: Tensor, values: Tensor) -> Tensor:
    row = 8 * len(right)
    return by_rows(block, (left,), (right, values.double()), row, least=16 + min(left.shape[1], 240))


def by_rows(
    block: Callable[..., Tensor],
    rows: tuple[Tensor, ...],
    shared: tuple[Tensor, ...],
    bytes_per_row: int,
    least: int = 16,
) -> Tensor:
    """``block(*rows, *shared)`` for some rows at a time, one below the other.

    Where a derivative is wanted the backward pass makes each block again instead of keeping it.
    """
    watched = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (*rows, *shared))
    budget = LARGE if rows[0].is_cuda else (WATCHED if watched else CACHED) * torch.get_num_threads()
    step = max(1, min(max(budget // bytes_per_row, least), MOST // bytes_per_row))
    starts = range(0, len(rows[0]) or 1, step)
    parts = [tuple(tensor[start : start + step] for tensor in rows) for start in starts]
    if watched:
        return torch.cat(
            [checkpoint(block, *part, *shared, use_reentrant=False, preserve_rng_state=False) for part in parts]
        )
    result = block(*parts[0], *shared)
    if len(parts) > 1:  # small answers kept between large blocks would tear the heap to pieces
        first, result = result, result.new_empty(len(rows[0]), *result.shape[1:])
        result[:step] = first
        for start, part in zip(starts[1:], parts[1:], strict=True):
            result[start : start + step] = block(*part, *shared)
    return result
