r"""How fast neighbours multiply with distance: the dimension that samples show at a scale.

With :math:`r_k` the distance of the k-th neighbour,

.. math:: g(k) = \log 2 \,/\, \mathrm{mean} \log (r_{2k} / r_k) .

Many samples resolve their own noise: the k nearest of a million points round a circle lie all about the point, not
along the circle, and g falls from the dimension of space to that of the circle as k grows. A kernel of that scale would
learn the shape of the noise.
"""

from __future__ import annotations

import numpy as np
import torch

from .._arrays import chunks
from .._distances import squared_distances
from .neighbors import Floats

__all__ = ["LEAST_SAMPLES", "growth", "neighbors_beyond_noise", "wide_growth"]

#: Points at which growth is measured.
N_ROWS = 128
#: The wide scale: so many of so many samples, 4 per cent; and how many dimensions less than that of k are noise.
WIDE_COUNT, WIDE_SAMPLES, NOISE = 60, 1500, 0.35
#: Fewer samples than these do not resolve noise that leaves a shape to be seen.
LEAST_SAMPLES = 3000
#: Above this many dimensions growth falls for want of samples, noise or not.
MOST_DIMENSIONS = 3.5
#: Most neighbours, and most entries of a kernel that reaches twice as many.
MOST, ENTRIES = 256, 2e7


def growth(points: Floats, k: int, random_state: np.random.RandomState) -> float:
    """Dimension by which the neighbours of some points multiply from the k-th distance to that of the 2k-th.

    Parameters
    ----------
    points : array (n, D)
        More than 2 k.
    k : int
    random_state : RandomState
        Draws the 128 points.

    Examples
    --------
    >>> rng = np.random.RandomState(0)
    >>> round(growth(rng.uniform(size=(2000, 2)), 20, rng), 1)
    1.9
    """
    table = torch.from_numpy(points)
    rows = torch.from_numpy(random_state.permutation(len(points))[:N_ROWS])
    ratios = []
    for part in chunks(len(rows), 16 * len(points), 2**26):
        near = squared_distances(table[rows[part]], table).topk(2 * k + 1, dim=1, largest=False).values
        ratios.append(torch.log(near[:, -1] / near[:, k].clamp_min(torch.finfo(near.dtype).tiny)) / 2)
    mean = float(torch.cat(ratios).mean())
    return float(np.log(2) / max(mean, np.finfo(float).tiny))


def wide_growth(points: Floats, random_state: np.random.RandomState) -> float:
    """`growth` at the scale that holds 4 per cent of the samples, from 1,500 of them."""
    some = random_state.permutation(len(points))[:WIDE_SAMPLES]
    return growth(points[some], WIDE_COUNT * len(some) // WIDE_SAMPLES, random_state)


def neighbors_beyond_noise(points: Floats, k: int, wide: float, random_state: np.random.RandomState) -> int:
    """k, doubled until neighbours multiply about as they do at the wide scale, up to 256 or what memory allows.

    Parameters
    ----------
    points : array (n, D)
    k : int
    wide : float
        See `wide_growth`.
    random_state : RandomState
    """
    most = min(MOST, int(ENTRIES / (2 * len(points))), len(points) // 8)
    if len(points) <= LEAST_SAMPLES or wide > MOST_DIMENSIONS:
        return k
    while k < most and growth(points, k, random_state) > wide + NOISE:
        k = min(2 * k, most)
    return k
