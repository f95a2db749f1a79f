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
from .matrix_free import BACKENDS, KernelOperator
from .neighbors import Floats, Ints, NeighborSearch
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
    reduction: str = "torch",
    device: Any = "cpu",
) -> tuple[Any, SparseSupport | None]:
    """Kernel of the training points: full, as a matrix or an operator, or sparse with the candidates of new points."""
    if reduction in BACKENDS:
        return KernelOperator(sampling, shape, eps2, backend=BACKENDS[reduction], device=device), None
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
    support = SparseSupport(sampling.search, length, sparse.indptr, sparse.indices, reach)
    sparse.data = shape(sparse.data / eps2)
    return sparse, support


def connected_pieces(kernel: Any) -> int:
    """Number of pieces that the kernel leaves apart, that is, joins by values below exp(-16) only."""
    if isinstance(kernel, KernelOperator):
        return kernel.connected_pieces()
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
    search : NeighborSearch
    length : int
        Length of the neighbour lists from which the kernel was made.
    indptr, indices : arrays
        Rows of the kernel (CSR).
    reach : float
        Candidates count while ``delta^2 / eps^2`` is below this, counted from the least of the row.
    """

    def __init__(self, search: NeighborSearch, length: int, indptr: Any, indices: Any, reach: float) -> None:
        self.search, self.length, self.reach = search, length, reach
        self.width = length + int(np.diff(indptr).max())  # most candidates of a query
        self._indptr, self._indices = np.asarray(indptr, dtype=np.int64), np.asarray(indices, dtype=np.int64)

    def _rows(self, nearest: Ints) -> Ints:
        """Kernel rows of points `nearest` (B,), padded with the point itself."""
        start, stop = self._indptr[nearest], self._indptr[nearest + 1]
        offset = np.arange(int((stop - start).max(initial=0)))
        inside = offset < (stop - start)[:, None]
        return np.where(inside, self._indices[np.where(inside, start[:, None] + offset, 0)], nearest[:, None])

    def mask(self, near: Tensor, at_sample: Tensor, n: int) -> Tensor:
        """Candidates as a mask (B, n), given the nearest neighbours `near` (B, length) of each query.

        Queries `at_sample` (B,) lie on a training point: its row alone counts, whatever the order of ties.
        """
        near = torch.where(at_sample[:, None], near[:, :1], near)
        mask = torch.zeros(len(near), n, dtype=torch.bool, device=near.device).scatter_(1, near, True)
        rows = torch.from_numpy(self._rows(near[:, 0].cpu().numpy()))
        return mask.scatter_(1, rows.to(near.device), True)

    def candidates(self, x: Floats, floor: float) -> tuple[Tensor, Tensor]:
        """Indices (B, K) of the candidates, nearest first, and a mask (B, K) that is False where they do not count.

        Those that do not are repeated ones, and at a training point (nearer than `floor`) all but its own row.
        """
        distances, near = self.search.kneighbors(x, self.length)
        both = np.concatenate([near, self._rows(near[:, 0])], axis=1)
        order = np.argsort(both, axis=1, kind="stable")
        ranked = np.take_along_axis(both, order, axis=1)
        first = np.ones_like(ranked, dtype=bool)
        first[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
        mask = np.empty_like(first)
        np.put_along_axis(mask, order, first, axis=1)
        for i in np.flatnonzero(distances[:, 0] <= floor):
            mask[i, : self.length] &= np.isin(near[i], both[i, self.length :])
        return torch.from_numpy(both), torch.from_numpy(mask)
