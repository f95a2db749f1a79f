"""Projections, tangent spaces and the ambiguity of points, from one evaluation of the Nystrom weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._arrays import chunks
from .._parallel import in_batches
from ._validation import choice
from .medial import near_medial_axis
from .nystrom import FAR_MODES
from .tangents import prepare_tangents, tangent_pieces, warn_of_tangents

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
    nearest : Tensor (B,)
        Their nearest samples.
    least : Tensor (B,)
        What their distance to the manifold is at least: that to the nearest sample, less its bandwidth.
    """

    points: Tensor
    basis: Tensor | None
    ambiguous: Tensor
    nearest: Tensor
    least: Tensor


def land(manifold: DiffusionManifold, flat: Tensor, far: str | None = None, *, tangents: bool = False) -> Landing:
    """Project `flat` (B, D) once, in pieces that fit in memory, and find tangent spaces on the way if asked for.

    The distances to all training points are most of the cost; projection, tangent spaces and the check for ambiguity
    share them.
    """
    far = choice(manifold.far if far is None else far, "far", FAR_MODES)
    method = prepare_tangents(manifold, manifold.tangent_method) if tangents else None
    points, ambiguous, nearest, least, *spaces = in_batches(
        partial(_land, manifold, far, method), flat, manifold.n_jobs
    )
    if method is not None:
        warn_of_tangents(manifold, method, flat.shape[1], spaces[1])
    return Landing(points, spaces[0] if tangents else None, ambiguous, nearest, least)


@torch.no_grad()
def _land(manifold: DiffusionManifold, far: str, method: str | None, flat: Tensor) -> tuple[Tensor, ...]:
    row = manifold._row(flat.device)
    table, modes = (None if part is None else part.to(flat) for part in manifold._series(manifold._x_modes))
    assert table is not None
    points, ambiguous, spaces = torch.empty_like(flat), flat.new_empty(len(flat), dtype=torch.bool), []
    closest, least = flat.new_empty(len(flat), dtype=torch.int64), flat.new_empty(len(flat))
    for part in chunks(len(flat), row.bytes_per_query):
        x = flat[part]
        if manifold.reduction != "torch":
            weights, average = None, row.average(x, table, far, manifold.reduction)
            nearest = row.neighbors(row.coordinates(x), 1)[:, 0]
        else:
            weights = row(x, far)
            average, nearest = weights.average(table), weights.nearest
        points[part] = average if modes is None else average @ modes
        ambiguous[part] = near_medial_axis(row, x, nearest)
        closest[part] = nearest
        gaps = torch.linalg.vector_norm(row.coordinates(x) - row.points[nearest], dim=1)
        least[part] = gaps - row.rho[nearest]  # every point of the manifold has a sample within a bandwidth
        if method is not None:
            shared = weights if far == manifold.far else None
            spaces.append(tangent_pieces(manifold, method, x, shared))
    return points, ambiguous, closest, least, *map(torch.cat, zip(*spaces, strict=True))
