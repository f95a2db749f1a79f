"""What every maker of points returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ManifoldSample"]


@dataclass(frozen=True, eq=False)
class ManifoldSample:
    """Noisy points of a manifold together with everything that is known about them.

    The observed point is ``points[i] = clean[i] + noise_scale[i] * g`` with standard normal g in the ambient space.

    Attributes
    ----------
    points : (n, D) float64 array
        The observed points.
    parameters : (n, p) float64 array
        Intrinsic coordinates of the clean points (angles in radians, lengths in the unit of the points).
    parameter_names : tuple of str
        One name for each column of `parameters`.
    tangents : (n, D, d) float64 array
        Orthonormal basis (in columns) of the tangent space of the clean manifold at ``clean[i]``.
    clean : (n, D) float64 array
        The points before noise, exactly on the manifold.
    noise_scale : (n,) float64 array
        Standard deviation of the noise in each ambient coordinate of each point.

    Examples
    --------
    >>> from manifoldkit.datasets import make_circle
    >>> sample = make_circle(50, noise=0.01, random_state=0)
    >>> X, t = sample.points, sample.parameters
    >>> X.shape, t.shape, sample.parameter_names
    ((50, 2), (50, 1), ('theta',))
    """

    points: NDArray[np.float64]
    parameters: NDArray[np.float64]
    parameter_names: tuple[str, ...]
    tangents: NDArray[np.float64]
    clean: NDArray[np.float64]
    noise_scale: NDArray[np.float64]


def noisy_sample(
    clean: NDArray[np.float64],  # (n, D)
    parameters: NDArray[np.float64],  # (n, p)
    names: tuple[str, ...],
    tangents: NDArray[np.float64],  # (n, D, d)
    scale: float | NDArray[np.float64],  # () or (n,)
    rng: np.random.Generator,
) -> ManifoldSample:
    """Add isotropic Gaussian noise of standard deviation `scale` to the clean points."""
    noise_scale = np.broadcast_to(np.asarray(scale, dtype=np.float64), len(clean)).copy()
    points = clean + noise_scale[:, None] * rng.standard_normal(clean.shape)
    return ManifoldSample(points, parameters, names, tangents, clean, noise_scale)
