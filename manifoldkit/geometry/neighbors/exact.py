"""Exact neighbours on the processor: a k-d tree for few coordinates, matrix products for many."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from ..._arrays import chunks
from ..._saving import savable
from .base import Engine, Floats, Ints, measure
from .screening import proven, screen, screen_points

__all__ = ["BruteNeighbors", "TreeNeighbors"]


@savable
class TreeNeighbors(Engine):
    """Exact neighbours by scipy's k-d tree, for up to some 15 coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> distances, indices = TreeNeighbors(np.array([[0.0], [1.0], [3.0]])).kneighbors([[0.9]], 2)
    >>> indices
    array([[1, 0]])
    """

    def __init__(self, points: Floats, n_jobs: int | None = None) -> None:
        super().__init__(points, n_jobs)
        self._tree = cKDTree(points)

    def _query(self, X: Floats, n_neighbors: int) -> tuple[Floats, Ints]:
        distances, indices = self._tree.query(X, k=np.arange(1, n_neighbors + 1))
        return distances, indices.astype(np.int64, copy=False)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the tree, which would bring the points a second time."""
        return self._saved_state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


@savable
class BruteNeighbors(Engine):
    """Exact neighbours by blocked matrix products, for many coordinates.

    Products in single precision choose candidates, which are measured in double precision; a bound on the rounding
    proves that none is missing, and rows for which it does not are searched again in double precision
    (:mod:`~manifoldkit.geometry.neighbors.screening`). The neighbours of the training points themselves take half
    the products. numpy's BLAS does them with its own threads.

    Examples
    --------
    >>> import numpy as np
    >>> distances, indices = BruteNeighbors(np.eye(20)).kneighbors(np.eye(20)[:1] * 2, 1)
    >>> float(distances[0, 0]), int(indices[0, 0])
    (1.0, 0)
    """

    #: Fewer queries or points than these do not repay the conversion to single precision.
    LEAST_QUERIES, LEAST_POINTS = 64, 2048

    def _query(self, X: Floats, n_neighbors: int) -> tuple[Floats, Ints]:
        n = len(self.points)
        wanted = _n_candidates(n_neighbors)
        if len(X) < self.LEAST_QUERIES or n < self.LEAST_POINTS or wanted > n // 4:
            return self._double(X, n_neighbors)
        parts = []
        for part in chunks(len(X), 40 * wanted + 4 * X.shape[1]):
            parts.append(self._checked(X[part], n_neighbors, *screen(self.points, X[part], wanted)))
        return np.concatenate([d for d, _ in parts]), np.concatenate([i for _, i in parts])

    def _query_points(self, n_neighbors: int) -> tuple[Floats, Ints]:
        wanted = _n_candidates(n_neighbors)
        shared_out = self.n_jobs not in (None, 1)
        if shared_out or len(self.points) < self.LEAST_POINTS or wanted > len(self.points) // 4:
            return super()._query_points(n_neighbors)
        return self._checked(self.points, n_neighbors, *screen_points(self.points, wanted))

    def _checked(self, X: Floats, k: int, candidates: Ints, worst: Floats, scale: float) -> tuple[Floats, Ints]:
        distances, indices = measure(self.points, X, candidates, k)
        doubtful = np.flatnonzero(~proven(X, distances[:, -1], worst, scale))
        if len(doubtful):
            distances[doubtful], indices[doubtful] = self._double(X[doubtful], k)
        return distances, indices

    def _double(self, X: Floats, k: int) -> tuple[Floats, Ints]:
        """The search in double precision."""
        table = torch.from_numpy(self.points)
        halves, distances, indices = table.square().sum(dim=1) / 2, np.empty((len(X), k)), np.empty((len(X), k), int)
        extra = min(k + 2, len(table))  # of equal distances rounding may favour either
        for part in chunks(len(X), 16 * len(table), budget=2**26):
            score = torch.addmm(halves, torch.from_numpy(X[part]), table.T, alpha=-1)  # (|x - y|^2 - |x|^2) / 2
            near = score.topk(extra, largest=False, sorted=False).indices.numpy()
            distances[part], indices[part] = measure(self.points, X[part], near, k)
        return distances, indices


def _n_candidates(n_neighbors: int) -> int:
    """How many to measure: with more of them fewer rows are left in doubt."""
    return n_neighbors + max(8, n_neighbors // 4)
