"""Euclidean distances between the samples of a batch, exact for close pairs and with a gradient that is never NaN.

The derivative of a distance is undefined at 0; here coincident samples have gradient 0. Both functions take the
differences first, never the expanded product, whose rounding is as large as short distances are.
"""

from __future__ import annotations

import torch

__all__ = ["condensed_distances", "pairwise_distances"]


def pairwise_distances(x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
    """Matrix (N, M) of ``|x_i - y_j|`` of (N, D) and (M, D) samples; `y` is `x` by default.

    Examples
    --------
    >>> pairwise_distances(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    tensor([[0., 5.],
            [5., 0.]])
    """
    return torch.cdist(x, x if y is None else y, compute_mode="donot_use_mm_for_euclid_dist")


def condensed_distances(x: torch.Tensor) -> torch.Tensor:
    """Distances (N (N - 1) / 2,) of the pairs i < j of (N, D) samples, row by row: half the work of the matrix.

    Examples
    --------
    >>> condensed_distances(torch.tensor([[0.0], [1.0], [3.0]]))
    tensor([1., 3., 2.])
    """
    return torch.pdist(x)
