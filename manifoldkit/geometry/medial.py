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


def near_medial_axis(row: NystromRow, flat: Tensor) -> Tensor:
    """Whether queries `flat` (B, D) are about as near to two far-apart training points, as a mask (B,).

    A heuristic: the query is more than three bandwidths off, and a sample at most 5 % further away than the
    nearest one is seen more than 60 degrees from it.
    """
    flags = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    for part in chunks(len(flat), 16 * len(row.points)):
        x = row.coordinates(flat[part])
        squared = torch.addmm(row.squares, x, row.points.T, alpha=-2) + x.square().sum(dim=1, keepdim=True)
        least, nearest = squared.min(dim=1)
        for i in torch.nonzero(least > (NEAR * row.rho[nearest]) ** 2)[:, 0].tolist():
            rivals = row.points[squared[i] <= RIVAL**2 * least[i]]
            spread = (rivals - row.points[nearest[i]]).square().sum(dim=1).max()
            flags[part.start + i] = spread > least[i]
    return flags
