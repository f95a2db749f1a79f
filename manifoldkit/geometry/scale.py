r"""The global bandwidth: how it is chosen, what dimension it shows, and the area that it stands for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import gammaln

from .._distances import pairwise_distances
from .kernels import KernelShape, neighbor_deltas
from .neighbors import Floats
from .sampling import NeighborLists, Sampling

__all__ = ["KernelScale", "choose_scale", "sampled_deltas", "scaling_dimension", "unit_area"]


#: Width of the bins of log delta^2.
LOG_BIN = 0.005


@dataclass(frozen=True)
class KernelScale:
    """The squared global bandwidth and what the kernel sum shows.

    Attributes
    ----------
    eps2 : float
    dimension : float
        Slope of the kernel sum at `eps2`.
    curve : array (2, q)
        Values of epsilon and the slope there.
    """

    eps2: float
    dimension: float
    curve: Floats


def choose_scale(
    sampling: Sampling,
    lists: NeighborLists,
    shape: KernelShape,
    epsilon: float | str,
    random_state: np.random.RandomState,
) -> KernelScale:
    """Squared global bandwidth by rule ("knn", "max") or by value."""
    near = neighbor_deltas(sampling.rho, *lists.nearest())
    knn = 2 * float(near.mean()) / (shape.width or 1.0)
    rows = sampled_deltas(sampling, random_state)
    grid = knn * np.geomspace(1e-2, 1e4, 61)
    slopes = _slopes(rows, grid, shape)
    if isinstance(epsilon, str):
        eps2 = knn if epsilon == "knn" else float(grid[slopes.argmax()])
    else:
        eps2 = float(epsilon) ** 2
    return KernelScale(eps2, float(scaling_dimension(rows, eps2, shape)[0]), np.stack([np.sqrt(grid), slopes]))


def sampled_deltas(sampling: Sampling, random_state: np.random.RandomState) -> Floats:
    """Some rows of delta^2, about 200,000 entries, for estimates of the kernel sum."""
    points, rho = sampling.points, sampling.rho
    rows = random_state.permutation(len(points))[: min(len(points), max(32, 200_000 // len(points)))]
    squared: Floats = pairwise_distances(torch.from_numpy(points[rows]), torch.from_numpy(points)).square_().numpy()
    return squared / (rho[rows, None] * rho)


def scaling_dimension(delta: Floats, eps2: Floats | float, shape: KernelShape) -> Floats:
    r"""Slope :math:`T = d \log S / d \log \varepsilon` of the kernel sum, which is the dimension on its plateau.

    For ``h = exp(-z / s)`` it is :math:`2 \langle \delta^2 / (s \varepsilon^2) \rangle`, the mean taken with the
    kernel as weight.

    Parameters
    ----------
    delta : array of scaled squared distances, any shape
    eps2 : float or array (q,)
        Squared global bandwidths.
    shape : KernelShape
        The indicator has no derivative; its slope is that of the Gaussian of the same scale.

    Returns
    -------
    array (q,)

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.geometry.kernels import SHAPES
    >>> line = np.arange(-500, 501.0) ** 2
    >>> scaling_dimension(line, 100.0, SHAPES["exp(-z)"]).round(6)
    array([1.])
    """
    flat, slopes = np.ravel(delta), []
    for scale in np.atleast_1d(eps2) * (shape.width or 1.0):
        z = flat[flat < 40 * scale] / scale
        weight = np.exp(-z)
        slopes.append(2 * np.dot(weight, z) / weight.sum())
    return np.array(slopes)


def _slopes(delta: Floats, grid: Floats, shape: KernelShape) -> Floats:
    """`scaling_dimension` on a fine grid, from a histogram of log delta^2 with bins of half a per cent."""
    flat, scales = np.ravel(delta), grid * (shape.width or 1.0)
    flat = flat[flat < 40 * scales[-1]]
    low = 1e-6 * scales[0]
    places = (np.log(np.maximum(flat, low) / low) / LOG_BIN).astype(np.int64)
    counts = np.bincount(places)
    means = np.bincount(places, flat) / np.maximum(counts, 1)
    filled = counts > 0
    z = means[filled] / scales[:, None]
    weight = counts[filled] * np.exp(-z)
    slopes: Floats = 2 * (weight * z).sum(axis=1) / weight.sum(axis=1)
    return slopes


def unit_area(sampling: Sampling, units: str, dimension: float, n_neighbors: int, convention: str) -> float:
    r"""Area of one squared bandwidth.

    "physical": :math:`\bar\rho^2`, the squared geometric mean of the bandwidths. "volume1": the metric
    :math:`q^{2/d} g` has total volume 1, so that it is :math:`a_k^2 (n V_d)^{-2/d}` with
    :math:`E \rho = a_k (n V_d q)^{-1/d}`, :math:`a_k = \Gamma(k + 1/d) / \Gamma(k)`, and V_d the volume of the
    unit ball.
    """
    if units == "physical":
        return float(np.exp(2 * np.average(np.log(sampling.rho), weights=sampling.weights)))
    log_ball = dimension / 2 * np.log(np.pi) - gammaln(dimension / 2 + 1)
    ranks = np.arange(1, n_neighbors + 1) if convention == "mean" else np.array([n_neighbors])
    moment = float(np.exp(gammaln(ranks + 1 / dimension) - gammaln(ranks)).mean())
    return float(moment**2 * np.exp(-2 / dimension * (np.log(len(sampling.points)) + log_ball)))
