"""The kernel matrix of the training points, dense or sparse, and which of them a new point sees."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from .kernels import CUTOFF, KernelShape, dense_distances, sparse_distances
from .neighbors import Ints
from .sampling import Sampling

__all__ = ["SparseSupport", "connected_pieces", "kernel_matrix"]

logger = logging.getLogger("manifoldkit")


def kernel_matrix(
    sampling: Sampling,
    shape: KernelShape,
    eps2: float,
    *,
    n_neighbors: int,
    n_kernel_neighbors: int | None,
    dense_limit: int,
) -> tuple[Any, SparseSupport | None]:
    """Kernel of the training points: a full matrix, or a sparse one and the candidates of new points."""
    points, rho = sampling.points, sampling.rho
    if n_kernel_neighbors is None and len(points) <= dense_limit:
        matrix = dense_distances(points, rho)
        matrix /= eps2
        return shape(matrix), None
    reach = CUTOFF * (shape.width or 1.0) if n_kernel_neighbors is None else np.inf
    sparse, length = sparse_distances(
        points,
        rho,
        sampling.search,
        reach=reach * eps2,
        length=(n_kernel_neighbors or max(3 * n_neighbors, 50)) + 1,
        grow=n_kernel_neighbors is None,
    )
    logger.info("sparse kernel: %d entries a row, neighbour lists of %d", sparse.nnz // len(points), length)
    support = SparseSupport(length, sparse.indptr, sparse.indices, reach)
    sparse.data = shape(sparse.data / eps2)
    return sparse, support


def connected_pieces(kernel: Any) -> int:
    """Number of pieces that the kernel leaves apart, that is, joins by values below exp(-16) only."""
    if sp.issparse(kernel):
        return int(connected_components(kernel, directed=False)[0])
    left, pieces = np.ones(len(kernel), dtype=bool), 0
    while left.any():
        pieces += 1
        front = np.flatnonzero(left)[:1]
        left[front] = False
        while len(front):  # each row is looked at once
            front = np.flatnonzero((kernel[front] > np.exp(-CUTOFF)).any(axis=0) & left)
            left[front] = False
    return pieces


class SparseSupport:
    """Which training points may have weight at a query, when the kernel was truncated.

    The candidates of a query are its nearest neighbours and the kernel row of the nearest training point. At a
    training point these are exactly the entries of its own row, so that the extension stays exact there.

    Parameters
    ----------
    length : int
        Length of the neighbour lists from which the kernel was made.
    indptr, indices : arrays
        Rows of the kernel (CSR).
    reach : float
        Candidates count while ``delta^2 / eps^2`` is below this, counted from the least of the row.
    """

    def __init__(self, length: int, indptr: Any, indices: Any, reach: float) -> None:
        self.length, self.reach = length, reach
        self.width = length + int(np.diff(indptr).max())  # most candidates of a query
        self._indptr, self._indices = np.asarray(indptr, dtype=np.int64), np.asarray(indices, dtype=np.int64)

    def _rows(self, nearest: Ints) -> Ints:
        """Kernel rows of points `nearest` (B,), padded with the point itself."""
        start, stop = self._indptr[nearest], self._indptr[nearest + 1]
        offset = np.arange(int((stop - start).max(initial=0)))
        inside = offset < (stop - start)[:, None]
        return np.where(inside, self._indices[np.where(inside, start[:, None] + offset, 0)], nearest[:, None])

    def candidates(self, near: Tensor, at_sample: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (B, K) of the candidates, and a mask (B, K) that is False where they do not count.

        Those that do not are repeated ones, and at a training point all but its own row, whatever the order of ties.

        Parameters
        ----------
        near : Tensor (B, length)
            Nearest neighbours of each query, the very nearest first.
        at_sample : Tensor (B,)
            Which queries lie on a training point.
        """
        nearest = near[:, :1]
        rows = torch.from_numpy(self._rows(nearest[:, 0].cpu().numpy())).to(near.device)
        ranked = near.sort(dim=1).values
        place = torch.searchsorted(ranked, rows).clamp_max(near.shape[1] - 1)
        repeated = torch.where(at_sample[:, None], rows == nearest, ranked.gather(1, place) == rows)
        first = torch.arange(near.shape[1], device=near.device) == 0
        return torch.cat([near, rows], dim=1), torch.cat([first | ~at_sample[:, None], ~repeated], dim=1)
