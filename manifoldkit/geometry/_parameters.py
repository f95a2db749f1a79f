"""Checks of the parameters of :class:`DiffusionManifold`, with messages that say what to do."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

from ._validation import choice, positive
from .kernels import SHAPES
from .matrix_free import BACKENDS
from .nystrom import FAR_MODES
from .selection import start_count
from .tangents import TANGENT_METHODS

__all__ = ["check_parameters"]

CHOICES = {
    "bandwidth": ("mean", "kth"),
    "kernel": tuple(SHAPES),
    "units": ("physical", "volume1"),
    "far": FAR_MODES,
    "tangent_method": TANGENT_METHODS,
    "reduction": ("torch", *BACKENDS),
}
OPTIONAL_COUNTS = ("n_components", "dimension", "n_projection_components", "n_tangent_neighbors", "n_kernel_neighbors")


def check_parameters(estimator: Any, n: int, n_features: int) -> int:
    """Raise ValueError for parameters that do not fit `n` samples; return the number of neighbours.

    "auto" gives the number with which the search begins, see :func:`~manifoldkit.geometry.selection.adapt_neighbors`.
    """
    if isinstance(estimator.n_neighbors, str) and estimator.n_neighbors == "auto":
        k = start_count(n)
    else:
        k = positive(estimator.n_neighbors, "n_neighbors", " or 'auto'")
    if n <= k + 1:
        raise ValueError(f"n_samples={n} is too few for n_neighbors={k}: at least n_neighbors + 2 are needed")
    positive(estimator.dense_limit, "dense_limit")
    for name in OPTIONAL_COUNTS:
        if getattr(estimator, name) is not None:
            positive(getattr(estimator, name), name, " or None")
    if (estimator.n_components or 0) > n:
        raise ValueError(f"n_components={estimator.n_components} exceeds n_samples={n}: pass n_components <= {n}")
    if (estimator.n_projection_components or 0) > (estimator.n_components or n):
        raise ValueError(
            f"n_projection_components={estimator.n_projection_components} exceeds n_components={estimator.n_components}"
        )
    if estimator.n_jobs is not None and (
        isinstance(estimator.n_jobs, bool)
        or not isinstance(estimator.n_jobs, (int, np.integer))
        or not estimator.n_jobs
    ):
        raise ValueError(f"n_jobs must be None or an integer other than 0 (-1: all cores), got {estimator.n_jobs!r}")
    if not callable(estimator.eigen_solver):
        choice(estimator.eigen_solver, "eigen_solver", ("auto", "lapack", "arpack", "lobpcg"))
    if estimator.n_kernel_neighbors is not None and estimator.n_kernel_neighbors < k:
        raise ValueError(f"n_kernel_neighbors={estimator.n_kernel_neighbors} must not be less than n_neighbors={k}")
    if estimator.dimension is not None and estimator.dimension > n_features:
        raise ValueError(f"dimension={estimator.dimension} exceeds the {n_features} features of X")
    for name, allowed in CHOICES.items():
        choice(getattr(estimator, name), name, allowed)
    cut = estimator.n_kernel_neighbors is not None
    if estimator.reduction in BACKENDS and (cut or estimator.kernel == "indicator" or estimator.far == "knn"):
        raise ValueError(
            f"reduction={estimator.reduction!r} needs the full kernel of an exponential shape: leave out "
            "n_kernel_neighbors, and use another kernel than 'indicator' and far other than 'knn'"
        )
    if estimator.reduction in BACKENDS and estimator.eigen_solver in ("lapack", "lobpcg"):
        raise ValueError(
            f"eigen_solver={estimator.eigen_solver!r} needs the matrix that reduction={estimator.reduction!r} never "
            "forms: use 'auto' or 'arpack'"
        )
    check_distance_components(estimator.distance_components, n, n_features)
    epsilon = estimator.epsilon
    if isinstance(epsilon, str):
        choice(epsilon, "epsilon", ("knn", "max"))
    elif isinstance(epsilon, bool) or not isinstance(epsilon, Real) or not 0 < float(epsilon) < math.inf:
        raise ValueError(f"epsilon must be 'knn', 'max' or a positive number, got {epsilon!r}")
    return k


def check_distance_components(value: Any, n: int, n_features: int) -> None:
    """Raise ValueError unless `value` is None, a share of variance or a number of principal components."""
    if value is None or (isinstance(value, float) and 0 < value < 1):
        return
    most = min(n, n_features)
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not whole or not 0 < value <= most:
        raise ValueError(
            f"distance_components must be None, a share of variance between 0 and 1 or a number of components from 1 "
            f"to {most} (the least of samples and features), got {value!r}"
        )
