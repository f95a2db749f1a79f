"""Projections, tangent spaces and the ambiguity of points, from one evaluation of the Nystrom weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._arrays import chunks
from ._validation import choice
from .medial import near_medial_axis
from .nystrom import FAR_MODES
from .tangents import tangent_basis

if TYPE_CHECKING:
    from .diffusion import DiffusionManifold

__all__ = ["Landing", "land"]


@dataclass(frozen=True)
class Landing:
    """Where points (B, D) land on the manifold.

    Attributes
    ----------
    points : Tensor (B, D)
        Their projections.
    basis : Tensor (B, D, d) or None
        Tangent spaces at the points themselves; None if not asked for.
    ambiguous : Tensor (B,)
        Whether they lie near the medial axis.
    """

    points: Tensor
    basis: Tensor | None
    ambiguous: Tensor


@torch.no_grad()
def land(manifold: DiffusionManifold, flat: Tensor, far: str | None = None, *, tangents: bool = False) -> Landing:
    """Project `flat` (B, D) once, in pieces that fit in memory, and find tangent spaces on the way if asked for.

    The distances to all training points are most of the cost; projection, tangent spaces and the check for ambiguity
    share them.
    """
    far = choice(manifold.far if far is None else far, "far", FAR_MODES)
    row = manifold._row(flat.device)
    table, modes = (None if part is None else part.to(flat) for part in manifold._series(manifold._x_modes))
    assert table is not None
    points, ambiguous, bases = torch.empty_like(flat), flat.new_empty(len(flat), dtype=torch.bool), []
    for part in chunks(len(flat), row.bytes_per_query):
        x = flat[part]
        if manifold.reduction == "keops":
            weights, average = None, row.average(x, table, far, "keops")
            nearest = row.neighbors(x, 1)[:, 0]
        else:
            weights = row(x, far)
            average, nearest = weights.average(table), weights.nearest
        points[part] = average if modes is None else average @ modes
        ambiguous[part] = near_medial_axis(row, x, nearest)
        if tangents:
            shared = weights if far == manifold.far else None
            bases.append(tangent_basis(manifold, x, manifold.tangent_method, shared)[0])
    return Landing(points, torch.cat(bases) if tangents else None, ambiguous)
