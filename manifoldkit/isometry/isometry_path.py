"""The shortest way from the identity to a rotation of codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.linalg import schur
from torch import Tensor

from .._arrays import as_array

__all__ = ["isometry_path"]


def isometry_path(tau: Tensor, times: Any) -> Tensor:
    r"""Powers :math:`\tau^t` of a rotation: the one-parameter group through it, along which codes can walk.

    The real Schur form splits :math:`\tau` into planes that it turns by angles :math:`|\theta_j| \le \pi`;
    :math:`\tau^t` turns them by :math:`t \theta_j`. Axes that are reversed are taken two by two as planes turned by
    half a turn, in which the choice of the sense is free.

    Parameters
    ----------
    tau : Tensor (k, k)
        Orthogonal, of determinant +1: isometries of a :class:`NeuralIsometry` with ``special=True`` are.
    times : array-like (T,)
        Any real numbers: 0 is the identity, 1 is `tau`, more goes on in the same direction.

    Returns
    -------
    Tensor (T, k, k)
        Of the dtype and device of `tau`. Computed in float64, without derivatives.

    Raises
    ------
    TypeError, ValueError
        If `tau` is no tensor, or no rotation.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import isometry_path
    >>> quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    >>> isometry_path(quarter, [0.5])[0]
    tensor([[ 0.7071, -0.7071],
            [ 0.7071,  0.7071]])
    """
    if not isinstance(tau, Tensor):
        raise TypeError(f"tau must be a torch tensor, got {type(tau).__name__}: use torch.as_tensor")
    matrix = as_array(tau, "tau")
    steps = as_array(times, "times")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or steps.ndim != 1:
        raise ValueError(f"tau must be (k, k) and times (T,), got {matrix.shape} and {steps.shape}")
    if not np.allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-3):
        raise ValueError("tau must be orthogonal: pass one of the maps of NeuralIsometry.isometry")
    form, basis = schur(matrix, output="real")
    planes, reversed_axes, i = [], [], 0
    while i < len(form):
        if i + 1 < len(form) and abs(form[i + 1, i]) > 1e-8:
            planes.append((i, i + 1, np.arctan2(form[i + 1, i], form[i, i])))
            i += 2
        else:
            if form[i, i] < 0:
                reversed_axes.append(i)
            i += 1
    if len(reversed_axes) % 2:
        raise ValueError("tau has determinant -1, so that no path leads to it from the identity: use special=True")
    planes += [(a, b, np.pi) for a, b in zip(reversed_axes[::2], reversed_axes[1::2], strict=True)]
    powers = np.broadcast_to(np.eye(len(form)), (len(steps), *form.shape)).copy()
    for a, b, angle in planes:
        cos, sin = np.cos(steps * angle), np.sin(steps * angle)
        powers[:, a, a] = powers[:, b, b] = cos
        powers[:, b, a], powers[:, a, b] = sin, -sin
    return torch.from_numpy(basis @ powers @ basis.T).to(tau)
