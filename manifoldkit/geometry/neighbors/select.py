"""The choice of a neighbour engine: the one place where they are listed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator

from .approximate import ForeignNeighbors, PynndescentNeighbors
from .base import Floats, NeighborSearch
from .exact import BruteNeighbors, TreeNeighbors
from .faiss_index import FAISS_KINDS, FaissNeighbors, is_faiss_index
from .graph import GraphNeighbors
from .keops import KeopsNeighbors

__all__ = ["NEIGHBOR_ENGINES", "neighbor_search"]

#: Names that `neighbors` may have.
NEIGHBOR_ENGINES = ("auto", "tree", "brute", *FAISS_KINDS, "pynndescent", "keops")
#: Up to this many coordinates a k-d tree is cheaper than matrix products.
TREE_DIMENSIONS = 15


def neighbor_search(
    points: Floats,
    neighbors: Any = "auto",
    *,
    center: Floats | float = 0.0,
    reduced: bool = False,
    n_jobs: int | None = None,
) -> NeighborSearch:
    """Neighbour engine over `points` (n, D), which it keeps without a copy.

    Parameters
    ----------
    points : array (n, D)
        Training points.
    neighbors : str, object with ``kneighbors``, index of faiss, or sparse graph (n, n), default="auto"
        Exact: ``"auto"`` takes ``"tree"`` up to 15 coordinates and ``"brute"`` above; ``"faiss"``; ``"keops"`` on a
        CUDA device. Approximate: ``"faiss-hnsw"``, ``"faiss-ivf"``, ``"pynndescent"``. For objects see
        :class:`ForeignNeighbors`, :class:`FaissNeighbors`, :class:`GraphNeighbors`.
    center : array (D,), default=0
        What was subtracted from the samples. Engines built outside know the samples as they were.
    reduced : bool, default=False
        Whether `points` are projections of the samples, which engines built outside do not know.
    n_jobs : int or None
        Number of joblib workers for the neighbours of the training points themselves.

    Raises
    ------
    ValueError
        If `neighbors` names no engine, or was built on other points.
    TypeError
        If `neighbors` is an object of another kind.
    ImportError
        If an extra is not installed.
    """
    if isinstance(neighbors, str):
        if neighbors not in NEIGHBOR_ENGINES:
            names = ", ".join(map(repr, NEIGHBOR_ENGINES))
            raise ValueError(
                f"neighbors must be {names}, an object with kneighbors, an index of faiss or a sparse graph, "
                f"got {neighbors!r}"
            )
        if neighbors == "auto":
            neighbors = "tree" if points.shape[1] <= TREE_DIMENSIONS else "brute"
        if neighbors in FAISS_KINDS:
            return FaissNeighbors(points, neighbors, n_jobs=n_jobs)
        engines: dict[str, Callable[..., NeighborSearch]] = {
            "tree": TreeNeighbors,
            "brute": BruteNeighbors,
            "pynndescent": PynndescentNeighbors,
            "keops": KeopsNeighbors,
        }
        return engines[neighbors](points, n_jobs)
    if sp.issparse(neighbors):
        return GraphNeighbors(points, neighbors, neighbor_search(points, n_jobs=n_jobs))
    if isinstance(neighbors, np.ndarray):
        raise ValueError(
            f"a graph of neighbours must be sparse, got an array of shape {neighbors.shape}: make it with "
            "kneighbors_graph(X, k, mode='distance')"
        )
    if not hasattr(neighbors, "kneighbors") and not is_faiss_index(neighbors):
        raise TypeError(
            "neighbors must be a name, a sparse graph of distances (scipy), an index of faiss, or have a method "
            f"kneighbors(X, n_neighbors), got {type(neighbors).__name__}"
        )
    if reduced and not isinstance(neighbors, BaseEstimator):
        raise ValueError(
            "with distance_components distances are those of fewer coordinates, which a neighbour engine built on the "
            "samples does not know: name an engine, or pass a scikit-learn estimator"
        )
    if is_faiss_index(neighbors):
        return FaissNeighbors(points, neighbors, center, n_jobs)
    return ForeignNeighbors(points, neighbors, 0.0 if reduced else center)
