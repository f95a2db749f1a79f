"""Surfaces with known tangent planes: flat torus, sphere, Swiss roll."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ._sample import ManifoldSample, noisy_sample
from ._validation import check_count, check_density, check_flag, check_real, check_rng

__all__ = ["make_sphere", "make_swiss_roll", "make_torus"]

_ROLL_INNER, _ROLL_OUTER, _ROLL_HEIGHT = 1.5 * math.pi, 4.5 * math.pi, 21.0


def make_torus(
    n_samples: int = 1000, *, grid: bool = False, noise: float = 0.0, random_state: Any = None
) -> ManifoldSample:
    r"""Sample the flat torus in four dimensions, the product of two unit circles.

    Points are :math:`(\cos\alpha, \sin\alpha, \cos\beta, \sin\beta)`, uniform in area. The Laplacian has the
    eigenvalues :math:`j^2 + k^2`, and the first Betti number is 2.

    Parameters
    ----------
    n_samples : int, default 1000
        Number of points; a square number with ``grid=True``.
    grid : bool, default False
        A square lattice of angles, alpha slowest, instead of random ones.
    noise : float, default 0.0
        Standard deviation of Gaussian noise in each ambient coordinate.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness for the angles and the noise.

    Returns
    -------
    ManifoldSample
        With `parameters` (n, 2), the angles alpha and beta in [0, 2 pi), and `tangents` (n, 4, 2).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range, or if a lattice is asked for and `n_samples` is
        not a square.

    Examples
    --------
    >>> from manifoldkit.datasets import make_torus
    >>> make_torus(100, grid=True).parameters[:3].round(3)
    array([[0.   , 0.   ],
           [0.   , 0.628],
           [0.   , 1.257]])
    """
    n = check_count(n_samples)
    noise = check_real(noise, "noise", 0.0)
    rng = check_rng(random_state)
    if check_flag(grid, "grid"):
        side = math.isqrt(n)
        if side * side != n:
            raise ValueError(
                f"n_samples must be a square number when grid=True, got {n}: use {side**2} or {(side + 1) ** 2}"
            )
        ticks = 2.0 * np.pi * np.arange(side) / side
        angles = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(n, 2)
    else:
        angles = 2.0 * np.pi * rng.random((n, 2))
    cos, sin = np.cos(angles), np.sin(angles)
    clean = np.stack([cos[:, 0], sin[:, 0], cos[:, 1], sin[:, 1]], axis=1)
    tangents = np.zeros((n, 4, 2))
    for i in (0, 1):
        tangents[:, 2 * i, i], tangents[:, 2 * i + 1, i] = -sin[:, i], cos[:, i]
    return noisy_sample(clean, angles, ("alpha", "beta"), tangents, noise, rng)


def make_sphere(
    n_samples: int = 1000,
    *,
    density: Literal["uniform"] | float = "uniform",
    grid: bool = False,
    noise: float = 0.0,
    random_state: Any = None,
) -> ManifoldSample:
    r"""Sample the unit sphere in three dimensions.

    Points are :math:`(\sin\theta\cos\varphi, \sin\theta\sin\varphi, \cos\theta)`; the density with respect to area is
    :math:`(1 + a z) / 4\pi`. The Laplacian has the eigenvalues :math:`l (l + 1)`, each 2 l + 1 times.

    Parameters
    ----------
    n_samples : int, default 1000
        Number of points.
    density : "uniform" or float, default "uniform"
        The amplitude a, between -1 and 1; "uniform" is a = 0.
    grid : bool, default False
        A Fibonacci lattice, with heights at the quantiles (i + 1/2) / n of the density, instead of random points.
    noise : float, default 0.0
        Standard deviation of Gaussian noise in each ambient coordinate.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness for the points and the noise.

    Returns
    -------
    ManifoldSample
        With `parameters` (n, 2), the polar angle theta in [0, pi] and the azimuth phi in [0, 2 pi), and `tangents`
        (n, 3, 2), the unit vectors of growing theta and phi.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.

    Examples
    --------
    >>> import numpy as np
    >>> from manifoldkit.datasets import make_sphere
    >>> sample = make_sphere(200, grid=True)
    >>> bool(np.allclose(np.linalg.norm(sample.points, axis=1), 1.0))
    True
    """
    n = check_count(n_samples)
    amplitude = check_density(density)
    noise = check_real(noise, "noise", 0.0)
    rng = check_rng(random_state)
    if check_flag(grid, "grid"):
        index = np.arange(n)
        quantile = (index + 0.5) / n
        phi = np.mod(index * np.pi * (3.0 - np.sqrt(5.0)), 2.0 * np.pi)
    else:
        quantile, phi = rng.random(n), 2.0 * np.pi * rng.random(n)
    # The root in z of (z + 1) / 2 + a (z^2 - 1) / 4 = quantile, written so that nothing cancels as a tends to 0.
    shifted = 4.0 * quantile + amplitude - 2.0
    z = np.clip(shifted / (1.0 + np.sqrt(np.maximum(1.0 + amplitude * shifted, 0.0))), -1.0, 1.0)
    theta = np.arccos(z)
    cos_theta, sin_theta, cos_phi, sin_phi = np.cos(theta), np.sin(theta), np.cos(phi), np.sin(phi)
    clean = np.stack([sin_theta * cos_phi, sin_theta * sin_phi, cos_theta], axis=1)
    along_theta = np.stack([cos_theta * cos_phi, cos_theta * sin_phi, -sin_theta], axis=1)
    along_phi = np.stack([-sin_phi, cos_phi, np.zeros(n)], axis=1)
    tangents = np.stack([along_theta, along_phi], axis=2)
    return noisy_sample(clean, np.stack([theta, phi], axis=1), ("theta", "phi"), tangents, noise, rng)


def make_swiss_roll(
    n_samples: int | None = None,
    *,
    grid: tuple[int, int] | None = None,
    noise: float = 0.0,
    random_state: Any = None,
) -> ManifoldSample:
    r"""Sample the Swiss roll uniformly in area, in coordinates that unroll it isometrically.

    Points are :math:`(t\cos t, y, t\sin t)` with t in [1.5 pi, 4.5 pi] and y in [0, 21]. The first coordinate is the
    arclength :math:`s(t) = \tfrac12 [t\sqrt{1 + t^2} + \operatorname{arsinh} t]_{1.5\pi}^{t}`, about 89.4 in all, so
    that (s, y) is flat: Euclidean distances between parameters are the geodesic ones.

    Parameters
    ----------
    n_samples : int, optional
        Number of points; 1000 if neither this nor `grid` is given.
    grid : (int, int), optional
        Numbers (n_s, n_y) of equal cells along s and y; the points are their centres, s slowest. (93, 21) makes the
        cells nearly square.
    noise : float, default 0.0
        Standard deviation of Gaussian noise in each ambient coordinate.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness for the points and the noise.

    Returns
    -------
    ManifoldSample
        With `parameters` (n, 2), the arclength s from the inner edge and the height y, and `tangents` (n, 3, 2).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range, or if `n_samples` contradicts `grid`.

    Examples
    --------
    >>> from manifoldkit.datasets import make_swiss_roll
    >>> sample = make_swiss_roll(grid=(93, 21))
    >>> sample.points.shape, sample.parameter_names
    ((1953, 3), ('arclength', 'height'))
    """
    noise = check_real(noise, "noise", 0.0)
    rng = check_rng(random_state)
    start = float(_arclength(np.float64(_ROLL_INNER)))
    length = float(_arclength(np.float64(_ROLL_OUTER))) - start
    n = 1000 if n_samples is None else check_count(n_samples)
    if grid is None:
        unit = rng.random((n, 2))
    else:
        n_s, n_y = _grid_shape(grid)
        if n_samples is not None and n != n_s * n_y:
            raise ValueError(f"grid {grid!r} has {n_s * n_y} points but n_samples is {n}: leave n_samples out")
        n = n_s * n_y
        cells = np.meshgrid((np.arange(n_s) + 0.5) / n_s, (np.arange(n_y) + 0.5) / n_y, indexing="ij")
        unit = np.stack(cells, axis=-1).reshape(n, 2)
    parameters = unit * np.array([length, _ROLL_HEIGHT])
    # The arclength is convex in t, so Newton's method from the outer edge falls monotonically onto the root.
    t = np.full(n, _ROLL_OUTER)
    for _ in range(12):
        t -= (_arclength(t) - start - parameters[:, 0]) / np.sqrt(1.0 + t * t)
    cos, sin, zero, speed = np.cos(t), np.sin(t), np.zeros(n), np.sqrt(1.0 + t * t)
    clean = np.stack([t * cos, parameters[:, 1], t * sin], axis=1)
    along_s = np.stack([(cos - t * sin) / speed, zero, (sin + t * cos) / speed], axis=1)
    tangents = np.stack([along_s, np.stack([zero, zero + 1.0, zero], axis=1)], axis=2)
    return noisy_sample(clean, parameters, ("arclength", "height"), tangents, noise, rng)


def _arclength(t: Any) -> NDArray[np.float64]:
    """Length of the spiral (t cos t, t sin t) from its centre."""
    return np.asarray((t * np.sqrt(1.0 + t * t) + np.arcsinh(t)) / 2.0, dtype=np.float64)


def _grid_shape(grid: Any) -> tuple[int, int]:
    try:
        n_s, n_y = grid
    except (TypeError, ValueError) as error:
        raise TypeError(f"grid must be a pair (n_s, n_y) of integers such as (93, 21), got {grid!r}") from error
    return check_count(n_s, "grid[0]"), check_count(n_y, "grid[1]")
