"""Surfaces and curves to cut into classes: linked rings, and the torus of revolution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._sample import ManifoldSample, noisy_sample
from ._validation import check_count, check_real, check_rng
from .curves import angles

__all__ = ["make_linked_rings", "make_ring_torus"]


def make_linked_rings(
    n_samples: int = 600, *, noise: float = 0.0, random_state: Any = None
) -> tuple[ManifoldSample, NDArray[np.int64]]:
    r"""Sample two unit circles in space, each of which goes through the middle of the other.

    Ring 0 is :math:`(\cos\theta, \sin\theta, 0)`, ring 1 is :math:`(1 + \cos\theta, 0, \sin\theta)`. No deformation of
    space takes them apart, so a map that separates them and keeps the distances within each has to cross itself.

    Parameters
    ----------
    n_samples : int, default 600
        Number of points of both rings together, half on each (one more on ring 0 if odd).
    noise : float, default 0.0
        Standard deviation of Gaussian noise in each coordinate.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness for the angles, uniform in [0, 2 pi), and the noise.

    Returns
    -------
    sample : ManifoldSample
        With `parameters` (n, 1), the angle, and `tangents` (n, 3, 1).
    labels : (n,) int64 array
        Ring of every point, ring 0 first.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.

    Examples
    --------
    >>> from manifoldkit.datasets import make_linked_rings
    >>> sample, labels = make_linked_rings(5, random_state=0)
    >>> sample.points.shape, labels
    ((5, 3), array([0, 0, 0, 1, 1]))
    """
    n = check_count(n_samples, minimum=2)
    noise = check_real(noise, "noise", 0.0)
    rng = check_rng(random_state)
    labels = np.repeat(np.arange(2, dtype=np.int64), (n - n // 2, n // 2))
    theta = 2.0 * np.pi * rng.random(n)
    cos, sin, zero, first = np.cos(theta), np.sin(theta), np.zeros(n), labels == 0
    clean = np.stack([cos + labels, np.where(first, sin, zero), np.where(first, zero, sin)], axis=1)
    tangents = np.stack([-sin, np.where(first, cos, zero), np.where(first, zero, cos)], axis=1)[:, :, None]
    return noisy_sample(clean, theta[:, None], ("theta",), tangents, noise, rng), labels


def make_ring_torus(
    n_samples: int = 1000, *, major: float = 2.0, minor: float = 1.0, noise: float = 0.0, random_state: Any = None
) -> ManifoldSample:
    r"""Sample the torus of revolution in space, uniformly in area.

    Points are :math:`((R + r\cos\beta)\cos\alpha, (R + r\cos\beta)\sin\alpha, r\sin\beta)`. Sectors of
    :math:`\alpha` cut it into cylinders, bent ones. The flat torus is :func:`make_torus`.

    Parameters
    ----------
    n_samples : int, default 1000
        Number of points.
    major, minor : float, default 2.0 and 1.0
        R > r > 0: distance of the tube's centre from the axis, and radius of the tube.
    noise : float, default 0.0
        Standard deviation of Gaussian noise in each coordinate.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness for the angles and the noise.

    Returns
    -------
    ManifoldSample
        With `parameters` (n, 2), alpha around the axis and beta around the tube in [0, 2 pi), and `tangents` (n, 3, 2).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.datasets import make_ring_torus
    >>> x, y, z = make_ring_torus(100, random_state=0).points.T
    >>> bool(np.allclose((np.hypot(x, y) - 2.0) ** 2 + z**2, 1.0))
    True
    """
    n = check_count(n_samples)
    minor = check_real(minor, "minor", 0.0, open_low=True)
    major = check_real(major, "major", minor, open_low=True)
    noise = check_real(noise, "noise", 0.0)
    rng = check_rng(random_state)
    alpha = 2.0 * np.pi * rng.random(n)
    beta = angles(n, minor / major, False, rng)  # the area of a strip of the tube is proportional to R + r cos(beta)
    ca, sa, cb, sb = np.cos(alpha), np.sin(alpha), np.cos(beta), np.sin(beta)
    radius = major + minor * cb
    clean = np.stack([radius * ca, radius * sa, minor * sb], axis=1)
    around_axis = np.stack([-sa, ca, np.zeros(n)], axis=1)
    around_tube = np.stack([-sb * ca, -sb * sa, cb], axis=1)
    tangents = np.stack([around_axis, around_tube], axis=2)
    return noisy_sample(clean, np.stack([alpha, beta], axis=1), ("alpha", "beta"), tangents, noise, rng)
