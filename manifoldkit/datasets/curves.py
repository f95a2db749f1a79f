"""Closed curves: the circle in the plane, a curve of constant speed in four dimensions, and their noisy versions."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ._sample import ManifoldSample, noisy_sample
from ._validation import check_count, check_density, check_flag, check_real, check_rng

__all__ = ["make_circle", "make_noisy_circle"]


def make_circle(
    n_samples: int = 1000,
    *,
    radius: float = 1.0,
    density: Literal["uniform"] | float = "uniform",
    grid: bool = False,
    noise: float = 0.0,
    ambient_dimension: int = 2,
    random_state: Any = None,
) -> ManifoldSample:
    r"""Sample a closed curve whose intrinsic geometry is that of a circle.

    In the plane the curve is :math:`r (\cos\theta, \sin\theta)`; in four dimensions it is
    :math:`r (\cos\theta, \sin\theta, \tfrac12\cos 2\theta, \tfrac12\sin 2\theta) / \sqrt 2`. Both have speed r, so that
    the Laplacian has the eigenvalues :math:`k^2 / r^2`. The angles have density :math:`(1 + a\cos\theta) / 2\pi`.

    Parameters
    ----------
    n_samples : int, default 1000
        Number of points.
    radius : float, default 1.0
        Length of the curve divided by 2 pi, positive.
    density : "uniform" or float, default "uniform"
        The amplitude a, between -1 and 1; "uniform" is a = 0.
    grid : bool, default False
        Take the quantiles i / n of the density, i = 0, ..., n - 1, instead of random angles.
    noise : float, default 0.0
        Standard deviation of Gaussian noise in each ambient coordinate.
    ambient_dimension : {2, 4}, default 2
        Dimension of the space around the curve.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness for the angles and the noise.

    Returns
    -------
    ManifoldSample
        With `parameters` of shape (n, 1), the angle theta in [0, 2 pi), and `tangents` of shape (n, D, 1).

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.

    Examples
    --------
    >>> from manifoldkit.datasets import make_circle
    >>> make_circle(4, grid=True).points.round(6) + 0.0
    array([[ 1.,  0.],
           [ 0.,  1.],
           [-1.,  0.],
           [ 0., -1.]])
    """
    n = check_count(n_samples)
    radius = check_real(radius, "radius", 0.0, open_low=True)
    amplitude = check_density(density)
    noise = check_real(noise, "noise", 0.0)
    rng = check_rng(random_state)
    theta = angles(n, amplitude, check_flag(grid, "grid"), rng)
    clean, tangents = _closed_curve(theta, radius, ambient_dimension)
    return noisy_sample(clean, theta[:, None], ("theta",), tangents, noise, rng)


def make_noisy_circle(
    n_samples: int = 1000,
    *,
    density: Literal["uniform"] | float = 0.7,
    noise: tuple[float, float] = (0.01, 0.15),
    ambient_dimension: int = 2,
    random_state: Any = None,
) -> ManifoldSample:
    r"""Sample a unit circle that is hard for local methods: uneven density, and noise that varies along it.

    Angles have density :math:`(1 + a\cos\theta) / 2\pi`. The noise is Gaussian, independent and equally strong in all
    ambient coordinates; its standard deviation at the angle :math:`\theta` is

    .. math:: \sigma(\theta) = \sigma_0 + (\sigma_1 - \sigma_0)\, \frac{1 + \sin\theta}{2}.

    It is smallest at :math:`\theta = 3\pi/2` and largest at :math:`\pi/2`, and its extremes lie where the density has
    its mean value: the mean of :math:`\sigma` over the points is :math:`(\sigma_0 + \sigma_1) / 2` for every a.

    Parameters
    ----------
    n_samples : int, default 1000
        Number of points.
    density : "uniform" or float, default 0.7
        The amplitude a, between -1 and 1; "uniform" is a = 0.
    noise : (float, float), default (0.01, 0.15)
        The standard deviations :math:`(\sigma_0, \sigma_1)`, not negative, the smaller one first.
    ambient_dimension : {2, 4}, default 2
        Dimension of the space around the curve; see :func:`make_circle` for the curve in four dimensions.
    random_state : None, int, Generator or RandomState, default None
        Source of randomness for the angles and the noise.

    Returns
    -------
    ManifoldSample
        As from :func:`make_circle`, with :math:`\sigma(\theta_i)` in `noise_scale`.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or lies outside its range.

    Examples
    --------
    >>> from manifoldkit.datasets import make_noisy_circle
    >>> sample = make_noisy_circle(500, random_state=0)
    >>> bool(0.01 <= sample.noise_scale.min() < sample.noise_scale.max() <= 0.15)
    True
    """
    n = check_count(n_samples)
    amplitude = check_density(density)
    low, high = _noise_range(noise)
    rng = check_rng(random_state)
    theta = angles(n, amplitude, False, rng)
    clean, tangents = _closed_curve(theta, 1.0, ambient_dimension)
    scale = low + (high - low) * (1.0 + np.sin(theta)) / 2.0
    return noisy_sample(clean, theta[:, None], ("theta",), tangents, scale, rng)


def _noise_range(noise: Any) -> tuple[float, float]:
    try:
        low, high = noise
    except (TypeError, ValueError) as error:
        raise TypeError(f"noise must be a pair (smallest, largest) of standard deviations, got {noise!r}") from error
    low, high = check_real(low, "noise[0]", 0.0), check_real(high, "noise[1]", 0.0)
    if low > high:
        raise ValueError(f"noise must have its smaller standard deviation first, got {noise!r}: swap the two")
    return low, high


def angles(n: int, amplitude: float, grid: bool, rng: np.random.Generator) -> NDArray[np.float64]:
    """Angles (n,) with density (1 + amplitude * cos) / 2 pi, by inversion of the distribution function."""
    target = 2.0 * np.pi * (np.arange(n) / n if grid else rng.random(n))
    if amplitude == 0.0:
        return target
    # theta + a sin(theta) = target has its root within |a| of the target. Bisection, unlike Newton's method, also
    # converges for |a| = 1, where the density has a zero; 60 halvings exhaust a double.
    low, high = target - abs(amplitude), target + abs(amplitude)
    for _ in range(60):
        middle = (low + high) / 2.0
        above = middle + amplitude * np.sin(middle) > target
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.clip((low + high) / 2.0, 0.0, np.nextafter(2.0 * np.pi, 0.0))


def _closed_curve(
    theta: NDArray[np.float64],  # (n,)
    radius: float,
    ambient_dimension: Any,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points (n, D) and unit tangents (n, D, 1) at the angles."""
    dimension = check_count(ambient_dimension, "ambient_dimension")
    cos, sin = np.cos(theta), np.sin(theta)
    if dimension == 2:
        return radius * np.stack([cos, sin], axis=1), np.stack([-sin, cos], axis=1)[:, :, None]
    if dimension == 4:
        cos2, sin2 = np.cos(2.0 * theta), np.sin(2.0 * theta)
        points = np.stack([cos, sin, cos2 / 2.0, sin2 / 2.0], axis=1) / np.sqrt(2.0)
        tangents = np.stack([-sin, cos, -sin2, cos2], axis=1) / np.sqrt(2.0)
        return radius * points, tangents[:, :, None]
    raise ValueError(f"ambient_dimension must be 2 or 4, got {dimension}: embed the plane curve yourself for others")
