"""The kernel matrix of the training points, dense or sparse, and which of them a new point sees."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from .._saving import savable
from .compact import STRETCH, STRETCH_IN_LISTS, compact_kernel, crowd
from .kernels import CUTOFF, KernelShape, dense_distances
from .matrix_free import BACKENDS, KernelOperator
from .neighbors import Ints
from .sampling import NeighborLists, Sampling

__all__ = ["SparseSupport", "connected_pieces", "kernel_matrix"]

logger = logging.getLogger("manifoldkit")


def kernel_matrix(
    sampling: Sampling,
    lists: NeighborLists,
    shape: KernelShape,
    eps2: float,
    *,
    dense: bool,
    gather: bool = False,
    reduction: str = "torch",
    device: Any = "cpu",
) -> tuple[Any, SparseSupport | None, KernelShape]:
    """Kernel of the training points, the candidates of new points, and the shape.

    The kernel is a sparse matrix, or a full one, or an operator that stands for the full one. Only the sparse one has
    candidates, and a shape with an end. If new points find these by the neighbour engine (`gather`), so do the training
    points; else each sees all that it reaches.
    """
    if dense and reduction in BACKENDS:
        return KernelOperator(sampling, lists, shape, eps2, backend=BACKENDS[reduction], device=device), None, shape
    if dense:
        matrix = dense_distances(sampling.points, sampling.rho)
        matrix /= eps2
        return shape(matrix), None, shape
    length = lists.indices.shape[1]
    near = crowd(np.square(lists.distances))
    sparse, lacking, ends, far, shape = compact_kernel(
        lists.distances, lists.indices, sampling.rho, eps2, shape, None if gather else sampling.points
    )
    logger.info("sparse kernel: %d entries a row, neighbour lists of %d", sparse.nnz // len(sampling.points), length)
    return sparse, SparseSupport(length, lacking, ends, far, near, STRETCH_IN_LISTS if gather else STRETCH), shape


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


@savable
class SparseSupport:
    """Which training points may have weight at a query, when the kernel is sparse.

    Where all distances are computed anyway, they are the points within reach. Elsewhere the candidates of a query are
    its nearest neighbours, and those entries of the kernel row of the nearest training point that are not among that
    point's own neighbours. At a training point both are the entries of its row, so that the extension is exact there.

    Parameters
    ----------
    length : int
        Length of the neighbour lists from which the kernel was made.
    lacking : csr_array (n, n)
        Pattern of the kernel entries that the row's own neighbour list lacks.
    ends, far : arrays (n,)
        Lengths of the lists, and the reaches at which the kernel ends.
    crowd : array (n,)
        Squared distances that points on the manifold may have.
    stretch : float
        How far lonely points reach beyond the mean of their neighbours.
    """

    def __init__(self, length: int, lacking: Any, ends: Any, far: Any, crowd: Any, stretch: float) -> None:
        self.length, self.ends, self.far, self.crowd, self.stretch = length, ends, far, crowd, stretch
        self._start, self._lacking = lacking.indptr.astype(np.int64), lacking.indices.astype(np.int64)
        self.width = length + int(np.diff(self._start).max())  # most candidates of a query

    def extra(self, nearest: Ints) -> Ints:
        """What the rows of points `nearest` (B,) have beyond their lists, padded with the point itself (B, E)."""
        start, count = self._start[nearest], self._start[nearest + 1] - self._start[nearest]
        offset = np.arange(int(count.max(initial=0)))
        inside = offset < count[:, None]
        extra = np.repeat(nearest[:, None], len(offset), axis=1)
        extra[inside] = self._lacking[(start[:, None] + offset)[inside]]
        return extra

    def candidates(self, near: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (B, K) of the candidates, and a mask (B, K) that is False where one is repeated.

        Parameters
        ----------
        near : Tensor (B, length)
            Nearest neighbours of each query, the very nearest first.
        """
        extra = torch.from_numpy(self.extra(near[:, 0].cpu().numpy())).to(near.device)
        if not extra.shape[1]:
            return near, torch.ones_like(near, dtype=torch.bool)
        fresh = extra != near[:, :1]
        some = fresh.any(dim=1)  # the lists of most points lack nothing
        ranked = near[some].sort(dim=1).values
        place = torch.searchsorted(ranked, extra[some]).clamp_max(near.shape[1] - 1)
        fresh[some] = ranked.gather(1, place) != extra[some]
        return torch.cat([near, extra], dim=1), torch.cat([torch.ones_like(near, dtype=torch.bool), fresh], dim=1)
