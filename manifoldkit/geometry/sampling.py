"""Training points made ready for the kernel: copies merged, bandwidths measured, outliers and gaps reported."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from .._saving import savable
from ..exceptions import DuplicatePointsWarning, OutlierWarning
from .frame import Frame, choose_frame
from .kernels import bandwidth
from .neighbors import Floats, Ints, NeighborSearch, neighbor_search

__all__ = ["NeighborLists", "Sampling", "locality_order", "neighbor_lists", "sample_neighborhoods"]

logger = logging.getLogger("manifoldkit")

#: Bandwidths below this share of their median are those of near copies.
FLOOR = 1e-6
#: Bandwidths above this many medians are reported as outliers.
OUTLIER = 100.0
#: Coordinates by which many-dimensional points are sorted.
LOCALITY_DIMENSIONS = 8


@savable
@dataclass(frozen=True)
class Sampling:
    """Distinct training points and their neighbourhoods.

    Attributes
    ----------
    points : array (u, r)
        Distinct points, in the coordinates in which distances are measured. The engine of neighbours and the
        Nystrom row share this array.
    frame : Frame
        The map from the samples' own coordinates to those.
    images : array (u, D) or None
        Distinct points in their own coordinates; None where these are `points` but for the centre.
    weights : array (u,)
        How often each occurs.
    inverse : array (n,) or None
        The distinct point of each training point; None if all are distinct.
    rho : array (u,)
        Bandwidths.
    floor : float
        Least bandwidth allowed.
    search : NeighborSearch
    """

    points: Floats
    frame: Frame
    images: Floats | None
    weights: Floats
    inverse: Ints | None
    rho: Floats
    floor: float
    search: NeighborSearch

    def __deepcopy__(self, memo: dict[int, Any]) -> Sampling:
        return self  # never changed once made

    def ambient(self, index: Any = slice(None)) -> Floats:
        """Distinct points (..., D) in their own coordinates, those of `index` or all."""
        return self.points[index] + self.frame.center if self.images is None else self.images[index]

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


@dataclass(frozen=True)
class NeighborLists:
    """Neighbours of distinct training points, needed while fitting only.

    Attributes
    ----------
    distances, indices : arrays (u, K)
        The point itself first, then the others, nearest first.
    n_neighbors : int
        k of the bandwidth: the first k + 1 columns serve for it, the others for a kernel.
    """

    distances: Floats
    indices: Ints
    n_neighbors: int

    def nearest(self) -> tuple[Floats, Ints]:
        """The first k + 1 columns."""
        return self.distances[:, : self.n_neighbors + 1], self.indices[:, : self.n_neighbors + 1]

    def n_pieces(self) -> int:
        """Number of connected pieces of the graph of k nearest neighbours."""
        indices = self.nearest()[1]
        n, length = indices.shape
        ones = np.ones(n * length, dtype=np.int8)
        graph = sp.csr_array((ones, indices.ravel(), np.arange(0, n * length + 1, length)), shape=(n, n))
        return int(connected_components(graph, directed=False)[0])


def locality_order(points: Floats) -> Ints:
    """Permutation that puts near points next to each other: products with sparse kernels run 2-8 times faster.

    It is the order of the leaves of a k-d tree, over a few random directions where there are many coordinates.
    """
    if points.shape[1] > LOCALITY_DIMENSIONS:
        directions = np.random.RandomState(0).standard_normal((points.shape[1], LOCALITY_DIMENSIONS))
        points = points @ directions
    return np.asarray(cKDTree(points, leafsize=8).indices, dtype=np.int64)


def sample_neighborhoods(
    X: Floats,
    n_neighbors: int,
    convention: str,
    neighbors: Any,
    n_kernel_neighbors: int | None = None,
    *,
    distance_components: float | None = None,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> tuple[Sampling, NeighborLists]:
    """Merge copies in `X` (n, D), find neighbours, and measure bandwidths.

    Exact copies are always merged; near copies only where they would make a bandwidth next to nothing. `X` is
    overwritten, so that the samples are in memory once. With `n_kernel_neighbors` the lists are that long, and the
    points are sorted by place unless `neighbors` is an object, which knows them in their given order.

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
    frame, inverse, n = choose_frame(X, distance_components, random_state), np.arange(len(X)), len(X)
    length, merged = max(n_neighbors, n_kernel_neighbors or 0), False
    if sort := n_kernel_neighbors is not None and isinstance(neighbors, str):
        order = locality_order(X)
        X, inverse[order] = X[order], np.arange(n)
    if frame.basis is None:
        X -= frame.center
    points, images = (X, None) if frame.basis is None else (frame(X), X)
    known: dict[str, Any] = {"center": frame.center, "reduced": images is not None, "n_jobs": n_jobs}
    search = neighbor_search(points, neighbors, **known)
    distances, indices = neighbor_lists(search, points, n_neighbors, length)
    rho = bandwidth(distances[:, : n_neighbors + 1], convention)
    while (distances[:, 1] == 0).any() or (rho < FLOOR * np.median(rho)).any():
        groups = _copies(points, distances, indices, FLOOR * float(np.median(rho)))
        first = np.unique(groups, return_index=True)[1]
        points, inverse = points[first], groups[inverse]
        images = None if images is None else images[first]
        if len(points) <= n_neighbors + 1:
            raise ValueError(
                f"X holds {len(points)} distinct samples, but n_neighbors={n_neighbors} needs at least "
                f"{n_neighbors + 2}"
            )
        if not isinstance(neighbors, str):
            logger.info("copies among the samples were merged: neighbours of distinct ones are found by 'auto'")
            neighbors = "auto"  # a user's engine or graph indexes the samples with their copies
        search = neighbor_search(points, neighbors, **known)
        distances, indices = neighbor_lists(search, points, n_neighbors, length)
        rho, merged = bandwidth(distances[:, : n_neighbors + 1], convention), True
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
    places = inverse if sort or merged else None
    sampling = Sampling(points, frame, images, weights, places, rho, FLOOR * typical, search)
    return sampling, NeighborLists(distances, indices, n_neighbors)


def _copies(points: Floats, distances: Floats, indices: Ints, near: float) -> Ints:
    """Group of each point: exact copies share one, and so do near copies once there are no exact ones."""
    if (distances[:, 1] == 0).any():
        equal: Ints = np.unique(points, axis=0, return_inverse=True)[1].ravel()
        if equal.max() + 1 < len(points):
            return equal
        near = 0.0  # they differ by less than the square of a number can tell
    rows, places = np.nonzero(distances <= near)
    pairs = sp.csr_array((np.ones(len(rows), dtype=np.int8), (rows, indices[rows, places])), shape=(len(points),) * 2)
    groups: Ints = connected_components(pairs, directed=False)[1].astype(np.int64)
    return groups


def neighbor_lists(search: NeighborSearch, X: Floats, n_neighbors: int, length: int) -> tuple[Floats, Ints]:
    """Neighbour lists (n, length + 1) with the point itself in front, whatever the order of copies.

    Where the engine cannot find that many they are as long as it can, but k + 1 at the least.
    """
    distances, indices = search.kneighbors(X, max(n_neighbors + 1, min(length + 1, search.longest)))
    distances, indices = (
        np.require(part, kind, ["C", "W"]) for part, kind in ((distances, np.float64), (indices, np.int64))
    )
    itself = np.arange(len(X))
    rows, places = np.nonzero(indices == itself[:, None])
    indices[rows, places] = indices[rows, 0]
    missing = np.ones(len(X), dtype=bool)
    missing[rows] = False  # an approximate engine may have missed it: then all others move up
    distances[missing, 1:], indices[missing, 1:] = distances[missing, :-1], indices[missing, :-1]
    indices[:, 0] = itself
    distances[:, 0] = 0.0
    return distances, indices
