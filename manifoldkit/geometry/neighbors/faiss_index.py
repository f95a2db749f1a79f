"""Neighbours by faiss: its flat index, its approximate ones, and any index that a user has built."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._saving import savable
from .approximate import completed, missing_extra
from .base import Engine, Floats, Ints
from .exact import BruteNeighbors

__all__ = ["FAISS_KINDS", "FaissNeighbors", "is_faiss_index"]

FAISS_KINDS = ("faiss", "faiss-hnsw", "faiss-ivf")


def is_faiss_index(thing: Any) -> bool:
    """Whether `thing` is an index of faiss, told without importing faiss."""
    return type(thing).__module__.partition(".")[0] == "faiss" and hasattr(thing, "ntotal")


@savable
class FaissNeighbors(Engine):
    """Neighbours by an index of faiss, which works in single precision; distances are measured in double.

    ``"faiss"`` compares with every point, ``"faiss-hnsw"`` walks a small-world graph, ``"faiss-ivf"`` looks into the
    nearest of some ``2 sqrt(n)`` cells. An index that was built outside may be of any kind; shards
    (``faiss.IndexShards``) hold one that is too large for a process.

    Parameters
    ----------
    points : array (n, D)
    index : {"faiss", "faiss-hnsw", "faiss-ivf"} or index of faiss, default="faiss"
        An index must hold the samples in their order, in their own coordinates.
    center : array (D,), default=0
        What was subtracted from the samples, for an index built outside.
    n_jobs : int or None

    Raises
    ------
    ImportError
        If faiss is not installed.
    ValueError
        If an index does not hold as many points as there are, of as many coordinates.

    Notes
    -----
    An index of faiss holds the points once more, in single precision. It pickles as its bytes; shards as those of
    each of them. With more than one thread the graph of ``"faiss-hnsw"`` depends on their timing.

    Examples
    --------
    >>> import numpy as np
    >>> FaissNeighbors(np.eye(20)).kneighbors(np.eye(20)[3:4] * 2, 1)
    (array([[1.]]), array([[3]]))
    """

    def __init__(
        self, points: Floats, index: Any = "faiss", center: Floats | float = 0.0, n_jobs: int | None = None
    ) -> None:
        super().__init__(points, n_jobs)
        self._center = center
        self._kind = index if isinstance(index, str) else None
        self._index = _build(points, index) if isinstance(index, str) else index
        n, d = points.shape
        if (self._index.ntotal, self._index.d) != (n, d):
            raise ValueError(
                f"the faiss index holds {self._index.ntotal} points of {self._index.d} coordinates, and there are {n} "
                f"samples of {d}: build it on the samples, in their order"
            )

    def _query(self, X: Floats, n_neighbors: int) -> tuple[Floats, Ints]:
        n = len(self.points)
        if 4 * n_neighbors > n:  # nearly all of them: there is nothing to gain
            return BruteNeighbors(self.points).kneighbors(X, n_neighbors)
        wanted = n_neighbors + 8  # single precision confuses distances that are nearly equal
        found = self._index.search((X + self._center).astype(np.float32), wanted, params=self._effort(wanted))[1]
        if found.max(initial=0) >= n:
            raise ValueError(
                f"the faiss index found point {found.max()} of {n}: build it on the samples, in their order"
            )
        return completed(self.points, X, found.astype(np.int64), n_neighbors)

    def _effort(self, wanted: int) -> Any:
        """How far a graph is searched: further than it is set to, if many neighbours are wanted."""
        import faiss

        if not _is_graph(self._index):
            return None
        return faiss.SearchParametersHNSW(efSearch=max(self._index.hnsw.efSearch, 2 * wanted))

    def _saved_state(self) -> dict[str, Any]:
        if self._kind is None:
            raise TypeError("an index of faiss that was built outside cannot be written: use pickle")
        return {**super()._saved_state(), "index": self._kind}

    def __getstate__(self) -> dict[str, Any]:
        import faiss

        shards = [self._index.at(i) for i in range(self._index.count())] if _is_shards(self._index) else []
        return {**self.__dict__, "_index": [faiss.serialize_index(part) for part in shards or [self._index]]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import faiss

        self.__dict__.update(state)
        parts = [faiss.deserialize_index(part) for part in state["_index"]]
        self._index = parts[0] if len(parts) == 1 else _shards(parts)


def _build(points: Floats, kind: str) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise missing_extra(kind, "faiss") from error
    n, d = points.shape
    if kind == "faiss":
        index = faiss.IndexFlatL2(d)
    elif kind == "faiss-hnsw":
        index = faiss.IndexHNSWFlat(d, 32)
        index.hnsw.efConstruction, index.hnsw.efSearch = 100, 128
    else:
        cells = int(np.clip(2 * np.sqrt(n), 1, max(1, n // 39)))  # 39 points a cell is what its k-means asks for
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(d), d, cells)
        index.nprobe = max(8, cells // 16)
        index.train(points.astype(np.float32))
    index.add(points.astype(np.float32))
    return index


def _is_graph(index: Any) -> bool:
    return type(index).__name__.startswith("IndexHNSW")


def _is_shards(index: Any) -> bool:
    return type(index).__name__ == "IndexShards"


def _shards(parts: list[Any]) -> Any:
    import faiss

    index = faiss.IndexShards(parts[0].d, True, True)  # one thread a shard, numbered one after another
    for part in parts:
        index.add_shard(part)
    return index
