"""Surfaces with an edge: the S-shaped sheet, which can be flattened, and the open sphere, which cannot."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._sample import ManifoldSample, noisy_sample
from ._validation import check_count, check_real, check_rng

__all__ = ["make_open_sphere", "make_s_curve"]


def make_s_curve(n_samples: int = 1000, *, noise: float = 0.0, random_state: Any = None) -> ManifoldSample:
    r"""Sample the S-shaped sheet uniformly in area, in coordinates that flatten it isometrically.

    Points are :math:`(\sin s, y, \operatorname{sign}(s) (\cos s - 1))` with the arclength s in
    :math:`[-3\pi/2, 3\pi/2]` and y in [0, 2], as in scikit-learn. Distances between parameters are the geodesic ones.

    Parameters
    ----------
    n_samples : int, default 1000
        Number of points.
    noise : float, default 0.0
        Standard deviation of Gaussian noise in each coordinate.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness for the points and the noise.

    Returns
    -------
    ManifoldSample
        With `parameters` (n, 2), the arclength s and the height y, and `tangents` (n, 3, 2).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.

    Examples
    --------
    >>> from manifoldkit.datasets import make_s_curve
    >>> sample = make_s_curve(500, random_state=0)
    >>> sample.points.shape, sample.parameter_names
    ((500, 3), ('arclength', 'height'))
    """
    n = check_count(n_samples)
    noise = check_real(noise, "noise", 0.0)
    rng = check_rng(random_state)
    s, y = 3.0 * np.pi * (rng.random(n) - 0.5), 2.0 * rng.random(n)
    sign, cos, sin, zero = np.where(s < 0, -1.0, 1.0), np.cos(s), np.sin(s), np.zeros(n)
    clean = np.stack([sin, y, sign * (cos - 1.0)], axis=1)
    along_s = np.stack([cos, zero, -sign * sin], axis=1)
    tangents = np.stack([along_s, np.stack([zero, zero + 1.0, zero], axis=1)], axis=2)
    return noisy_sample(clean, np.stack([s, y], axis=1), ("arclength", "height"), tangents, noise, rng)


def make_open_sphere(
    n_samples: int = 1000, *, opening: float = math.pi / 2, noise: float = 0.0, random_state: Any = None
) -> ManifoldSample:
    r"""Sample the unit sphere without a cap around its north pole, uniformly in area.

    Points are :math:`(\sin r\cos\varphi, \sin r\sin\varphi, -\cos r)`, r the geodesic distance from the south pole, up
    to :math:`\pi` less the opening. Its curvature lets no map to the plane keep all lengths.

    Parameters
    ----------
    n_samples : int, default 1000
        Number of points.
    opening : float, default pi / 2
        Angular radius of the missing cap, between 0 and pi: pi / 2 leaves a hemisphere.
    noise : float, default 0.0
        Standard deviation of Gaussian noise in each coordinate.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness for the points and the noise.

    Returns
    -------
    ManifoldSample
        With `parameters` (n, 2), the distance r and the azimuth phi in [0, 2 pi), and `tangents` (n, 3, 2), the unit
        vectors of growing r and phi.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.

    Examples
    --------
    >>> from manifoldkit.datasets import make_open_sphere
    >>> bool(make_open_sphere(500, random_state=0).points[:, 2].max() <= 0.0)
    True
    """
    n = check_count(n_samples)
    opening = check_real(opening, "opening", 0.0, math.pi, open_low=True)
    noise = check_real(noise, "noise", 0.0)
    rng = check_rng(random_state)
    r = np.arccos(1.0 - (1.0 + math.cos(opening)) * rng.random(n))
    phi = 2.0 * np.pi * rng.random(n)
    sr, cr, sp, cp = np.sin(r), np.cos(r), np.sin(phi), np.cos(phi)
    clean = np.stack([sr * cp, sr * sp, -cr], axis=1)
    along_r = np.stack([cr * cp, cr * sp, sr], axis=1)
    along_phi = np.stack([-sp, cp, np.zeros(n)], axis=1)
    tangents = np.stack([along_r, along_phi], axis=2)
    return noisy_sample(clean, np.stack([r, phi], axis=1), ("r", "phi"), tangents, noise, rng)
