r"""Kernels that end: each point has a reach, within which the kernel fades smoothly to zero.

With the reach R of each point the kernel is

.. math:: h(\delta^2 / \varepsilon^2) (1 - t^4)^2, \qquad t = |x - y|^2 / (R(x) R(y)) < 1.

R is the distance r of the last neighbour in the point's list: a pair nearer than :math:`\sqrt{r(x) r(y)}` stands in one
of the two lists at least, so that none is missed, and a weight fades before its pair leaves the lists.

A lonely point, whose neighbours have others much nearer than itself, may stand in nobody's list. There R is longer, see
`reaches`: up to 1.35 times where points are isolated, and above some 15 dimensions everywhere, since all neighbours are
about equally far there. A new point off the manifold is as lonely; squared distances are therefore measured from its
`excess`, the part that all of them share.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from .._arrays import chunks
from .._distances import squared_distances
from ..exceptions import ScaleWarning
from .kernels import KernelShape
from .neighbors import Floats, Ints

__all__ = ["STRETCH", "STRETCH_IN_LISTS", "compact_kernel", "crowd", "excess", "fading", "reaches"]

#: How far beyond the mean of its neighbours a lonely point reaches; and where it sees no others than those of its list.
STRETCH, STRETCH_IN_LISTS = 1.35, 1.1
#: A point on the manifold may be as far from a sample as this neighbour of the sample is.
CROWD = 10
#: Kernel values below this are dropped.
LEAST = 1e-12
#: Weight of the last neighbour in the mean, for points that have all neighbours at one distance.
LAST = 1e-12
#: Share of the neighbour lists that may end inside the support of the indicator.
OUTSIDE = 0.01


def compact_kernel(
    distances: Floats, indices: Ints, rho: Floats, eps2: float, shape: KernelShape, points: Floats | None
) -> tuple[sp.csr_array, sp.csr_array, Floats, Floats, KernelShape]:
    """Kernel of near pairs with a smooth end, from neighbour lists.

    The lists of the two points are united, never averaged: averaging would halve pairs that only one of them knows of.
    Lonely points reach beyond the lists; pairs that stand in none are joined if `points` are passed.

    Parameters
    ----------
    distances, indices : arrays (n, K)
        Neighbour lists, the point itself first. `distances` is overwritten.
    rho : array (n,)
        Bandwidths.
    eps2 : float
        Squared global bandwidth.
    shape : KernelShape
        The indicator does not fade.
    points : array (n, r) or None
        Where lonely points look for others beyond their lists, at the cost of n distances each.

    Returns
    -------
    csr_array (n, n)
        Symmetric kernel, int32 indices.
    csr_array (n, n)
        Pattern of the entries that are missing in the point's own list.
    array (n,)
        Lengths r of the lists.
    array (n,)
        Reaches R.
    KernelShape
        The shape with the end that the median point has.

    Warns
    -----
    ScaleWarning
        If the indicator reaches further than the lists.
    """
    n, length = indices.shape
    ends = distances[:, -1].copy()
    squared = np.square(distances, out=distances)
    stretch = STRETCH_IN_LISTS if points is None else STRETCH
    far = np.empty(n)
    for part in chunks(n, 8 * length, 2**24):
        far[part] = reaches(torch.from_numpy(squared[part]), torch.from_numpy(ends[indices[part]]), stretch)
    z = squared / (eps2 * rho[:, None])
    z /= rho[indices]
    if shape.width is None and np.quantile(z[:, -1], OUTSIDE) < 1 and length < n:
        warnings.warn(
            f"the indicator reaches further than {length - 1} neighbours and is cut there: pass more "
            "n_kernel_neighbors, or fewer n_neighbors",
            ScaleWarning,
            stacklevel=5,
        )
    end = z[:, -1] / squared[:, -1] * far * far[indices[:, -1]]
    values, compact = shape(z), shape.compact(float(np.median(end)))
    if shape.width is not None:
        squared /= far[:, None]
        squared /= far[indices]
        values *= fading(squared)
        values[values < LEAST] = 0  # a point may be the last neighbour of its own: rounding must not decide
    start = np.arange(0, n * length + 1, length)
    own = sp.csr_array((values.ravel(), indices.astype(np.int32).ravel(), start), shape=(n, n))
    own.eliminate_zeros()
    own.sort_indices()
    if points is not None and shape.width is not None:
        own = sp.csr_array(own.maximum(_beyond_lists(points, rho, eps2, shape, ends, far)))
    matrix = sp.csr_array(own.maximum(own.T))
    short = np.flatnonzero(np.diff(matrix.indptr) > np.diff(own.indptr))
    lacking = sp.csr_array((n, n))
    if len(short):
        pick = sp.csr_array((np.ones(len(short)), (short, short)), shape=(n, n))
        lacking = sp.csr_array((pick @ matrix).astype(bool).astype(np.int8) - (pick @ own).astype(bool).astype(np.int8))
        lacking.eliminate_zeros()
    return matrix, lacking, ends, far, compact


def _beyond_lists(
    points: Floats, rho: Floats, eps2: float, shape: KernelShape, ends: Floats, far: Floats
) -> sp.csr_array:
    """Rows of the kernel at lonely points, from their distances to all points; the others are empty."""
    n, lonely = len(points), np.flatnonzero(far > ends)
    everything = torch.from_numpy(points)
    columns, values, count = [np.empty(0, dtype=np.int64)], [np.empty(0)], np.zeros(n, dtype=np.int64)
    for part in chunks(len(lonely), 32 * n):
        rows = lonely[part]
        squared = squared_distances(everything[rows], everything).numpy()
        squared[np.arange(len(rows)), rows] = 0
        row, column = np.nonzero(squared < far[rows, None] * far)
        near = squared[row, column]
        value = shape(near / (eps2 * rho[rows[row]] * rho[column])) * fading(near / (far[rows[row]] * far[column]))
        kept = value >= LEAST
        columns.append(column[kept])
        values.append(value[kept])
        count[rows] = np.bincount(row[kept], minlength=len(rows))
    start = np.concatenate([[0], np.cumsum(count)])
    return sp.csr_array((np.concatenate(values), np.concatenate(columns).astype(np.int32), start), shape=(n, n))


def reaches(
    squared: Tensor,  # (B, K)
    lengths: Tensor,  # (B, K)
    stretch: float,
) -> Tensor:
    r"""Reach R (B,) of points with neighbours at distances d, whose own lists have lengths r.

    It is the distance of the last neighbour or, if that is more, :math:`s \sum_j w_j d_j^2 / r_j` with s = `stretch`
    and weights :math:`w_j \propto d_j^2 (1 - d_j^2 / d_K^2)^2` of sum 1: some of the neighbours have t below 1 / s
    then. It is continuous, since neighbours come and go with weight zero.
    """
    tiny = torch.finfo(squared.dtype).tiny
    last = squared.amax(dim=1, keepdim=True).clamp_min(tiny)  # rounding may leave nothing of them, far away
    share = squared * ((1 - squared / last).square() + LAST)
    mean = (share * squared / lengths).sum(dim=1) / share.sum(dim=1).clamp_min(tiny)
    return torch.maximum(last[:, 0].sqrt(), stretch * mean)


def crowd(squared: Floats) -> Floats:
    """Squared distance (n,) that points on the manifold may have to samples with sorted neighbours at `squared` (n, K).

    It is that of the tenth neighbour, and no more than half of that of the last.
    """
    result: Floats = np.minimum(squared[:, min(CROWD, squared.shape[1] - 1)], squared[:, -1] / 2)
    return result


def excess(
    squared: Tensor,  # (B, K)
    crowd: Tensor,  # (K,) or (B, K)
) -> Tensor:
    """Part (B, 1) of the squared distances that takes points off the manifold: the least distance beyond `crowd`.

    At samples, and at points that are as near to one as its own neighbours are, it is 0 or less.
    """
    return (squared - crowd).amin(dim=1, keepdim=True)


def fading(t: Any) -> Any:
    """The factor (1 - t^4)^2 that ends a compact kernel, 0 from t = 1 on; `t` (array or Tensor) is overwritten."""
    inside = t < 1
    t *= inside  # first: a power of what is far outside may overflow
    t *= t
    t *= t
    t -= 1
    t *= t
    t *= inside
    return t
