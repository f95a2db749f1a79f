r"""The full kernel of the training points as an operator, for fits in O(n) memory.

The degrees and every step of the eigen-solver are products with the kernel

.. math:: (K v)_i = \sum_j \exp \left( - \frac{|x_i - x_j|^2}{s\, \varepsilon^2 \rho_i \rho_j} \right) v_j,

which :func:`manifoldkit.reductions.kernel_product` computes without the matrix.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import LinearOperator

from .._arrays import chunks
from .._distances import squared_distances
from ..reductions import kernel_product
from .kernels import CUTOFF, KernelShape, neighbor_deltas
from .neighbors import Floats
from .sampling import NeighborLists, Sampling

__all__ = ["BACKENDS", "KernelOperator", "rescaled"]

#: Reductions that form no matrix, and the engines of :mod:`manifoldkit.reductions` behind them.
BACKENDS = {"chunked": "torch", "keops": "keops"}


class KernelOperator(LinearOperator):
    """Kernel matrix (n, n) of the training points that is applied and never formed.

    Parameters
    ----------
    sampling : Sampling
    lists : NeighborLists
    shape : KernelShape
        An exponential one.
    eps2 : float
        Squared global bandwidth.
    backend : {"auto", "torch", "keops"}, default="auto"
        Engine of the sums.
    device : torch device, default="cpu"
        Where they run; vectors come and go as arrays.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.geometry.kernels import SHAPES
    >>> from manifoldkit.geometry.sampling import sample_neighborhoods
    >>> sampling, lists = sample_neighborhoods(np.arange(5.0)[:, None], 1, "mean", "tree")
    >>> kernel = KernelOperator(sampling, lists, SHAPES["exp(-z)"], 1.0)
    >>> (kernel @ np.eye(5))[2].round(3)
    array([0.018, 0.368, 1.   , 0.368, 0.018])
    """

    def __init__(
        self,
        sampling: Sampling,
        lists: NeighborLists,
        shape: KernelShape,
        eps2: float,
        *,
        backend: str = "auto",
        device: torch.device | str = "cpu",
    ) -> None:
        if shape.width is None:
            raise ValueError(f"kernel sums without a matrix need an exponential shape, got {shape.name!r}")
        super().__init__(dtype=np.float64, shape=(len(sampling.points),) * 2)
        self._sampling, self._lists = sampling, lists
        self._scale, self._backend = eps2 * shape.width, backend
        self._points = torch.from_numpy(sampling.points).to(device)
        self._rho = torch.from_numpy(sampling.rho).to(device)

    def _matvec(self, x: Floats) -> Floats:
        return self._matmat(x.reshape(-1, 1))[:, 0]

    def _matmat(self, X: Floats) -> Floats:
        values = torch.from_numpy(np.ascontiguousarray(X, dtype=np.float64)).to(self._points.device)
        with torch.no_grad():
            product = kernel_product(
                self._points, self._rho, self._points, self._rho, values, self._scale, backend=self._backend
            )
        result: Floats = product.cpu().numpy()
        return result

    def _adjoint(self) -> KernelOperator:
        return self

    def connected_pieces(self) -> int:
        """Number of pieces that the kernel joins by values below exp(-16) only.

        Nearest neighbours settle it where they join all points. Where they leave pieces, the rows of all points
        but those of the largest piece are looked at once, some at a time.
        """
        sampling, n = self._sampling, self.shape[0]
        distances, indices = self._lists.nearest()
        near = neighbor_deltas(sampling.rho, distances, indices) < CUTOFF * self._scale
        rows, places = np.nonzero(near)
        pieces, labels = _components(n, rows, indices[rows, places + 1])
        if pieces == 1:
            return 1
        links = [np.zeros((2, 0), dtype=np.int64)]
        smaller = np.flatnonzero(labels != np.bincount(labels).argmax())
        for part in chunks(len(smaller), 32 * n):
            some = torch.from_numpy(smaller[part]).to(self._points.device)
            squared = squared_distances(self._points[some], self._points)
            found = torch.nonzero(squared < CUTOFF * self._scale * self._rho[some, None] * self._rho).cpu().numpy()
            pairs = np.stack([labels[smaller[part][found[:, 0]]], labels[found[:, 1]]])
            links.append(np.unique(pairs, axis=1))
        joined = np.concatenate(links, axis=1)
        return _components(pieces, joined[0], joined[1])[0]


def _components(n: int, rows: Any, columns: Any) -> tuple[int, Any]:
    """Connected components of `n` points with the given links: their number and the label of each point."""
    graph = sp.coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(n, n))
    count, labels = connected_components(graph, directed=False)
    return int(count), labels


def rescaled(operator: LinearOperator, scale: Floats) -> LinearOperator:
    """The symmetric operator ``diag(scale) @ operator @ diag(scale)``."""
    column = scale[:, None]

    def apply(X: Floats) -> Floats:
        return column * (operator @ (column * X.reshape(len(scale), -1)))

    return LinearOperator(
        operator.shape,
        matvec=apply,
        matmat=apply,
        rmatvec=apply,
        rmatmat=apply,
        dtype=np.float64,
    )
