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
OPTIONAL_COUNTS = ("dimension", "n_projection_components", "n_tangent_neighbors", "n_kernel_neighbors")


def check_parameters(estimator: Any, n: int, n_features: int) -> int:
    """Raise ValueError for parameters that do not fit `n` samples; return the number of neighbours."""
    if isinstance(estimator.n_neighbors, str) and estimator.n_neighbors == "auto":
        k = max(1, min(n - 2, round(2 * np.log2(n))))
    else:
        k = positive(estimator.n_neighbors, "n_neighbors", " or 'auto'")
    if n <= k + 1:
        raise ValueError(f"n_samples={n} is too few for n_neighbors={k}: at least n_neighbors + 2 are needed")
    positive(estimator.n_components, "n_components")
    if estimator.n_components > n:
        raise ValueError(f"n_components={estimator.n_components} exceeds n_samples={n}: pass n_components <= {n}")
    positive(estimator.dense_limit, "dense_limit")
    for name in OPTIONAL_COUNTS:
        if getattr(estimator, name) is not None:
            positive(getattr(estimator, name), name, " or None")
    if (estimator.n_projection_components or 0) > estimator.n_components:
        raise ValueError(
            f"n_projection_components={estimator.n_projection_components} exceeds n_components={estimator.n_components}"
        )
    if not callable(estimator.eigen_solver):
        choice(estimator.eigen_solver, "eigen_solver", ("auto", "lapack", "arpack"))
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
    if estimator.reduction in BACKENDS and estimator.eigen_solver == "lapack":
        raise ValueError(
            f"eigen_solver='lapack' needs the matrix that reduction={estimator.reduction!r} never forms: use 'arpack'"
        )
    epsilon = estimator.epsilon
    if isinstance(epsilon, str):
        choice(epsilon, "epsilon", ("knn", "max"))
    elif isinstance(epsilon, bool) or not isinstance(epsilon, Real) or not 0 < float(epsilon) < math.inf:
        raise ValueError(f"epsilon must be 'knn', 'max' or a positive number, got {epsilon!r}")
    return k
