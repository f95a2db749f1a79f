"""Two-class problems on a circle and on a plane, whose risks are known in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ._validation import check_count, check_rng

__all__ = ["ClassifiedSample", "make_circle_task", "make_plane_task"]


@dataclass(frozen=True, eq=False)
class ClassifiedSample:
    """Points on a known manifold and their classes.

    Attributes
    ----------
    points : (n, D) float64 array
    labels : (n,) int64 array
        -1 or 1.
    """

    points: NDArray[np.float64]
    labels: NDArray[np.int64]


def make_circle_task(
    n_samples: int = 1000, *, kind: Literal["single", "double"] = "single", random_state: Any = None
) -> ClassifiedSample:
    """Uniform points of the unit circle, of class 1 where x_1 > 0 ("single") or x_1 x_2 > 0 ("double").

    Parameters
    ----------
    n_samples : int, default 1000
    kind : {"single", "double"}, default "single"
        Two or four places where the class changes.
    random_state : None, int, Generator or RandomState, default None

    Returns
    -------
    ClassifiedSample

    References
    ----------
    .. [1] Zhang et al., "Manifold-driven decomposition for adversarial robustness", Front. Comput. Sci. 5, 2024.

    Examples
    --------
    >>> task = make_circle_task(4, kind="double", random_state=0)
    >>> (task.labels == np.sign(task.points.prod(axis=1))).all()
    np.True_
    """
    n, rng = check_count(n_samples), check_rng(random_state)
    angles = 2 * np.pi * rng.random(n)
    points = np.column_stack([np.cos(angles), np.sin(angles)])
    return _classified(points, points[:, 0], points[:, 1], kind)


def make_plane_task(
    n_samples: int = 1000, *, kind: Literal["single", "double"] = "single", random_state: Any = None
) -> ClassifiedSample:
    """Uniform points of [-pi, pi]^2 x {0}, of class 1 where s = x_1 - sin x_2 > 0 ("single") or s x_2 > 0 ("double").

    Parameters
    ----------
    n_samples : int, default 1000
    kind : {"single", "double"}, default "single"
        One curve where the class changes, or two that cross.
    random_state : None, int, Generator or RandomState, default None

    Returns
    -------
    ClassifiedSample

    References
    ----------
    .. [1] Zhang et al., "Manifold-driven decomposition for adversarial robustness", Front. Comput. Sci. 5, 2024.

    Examples
    --------
    >>> make_plane_task(3, random_state=0).points[:, 2]
    array([0., 0., 0.])
    """
    n, rng = check_count(n_samples), check_rng(random_state)
    points = np.zeros((n, 3))
    points[:, :2] = np.pi * (2 * rng.random((n, 2)) - 1)
    return _classified(points, points[:, 0] - np.sin(points[:, 1]), points[:, 1], kind)


def _classified(
    points: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64], kind: str
) -> ClassifiedSample:
    if kind not in ("single", "double"):
        raise ValueError(f"kind must be 'single' or 'double', got {kind!r}")
    positive = first > 0 if kind == "single" else first * second > 0
    return ClassifiedSample(points, np.where(positive, 1, -1))
