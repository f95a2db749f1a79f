"""Training points made ready for the kernel: copies merged, bandwidths measured, outliers and gaps reported."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from ..exceptions import DuplicatePointsWarning, OutlierWarning
from .kernels import bandwidth
from .neighbors import Floats, Ints, NeighborSearch, neighbor_search

__all__ = ["Sampling", "neighbor_lists", "sample_neighborhoods"]

#: Bandwidths below this share of their median are those of near copies.
FLOOR = 1e-6
#: Bandwidths above this many medians are reported as outliers.
OUTLIER = 100.0


@dataclass(frozen=True)
class Sampling:
    """Distinct training points and their neighbourhoods.

    Attributes
    ----------
    points : array (u, D)
        Distinct points.
    weights : array (u,)
        How often each occurs.
    inverse : array (n,) or None
        The distinct point of each training point; None if all are distinct.
    rho : array (u,)
        Bandwidths.
    floor : float
        Least bandwidth allowed.
    distances, indices : arrays (u, k + 1)
        Neighbour lists, the point itself first.
    search : NeighborSearch
    """

    points: Floats
    weights: Floats
    inverse: Ints | None
    rho: Floats
    floor: float
    distances: Floats
    indices: Ints
    search: NeighborSearch

    def spread(self, values: Floats) -> Floats:
        """Values (u, ...) on distinct points as values (n, ...) on all training points."""
        return values if self.inverse is None else values[self.inverse]

    def gather(self, values: Floats) -> Floats:
        """Values (n, ...) on all training points as means (u, ...) over the copies of each distinct point."""
        if self.inverse is None:
            return values
        total = np.zeros((len(self.points), *values.shape[1:]))
        np.add.at(total, self.inverse, values)
        return total / self.weights.reshape(-1, *[1] * (values.ndim - 1))

    def n_pieces(self) -> int:
        """Number of connected pieces of the graph of k nearest neighbours."""
        n, length = self.indices.shape
        ones = np.ones(n * length, dtype=np.int8)
        graph = sp.csr_array((ones, self.indices.ravel(), np.arange(0, n * length + 1, length)), shape=(n, n))
        return int(connected_components(graph, directed=False)[0])


def sample_neighborhoods(X: Floats, n_neighbors: int, convention: str, neighbors: Any) -> Sampling:
    """Merge copies in `X` (n, D), find neighbours, and measure bandwidths.

    Exact copies are always merged; near copies only where they would make a bandwidth next to nothing.

    Warns
    -----
    DuplicatePointsWarning
        If more than k copies of a point were merged.
    OutlierWarning
        If a bandwidth exceeds 100 medians.

    Raises
    ------
    ValueError
        If there are no more than k + 1 distinct points.
    """
    points, inverse, search = X, np.arange(len(X)), neighbor_search(X, neighbors)
    distances, indices = neighbor_lists(search, points, n_neighbors)
    rho = bandwidth(distances, convention)
    while (distances[:, 1] == 0).any() or (rho < FLOOR * np.median(rho)).any():
        groups = _copies(points, distances, indices, FLOOR * float(np.median(rho)))
        points, inverse = points[np.unique(groups, return_index=True)[1]], groups[inverse]
        if len(points) <= n_neighbors + 1:
            raise ValueError(
                f"X holds {len(points)} distinct samples, but n_neighbors={n_neighbors} needs at least "
                f"{n_neighbors + 2}"
            )
        # A user's engine indexes the points with their copies; the distinct points need one of ours.
        search = neighbor_search(points, neighbors if isinstance(neighbors, str) else "auto")
        distances, indices = neighbor_lists(search, points, n_neighbors)
        rho = bandwidth(distances, convention)
    weights = np.bincount(inverse).astype(np.float64)
    if weights.max() > n_neighbors:
        warnings.warn(
            f"X holds up to {weights.max():.0f} copies of a sample: merged, with their number as weight",
            DuplicatePointsWarning,
            stacklevel=4,
        )
    typical = float(np.median(rho))
    if (high := int((rho > OUTLIER * typical).sum())) > 0:
        warnings.warn(
            f"{high} samples lie more than {OUTLIER:.0f} typical bandwidths from the others: remove them, "
            "and keep far='shift'",
            OutlierWarning,
            stacklevel=4,
        )
    merged = inverse if len(points) < len(X) else None
    return Sampling(points, weights, merged, rho, FLOOR * typical, distances, indices, search)


def _copies(points: Floats, distances: Floats, indices: Ints, near: float) -> Ints:
    """Group of each point: exact copies share one, and so do near copies once there are no exact ones."""
    if (distances[:, 1] == 0).any():
        return np.unique(points, axis=0, return_inverse=True)[1].ravel()
    rows, places = np.nonzero(distances <= near)
    pairs = sp.csr_array((np.ones(len(rows), dtype=np.int8), (rows, indices[rows, places])), shape=(len(points),) * 2)
    groups: Ints = connected_components(pairs, directed=False)[1].astype(np.int64)
    return groups


def neighbor_lists(search: NeighborSearch, X: Floats, n_neighbors: int) -> tuple[Floats, Ints]:
    """Neighbour lists (n, k + 1) with the point itself in front, whatever the order of copies."""
    distances, indices = search.kneighbors(X, n_neighbors + 1)
    distances, indices = np.array(distances, dtype=np.float64), np.array(indices, dtype=np.int64)
    itself = np.arange(len(X))
    rows, places = np.nonzero(indices == itself[:, None])
    indices[rows, places] = indices[rows, 0]
    indices[:, 0] = itself
    distances[:, 0] = 0.0
    return distances, indices
