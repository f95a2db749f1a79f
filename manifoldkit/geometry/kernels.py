r"""The conformally invariant diffusion maps (CIDM) kernel: bandwidths and scaled distances.

.. math::
    \delta^2(x, y) = \frac{|x - y|^2}{\rho(x) \rho(y)}, \qquad K_{ij} = h(\delta^2_{ij} / \varepsilon^2)

`rho` is the mean distance to (or the distance of) the k nearest neighbours. Since it goes like the -1/d-th power
of the sampling density q, the kernel sees the conformal metric :math:`q^{2/d} g`, in which samples are uniform.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from ..exceptions import ScaleWarning
from .neighbors import Floats, Ints, NeighborSearch

__all__ = ["CUTOFF", "SHAPES", "KernelShape", "bandwidth", "dense_distances", "neighbor_deltas", "sparse_distances"]

#: Pairs with delta^2 / eps^2 above this are left out of sparse kernels: exp(-16) = 1e-7 of the diagonal.
CUTOFF = 16.0
#: Longest neighbour lists from which a sparse kernel is made, unless their length is given.
LONGEST = 800


@dataclass(frozen=True)
class KernelShape:
    r"""Shape function h of the kernel and the constant that turns its eigenvalues into those of a Laplacian.

    The constant is :math:`c = m_2 / (2 m_0)` with :math:`m_0 = \int h(|u|^2) du`,
    :math:`m_2 = \int u_1^2 h(|u|^2) du`.

    Attributes
    ----------
    name : str
    width : float or None
        s of ``h(z) = exp(-z / s)``; None for the indicator of z <= 1.

    Examples
    --------
    >>> SHAPES["exp(-z)"].constant(dimension=2)
    0.25
    """

    name: str
    width: float | None

    def constant(self, dimension: float) -> float:
        """The constant c; only the indicator's depends on the dimension."""
        return 1 / (2 * (dimension + 2)) if self.width is None else self.width / 4

    def log(self, z: torch.Tensor) -> torch.Tensor:
        """Logarithm of h at `z`, up to a constant for each row.

        The indicator counts from the least `z` of a row: 0 at a training point, and never an empty row elsewhere.
        """
        if self.width is None:
            return torch.where(z - z.amin(dim=-1, keepdim=True) <= 1, 0.0, -math.inf)
        return -z / self.width

    def __call__(self, z: Any) -> Any:
        """Kernel values at `z` (numpy)."""
        return (z <= 1).astype(np.float64) if self.width is None else np.exp(z / -self.width)


SHAPES = {
    shape.name: shape
    for shape in (
        KernelShape("exp(-z)", 1.0),
        KernelShape("exp(-z/2)", 2.0),
        KernelShape("exp(-z/4)", 4.0),
        KernelShape("indicator", None),
    )
}


def bandwidth(distances: Any, convention: str) -> Any:
    """Bandwidth rho (B,) from sorted distances (B, k + 1), of which the first is skipped.

    The first distance is skipped for training points (it is the point itself) and for new points alike, so that
    rho is continuous and the Nystrom extension reproduces the training points.
    """
    return distances[:, 1:].mean(-1) if convention == "mean" else distances[:, -1]


def dense_distances(points: Floats, rho: Floats) -> Floats:
    """Scaled squared distances delta^2 (n, n) between all training points, exactly symmetric with zero diagonal."""
    centred = torch.from_numpy(points - points.mean(axis=0))
    # Few coordinates: differences are affordable and exact. Many: the expansion loses some 1e-15 |x|^2.
    mode = "donot_use_mm_for_euclid_dist" if points.shape[1] <= 32 else "use_mm_for_euclid_dist"
    squared = torch.cdist(centred, centred, compute_mode=mode).square_()
    squared = (squared + squared.T).div_(2).fill_diagonal_(0)
    scale = torch.from_numpy(rho)
    result: Floats = squared.div_(scale[:, None]).div_(scale[None, :]).numpy()
    return result


def sparse_distances(
    points: Floats, rho: Floats, search: NeighborSearch, *, reach: float, length: int, grow: bool
) -> tuple[sp.csr_array, int]:
    """Scaled squared distances of near pairs, as a symmetric matrix with explicit diagonal.

    The two neighbour lists in which a pair may stand are united, never averaged, since averaging would halve
    pairs that only one of the two points knows of.

    Parameters
    ----------
    points : array (n, D)
    rho : array (n,)
    search : NeighborSearch
    reach : float
        Pairs with delta^2 below this are kept.
    length : int
        Length of the neighbour lists.
    grow : bool
        Lengthen the lists until all but one in a thousand reach far enough.

    Returns
    -------
    csr_array (n, n)
        delta^2 of the pairs kept. Zeros on the diagonal are stored.
    int
        Length of the neighbour lists at the end.
    """
    n = len(points)
    longest = min(n, search.longest) if grow else n
    length = min(longest, length)
    while True:
        distances, indices = search.kneighbors(points, length)
        delta = np.asarray(distances) ** 2 / (rho[:, None] * rho[np.asarray(indices)])
        if not grow or length == n or np.mean(delta[:, -1] < reach) < 1e-3:
            break
        if length >= min(LONGEST, longest):
            warnings.warn(
                f"the kernel reaches further than {length} neighbours and is cut there, which biases eigenvalues: "
                "with many dimensions pass n_kernel_neighbors, else fewer n_neighbors",
                ScaleWarning,
                stacklevel=5,
            )
            break
        length = min(longest, 2 * length)
    rows = np.repeat(np.arange(n), length)
    columns, values = np.asarray(indices).ravel(), delta.ravel()
    kept = (values < reach) & (rows != columns)
    rows, columns, values = rows[kept], columns[kept], values[kept]
    pairs = np.unique(np.minimum(rows, columns) * n + np.maximum(rows, columns), return_index=True)[1]
    low, high, values = np.minimum(rows, columns)[pairs], np.maximum(rows, columns)[pairs], values[pairs]
    diagonal = np.arange(n)
    entries = np.concatenate([values, values, np.zeros(n)])
    places = (np.concatenate([low, high, diagonal]), np.concatenate([high, low, diagonal]))
    matrix = sp.csr_array((entries, places), shape=(n, n))
    matrix.sort_indices()
    return matrix, length


def neighbor_deltas(rho: Floats, distances: Floats, indices: Ints) -> Floats:
    """Scaled squared distances (n, k) of neighbour lists whose first column, the point itself, is dropped."""
    return distances[:, 1:] ** 2 / (rho[:, None] * rho[indices[:, 1:]])
