"""Risks on a grid that fills the tube round a manifold, on which their inequality holds exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from .._arrays import Array, as_array, as_tensor
from ..attacks._input import read_norm, read_number, read_steps
from ..geometry.protocol import Manifold
from ._checks import check_eps, check_reach, differ, read_classes, read_targets
from .result import RiskDecomposition

__all__ = ["tubular_grid_risk"]

Floats = NDArray[np.float64]


def tubular_grid_risk(
    score: Callable[[Any], Any],
    manifold: Manifold,
    X: Array,
    y: Any,
    eps: float,
    *,
    base: Any = None,
    n_offset: int = 41,
    norm: str | float = 2,
    clean_radius: float = 1.0,
    allow_large_eps: bool = False,
) -> RiskDecomposition:
    r"""Risks of a classifier near a hypersurface, by looking at every point of a grid.

    The candidates are :math:`p_j + t_k \nu_j`, base points on the manifold plus offsets :math:`|t_k| \leq \epsilon`
    along their unit normals. A sample is at adversarial risk if a candidate nearer than eps is of another class; and
    the other risks see the same candidates only. Since every candidate knows its foot point, the inequality of
    :class:`RiskDecomposition` holds for each sample, with no error of estimation: a violation is a bug.

    Parameters
    ----------
    score : callable
        Points (B, D), as numpy float64 or, for a torch module, a tensor of its dtype -> logits (B, K), or scores
        (B,) whose sign is the class.
    manifold : Manifold
        Of codimension one.
    X : array of shape (n, D)
        Samples on the manifold; they are projected first.
    y : array of shape (n,)
        Class indices, or -1 and 1 for a score.
    eps : float
        Budget.
    base : array of shape (m, D), optional
        Points of the manifold; default: the samples. A dense grid makes better estimates.
    n_offset : int, default=41
        Offsets from -eps to eps.
    norm : {2, "inf"}, default=2
        In which distances to samples are measured. The theorem is that of norm 2.
    clean_radius : float, default=1.0
        Radius, in units of eps, within which the normal line of a sample must be clean for its risk to count as
        nearby normal risk. The source prints 2, with which its inequality is wrong.
    allow_large_eps : bool, default=False
        Warn instead of refusing an eps that is not below the reach of the manifold.

    Returns
    -------
    RiskDecomposition
        Without witnesses.

    References
    ----------
    .. [1] Zhang et al., "Manifold-driven decomposition for adversarial robustness", Front. Comput. Sci. 5, 2024.

    Examples
    --------
    >>> from manifoldkit.geometry import Circle
    >>> angles = 2 * np.pi * np.arange(720) / 720
    >>> ring = np.column_stack([np.cos(angles), np.sin(angles)])
    >>> perfect = lambda points: points[:, 0]
    >>> risk = tubular_grid_risk(perfect, Circle(), ring, np.where(ring[:, 0] > 0, 1, -1), eps=0.1)
    >>> abs(risk.rates()["adv"] - 2 * np.arcsin(0.1) / np.pi) < 0.01, int(risk.violations.sum())
    (np.True_, 0)
    """
    if not callable(score):
        raise TypeError(f"score must be a function or a torch.nn.Module, got {type(score).__name__}")
    if not isinstance(manifold, Manifold):
        raise TypeError(f"manifold must have project and tangent_basis, got {type(manifold).__name__}")
    eps = check_eps(eps)
    check_reach(manifold, eps, allow_large_eps)
    p_norm = read_norm(norm, allowed=(math.inf, 2))
    read_steps(n_offset, "n_offset", 3)
    if not read_number(clean_radius, "clean_radius") > 0:
        raise ValueError(f"clean_radius must be positive, got {clean_radius!r}")
    given = as_array(X, "X")
    samples = as_array(manifold.project(given))
    feet = samples if base is None else as_array(manifold.project(as_array(base, "base")))
    offsets = np.linspace(-eps, eps, int(n_offset))

    classes, n_classes = read_classes(score, samples)
    binary = n_classes is None
    wanted = read_targets(y, len(samples), binary, n_classes)
    feet_classes = read_classes(score, feet)[0]
    tube = _tube(manifold, feet, offsets)
    tube_classes = read_classes(score, tube.reshape(-1, feet.shape[1]))[0].reshape(len(feet), -1)

    std = differ(classes, wanted, binary)
    normal = _broken(score, _tube(manifold, samples, offsets), wanted, binary)
    dirty = normal
    if clean_radius != 1:
        dirty = _broken(score, _tube(manifold, samples, clean_radius * offsets), wanted, binary)
    slack = eps * 1e-9  # sums of two lengths round
    adv = std | normal
    in_manifold = std.copy()
    for value in np.unique(wanted):
        rows = wanted == value
        wrong = differ(tube_classes, value, binary)
        adv[rows] |= _nearest(samples[rows], tube[wrong], p_norm) < eps
        off = differ(feet_classes, value, binary)
        in_manifold[rows] |= _nearest(samples[rows], feet[off], p_norm) <= 2 * eps + slack
    fragile = differ(tube_classes, feet_classes[:, None], binary).any(axis=1)
    near = _nearest(samples, feet[fragile], p_norm) <= 2 * eps + slack
    nnr = near & ~dirty & ~in_manifold
    off_manifold = np.linalg.norm((given - samples).reshape(len(given), -1), axis=1) / eps
    return RiskDecomposition(eps, p_norm, adv, std, normal, in_manifold, nnr, off_manifold=off_manifold)


def _tube(manifold: Manifold, feet: Floats, offsets: Floats) -> Floats:
    """Points p + t nu for every foot and offset: (m, D), (k,) -> (m, k, D)."""
    basis = as_tensor(manifold.tangent_basis(feet))
    if basis.shape[2] != basis.shape[1] - 1:
        raise ValueError(
            f"the grid needs a manifold of codimension one, got dimension {basis.shape[2]} in {basis.shape[1]} "
            "dimensions: take decompose_risk"
        )
    # The normal is the left null vector: the last column of a full QR, exactly orthonormal to the tangents.
    normal: Floats = torch.linalg.qr(basis, mode="complete").Q[:, :, -1].numpy()
    return feet[:, None, :] + offsets[None, :, None] * normal[:, None, :]


def _broken(score: Callable[[Any], Any], lines: Floats, wanted: NDArray[np.int64], binary: bool) -> NDArray[np.bool_]:
    """Whether a line of points, (n, k, D), holds one that is not of the wanted class."""
    classes = read_classes(score, lines.reshape(-1, lines.shape[2]))[0].reshape(lines.shape[:2])
    return np.asarray(differ(classes, wanted[:, None], binary).any(axis=1))


def _nearest(samples: Floats, points: Floats, norm: float) -> Floats:
    """Distance of each sample to the nearest of the points; infinite without any."""
    if len(points) == 0 or len(samples) == 0:
        return np.full(len(samples), np.inf)
    distances: Floats = cKDTree(points).query(samples, p=norm)[0]
    return distances
