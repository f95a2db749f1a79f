"""Neighbours of the training points from a sparse graph that was computed beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from ..._saving import savable
from .base import Engine, Floats, Ints, NeighborSearch, measure

__all__ = ["GraphNeighbors"]


@savable
class GraphNeighbors(Engine):
    """Neighbours of the training points read from a graph; new points, which it does not know, go to another engine.

    The graph says which samples are neighbours. Distances are measured again from their coordinates, so that what
    holds at the samples and at new points is one and the same. Of rows that differ in length as many neighbours are
    used as the shortest has.

    Parameters
    ----------
    points : array (n, D)
    graph : sparse array or matrix (n, n)
        Distances to the neighbours of each sample, as from ``kneighbors_graph(X, k, mode="distance")``. Whether a
        sample is its own neighbour does not matter.
    others : NeighborSearch
        Engine for new points.

    Raises
    ------
    ValueError
        If the graph has a wrong size, or distances that are negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.neighbors import kneighbors_graph
    >>> from manifoldkit.geometry.neighbors import TreeNeighbors
    >>> points = np.array([[0.0], [1.0], [3.0]])
    >>> graph = kneighbors_graph(points, 1, mode="distance")
    >>> GraphNeighbors(points, graph, TreeNeighbors(points)).kneighbors(points, 2)[1]
    array([[0, 1],
           [1, 0],
           [2, 1]])
    """

    def __init__(self, points: Floats, graph: Any, others: NeighborSearch) -> None:
        super().__init__(points)
        self._others = others
        n = len(points)
        if graph.shape != (n, n):
            raise ValueError(f"the graph of neighbours must have shape {(n, n)}, one row a sample, got {graph.shape}")
        graph = sp.coo_array(graph)
        if graph.data.dtype.kind not in "uif" or not np.isfinite(graph.data).all() or (graph.data < 0).any():
            raise ValueError(
                "the graph of neighbours must hold distances, finite and not negative: make it with "
                "kneighbors_graph(X, k, mode='distance')"
            )
        order = np.lexsort((graph.data, graph.row))
        rows, columns = graph.row[order].astype(np.int64), graph.col[order].astype(np.int64)
        # Once each, at its least distance, and without the sample itself, which comes first below.
        first = np.sort(np.unique(rows * n + columns, return_index=True)[1])
        rows, columns = (part[first][rows[first] != columns[first]] for part in (rows, columns))
        counts = np.bincount(rows, minlength=n)
        rank = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
        kept = rank < counts.min()
        itself = np.arange(n)[:, None]
        self._lists = np.concatenate([itself, columns[kept].reshape(n, -1)], axis=1)

    @property
    def longest(self) -> int:
        """Neighbours in the shortest row of the graph, and the point itself."""
        return self._lists.shape[1]

    def _saved_state(self) -> dict[str, Any]:
        return {**super()._saved_state(), "lists": self._lists, "others": self._others}

    @classmethod
    def _restored(cls, state: dict[str, Any]) -> GraphNeighbors:
        made = object.__new__(cls)
        Engine.__init__(made, state["points"], state["n_jobs"])
        made._lists, made._others = state["lists"], state["others"]
        return made

    def _query(self, X: Floats, n_neighbors: int) -> tuple[Floats, Ints]:
        return self._others.kneighbors(X, n_neighbors)

    def _query_points(self, n_neighbors: int) -> tuple[Floats, Ints]:
        if n_neighbors > self.longest:
            raise ValueError(
                f"the graph of neighbours has a row of {self.longest - 1}, and {n_neighbors - 1} neighbours are "
                f"needed: make it with kneighbors_graph(X, {n_neighbors - 1}, mode='distance'), or lower n_neighbors"
            )
        return measure(self.points, self.points, self._lists, n_neighbors)
