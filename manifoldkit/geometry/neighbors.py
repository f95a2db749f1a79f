"""Nearest neighbours among the training points: one `kneighbors` call behind which the engines differ.

Any object with scikit-learn's ``kneighbors(Q, n_neighbors)`` may take the place of the engines here. Distances
of the neighbours that were found are always recomputed from coordinate differences: the expansion
``|x|^2 + |y|^2 - 2 x.y`` is fast enough to find neighbours and too inexact to measure small distances with.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import torch
from scipy.spatial import cKDTree
from sklearn.base import BaseEstimator, clone

from .._arrays import chunks

__all__ = ["BruteNeighbors", "ForeignNeighbors", "NeighborSearch", "TreeNeighbors", "neighbor_search"]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

#: Below this many coordinates a k-d tree is cheaper than matrix products.
TREE_DIMENSIONS = 15


class NeighborSearch(Protocol):
    """What the library needs of a neighbour engine."""

    def kneighbors(self, X: Any, n_neighbors: int) -> tuple[Any, Any]:
        """Distances and indices (B, n_neighbors) of the nearest training points, nearest first."""
        ...


class TreeNeighbors:
    """Exact neighbours by scipy's k-d tree, for up to some 15 coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> distances, indices = TreeNeighbors(np.array([[0.0], [1.0], [3.0]])).kneighbors([[0.9]], 2)
    >>> indices
    array([[1, 0]])
    """

    def __init__(self, points: Floats) -> None:
        self._tree = cKDTree(points)

    def kneighbors(self, X: Any, n_neighbors: int) -> tuple[Floats, Ints]:
        """Distances and indices (B, n_neighbors), nearest first."""
        ranks = np.arange(1, n_neighbors + 1)
        distances, indices = self._tree.query(np.asarray(X, dtype=np.float64), k=ranks)
        return distances, indices.astype(np.int64)


class BruteNeighbors:
    """Exact neighbours by blocked matrix products, for many coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> distances, indices = BruteNeighbors(np.eye(20)).kneighbors(np.eye(20)[:1] * 2, 1)
    >>> float(distances[0, 0]), int(indices[0, 0])
    (1.0, 0)
    """

    def __init__(self, points: Floats) -> None:
        self._points, self._center = points, points.mean(axis=0)  # shared with the caller, hence not centred
        parts = [
            np.square(points[part] - self._center).sum(axis=1)
            for part in chunks(len(points), 16 * points.shape[1], 2**21)
        ]
        self._squares = torch.from_numpy(np.concatenate(parts))

    def kneighbors(self, X: Any, n_neighbors: int) -> tuple[Floats, Ints]:
        """Distances and indices (B, n_neighbors), nearest first."""
        queries = torch.from_numpy(np.asarray(X, dtype=np.float64))
        row = 8 * (2 * len(self._points) + n_neighbors * queries.shape[1])
        parts = [self._block(queries[part], n_neighbors) for part in chunks(len(queries), row)]
        return np.concatenate([d for d, _ in parts]), np.concatenate([i for _, i in parts])

    def _block(self, queries: torch.Tensor, k: int) -> tuple[Floats, Ints]:
        points, center = torch.from_numpy(self._points), torch.from_numpy(self._center)
        score = torch.addmm(self._squares, queries - center, points.T, alpha=-2)  # |x - y|^2 less what all y share
        indices = score.topk(k, largest=False).indices
        distances = torch.linalg.vector_norm(queries[:, None] - points[indices], dim=2)
        distances, order = distances.sort(dim=1)
        return distances.numpy(), indices.gather(1, order).numpy()


class ForeignNeighbors:
    """Neighbours found by somebody else's engine; their distances are measured here.

    A scikit-learn estimator is cloned and fitted on the points; anything else must have been built on them, in the
    same order. The engine need not be exact, and what it calls a distance does not matter.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import NearestNeighbors
    >>> engine = ForeignNeighbors(np.array([[0.0], [1.0], [3.0]]), NearestNeighbors(metric="sqeuclidean"))
    >>> distances, indices = engine.kneighbors(np.array([[3.5]]), 2)
    >>> distances, indices
    (array([[0.5, 2.5]]), array([[2, 1]]))
    """

    def __init__(self, points: Floats, engine: Any) -> None:
        self._points = points
        self._engine = clone(engine).fit(points) if isinstance(engine, BaseEstimator) else engine

    def kneighbors(self, X: Any, n_neighbors: int) -> tuple[Floats, Ints]:
        """Distances and indices (B, n_neighbors), nearest first."""
        queries = np.asarray(X, dtype=np.float64)
        indices = np.asarray(self._engine.kneighbors(queries, n_neighbors)[1])
        n = len(self._points)
        if indices.shape != (len(queries), n_neighbors) or indices.min(initial=0) < 0 or indices.max(initial=0) >= n:
            raise ValueError(
                f"neighbors must find {n_neighbors} of the {n} samples for each of {len(queries)} queries, got indices "
                f"of shape {indices.shape}, from {indices.min(initial=n)} to {indices.max(initial=0)}: it must have "
                "been built on the same samples"
            )
        distances = np.empty(indices.shape)
        for part in chunks(len(queries), 16 * n_neighbors * self._points.shape[1]):
            distances[part] = np.linalg.norm(queries[part, None] - self._points[indices[part]], axis=2)
        order = np.argsort(distances, axis=1, kind="stable")
        return np.take_along_axis(distances, order, axis=1), np.take_along_axis(indices, order, axis=1).astype(np.int64)


def neighbor_search(points: Floats, neighbors: Any = "auto") -> NeighborSearch:
    """Neighbour engine over `points` (n, D).

    Parameters
    ----------
    points : array (n, D)
        Training points.
    neighbors : {"auto", "tree", "brute"} or object with ``kneighbors``, default="auto"
        ``"auto"`` takes the tree up to 15 coordinates and blocked matrix products above. For objects see
        :class:`ForeignNeighbors`.

    Raises
    ------
    ValueError
        If `neighbors` names no engine.
    TypeError
        If `neighbors` is an object without ``kneighbors``.
    """
    if neighbors == "auto":
        neighbors = "tree" if points.shape[1] <= TREE_DIMENSIONS else "brute"
    if isinstance(neighbors, str):
        engines: dict[str, type[TreeNeighbors | BruteNeighbors]] = {"tree": TreeNeighbors, "brute": BruteNeighbors}
        if neighbors not in engines:
            raise ValueError(f"neighbors must be 'auto', 'tree', 'brute' or an object, got {neighbors!r}")
        return engines[neighbors](points)
    if not hasattr(neighbors, "kneighbors"):
        raise TypeError(f"neighbors must be a name or have a method kneighbors(X, n_neighbors), got {neighbors!r}")
    return ForeignNeighbors(points, neighbors)
