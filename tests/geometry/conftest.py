"""Fits, angles and errors that the laws of the learned geometry share."""

from __future__ import annotations

import numpy as np
import pytest

from manifoldkit.geometry import DiffusionManifold


@pytest.fixture(scope="session")
def learn():
    """Builds a `DiffusionManifold` with k neighbours and N components, fitted to points; ARPACK above n = 1500."""

    def build(points, k: int, n_components: int, dimension: int, **options) -> DiffusionManifold:
        options.setdefault("eigen_solver", "arpack" if len(points) > 1500 else "auto")
        return DiffusionManifold(n_components, k, dimension=dimension, **options).fit(points)

    return build


@pytest.fixture(scope="session")
def spectrum_error():
    """Mean relative error of eigenvalues where the truth is not zero."""

    def error(eigenvalues, truth) -> float:
        truth = np.asarray(truth)
        nonzero = truth > 0
        return float(np.abs(eigenvalues[: len(truth)][nonzero] / truth[nonzero] - 1).mean())

    return error


@pytest.fixture(scope="session")
def principal_angles():
    """Largest principal angle in degrees between spans of orthonormal columns, (B, D, d) each."""

    def angles(first, second):
        cosines = np.linalg.svd(np.einsum("bik,bil->bkl", first, second), compute_uv=False)[:, -1]
        return np.degrees(np.arccos(np.clip(cosines, 0, 1)))

    return angles


@pytest.fixture(scope="session")
def bearing():
    """Angle in degrees at which a point of the plane is seen from the origin."""

    def angle(points):
        return np.degrees(np.arctan2(points[..., 1], points[..., 0]))

    return angle
