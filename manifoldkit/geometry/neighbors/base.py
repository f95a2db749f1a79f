"""What all neighbour engines share: the call, the batches, and the measuring of what was found.

Distances of the neighbours that were found are always recomputed from coordinate differences: the expansion
``|x|^2 + |y|^2 - 2 x.y`` is fast enough to find neighbours and too inexact to measure small distances with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch

from ..._arrays import chunks
from ..._parallel import in_batches

__all__ = ["Engine", "Floats", "Ints", "NeighborSearch", "measure"]

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


class NeighborSearch(Protocol):
    """What the library needs of a neighbour engine."""

    @property
    def longest(self) -> int:
        """Most neighbours that it can find of a training point, the point itself included."""
        ...

    def kneighbors(self, X: Any, n_neighbors: int) -> tuple[Floats, Ints]:
        """Distances and indices (B, n_neighbors) of the nearest training points, nearest first."""
        ...


class Engine(ABC):
    """Base of the engines: `_query` finds the neighbours of new points, `_query_points` those of the training points.

    The latter is called when `X` is the very array of training points, which is where time can be saved. Engines
    never change once made, so that copies of a manifold share them.

    Parameters
    ----------
    points : array (n, D)
        Training points, kept without a copy.
    n_jobs : int or None
        Number of joblib workers among which the training points are shared out as queries. Queries for new points
        run where they are asked: whoever asks shares them out.
    """

    def __init__(self, points: Floats, n_jobs: int | None = None) -> None:
        self.points, self.n_jobs = points, n_jobs

    @property
    def longest(self) -> int:
        """Most neighbours that it can find of a training point, the point itself included."""
        return len(self.points)

    def kneighbors(self, X: Any, n_neighbors: int) -> tuple[Floats, Ints]:
        """Distances and indices (B, n_neighbors) of the nearest training points, nearest first."""
        if X is self.points:
            return self._query_points(n_neighbors)
        return self._query(np.ascontiguousarray(X, dtype=np.float64), n_neighbors)

    @abstractmethod
    def _query(self, X: Floats, n_neighbors: int) -> tuple[Floats, Ints]:
        """Distances and indices (B, n_neighbors) of the training points nearest to new points."""

    def _query_points(self, n_neighbors: int) -> tuple[Floats, Ints]:
        found: tuple[Floats, Ints] = in_batches(partial(self._query, n_neighbors=n_neighbors), self.points, self.n_jobs)
        return found

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        return self

    def _saved_state(self) -> dict[str, Any]:
        """Arguments with which the engine is made again, when it is read from a file."""
        return {"points": self.points, "n_jobs": self.n_jobs}

    @classmethod
    def _restored(cls, state: dict[str, Any]) -> Engine:
        return cls(**state)


def measure(points: Floats, queries: Floats, indices: Ints, n_neighbors: int) -> tuple[Floats, Ints]:
    """Distances and indices (B, n_neighbors) of the nearest among the candidates `indices` (B, m), nearest first."""
    table, asked, found = torch.from_numpy(points), torch.from_numpy(queries), torch.from_numpy(indices)
    result = torch.empty(len(queries), n_neighbors, dtype=torch.float64)
    ranked = torch.empty(len(queries), n_neighbors, dtype=torch.int64)
    (m, d), buffer = (indices.shape[1], points.shape[1]), torch.empty(0, dtype=torch.float64)
    for part in chunks(len(queries), 8 * m * d, budget=2**22):  # fits in the cache, and is allotted once
        near = found[part]
        buffer = torch.index_select(table, 0, near.reshape(-1), out=buffer.resize_(near.numel(), d))
        squares = buffer.view(len(near), m, d).sub_(asked[part, None]).square_().sum(dim=2)
        distances, order = squares.sqrt_().sort(dim=1, stable=True)
        result[part] = distances[:, :n_neighbors]
        ranked[part] = near.gather(1, order[:, :n_neighbors])
    return result.numpy(), ranked.numpy()
