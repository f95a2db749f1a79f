"""How a map changes volumes."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch.func import jacrev, vmap

from ..exceptions import RankDeficientWarning
from ..isometry._input import flat

__all__ = ["volume_log_det"]


def volume_log_det(f: Any, x: torch.Tensor) -> torch.Tensor:
    r"""Logarithm of the volume element of a map, :math:`\frac12 \log\det(J J^\top)`, at each sample, in nats.

    J is the Jacobian (m, D) of a sample's m answers. For a square J this is :math:`\log |\det J|`; for m < D it is the
    factor by which the map changes m-dimensional volumes orthogonal to its fibres. Costs m backward passes, computed
    in the dtype of x, the determinant from singular values in float64. Differentiable where x requires a gradient, by
    second derivatives of f; the gradient is 0 where the answer is -inf.

    Parameters
    ----------
    f : Module or callable
        Samples (B, ...) to (B, m), row i depending on sample i alone (a Module in evaluation mode).
    x : Tensor (B, ...), floating

    Returns
    -------
    Tensor (B,), float64

    Raises
    ------
    TypeError, ValueError
        If x is no floating batch, or f has more answers than a sample has entries, so that they cannot be independent.

    Warns
    -----
    RankDeficientWarning
        If the rows of some Jacobians are dependent to rounding; their volume is 0 and the answer -inf.

    Examples
    --------
    >>> f = torch.nn.Linear(3, 2, bias=False)
    >>> _ = f.weight.data.copy_(torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 5.0]]))
    >>> volume_log_det(f, torch.zeros(1, 3)).exp()
    tensor([10.0000], dtype=torch.float64)
    """
    n_entries = flat(x, "x").shape[1]

    def one(sample: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = f(sample[None])
        return answer.flatten()

    jacobians = vmap(jacrev(one))(x).flatten(2)
    if jacobians.shape[1] > n_entries:
        raise ValueError(
            f"f makes {jacobians.shape[1]} numbers of {n_entries}: they are dependent, and the volume element is 0"
        )
    if not x.requires_grad:  # a gradient by the weights of f alone is not asked for
        jacobians = jacobians.detach()
    sizes = torch.linalg.svdvals(jacobians.double())
    floor = torch.finfo(x.dtype).eps * max(jacobians.shape[1:]) * sizes[:, :1]
    deficient = (sizes <= floor).any(dim=1)
    if deficient.any():
        warnings.warn(
            f"the Jacobian has dependent rows at {int(deficient.sum())} of {len(x)} samples, whose volume element is 0",
            RankDeficientWarning,
            stacklevel=2,
        )
    return torch.where(deficient, -torch.inf, torch.log(sizes.clamp_min(1e-300)).sum(1))
