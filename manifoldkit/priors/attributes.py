"""By which attributes is an embedding organised? What the nearest neighbour's attribute tells."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from .._arrays import as_array
from ..datasets._validation import check_count, check_real
from ..exceptions import UndefinedStatisticWarning

__all__ = ["NeighborAttributes", "neighbor_attribute_kl"]


@dataclass(frozen=True, eq=False)
class NeighborAttributes:
    """How much neighbours tell of each attribute.

    Attributes
    ----------
    base : (a,) array
        p(x = 1), smoothed.
    conditional : (a,) array
        p(x = 1 | x of the neighbour = 0), smoothed.
    kl : (a,) array
        Divergence of the second Bernoulli law from the first, in nats.
    ranking : (a,) int array
        Columns by falling divergence, undefined ones last.
    """

    base: NDArray[np.float64]
    conditional: NDArray[np.float64]
    kl: NDArray[np.float64]
    ranking: NDArray[np.int64]


def neighbor_attribute_kl(
    embedding: Any, attributes: Any, *, n_neighbors: int = 1, smoothing: float = 1.0
) -> NeighborAttributes:
    r"""Divergence :math:`KL(p(x) \,\|\, p(x \mid x_{nn} = 0))` of binary attributes, with nn the nearest neighbour.

    It is zero where neighbours are no more alike than others, and large where the embedding is organised by the
    attribute. Samples are no neighbours of their own, copies of a sample are.

    Parameters
    ----------
    embedding : array (N, d)
    attributes : array (N, a)
        0 or 1.
    n_neighbors : int, default 1
        Pairs of a sample and each of so many neighbours are counted.
    smoothing : float, default 1.0
        Added to the counts of both values, so that rates are never 0 or 1.

    Returns
    -------
    NeighborAttributes
        An attribute with one value only has divergence 0.

    Raises
    ------
    TypeError, ValueError
        If shapes do not fit, numbers are not finite, or attributes are not 0 or 1.

    Warns
    -----
    UndefinedStatisticWarning
        If no neighbour of any sample has value 0 of an attribute that varies, whose divergence is then NaN.

    References
    ----------
    .. [1] Tu et al., "Probabilistic and semantic descriptions of image manifolds and their applications", Frontiers in
       Computer Science 5, 2023, section on joint manifolds.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> blob = rng.integers(2, size=200)
    >>> points = 9.0 * blob[:, None] + rng.normal(size=(200, 2))
    >>> found = neighbor_attribute_kl(points, np.column_stack([rng.integers(2, size=200), blob]))
    >>> found.ranking, bool(found.kl[0] < 0.05), bool(found.kl[1] > 1)
    (array([1, 0]), True, True)
    """
    points, values = as_array(embedding, "embedding"), as_array(attributes, "attributes")
    if points.ndim != 2 or values.ndim != 2 or len(points) != len(values) or values.shape[1] == 0:
        raise ValueError(
            f"embedding and attributes must have shapes (N, d) and (N, a), got {points.shape} and {values.shape}"
        )
    if not np.isin(values, (0, 1)).all():
        raise ValueError("attributes must be 0 or 1: recode -1 as 0")
    k, extra = check_count(n_neighbors, "n_neighbors"), check_real(smoothing, "smoothing", 0.0)
    if k >= len(points):
        raise ValueError(f"n_neighbors must be below the number of samples, {len(points)}, got {k}")
    near = NearestNeighbors(n_neighbors=k).fit(points).kneighbors(return_distance=False)  # excludes by index
    mine = np.repeat(values[:, None], k, axis=1)  # (N, k, a)
    without = values[near] == 0
    pairs = without.sum(axis=(0, 1))
    constant = values.min(axis=0) == values.max(axis=0)
    base = (values.sum(axis=0) + extra) / (len(values) + 2 * extra)
    with np.errstate(divide="ignore", invalid="ignore"):
        conditional = ((mine * without).sum(axis=(0, 1)) + extra) / (pairs + 2 * extra)
        terms = [p * (np.log(p) - np.log(q)) for p, q in ((base, conditional), (1 - base, 1 - conditional))]
    kl = np.where(base > 0, terms[0], 0.0) + np.where(base < 1, terms[1], 0.0)
    undefined = (pairs == 0) & ~constant
    kl, conditional = np.where(undefined, np.nan, kl), np.where(undefined, np.nan, conditional)
    kl[constant], conditional[constant] = 0.0, base[constant]
    if undefined.any():
        warnings.warn(
            f"no neighbour has value 0 of the attributes {np.flatnonzero(undefined).tolist()}, whose divergence is "
            "NaN: take more neighbours or samples",
            UndefinedStatisticWarning,
            stacklevel=2,
        )
    order = np.argsort(-np.where(np.isnan(kl), -np.inf, kl), kind="stable")
    return NeighborAttributes(base, conditional, kl, order.astype(np.int64))
