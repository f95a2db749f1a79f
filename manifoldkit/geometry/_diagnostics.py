"""What a fitted spectrum says about the data and the parameters, as warnings."""

from __future__ import annotations

import warnings
from typing import Any

from ..exceptions import DisconnectedGraphWarning, ScaleWarning, SpectrumTruncatedWarning
from .growth import LEAST_SAMPLES
from .neighbors import Floats

__all__ = ["warn_of_noise", "warn_of_spectrum"]

#: Kernel neighbours that are recommended, and how many samples it takes for that to make a difference.
KERNEL_NEIGHBORS, ENOUGH = 64, 200
#: By how much the dimension may exceed that of the wide scale.
NOISE = 0.4

#: The largest scale at which a diffusion still resembles a Laplacian, as its first Markov eigenvalue.
LEAST_FIRST = 0.5
#: A first Markov eigenvalue as near to 1 as this means that the data nearly fall apart.
NEARLY_ONE = 1e-6


def warn_of_spectrum(estimator: Any, markov: Floats, least: float, n_pieces: int) -> None:
    """Warn of components that had to be dropped, of too large a scale, and of data in several pieces."""
    if estimator.n_components is not None and estimator.n_components_ < len(markov):
        warnings.warn(
            f"only {estimator.n_components_} of n_components={len(markov)} have a Markov eigenvalue above {least} and "
            f"are kept. To keep more, {_narrower(estimator)}",
            SpectrumTruncatedWarning,
            stacklevel=3,
        )
    if len(markov) > 1 and markov[1] < LEAST_FIRST:
        warnings.warn(
            f"the kernel is so wide that the first Markov eigenvalue is {markov[1]:.2g}: eigenvalues carry a bias, and "
            f"projections fall near the mean of the samples. To cure it, {_narrower(estimator)}",
            ScaleWarning,
            stacklevel=3,
        )
    pieces = estimator.n_connected_components_
    if pieces > 1:
        warnings.warn(
            f"the samples fall into {pieces} pieces that the kernel leaves apart: fit each alone (ManifoldAtlas), or "
            "use more neighbours",
            DisconnectedGraphWarning,
            stacklevel=3,
        )
    elif n_pieces > 1 or (len(markov) > 1 and markov[1] > 1 - NEARLY_ONE):
        warnings.warn(
            f"the samples nearly fall into pieces: {n_pieces} in the graph of {estimator.n_neighbors_} nearest "
            f"neighbours, first Markov eigenvalue 1 - {1 - markov[1:2].sum():.1e}. The spectrum may show the gap "
            "between them: use more neighbours",
            DisconnectedGraphWarning,
            stacklevel=3,
        )


def _narrower(estimator: Any) -> str:
    """What narrows the kernel of this fit."""
    n, k = len(estimator.bandwidth_), estimator.n_neighbors_
    if n < ENOUGH:
        return "use more samples"
    if estimator.n_kernel_neighbors is not None:
        return f"use more samples, or fewer n_kernel_neighbors than {estimator.n_kernel_neighbors}"
    if estimator.n_features_in_ > 3 and estimator.reduction == "torch":
        return f"pass n_kernel_neighbors ({max(KERNEL_NEIGHBORS, 2 * k)}, say), or use more samples"
    return f"use more samples, or a smaller epsilon than {estimator.epsilon_:.3g}"


def warn_of_noise(estimator: Any, wide: float) -> None:
    """Warn of noise that the kernel follows: the dimension exceeds `wide`, that of a wider scale."""
    if (
        estimator.dimension is None
        and estimator.dimension_ > wide + NOISE
        and len(estimator.bandwidth_) > LEAST_SAMPLES
    ):
        warnings.warn(
            f"with {estimator.n_neighbors_} neighbours the samples have dimension {estimator.dimension_:.1f}, and "
            f"{wide:.1f} at a larger scale: so many samples resolve their noise. Fit some thousands of them "
            "and transform the others, or pass more n_neighbors, or the dimension if this is none",
            ScaleWarning,
            stacklevel=3,
        )
