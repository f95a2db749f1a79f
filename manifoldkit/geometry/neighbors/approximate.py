"""Approximate neighbours, and engines from outside: what they find is completed and measured here.

Their lists may miss the sample itself, repeat a sample, or end in -1. Rows that are not complete are searched
again by brute force, so that every list that is handed on is sorted, and has as many different samples as asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone

from ..._saving import savable
from .base import Engine, Floats, Ints, measure
from .exact import BruteNeighbors

__all__ = ["ForeignNeighbors", "PynndescentNeighbors", "completed", "missing_extra"]


def missing_extra(neighbors: str, extra: str) -> ImportError:
    """The error to raise where an extra is not installed."""
    return ImportError(f"neighbors={neighbors!r} needs an extra: pip install manifoldkit[{extra}]")


def completed(points: Floats, X: Floats, found: Ints, n_neighbors: int) -> tuple[Floats, Ints]:
    """Neighbour lists (B, n_neighbors) from candidates `found` (B, m), m >= n_neighbors, of which some may be bad.

    Negative and repeated candidates are dropped. Rows that have too few others are searched by brute force.
    """
    ranked = np.sort(found, axis=1)
    useful = ranked >= 0
    useful[:, 1:] &= ranked[:, 1:] != ranked[:, :-1]
    bad = ~useful.all(axis=1)
    few = useful.sum(axis=1) < n_neighbors
    distances, indices = np.empty((len(X), n_neighbors)), np.empty((len(X), n_neighbors), dtype=np.int64)
    distances[~bad], indices[~bad] = measure(points, X[~bad], found[~bad], n_neighbors)
    for i in np.flatnonzero(bad & ~few):
        distances[i], indices[i] = (
            part[0] for part in measure(points, X[i : i + 1], ranked[i : i + 1, useful[i]], n_neighbors)
        )
    if few.any():
        distances[few], indices[few] = BruteNeighbors(points).kneighbors(X[few], n_neighbors)
    return distances, indices


class ForeignNeighbors(Engine):
    """Neighbours found by somebody else's engine; their distances are measured here.

    A scikit-learn estimator is cloned and fitted on the points; anything else must have been built on the samples, in
    the same order and in their own coordinates. The engine need not be exact, and what it calls a distance does not
    matter.

    Parameters
    ----------
    points : array (n, D)
    engine : object with ``kneighbors(X, n_neighbors)``
    center : array (D,), default=0
        What was subtracted from the samples: the engine is asked for points in the coordinates of the samples.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import NearestNeighbors
    >>> engine = ForeignNeighbors(np.array([[0.0], [1.0], [3.0]]), NearestNeighbors(metric="sqeuclidean"))
    >>> distances, indices = engine.kneighbors(np.array([[3.5]]), 2)
    >>> distances, indices
    (array([[0.5, 2.5]]), array([[2, 1]]))
    """

    def __init__(self, points: Floats, engine: Any, center: Floats | float = 0.0) -> None:
        super().__init__(points)
        self._center = center
        fits = isinstance(engine, BaseEstimator)
        self._engine = clone(engine).fit(points + center) if fits else engine

    def _query(self, X: Floats, n_neighbors: int) -> tuple[Floats, Ints]:
        indices = np.asarray(self._engine.kneighbors(X + self._center, n_neighbors)[1])
        n = len(self.points)
        if indices.shape != (len(X), n_neighbors) or indices.min(initial=0) < -1 or indices.max(initial=0) >= n:
            raise ValueError(
                f"neighbors must find {n_neighbors} of the {n} samples for each of {len(X)} queries, got indices "
                f"of shape {indices.shape}, from {indices.min(initial=n)} to {indices.max(initial=0)}: it must have "
                "been built on the same samples"
            )
        return completed(self.points, X, indices.astype(np.int64), n_neighbors)


@savable
class PynndescentNeighbors(Engine):
    """Approximate neighbours by nearest-neighbour descent; numba compiles it, some 30 s, when first used.

    Parameters
    ----------
    points : array (n, D)
    n_jobs : int or None
        Number of its threads.

    Raises
    ------
    ImportError
        If pynndescent is not installed.

    References
    ----------
    .. [1] W. Dong, M. Charikar, K. Li, "Efficient k-nearest neighbor graph construction for generic similarity
       measures", 2011.
    """

    def __init__(self, points: Floats, n_jobs: int | None = None) -> None:
        super().__init__(points, n_jobs)
        try:
            import pynndescent  # noqa: F401
        except ImportError as error:
            raise missing_extra("pynndescent", "pynndescent") from error
        self._index: Any = None
        self._length = 0

    def _built(self, n_neighbors: int) -> Any:
        """The index, of which each point knows at least `n_neighbors` others."""
        if self._length < n_neighbors:
            from pynndescent import NNDescent

            self._length = max(n_neighbors, 30)
            self._index = NNDescent(
                self.points.astype(np.float32), n_neighbors=self._length, n_jobs=self.n_jobs or 1, random_state=0
            )
        return self._index

    def _query(self, X: Floats, n_neighbors: int) -> tuple[Floats, Ints]:
        if 4 * n_neighbors > len(self.points):  # nearly all of them: there is nothing to gain
            return BruteNeighbors(self.points).kneighbors(X, n_neighbors)
        found = self._built(1).query(X.astype(np.float32), k=n_neighbors)[0]
        return completed(self.points, X, found.astype(np.int64), n_neighbors)

    def _query_points(self, n_neighbors: int) -> tuple[Floats, Ints]:
        if 4 * n_neighbors > len(self.points):
            return self._query(self.points, n_neighbors)
        found = self._built(n_neighbors).neighbor_graph[0]
        return completed(self.points, self.points, found.astype(np.int64), n_neighbors)
