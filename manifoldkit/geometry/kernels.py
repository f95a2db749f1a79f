r"""The conformally invariant diffusion maps (CIDM) kernel: bandwidths and scaled distances.

.. math::
    \delta^2(x, y) = \frac{|x - y|^2}{\rho(x) \rho(y)}, \qquad K_{ij} = h(\delta^2_{ij} / \varepsilon^2)

`rho` is the mean distance to (or the distance of) the k nearest neighbours. Since it goes like the -1/d-th power
of the sampling density q, the kernel sees the conformal metric :math:`q^{2/d} g`, in which samples are uniform.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.integrate import quad

from .._distances import squared_distances
from .._saving import savable
from .neighbors import Floats, Ints

__all__ = [
    "CUTOFF",
    "SHAPES",
    "KernelShape",
    "bandwidth",
    "dense_distances",
    "neighbor_deltas",
]

#: Pairs with delta^2 / eps^2 above this are not joined: exp(-16) = 1e-7 of the diagonal.
CUTOFF = 16.0


@savable
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
    reach : float or None
        End r of a compact support: ``h(z) = exp(-z / s) (1 - (z / r)^4)^2`` up to r.

    Examples
    --------
    >>> SHAPES["exp(-z)"].constant(dimension=2)
    0.25
    """

    name: str
    width: float | None
    reach: float | None = None

    def compact(self, reach: float) -> KernelShape:
        """Bring the shape smoothly to zero at `reach`; the indicator stays as it is."""
        return self if self.width is None else replace(self, reach=reach)

    def constant(self, dimension: float) -> float:
        """The constant c, which depends on the dimension if the support is compact."""
        if self.width is None:
            return 1 / (2 * (dimension + 2))
        if self.reach is None:
            return self.width / 4
        return self._moment(dimension + 1) / (2 * dimension * self._moment(dimension - 1))

    def excess(self, dimension: float, diagonal: float) -> float:
        r"""Share that the points themselves add to the kernel sums, beyond what they add to those of the full shape.

        A point counts among its own neighbours with the largest weight of all, and slows the diffusion by its share
        of the sum. A compact shape sees fewer neighbours, which makes that share larger.

        Parameters
        ----------
        dimension : float
        diagonal : float
            Share of the diagonal in the sum of the kernel matrix.
        """
        if self.reach is None:
            return 0.0
        full = replace(self, reach=None)
        neighbors = (1 / diagonal - 1) * full._moment(dimension - 1) / self._moment(dimension - 1)
        return 1 - (1 - diagonal) * (1 + 1 / neighbors)

    def _moment(self, power: float) -> float:
        """Integral of r^power h(r^2)."""
        end = math.sqrt(self.reach or 40 * (self.width or 1.0))
        return float(quad(lambda r: r**power * float(self(np.float64(r * r))), 0, end)[0])

    def __call__(self, z: Any) -> Any:
        """Kernel values at `z` (numpy)."""
        if self.width is None:
            return (z <= 1).astype(np.float64)
        # torch has the faster exponential
        values = torch.from_numpy(z / -self.width).exp_().numpy() if np.ndim(z) else np.exp(z / -self.width)
        return (
            values
            if self.reach is None
            else values * np.square(np.maximum(1 - np.square(np.square(z / self.reach)), 0))
        )


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
    return distances[:, 1:].mean(-1) if convention == "mean" else distances[:, -1] + 0  # never a view


def dense_distances(points: Floats, rho: Floats) -> Floats:
    """Scaled squared distances delta^2 (n, n) between all points, symmetric to rounding, with zero diagonal."""
    squared = squared_distances(torch.from_numpy(points))
    scale = torch.from_numpy(rho)
    result: Floats = squared.div_(scale[:, None]).div_(scale[None, :]).numpy()
    return result


def neighbor_deltas(rho: Floats, distances: Floats, indices: Ints) -> Floats:
    """Scaled squared distances (n, k) of neighbour lists whose first column, the point itself, is dropped."""
    return distances[:, 1:] ** 2 / (rho[:, None] * rho[indices[:, 1:]])
