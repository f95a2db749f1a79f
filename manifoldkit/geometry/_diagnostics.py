"""What a fitted spectrum says about the data and the parameters, as warnings."""

from __future__ import annotations

import warnings
from typing import Any

from ..exceptions import DisconnectedGraphWarning, ScaleWarning, SpectrumTruncatedWarning
from .neighbors import Floats

__all__ = ["warn_of_spectrum"]

#: The largest scale at which a diffusion still resembles a Laplacian, as its first Markov eigenvalue.
LEAST_FIRST = 0.5


def warn_of_spectrum(estimator: Any, markov: Floats, least: float, pieces: int) -> None:
    """Warn of components that had to be dropped, of too large a scale, and of data in several pieces."""
    if estimator.n_components_ < len(markov):
        warnings.warn(
            f"only {estimator.n_components_} of n_components={len(markov)} have a Markov eigenvalue above {least}: "
            "the others are dropped. Ask for fewer, use more samples, fewer neighbours or a smaller epsilon, "
            "or in many dimensions n_kernel_neighbors",
            SpectrumTruncatedWarning,
            stacklevel=4,
        )
    if len(markov) > 1 and markov[1] < LEAST_FIRST:
        warnings.warn(
            f"epsilon={estimator.epsilon_:.3g} is so large that the first Markov eigenvalue is {markov[1]:.2g}: "
            "eigenvalues carry a bias. Use epsilon='knn', more samples or fewer neighbours",
            ScaleWarning,
            stacklevel=4,
        )
    if estimator.n_connected_components_ > 1:
        warnings.warn(
            f"the graph of {estimator.n_neighbors_} nearest neighbours has {pieces} pieces, of which the kernel leaves "
            f"{estimator.n_connected_components_} apart: fit each piece alone (ManifoldAtlas) or use more neighbours",
            DisconnectedGraphWarning,
            stacklevel=4,
        )
