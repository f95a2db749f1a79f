"""Exact neighbours by KeOps, on a GPU: no matrix of distances is formed there."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..._saving import savable
from .base import Engine, Floats, Ints, measure

__all__ = ["KeopsNeighbors"]


@savable
class KeopsNeighbors(Engine):
    """Exact neighbours by a reduction of KeOps on a CUDA device, which holds the points once more.

    On a processor it costs 12 times a k-d tree in 3 dimensions and 37 times faiss in 784, and is refused.

    Parameters
    ----------
    points : array (n, D)
    n_jobs : int or None
        Not used: the device works by itself.

    Raises
    ------
    ValueError
        If there is no CUDA device.
    ImportError
        If pykeops does not work on this machine.
    """

    def __init__(self, points: Floats, n_jobs: int | None = None) -> None:
        super().__init__(points, n_jobs)
        if not torch.cuda.is_available():
            raise ValueError(
                "neighbors='keops' needs a CUDA device: on a processor it costs 12 times a tree in 3 dimensions and 37 "
                "times matrix products in 784; use neighbors='auto', which is 'tree' up to 15 dimensions and 'brute' "
                "above"
            )
        self._table: torch.Tensor | None = None

    def _query(self, X: Floats, n_neighbors: int) -> tuple[Floats, Ints]:
        try:
            from pykeops.torch import LazyTensor
        except Exception as error:  # it may fail in many ways where there is no compiler
            raise ImportError("neighbors='keops' needs pykeops and a C++ compiler: install g++") from error
        if self._table is None:
            self._table = torch.from_numpy(self.points).cuda()
        x_i, x_j = LazyTensor(torch.from_numpy(X).cuda()[:, None]), LazyTensor(self._table[None])
        found = ((x_i - x_j) ** 2).sum(-1).argKmin(n_neighbors, dim=1)
        return measure(self.points, X, found.cpu().numpy().astype(np.int64), n_neighbors)

    def _query_points(self, n_neighbors: int) -> tuple[Floats, Ints]:
        return self._query(self.points, n_neighbors)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_table": None}
