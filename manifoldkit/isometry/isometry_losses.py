"""What a learned isometry is judged by: equivariance, transport, and the multiplicity of its eigenvalues."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .learned_operator import commutation_mask

__all__ = ["IsometryLosses", "equivariance_error", "equivariance_loss", "multiplicity_loss"]


class IsometryLosses(NamedTuple):
    """The three losses of a batch of pairs or triplets, scalars with gradients."""

    transport: Tensor
    equivariance: Tensor
    multiplicity: Tensor

    def total(self, alpha: float, beta: float) -> Tensor:
        """Transport plus `alpha` times equivariance plus `beta` times multiplicity."""
        return self.transport + alpha * self.equivariance + beta * self.multiplicity


def equivariance_loss(tau: Tensor, first: Tensor, second: Tensor) -> Tensor:
    r"""How far an isometry is from carrying codes onto each other, there and back.

    :math:`\langle |\tau A - B| \rangle + \langle |\tau^\top B - A| \rangle`, means over all entries.

    Parameters
    ----------
    tau : Tensor (B, k, k)
    first, second : Tensor (B, k, c)
        The codes A and B.

    Returns
    -------
    Tensor ()

    Raises
    ------
    TypeError, ValueError
        If an argument is no tensor, or the shapes do not fit.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import equivariance_loss
    >>> code = torch.ones(1, 2, 3)
    >>> equivariance_loss(-torch.eye(2)[None], code, -code)
    tensor(0.)
    """
    _check_codes(tau, first, second)
    return (tau @ first - second).abs().mean() + (tau.mT @ second - first).abs().mean()


def multiplicity_loss(eigenvalues: Tensor) -> Tensor:
    r"""Small where eigenvalues are distinct: :math:`\|\operatorname{diag}(P 1) - P\|_F / k`.

    P is :func:`commutation_mask`. For m equal eigenvalues far from all others, their share of the squared norm is
    :math:`m (m - 1)^2 + m (m - 1)`.

    Parameters
    ----------
    eigenvalues : Tensor (k,)

    Returns
    -------
    Tensor ()

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import multiplicity_loss
    >>> multiplicity_loss(torch.tensor([0.0, 0.0, 90.0, 90.0]))
    tensor(0.7071)
    """
    mask = commutation_mask(eigenvalues)
    off = mask - torch.diag_embed(torch.diagonal(mask))
    # The root of zero has no derivative: all eigenvalues far apart are at the optimum already.
    square = off.sum(dim=1).square().sum() + off.square().sum()
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt() / len(eigenvalues)


def equivariance_error(tau: Tensor, first: Tensor, second: Tensor) -> Tensor:
    r"""Relative error of each isometry, :math:`\|\tau A - B\|^2 / \|\tau A\|^2`.

    Zero is exact; codes that have nothing to do with each other have about 2. When the isometries are those of the
    same codes, this says how well any isometry of the learned operator fits; to see whether the isometry is that of
    the *transformation*, estimate it from some of the channels or images and pass others.

    Parameters
    ----------
    tau : Tensor (B, k, k)
        Or any linear maps, to compare with.
    first, second : Tensor (B, k, c)
        The codes A and B.

    Returns
    -------
    Tensor (B,)
        Its mean over a test set is the figure of the paper.

    Raises
    ------
    TypeError, ValueError
        If an argument is no tensor, the shapes do not fit, or a code is zero or not finite.

    Examples
    --------
    >>> import torch
    >>> from manifoldkit.isometry import equivariance_error
    >>> code = torch.ones(1, 2, 3)
    >>> equivariance_error(torch.eye(2)[None], code, 1.1 * code)
    tensor([0.0100])
    """
    _check_codes(tau, first, second)
    moved = tau @ first
    size = moved.square().sum(dim=(1, 2))
    if not ((size > 0) & torch.isfinite(size) & torch.isfinite(second).all(dim=2).all(dim=1)).all():
        raise ValueError("some codes are zero, NaN or infinite, and have no relative error: leave out such images")
    return (moved - second).square().sum(dim=(1, 2)) / size


def _check_codes(tau: Any, first: Any, second: Any) -> None:
    for name, value in (("tau", tau), ("first", first), ("second", second)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a torch tensor, got {type(value).__name__}: use torch.as_tensor")
    if first.shape != second.shape or first.ndim != 3 or tau.shape != (len(first), first.shape[1], first.shape[1]):
        raise ValueError(
            f"codes must have one shape (B, k, c) and tau (B, k, k), got {tuple(first.shape)}, {tuple(second.shape)} "
            f"and {tuple(tau.shape)}"
        )
