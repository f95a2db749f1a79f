"""Distances between samples, the one implementation of the library.

Where gradients flow, differences are taken first, never the expanded product, whose rounding is as large as short
distances are; the derivative of a distance is undefined at 0, and coincident samples have gradient 0 here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

__all__ = ["condensed_distances", "pairwise_distances", "squared_distances"]

_FEW = 32  # coordinates up to which differences are affordable
_pdist_backward = torch.ops.aten._pdist_backward.default


def pairwise_distances(x: torch.Tensor, y: torch.Tensor | None = None, *, p: float = 2.0) -> torch.Tensor:
    """Matrix (N, M) of ``|x_i - y_j|_p`` of (N, D) and (M, D) samples, from differences; `y` is `x` by default.

    Examples
    --------
    >>> pairwise_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([[0., 5.],
            [5., 0.]])
    """
    return torch.cdist(x, x if y is None else y, p=p, compute_mode="donot_use_mm_for_euclid_dist")


def squared_distances(x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    """Matrix (N, M) of ``|x_i - y_j|^2`` for large N and M, without gradient; `y` is `x` by default.

    Up to 32 coordinates from differences. Beyond, from the expanded product of centred samples, which is many times
    faster and loses some 1e-15 of the largest squared norm in float64. The matrix of one set is symmetric, with zeros
    on its diagonal, either way.

    Examples
    --------
    >>> squared_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([[ 0., 25.],
            [25.,  0.]])
    """
    with torch.no_grad():
        if x.shape[1] <= _FEW:
            return pairwise_distances(x, y).square_()
        centre = (x if y is None else y).mean(dim=0)
        a = x - centre
        b = a if y is None else y - centre
        squared = torch.cdist(a, b, compute_mode="use_mm_for_euclid_dist").square_()
        return squared if y is not None else (squared + squared.T).div_(2).fill_diagonal_(0)


def condensed_distances(x: torch.Tensor, sizes: Sequence[int] | None = None) -> torch.Tensor:
    """Distances of the pairs i < j of (N, D) samples, row by row: half the work of the matrix.

    Parameters
    ----------
    x : Tensor (N, D)
    sizes : sequence of int, optional
        Numbers of samples of cells that lie one behind the other; only pairs within a cell count. One cell of all
        samples by default.

    Returns
    -------
    Tensor (P,)
        Twice differentiable (the second derivative takes memory P D).

    Examples
    --------
    >>> x = torch.tensor([[0.0], [1.0], [3.0]])
    >>> condensed_distances(x), condensed_distances(x, [1, 2])
    (tensor([1., 3., 2.]), tensor([2.]))
    """
    cells = (len(x),) if sizes is None else tuple(sizes)
    result: torch.Tensor = _Condensed.apply(x, cells) if x.requires_grad else _Condensed.forward(x, cells)
    return result


class _Condensed(torch.autograd.Function):
    """`torch.pdist` over cells, with a backward pass that can be differentiated again, which that of torch can't."""

    @staticmethod
    def forward(x: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
        return torch.cat([torch.pdist(part) for part in _whole_vectors(x).split(sizes)]) if sizes else x.new_zeros(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, tuple[int, ...]], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)
        ctx.sizes = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        x, distances = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph
            return _gradient(x, gradient, ctx.sizes), None
        pairs = [n * (n - 1) // 2 for n in ctx.sizes]
        rows = _whole_vectors(x).contiguous()
        cells = zip(gradient.split(pairs), rows.split(ctx.sizes), distances.split(pairs), strict=True)
        products = [_pdist_backward(g, part, 2.0, d) for g, part, d in cells]
        return torch.cat(products)[:, : x.shape[1]] if products else torch.zeros_like(x), None


def _whole_vectors(x: torch.Tensor) -> torch.Tensor:
    """Short rows with zeros behind them, which no distance sees: torch is many times faster for multiples of 8."""
    rest = -x.shape[1] % 8 if x.shape[1] < _FEW and x.dtype == torch.float32 and not x.is_cuda else 0
    return torch.nn.functional.pad(x, (0, rest)) if rest else x


def _gradient(x: torch.Tensor, gradient: torch.Tensor, sizes: tuple[int, ...]) -> torch.Tensor:
    """``sum_j g_ij (x_i - x_j) / |x_i - x_j|`` by operations that have derivatives."""
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    i, j = torch.cat(
        [start + torch.triu_indices(n, n, 1, device=x.device) for start, n in zip(starts, sizes, strict=True)], dim=1
    )
    distances = condensed_distances(x, sizes)
    apart = distances > 0
    weights = torch.where(apart, gradient / torch.where(apart, distances, 1.0), 0.0)
    steps = weights[:, None] * (x[i] - x[j])
    return torch.zeros_like(x).index_add(0, i, steps).index_add(0, j, -steps)
