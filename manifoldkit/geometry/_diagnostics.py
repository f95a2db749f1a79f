"""What a fitted spectrum says about the data and the parameters, as warnings."""

from __future__ import annotations

import warnings
from typing import Any

from ..exceptions import DisconnectedGraphWarning, ScaleWarning, SpectrumTruncatedWarning
from .neighbors import Floats

__all__ = ["warn_of_spectrum"]

#: The largest scale at which a diffusion still resembles a Laplacian, as its first Markov eigenvalue.
LEAST_FIRST = 0.5
#: A first Markov eigenvalue as near to 1 as this means that the data nearly fall apart.
NEARLY_ONE = 1e-6


def warn_of_spectrum(estimator: Any, markov: Floats, least: float, n_pieces: int) -> None:
    """Warn of components that had to be dropped, of too large a scale, and of data in several pieces."""
    if estimator.n_components_ < len(markov):
        warnings.warn(
            f"only {estimator.n_components_} of n_components={len(markov)} have a Markov eigenvalue above {least} and "
            "are kept. To keep more, pass n_kernel_neighbors (64, say) in many dimensions, else a smaller epsilon or "
            "more samples",
            SpectrumTruncatedWarning,
            stacklevel=3,
        )
    if len(markov) > 1 and markov[1] < LEAST_FIRST:
        warnings.warn(
            f"the kernel is so wide that the first Markov eigenvalue is {markov[1]:.2g}: eigenvalues carry a bias, and "
            "projections fall near the mean of the samples. Pass n_kernel_neighbors (64, say) in many dimensions, else "
            f"a smaller epsilon than {estimator.epsilon_:.3g}, or more samples",
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
