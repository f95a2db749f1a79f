"""Foot points: projections onto a manifold that are refined until the rest is normal."""

from __future__ import annotations

import warnings

import torch

from ..attacks._input import column, read_manifold, read_number, read_steps
from ..attacks.constraints import norms
from ..attacks.tangent import apply, bases, checked, choose, coefficients, tangent_share
from ..exceptions import MedialAxisWarning
from ..geometry.protocol import LabelledManifold, Manifold, project_with_tangents

__all__ = ["foot_points"]


def foot_points(
    manifold: Manifold | LabelledManifold,
    x: torch.Tensor,
    labels: torch.Tensor | None = None,
    *,
    n_iter: int = 20,
    tolerance: float = 1e-4,
    start: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Nearest points of a manifold by Gauss-Newton steps along its tangents.

    The projection of a learned manifold (a decoder behind an encoder, say) is on the manifold, but not the nearest
    point: part of :math:`x - p` is tangent. Each step takes that part, :math:`p \leftarrow N(p + T T^\top (x - p))`,
    and goes back onto the manifold along the normals, :math:`N(q) = q + (I - T T^\top)(\mathrm{project}(q) - q)`. It
    is halved where it does not bring p nearer.

    Parameters
    ----------
    manifold : Manifold or LabelledManifold
    x : Tensor (B, ...)
    labels : Tensor (B,), optional
        Members of a manifold that is chosen by label.
    n_iter : int, default=20
        Most steps; 0 is the plain projection.
    tolerance : float, default=1e-4
        Tangent share of the squared rest at which a point is left alone.
    start : Tensor (B, ...), optional
        Points of the manifold to begin with, by default the projections; from another beginning the steps may lead to
        another foot.

    Returns
    -------
    points : Tensor (B, ...)
    share : Tensor (B,)
        Tangent share of :math:`|x - p|^2` that is left; 0 where x lies on the manifold.

    Examples
    --------
    >>> from manifoldkit.geometry import Circle
    >>> class Sloppy(Circle):  # projects along the first axis instead of the radius
    ...     def project(self, x):
    ...         height = x[:, 1].clamp(-1, 1)
    ...         return torch.stack([(1 - height**2).sqrt() * x[:, 0].sign(), height], dim=1)
    >>> x = torch.tensor([[0.9, 0.9]], dtype=torch.float64)
    >>> sloppy, fine = (foot_points(Sloppy(), x, n_iter=n)[0] for n in (0, 20))
    >>> sloppy.round(decimals=3), fine.round(decimals=2)
    (tensor([[0.4360, 0.9000]], dtype=torch.float64), tensor([[0.7100, 0.7100]], dtype=torch.float64))
    """
    read_manifold(manifold)
    read_steps(n_iter, "n_iter", 0)
    read_number(tolerance, "tolerance", 0)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", MedialAxisWarning)  # the share that is left tells
        here = choose(manifold, labels)
        points = checked(here.project(x), x, "project", tuple(x.shape)) if start is None else start.clone()
        basis = bases(here.tangent_basis(points), x)
        share = _left(x, points, basis)
        length = torch.ones_like(share)
        for _ in range(n_iter):
            rows = ((share > tolerance) & (length > 1e-3)).nonzero()[:, 0]
            if not len(rows):
                break
            here = choose(manifold, None if labels is None else labels[rows])
            foot, rest = points[rows], x[rows] - points[rows]
            trial = foot + column(length[rows], foot) * _tangent(basis[rows], rest)
            landed, at_trial = project_with_tangents(here, trial)
            pull = checked(landed, trial, "project", tuple(trial.shape)) - trial
            trial = trial + pull - _tangent(bases(at_trial, trial), pull)
            nearer = norms(x[rows] - trial) < norms(rest)
            into, trial = rows[nearer], trial[nearer]
            if len(into):
                here = choose(manifold, None if labels is None else labels[into])
                points[into], basis[into] = trial, bases(here.tangent_basis(trial), trial)
                share[into] = _left(x[into], trial, basis[into])
            length[rows] = torch.where(nearer, torch.ones_like(length[rows]), length[rows] / 2)
    return points, share


def _tangent(basis: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return apply(basis, coefficients(basis, v.flatten(1))).reshape(v.shape)


def _left(x: torch.Tensor, points: torch.Tensor, basis: torch.Tensor) -> torch.Tensor:
    """Tangent share of the rest, 0 where the rest is rounding."""
    rest = x - points
    rounding = norms(rest) <= 1e3 * torch.finfo(x.dtype).eps * norms(x).clamp_min(1)
    return tangent_share(rest, basis).masked_fill(rounding, 0.0)
