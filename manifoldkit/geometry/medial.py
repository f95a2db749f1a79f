"""Points near the medial axis, whose nearest point on the manifold is not unique."""

from __future__ import annotations

import torch
from torch import Tensor

from .._arrays import chunks
from .nystrom import NystromRow

__all__ = ["near_medial_axis"]

#: Points within this many bandwidths of the samples have a well-defined projection.
NEAR = 3.0
#: Samples at most this much further away than the nearest one are its rivals.
RIVAL = 1.05


def near_medial_axis(row: NystromRow, flat: Tensor, nearest: Tensor) -> Tensor:
    """Whether queries `flat` (B, D) are about as near to two far-apart training points, as a mask (B,).

    A heuristic: the query is more than three bandwidths off, and a sample at most 5 % further away than the
    nearest one is seen more than 60 degrees from it. Only the queries that far off are compared with all samples.

    Parameters
    ----------
    row : NystromRow
    flat : Tensor (B, D)
    nearest : Tensor (B,)
        The nearest training point of each.
    """
    flat = row.coordinates(flat)
    gaps = torch.linalg.vector_norm(flat - row.points[nearest], dim=1)
    flags = gaps > NEAR * row.rho[nearest]
    suspects = torch.nonzero(flags)[:, 0]
    for part in chunks(len(suspects), 16 * len(row.points)):
        chosen = suspects[part]
        squared = row.squared_distances(flat[chosen])
        least = squared.amin(dim=1)
        rival = squared <= RIVAL**2 * least[:, None]
        for i, query in enumerate(chosen.tolist()):
            spread = (row.points[rival[i]] - row.points[nearest[query]]).square().sum(dim=1).max()
            flags[query] = spread > least[i]
    return flags
